"""A point in the square [-1, 1]^2 with two goals: a near one that pays little and a far one that pays more.

Every step pays near + far, near = 0.3 exp(-d^2 / (2 0.15^2)) at (0.3, 0.3) and far = exp(-d^2 / (2 0.15^2)) at
(-0.7, -0.7). The start is the centre, where only the reward of the near goal has a slope: it leads away from
the better goal. An action moves the point by a tenth of it; episodes end by their time limit alone.

Its constants were chosen before any algorithm was trained on it, by the behaviour of the uniform random policy, which
comes near the far goal in a few episodes of a hundred.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

NAME = "bench/TwoGoals-v0"
LIMIT = 50  # steps of an episode
SPEED = 0.1
NEAR, FAR = np.array([0.3, 0.3]), np.array([-0.7, -0.7])
PAY_NEAR, PAY_FAR, WIDTH = 0.3, 1.0, 0.15
START = 0.05  # the point starts within this distance of the centre, per axis
REACHED = 0.3  # within this distance of a goal an episode counts as ended there (two widths)


class TwoGoals(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Observation: the position (2,). Action: the direction (2,) in [-1, 1]."""

    observation_space = Box(-1.0, 1.0, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._at = self.np_random.uniform(-START, START, 2)
        return self._at.astype(np.float32), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self._at = np.clip(self._at + SPEED * action, -1.0, 1.0)
        return self._at.astype(np.float32), reward(self._at), False, False, {}


def reward(at: NDArray[np.float64]) -> float:
    """Of standing at a position (2,)."""
    near, far = (float(np.exp(-np.square(at - goal).sum() / (2 * WIDTH**2))) for goal in (NEAR, FAR))
    return PAY_NEAR * near + PAY_FAR * far


def register() -> None:
    """Make the task known in this process, once."""
    if NAME not in gymnasium.registry:
        gymnasium.register(NAME, f"{__name__}:TwoGoals", max_episode_steps=LIMIT)
