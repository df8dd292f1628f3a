"""What all tasks have in common for an agent: flat float32 observations, actions in [-1, 1], action repeat."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from bench.envs import spaces
from bench.envs.simulator import gl_library, mujoco_gl
from bench.errors import UserError


class AgentView(gymnasium.Wrapper):
    """A task as an agent sees it: observations (obs_dim,) float32, actions (act_dim,) in [-1, 1].

    `step` adds "frames" to the info: the environment steps that it took, fewer than the action repeat where the episode
    ended within.

    Raises:
        UserError: spaces that cannot be trained on (see spaces.py).
        ValueError: by `reset` and `step`, where an observation is not of the declared size.
    """

    def __init__(self, env: gymnasium.Env, name: str, action_repeat: int = 1):
        super().__init__(env)
        self.name = name
        self.action_repeat = action_repeat
        self._to_native = spaces.actions(env.action_space, name)
        self._obs_dim, self._encode = spaces.observations(env.observation_space, name)
        self.observation_space = Box(-np.inf, np.inf, (self._obs_dim,), np.float32)
        self.action_space = Box(-1.0, 1.0, (len(self._to_native.half),), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._vector(obs), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        native = self._to_native(action)
        total = 0.0
        for frames in range(1, self.action_repeat + 1):  # noqa: B007 (used after the loop)
            obs, reward, terminated, truncated, info = self.env.step(native)
            total += float(reward)
            if terminated or truncated:
                break
        return self._vector(obs), total, bool(terminated), bool(truncated), {**info, "frames": frames}

    def _vector(self, obs: Any) -> np.ndarray:
        vector = self._encode(obs)
        if len(vector) != self._obs_dim:
            raise ValueError(
                f"the environment returned {len(vector)} observations; its space declares {self._obs_dim}"
            )
        return vector

    def render(self) -> Any:
        """A (height, width, 3) uint8 image.

        Raises:
            UserError: no GL library, no GPU or software renderer, or a package for drawing is missing.
        """
        with mujoco_gl(gl_library()):
            try:
                return self.env.render()
            except gymnasium.error.DependencyNotInstalled as error:
                raise UserError(f"cannot draw {self.name}: {_one_line(error)}") from error
            except Exception as error:
                # PyOpenGL, MuJoCo and Gymnasium each report a missing library in their own way, such as an
                # AttributeError on None.
                raise UserError(
                    f"cannot draw {self.name}: {_one_line(error)} (MuJoCo draws with a GL library: install "
                    "libEGL, or libOSMesa and set MUJOCO_GL=osmesa)"
                ) from error


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
