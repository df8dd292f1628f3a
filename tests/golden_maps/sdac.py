"""SDAC's files. The running statistics of Q, which the reference keeps and nothing reads, are not ours."""

from __future__ import annotations

from typing import Any

from golden_maps import _relax
from golden_maps._relax import METRIC, STRUCTURE, batch, locate, settings  # noqa: F401
from torch import Tensor

ALGORITHM = "sdac"
IGNORED = ("step", "running/")


def draws(golden: Any, prefix: str) -> dict[str, Tensor]:
    found = _relax.best_of(golden, prefix, 0, "" if prefix.startswith("act/") else "target.")
    if prefix.startswith("update"):
        z = golden.tensor(f"{prefix}/draw08/normal")
        found |= _relax.best_of(golden, prefix, 3, "actor.") | _relax.forward(golden, prefix, 6)
        found["actor.z"] = z.reshape(1, golden.meta["batch"], -1, z.shape[-1])
    return found
