"""DIPO's files."""

import numpy as np
from torch import Tensor

from tests.golden_maps.second_batch import SecondBatch


class Reader(SecondBatch):
    algorithm = "dipo"
    MORE_SETTINGS = {
        "action_lr": "action_lr",
        "action_gradient_steps": "action_steps",
        "ratio": "action_norm",
    }
    SECOND = "diffusion_batch"

    def leaves(self, moment: str) -> dict[str, Tensor]:
        """Without the second memory of actions, to which nothing is ever written."""
        return {k: v for k, v in super().leaves(moment).items() if not k.startswith("diffusion_memory/")}

    def numbered(self, prefix: str, numbers: list[Tensor]) -> dict[str, Tensor]:
        if prefix.startswith("act/"):
            return self.chains(numbers, "", 1)
        found = self.chains(numbers[1:], "target.", self.meta["batch"])
        return found | {"actor.t": numbers[-2], "actor.noise": numbers[-1]}

    def info(self, i: int) -> dict[str, float]:
        before = self.arrays[f"update{i}/diffusion_batch/best_actions"]
        moved = np.abs(self.arrays[f"update{i}/info/optimised_actions"] - before).mean()
        return super().info(i) | {"action_moved": float(moved)}
