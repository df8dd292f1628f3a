"""A batch of environments of one task, stepped one after the other in lock-step: one for each seed of a pack."""

from __future__ import annotations

import math
from collections.abc import Sequence

import gymnasium
import numpy as np

from bench.envs.spaces import size
from bench.failures import reason


class EnvBatch:
    """S environments of one task in lock-step, one per seed.

    Nothing is reset here: the step into the end of an episode returns its true last observation, and the
    caller resets that environment before the next step (or lets it stand still).

    An environment that raises in `step` or `reset`, or returns an observation or reward that is not finite,
    is stopped: its entry of `error` says why, and it stands still from then on. The others go on.

    Attributes:
        size: S.
        obs: (S, obs_dim) float32, the latest observations. Two buffers take turns: what `step` or `reset`
            wrote stays as it is during the next `step` and is overwritten by the one after.
        frames: (S,) environment steps that the latest `step` took in each environment.
        error: per seed, None or what went wrong.
    """

    def __init__(self, envs: Sequence[gymnasium.Env]):
        """Takes environments made by `bench.envs.tasks.make`, all of the same task."""
        self.envs = list(envs)
        self.size = len(self.envs)
        self._action_shape = (self.size, size(self.envs[0].action_space))
        self.obs = np.zeros((self.size, size(self.envs[0].observation_space)), np.float32)
        self._previous = np.zeros_like(self.obs)
        self._reward = np.zeros(self.size, np.float32)
        self._terminated = np.zeros(self.size, bool)
        self._truncated = np.zeros(self.size, bool)
        self.frames = np.ones(self.size, np.int64)
        self.error: list[str | None] = [None] * self.size
        self._running = [False] * self.size
        self._still = [False] * self.size

    def reset(self, k: int, seed: int) -> np.ndarray:
        """Start an episode in environment k.

        Its first observation, (obs_dim,) float32, is returned and replaces row k of `obs`: store the
        transition into the end of the last episode before this. An environment that stood still moves
        again, unless it was stopped by an error.
        """
        try:
            self.obs[k], _ = self.envs[k].reset(seed=seed)
        except Exception as error:
            self._stop(k, reason(error))
        self._running[k] = True
        self._still[k] = self.error[k] is not None
        return self.obs[k]

    def replay(self, k: int, seed: int, actions: np.ndarray) -> np.ndarray:
        """Restore environment k to the state after `reset(k, seed)` and these actions (n, act_dim).

        The other environments do not move. Returns row k of `obs`. For resuming in the middle of an episode.
        """
        self.reset(k, seed)
        for action in actions:
            self._advance(k, action)
        return self.obs[k]

    def clear_errors(self) -> None:
        """Clear the errors: stopped environments move again once they are reset."""
        self.error = [None] * self.size

    def stand_still(self, k: int) -> None:
        """Freeze environment k: from now on it returns its last observation and reward 0, and never ends."""
        self._still[k] = True

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One step of every environment that does not stand still.

        Args:
            actions: (S, act_dim) in [-1, 1].

        Returns:
            `obs` (S, obs_dim) float32, rewards (S,) float32, terminated (S,) bool, truncated (S,) bool.
            The last three are overwritten by the next step.

        Raises:
            ValueError: actions of another shape.
            RuntimeError: an environment is not in an episode, and does not stand still.
        """
        if actions.shape != self._action_shape:
            raise ValueError(f"actions must have shape {self._action_shape}, not {actions.shape}")
        for k in range(self.size):
            if not (self._running[k] or self._still[k]):
                raise RuntimeError(f"environment {k} is not in an episode: reset it or let it stand still")
        self._previous, self.obs = self.obs, self._previous
        for k in range(self.size):
            if self._still[k] or not self._advance(k, actions[k]):
                self.obs[k] = self._previous[k]
                self._reward[k] = 0.0
                self._terminated[k] = self._truncated[k] = False
        return self.obs, self._reward, self._terminated, self._truncated

    def _advance(self, k: int, action: np.ndarray) -> bool:
        """Step environment k into the buffers; False where it failed."""
        try:
            obs, reward, terminated, truncated, info = self.envs[k].step(action)
        except Exception as error:
            self._stop(k, reason(error))
            return False
        self.obs[k] = obs
        self._reward[k] = reward
        if not math.isfinite(self._reward[k]):
            self._stop(k, f"the environment returned the reward {reward}")
            return False
        if not np.isfinite(self.obs[k]).all():
            self._stop(k, "the environment returned an observation that is not finite")
            return False
        self._terminated[k], self._truncated[k], self.frames[k] = terminated, truncated, info["frames"]
        self._running[k] = not (terminated or truncated)
        return True

    def _stop(self, k: int, reason: str) -> None:
        self.error[k] = reason
        self._still[k] = True

    def close(self) -> None:
        for env in self.envs:
            env.close()
