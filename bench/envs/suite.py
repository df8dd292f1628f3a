"""DM Control's suite: its tasks by name, and one of them as an environment."""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from bench.envs.dm import DmEnv
from bench.envs.simulator import mujoco_gl, redirect_warnings
from bench.envs.spaces import NO_BOUND

LQR_STEPS = 1000  # as long as the episodes of all other DM Control tasks


class DMControl(DmEnv):
    """One DM Control task: float32 observations (obs_dim,), float64 actions (act_dim,) in its own bounds.

    A coordinate of the action without bounds (`lqr`) gets [-1, 1].
    """

    def __init__(self, domain: str, task: str, *, render_mode: str | None = None):
        # A fixed seed, since lqr draws its springs when it is built: the task would differ from run to run.
        env = _suite().load(domain, task, task_kwargs={"random": 0})
        # quadruped-escape asks its physics for a GL context at every reset; Renderer has its own.
        physics = env.physics
        physics.__class__ = type(type(physics).__name__, (type(physics),), {"contexts": None})
        env._step_limit = math.ceil(env._step_limit) if math.isfinite(env._step_limit) else LQR_STEPS
        super().__init__(env, f"{domain}-{task}", render_mode)
        obs_dim = sum(math.prod(entry.shape) for entry in env.observation_spec().values())
        self.observation_space = Box(-np.inf, np.inf, (obs_dim,), np.float32)
        spec = env.action_spec()
        low = np.where(spec.minimum > -NO_BOUND, spec.minimum, -1.0)
        high = np.where(spec.maximum < NO_BOUND, spec.maximum, 1.0)
        self.action_space = Box(low, high, dtype=np.float64)
        self._seed = self._replace_random_state

    def _replace_random_state(self, seed: int) -> None:
        self.native.task._random = np.random.RandomState(seed)

    def _observation(self, observation: dict[str, Any]) -> np.ndarray:
        # With axis=None NumPy flattens the entries itself, scalars too, in half the time of raveling each.
        return np.concatenate(list(observation.values()), axis=None, dtype=np.float32, casting="unsafe")


@cache
def tasks() -> dict[str, tuple[str, str]]:
    """Name -> domain and task, in the suite's order (imports dm_control: half a second)."""
    return {f"{domain}-{task}": (domain, task) for domain, task in _suite().ALL_TASKS}


@cache
def _suite() -> ModuleType:
    with mujoco_gl("disable"):
        from dm_control import suite
    redirect_warnings()  # again: dm_control has put its own handler in place
    return suite
