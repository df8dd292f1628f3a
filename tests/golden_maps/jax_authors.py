"""What the files of SimBa, CrossQ and DIME have in common: settings that must be ours, and Flax's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bench.check.golden import Golden


class FlaxAuthors(Golden):
    """`meta` is read by four tables; a key in none of them is refused."""

    #: Descriptions of how the file was made.
    NOTES: frozenset[str] = frozenset(
        {"algo", "obs_dim", "act_dim", "updates", "seed", "n_env", "num_train_envs", "jax", "flax", "optax", "tfp",
         "by_hand", "eager_vs_jit", "steps0", "max_episode_steps", "mixed_precision"}
    )  # fmt: skip
    #: Key of `meta` -> field of our Config.
    FIELDS: Mapping[str, str] = {}
    #: Key of `meta` -> the only value that we have.
    FIXED: Mapping[str, Any] = {}
    #: Keys that `settings` of the subclass reads itself.
    READ: frozenset[str] = frozenset()
    LOSS_RTOL = 3e-5
    SCHEDULE: Mapping[str, str] = {}

    def settings(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key, value in self.meta.items():
            if key in self.FIELDS:
                fields[self.FIELDS[key]] = tuple(value) if isinstance(value, list) else value
            elif key in self.FIXED:
                if value != self.FIXED[key]:
                    raise ValueError(f"meta has {key} = {value!r}; ours is {self.FIXED[key]!r}")
            elif key not in self.NOTES | self.READ:
                raise ValueError(f"meta has {key!r}, which is no setting of {self.meta['algo']}")
        return fields


class BatchRenormFiles(FlaxAuthors):
    """Networks of batch renormalisation: a counter and the two limits for every layer in the file, one in ours."""

    #: (net, its running statistics) -> (our part, our statistics).
    PARTS: Mapping[str, str] = {"critic": "critic", "critic_stats": "critic_stats"}

    def leaves(self, moment: str) -> dict[str, Tensor]:
        """Without limits and with the first layer's counter only. Raises ValueError where these differ from ours."""
        kept, counters = {}, {}
        for name, value in super().leaves(moment).items():
            layer, _, last = name.rpartition("/")
            if last in ("r_max", "d_max"):
                if bool((value != self.meta[last]).any()):
                    raise ValueError(f"{self.path}: {moment}/{name} is not {last} of meta")
            elif last == "steps":
                counters.setdefault(name.split("/")[0], []).append(value)
                if layer.endswith("_0"):
                    kept[name] = value.to(self.dtype)
            else:
                kept[name] = value
        for net, values in counters.items():
            if any(bool((value != values[0]).any()) for value in values):
                raise ValueError(f"{self.path}: the counters of {moment}/{net} differ")
        return kept

    def renorm_leaf(
        self, params: Mapping[str, Tensor], path: str, heads: Mapping[str, slice] | None = None
    ) -> Tensor:
        """The view of seed 0's leaf such as "BatchRenorm_0/scale" or "Dense_1/kernel".

        heads: layers that are columns of our last one.
        """
        layer, _, kind = path.partition("/")
        if kind == "steps":
            return params["passes"][0, ..., 0, 0]
        index = layer.rpartition("_")[2]
        columns = slice(None)
        if heads and layer in heads:
            columns, index = heads[layer], str(max(int(n[1:]) for n in params if n[0] == "b"))
        ours = {"kernel": "w", "scale": "scale", "mean": "mean", "var": "var"}.get(kind)
        if kind == "bias":
            ours = "shift" if layer.startswith("BatchRenorm") else "b"
        view = params[f"{ours}{index}"][0, ..., columns]
        return view if kind == "kernel" else view[..., 0, :]
