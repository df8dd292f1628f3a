"""Tasks for tests of training: cheap, deterministic, and with every way to end an episode."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

LIMIT = 20


class Toy(gymnasium.Env):
    """A point is pushed around; an episode ends by itself after 5 to 44 steps, or is cut after `LIMIT`.

    Observations are [position, steps since reset, length that this episode would have]: no two states are the same.
    faulty: in one of ten episodes the reward of the fourth step is not a number.
    """

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, faulty: bool = False):
        self.faulty = faulty

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.steps = float(self.np_random.normal()), 0
        self.length = int(self.np_random.integers(5, 45))
        self.bad = self.faulty and self.np_random.random() < 0.1
        return self._obs(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.position += 0.1 * float(action[0] - action[1])
        reward = float("nan") if self.bad and self.steps == 4 else 1.0 - abs(self.position)
        return self._obs(), reward, self.steps >= self.length, False, {}

    def _obs(self) -> np.ndarray:
        return np.array([self.position, self.steps, self.length], np.float32)


def register() -> None:
    """Make the tasks known in this process."""
    for name, faulty in (("stubs/Toy-v0", False), ("stubs/Faulty-v0", True)):
        if name not in gymnasium.registry:
            gymnasium.register(name, Toy, max_episode_steps=LIMIT, kwargs={"faulty": faulty})
