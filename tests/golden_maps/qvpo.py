"""QVPO's files: its README's command (`--weighted --aug`) only."""

from __future__ import annotations

from typing import Any

from golden_maps import _ding
from golden_maps._ding import GROUPS, METRIC, locate  # noqa: F401
from torch import Tensor

from algos.core.agent import Batch

ALGORITHM = "qvpo"
IGNORED = ()
STRUCTURE = _ding.STRUCTURE | {"weighted", "aug", "gradient", "deterministic"}
STRUCTURE |= {
    "action_lr",
    "action_gradient_steps",
    "ratio",
}  # of DIPO's action gradient, which --aug replaces
NAMES = {
    "train_sample": "train_samples",
    "chosen": "chosen",
    "behavior_sample": "behaviour_samples",
    "target_sample": "target_samples",
    "eval_sample": "evaluation_samples",
    "q_transform": "weights",
    "beta": "beta",
    "q_neg": "q_neg",
    "cut": "cut",
    "alpha_mean": "mean_rate",
    "alpha_std": "std_rate",
    "entropy_alpha": "entropy_weight",
    "epsilon": "epsilon",
    "policy_freq": "actor_every",
}


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    if not meta["weighted"] or not meta["aug"] or meta["gradient"]:
        raise ValueError("only with weighted and aug, and without gradient")
    return _ding.settings(meta, NAMES)


def modes(meta: dict[str, Any]) -> dict[str, str]:
    return {"act/eval": "greedy" if meta["deterministic"] else "sample", "act/explore": "behaviour"}


def batch(golden: Any, i: int) -> Batch:
    return _ding.batch(golden, i, "batch2", None)


def draws(golden: Any, prefix: str) -> dict[str, Tensor]:
    m, recorded = golden.meta, _ding.Recorded(golden, prefix)
    if prefix.startswith("act/"):
        copies = 1
        if prefix == "act/explore":
            coin = recorded.take()  # drawn whether or not it can matter
            if m["epsilon"] > 0:
                recorded.found["coin"] = coin.reshape(1, 1)
            if coin <= m["epsilon"]:  # theirs is a single chain, which is the first of ours
                copies = m["behavior_sample"]
        recorded.chain("", 1, copies)
        return recorded.found
    recorded.skip()
    recorded.chain("target.", m["batch"])
    if recorded.keys:  # the actor moves
        recorded.skip()
        recorded.chain("actor.", m["batch"])
        if m["entropy_alpha"] > 0:
            recorded.found["actor.u"] = (recorded.take().unsqueeze(0) + 1) / 2  # uniform in (-1, 1)
        recorded.forward("actor.")
    return recorded.found
