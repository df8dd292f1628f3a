"""The tasks behind one interface: what an agent must know about a task, and how one is made.

Names are those of `bench.envs.names`. Observations are flat float32 vectors: those of dm_env the entries of its
specs in their order, each flattened in C order (a scalar takes one place); those of Gymnasium as `bench.envs.spaces`
says. Actions are in [-1, 1] (clipped to it) and mapped affinely to the task's own bounds. DM Control receives
float64, Gymnasium the dtype of its action space.

Episodes. A time limit truncates; `terminated` is true only where the task itself ends the episode (dm_env: discount 0
at the last step). `lqr` has no time limit of its own and gets `suite.LQR_STEPS`; its actions, which have no bounds, are
taken in [-1, 1] as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import gymnasium
from gymnasium.wrappers import TimeLimit

from bench.envs import names, suite
from bench.envs.dm import DmEnv
from bench.envs.names import Family
from bench.envs.spaces import size
from bench.envs.view import AgentView
from bench.errors import UserError


@dataclass(frozen=True)
class EnvSpec:
    """What an agent must know about a task.

    `max_episode_steps` counts environment steps, whatever the action repeat; it is None for a task without a time limit
    that is known beforehand.
    """

    obs_dim: int
    act_dim: int
    max_episode_steps: int | None
    family: Family


def task_names() -> list[str]:
    """All DM Control tasks, in the suite's order (imports dm_control: half a second)."""
    return list(suite.tasks())


def check_name(name: str) -> Family:
    """The family that `name` belongs to.

    A task can have a valid name and still be unusable here (discrete actions, a package that is not installed): only
    `spec` and `make` see that.

    Raises:
        UserError: as `bench.envs.names.find`.
    """
    return names.find(name).family


@cache
def spec(name: str) -> EnvSpec:
    """Dimensions and time limit of a task; builds it once (about 0.1 s).

    Raises:
        UserError: as `make`.
    """
    env = make(name)
    found = EnvSpec(size(env.observation_space), size(env.action_space), _time_limit(env), check_name(name))
    env.close()
    return found


def make(name: str, *, action_repeat: int = 1, render_mode: str | None = None) -> gymnasium.Env:
    """A task with flat float32 observations (obs_dim,) and actions (act_dim,) in [-1, 1].

    `reset(seed=k)` makes everything that follows a function of k and the actions, whatever happened in this
    environment before (DM Control: 0 <= k < 2**32, and k is the `random` of `dm_control.suite.load`). A package's
    task must ensure this; `python -m bench check` tests it.

    Args:
        name: see `bench.envs.names`.
        action_repeat: environment steps per action; their rewards are summed, up to the end of the episode.
        render_mode: None, or "rgb_array": `render()` then returns a (height, width, 3) uint8 image, drawn
            by EGL or by the library that the environment variable MUJOCO_GL names. No GL library is loaded
            before the first image.

    Raises:
        UserError: unknown name, spaces that cannot be trained on, a missing package, bad arguments.
    """
    if action_repeat < 1:
        raise UserError(f"action_repeat must be at least 1, not {action_repeat}")
    if render_mode not in (None, "rgb_array"):
        raise UserError(f"render_mode must be None or 'rgb_array', not {render_mode!r}")
    return AgentView(names.find(name).build(render_mode), name, action_repeat)


def _time_limit(env: gymnasium.Env) -> int | None:
    """In environment steps: as registered, or of the wrapper that a factory put around its task."""
    if isinstance(env.unwrapped, DmEnv):
        return env.unwrapped.max_episode_steps
    if env.spec is not None and env.spec.max_episode_steps is not None:
        return env.spec.max_episode_steps
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            return int(env._max_episode_steps)
        env = env.env
    return None
