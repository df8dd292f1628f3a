"""Tasks for tests of training: cheap, deterministic, and with every way to end an episode."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

LIMIT = 20
#: Task -> what goes wrong in the fourth step of one of ten episodes (reset: in the reset of it).
FAULTS = {
    "Toy": "",
    "Faulty": "reward",
    "Raising": "raise",
    "Exploding": "observation",
    "Unstartable": "reset",
}


class Toy(gymnasium.Env):
    """A point is pushed around; an episode ends by itself after 5 to 44 steps, or is cut after `LIMIT`.

    Observations are [position, steps since reset, length that this episode would have]: no two states are the same.
    fault: a value of `FAULTS`. Until it happens, everything is as without it.
    """

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, fault: str = ""):
        self.fault = fault

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.steps = float(self.np_random.normal()), 0
        self.length = int(self.np_random.integers(5, 45))
        self.bad = bool(self.fault) and self.np_random.random() < 0.1
        if self.bad and self.fault == "reset":
            raise ArithmeticError("no start state can be found")
        return self._obs(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.position += 0.1 * float(action[0] - action[1])
        reward = 1.0 - abs(self.position)
        if self.bad and self.steps == 4:
            if self.fault == "raise":
                raise ArithmeticError("the simulation is unstable")
            if self.fault == "observation":
                self.position = float("inf")
            reward = float("nan") if self.fault == "reward" else reward
        return self._obs(), reward, self.steps >= self.length, False, {}

    def _obs(self) -> np.ndarray:
        return np.array([self.position, self.steps, self.length], np.float32)


def register() -> None:
    """Make the tasks known in this process."""
    for name, fault in FAULTS.items():
        if f"stubs/{name}-v0" not in gymnasium.registry:
            gymnasium.register(f"stubs/{name}-v0", Toy, max_episode_steps=LIMIT, kwargs={"fault": fault})
