"""DIPO's files. Its second memory of actions is not ours: what is written back there has no effect."""

from __future__ import annotations

from typing import Any

from golden_maps import _ding
from golden_maps._ding import GROUPS, IGNORED, METRIC, STRUCTURE, locate  # noqa: F401
from torch import Tensor

from algos.core.agent import Batch

ALGORITHM = "dipo"


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    return _ding.settings(
        meta, {"action_lr": "action_lr", "action_gradient_steps": "action_steps", "ratio": "action_norm"}
    )


def batch(golden: Any, i: int) -> Batch:
    return _ding.batch(golden, i, "diffusion_batch", "best_actions")


def draws(golden: Any, prefix: str) -> dict[str, Tensor]:
    recorded = _ding.Recorded(golden, prefix)
    if prefix.startswith("act/"):
        recorded.chain("", 1)
        return recorded.found
    recorded.skip()
    recorded.chain("target.", golden.meta["batch"])
    recorded.skip()
    recorded.forward("actor.")
    return recorded.found
