"""DPMD's files."""

from __future__ import annotations

from typing import Any

from golden_maps import _relax
from golden_maps._relax import METRIC, STRUCTURE, batch, locate, settings  # noqa: F401
from torch import Tensor

ALGORITHM = "dpmd"
IGNORED = ("step",)


def draws(golden: Any, prefix: str) -> dict[str, Tensor]:
    found = _relax.best_of(golden, prefix, 0, "" if prefix.startswith("act/") else "target.")
    return found | (_relax.forward(golden, prefix, 3) if prefix.startswith("update") else {})
