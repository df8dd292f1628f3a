"""Settings of a reference under our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Keys of `meta` that are no setting of an algorithm: dimensions, and how the file was made.
MADE = {"algo", "obs_dim", "act_dim", "updates", "seed", "agent_seed", "jax", "flax", "haiku", "optax"}
MADE |= {"target_init", "by_hand", "eager_vs_jit"}
ADAM = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}


def renamed(
    meta: Mapping[str, Any], names: Mapping[str, str | tuple[str, ...]], read: set[str]
) -> dict[str, Any]:
    """The settings in `meta` that `names` knows (theirs -> ours), lists as tuples; `read`: keys that the caller reads.

    Raises:
        ValueError: a key that nobody reads, or another Adam than ours.
    """
    unknown = meta.keys() - names.keys() - MADE - read - {"adam"}
    if unknown:
        raise ValueError(
            f"meta has {', '.join(map(repr, sorted(unknown)))}, which is no setting of {meta.get('algo')}"
        )
    if meta.get("adam", ADAM) != ADAM:
        raise ValueError(f"Adam with {meta['adam']}, ours is {ADAM}")
    settings = {}
    for theirs, ours in names.items():
        value = meta[theirs]
        for name in (ours,) if isinstance(ours, str) else ours:
            settings[name] = tuple(value) if isinstance(value, list) else value
    return settings
