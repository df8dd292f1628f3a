"""QVPO's files: those of its README's command (`--weighted --aug`)."""

from pathlib import Path

import torch
from torch import Tensor

from tests.golden_maps.second_batch import SecondBatch


class Reader(SecondBatch):
    algorithm = "qvpo"
    MORE_SETTINGS = {
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
    FIXED = SecondBatch.FIXED | {"weighted": True, "aug": True, "gradient": False}
    MEANINGLESS = frozenset({"deterministic", "action_lr", "action_gradient_steps", "ratio"})
    SECOND = "batch2"

    def __init__(self, path: Path, dtype: torch.dtype, device: str = "cpu"):
        super().__init__(path, dtype, device)
        self.MODES = {"eval": "greedy" if self.meta["deterministic"] else "sample", "explore": "behaviour"}

    def numbered(self, prefix: str, numbers: list[Tensor]) -> dict[str, Tensor]:
        m = self.meta
        if prefix == "act/explore":
            coin = numbers.pop(0)  # drawn even where nothing is left to chance
            # then theirs is one chain, our first
            copies = m["behavior_sample"] if coin <= m["epsilon"] else 1
            return self.chains(numbers, "", 1, copies) | {"coin": coin}
        if prefix.startswith("act/"):
            return self.chains(numbers, "", 1)
        numbers.pop(0)
        found = self.chains(numbers, "target.", m["batch"])
        if numbers:  # the actor moves
            numbers.pop(0)
            found |= self.chains(numbers, "actor.", m["batch"])
            if m["entropy_alpha"] > 0:
                found["actor.u"] = (numbers.pop(0) + 1) / 2  # theirs lie between -1 and 1
            found["actor.t"], found["actor.noise"] = numbers
        return found

    def info(self, i: int) -> dict[str, float]:
        weights = self.arrays.get(f"update{i}/info/actor_weights")
        own = {} if weights is None else {"weight": float(weights.mean()), "weight_max": float(weights.max())}
        return super().info(i) | own
