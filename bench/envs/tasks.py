"""The tasks: DM Control and Gymnasium behind one interface, alone or as a pack in lock-step.

Names. A DM Control task is `<domain>-<task>`, both spelled as in `dm_control.suite.ALL_TASKS`: the first
dash separates them, words within them keep their underscores (`cheetah-run`, `ball_in_cup-catch`,
`cartpole-swingup_sparse`, `humanoid_CMU-run`, `lqr-lqr_2_1`). Every other name is a registered Gymnasium id
with its version (`Pendulum-v1`, `Hopper-v5`).

Observations are flat float32 vectors. Those of DM Control are the entries of its ordered dict, in its
order, each flattened in C order (a scalar takes one place); those of Gymnasium the flattened Box.

Actions are in [-1, 1] (clipped to it) and mapped affinely to the task's own bounds; a coordinate that has
no bounds (`lqr`; infinite ones, or from `NO_BOUND` on) takes [-1, 1] as it is. DM Control receives float64, Gymnasium
the dtype of its action space.

Episodes. A time limit truncates; `terminated` is true only where the task itself ends the episode
(DM Control: discount 0 at the last step). `lqr` has no time limit of its own and gets `LQR_STEPS`.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from bench.errors import UserError, suggest

Family = Literal["dm_control", "gymnasium"]

#: A bound of this size is none: so MuJoCo (mjMAXVAL) and libraries that write the largest float32 or float64 mean it.
NO_BOUND = 1e10
LQR_STEPS = 1000  # as long as the episodes of all other DM Control tasks


@dataclass(frozen=True)
class EnvSpec:
    """What an agent must know of a task.

    `max_episode_steps` counts environment steps, whatever the action repeat; it is None for a Gymnasium
    task that was registered without a time limit.
    """

    obs_dim: int
    act_dim: int
    max_episode_steps: int | None
    family: Family


def task_names() -> list[str]:
    """All DM Control tasks, in the suite's order (imports dm_control: half a second)."""
    return list(_dm_control_tasks())


def check_name(name: str) -> Family:
    """The family that `name` belongs to.

    A Gymnasium task can have a valid name and still be unusable here (discrete actions, a package that is not
    installed): only `spec` and `make` see that.

    Raises:
        UserError: there is no such task; close names are suggested.
    """
    if name in gymnasium.registry:
        return "gymnasium"
    if name in _dm_control_tasks():
        return "dm_control"
    close = suggest(name, [*_dm_control_tasks(), *gymnasium.registry])
    raise UserError(f"unknown task {name!r}{close or '; tasks look like cheetah-run or Pendulum-v1'}")


@cache
def spec(name: str) -> EnvSpec:
    """Dimensions and time limit of a task; builds it once (about 0.1 s).

    Raises:
        UserError: as `make`.
    """
    env = make(name)
    family = check_name(name)
    limit = env.unwrapped.max_episode_steps if isinstance(env.unwrapped, DMControl) else _time_limit(env)
    env.close()
    return EnvSpec(_size(env.observation_space), _size(env.action_space), limit, family)


def make(name: str, *, action_repeat: int = 1, render_mode: str | None = None) -> gymnasium.Env:
    """A task with flat float32 observations (obs_dim,) and actions (act_dim,) in [-1, 1].

    `reset(seed=k)` makes everything that follows a function of k and the actions, whatever happened in this
    environment before (DM Control: 0 <= k < 2**32, and k is the `random` of `dm_control.suite.load`).

    Args:
        name: see the module's docstring.
        action_repeat: environment steps per action; their rewards are summed, up to the end of the episode.
        render_mode: None, or "rgb_array": `render()` then returns a (height, width, 3) uint8 image, drawn
            by EGL or by the library that the environment variable MUJOCO_GL names. No GL is loaded before.

    Raises:
        UserError: unknown name, spaces that are no Boxes of floats, a missing package, bad arguments.
    """
    if action_repeat < 1:
        raise UserError(f"action_repeat must be at least 1, not {action_repeat}")
    if render_mode not in (None, "rgb_array"):
        raise UserError(f"render_mode must be None or 'rgb_array', not {render_mode!r}")
    if check_name(name) == "dm_control":
        native: gymnasium.Env = DMControl(*_dm_control_tasks()[name], render_mode=render_mode)
    else:
        native = _gymnasium_task(name, render_mode)
    return AgentView(native, name, action_repeat)


class AgentView(gymnasium.Wrapper):
    """Flat float32 observations, actions in [-1, 1], action repeat: what all tasks have in common.

    `step` adds "frames" to the info: the environment steps that it took, fewer than the action repeat where the episode
    ended within.
    """

    def __init__(self, env: gymnasium.Env, name: str, action_repeat: int = 1):
        super().__init__(env)
        observations, actions = env.observation_space, env.action_space
        if not isinstance(observations, Box) or not isinstance(actions, Box):
            raise UserError(
                f"{name} has observations in a {type(observations).__name__} and actions in a "
                f"{type(actions).__name__} space; only Box spaces can be used"
            )
        if not np.issubdtype(actions.dtype, np.floating):
            raise UserError(f"{name} has actions of type {actions.dtype}; only floats can be used")
        self.name = name
        self.action_repeat = action_repeat
        self.observation_space = Box(-np.inf, np.inf, (math.prod(observations.shape),), np.float32)
        self.action_space = Box(-1.0, 1.0, (math.prod(actions.shape),), np.float32)

        low, high = actions.low.ravel().astype(np.float64), actions.high.ravel().astype(np.float64)
        below, above = low > -NO_BOUND, high < NO_BOUND
        if np.any(below != above):
            raise UserError(f"{name} has an action bounded on one side only; it cannot be mapped to [-1, 1]")
        low, high = np.where(below, low, -1.0), np.where(above, high, 1.0)
        # middle + half * a, not low + (a + 1) * half: where the bounds are ±1 it is exactly a.
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        self._native_shape, self._native_dtype = actions.shape, actions.dtype

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        return _flat(obs), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        native = np.minimum(np.maximum(action, -1.0), 1.0) * self._half + self._middle
        native = native.astype(self._native_dtype, copy=False).reshape(self._native_shape)
        total = 0.0
        for frames in range(1, self.action_repeat + 1):  # noqa: B007 (used after the loop)
            obs, reward, terminated, truncated, info = self.env.step(native)
            total += float(reward)
            if terminated or truncated:
                break
        return _flat(obs), total, bool(terminated), bool(truncated), {**info, "frames": frames}

    def render(self) -> Any:
        """A (height, width, 3) uint8 image.

        Raises:
            UserError: no GL library, no GPU or software renderer, or a package for drawing is missing.
        """
        with _mujoco_gl(_gl_library()):
            try:
                return self.env.render()
            except gymnasium.error.DependencyNotInstalled as error:
                raise UserError(f"cannot draw {self.name}: {_one_line(error)}") from error
            except Exception as error:
                # PyOpenGL, MuJoCo and Gymnasium report a missing library each in its own way, down to an
                # AttributeError on None.
                raise UserError(
                    f"cannot draw {self.name}: {_one_line(error)} (MuJoCo draws with a GL library: install "
                    "libEGL, or libOSMesa and set MUJOCO_GL=osmesa)"
                ) from error


class DMControl(gymnasium.Env[np.ndarray, np.ndarray]):
    """One DM Control task: float32 observations (obs_dim,), float64 actions (act_dim,) in its own bounds."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium declares it so)

    def __init__(self, domain: str, task: str, *, render_mode: str | None = None):
        # A fixed seed, since lqr draws its springs when it is built: the task would differ from run to run.
        self._task_env = _suite().load(domain, task, task_kwargs={"random": 0})
        # quadruped-escape asks its physics for a GL context at every reset; _Renderer has its own.
        physics = self._task_env.physics
        physics.__class__ = type(type(physics).__name__, (type(physics),), {"contexts": None})
        self.max_episode_steps = LQR_STEPS
        if math.isfinite(self._task_env._step_limit):
            self.max_episode_steps = math.ceil(self._task_env._step_limit)
        self._task_env._step_limit = self.max_episode_steps
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": round(1 / self._task_env.control_timestep())}
        self._renderer: _Renderer | None = None

        obs_dim = sum(math.prod(entry.shape) for entry in self._task_env.observation_spec().values())
        self.observation_space = Box(-np.inf, np.inf, (obs_dim,), np.float32)
        actions = self._task_env.action_spec()
        self.action_space = Box(actions.minimum, actions.maximum, dtype=np.float64)
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            self._task_env.task._random = np.random.RandomState(seed)
        self._running = True
        return _concatenate(self._task_env.reset().observation), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if not self._running:  # dm_control would silently start the next episode
            raise RuntimeError("the episode is over: reset first")
        step = self._task_env.step(action)
        last = step.last()
        self._running = not last
        terminated = last and step.discount == 0.0
        return _concatenate(step.observation), step.reward, terminated, last and not terminated, {}

    def render(self) -> Any:
        if self.render_mode is None:
            return None
        physics = self._task_env.physics
        if self._renderer is None:
            self._renderer = _Renderer(physics.model.ptr)
        return self._renderer.draw(physics.data.ptr)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._task_env.close()


class Pack:
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
        """Takes environments made by `make`, all of the same task."""
        self.envs = list(envs)
        self.size = len(self.envs)
        self._action_shape = (self.size, _size(self.envs[0].action_space))
        self.obs = np.zeros((self.size, _size(self.envs[0].observation_space)), np.float32)
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
            self._stop(k, _one_line(error))
        self._running[k] = True
        self._still[k] = self.error[k] is not None
        return self.obs[k]

    def replay(self, k: int, seed: int, actions: np.ndarray) -> np.ndarray:
        """Bring environment k back to where `reset(k, seed)` and these actions (n, act_dim) had brought it.

        The other environments do not move. Returns row k of `obs`. For resuming in the middle of an episode.
        """
        self.reset(k, seed)
        for action in actions:
            self._advance(k, action)
        return self.obs[k]

    def clear_errors(self) -> None:
        """Forget what went wrong: environments that were stopped move again once they are reset."""
        self.error = [None] * self.size

    def stand_still(self, k: int) -> None:
        """Step environment k no more: it returns its last observation and reward 0, and never ends."""
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
            self._stop(k, _one_line(error))
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


class _Renderer:
    """Offscreen images of one MuJoCo model.

    `mujoco.Renderer` and dm_control's own choose their GL library when they are first imported; by then it
    was switched off, so that training needs none. This one loads it when the first image is drawn.
    """

    def __init__(self, model: Any, height: int = 480, width: int = 640):
        import mujoco

        self._mujoco, self._model = mujoco, model
        self._context = importlib.import_module(f"mujoco.{os.environ['MUJOCO_GL']}").GLContext(width, height)
        self._context.make_current()
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        self._option, self._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        if model.ncam:  # the suite's first camera follows the body
            self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
        else:
            mujoco.mjv_defaultFreeCamera(model, self._camera)
        self._target = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._target)
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.empty((height, width, 3), np.uint8)

    def draw(self, data: Any) -> np.ndarray:
        mujoco = self._mujoco
        self._context.make_current()
        for k in range(self._model.nhfield):  # a reset may have made new terrain
            mujoco.mjr_uploadHField(self._model, self._target, k)
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        mujoco.mjr_render(self._rectangle, self._scene, self._target)
        mujoco.mjr_readPixels(self._pixels, None, self._rectangle, self._target)
        return np.flipud(self._pixels).copy()  # OpenGL's first row is the lowest

    def close(self) -> None:
        self._context.make_current()
        self._target.free()
        self._context.free()


def _size(space: gymnasium.Space) -> int:
    assert space.shape is not None  # a Box has a shape
    return math.prod(space.shape)


def _flat(obs: Any) -> np.ndarray:
    return np.asarray(obs, np.float32).reshape(-1)


def _concatenate(observation: dict[str, Any]) -> np.ndarray:
    # With axis=None NumPy flattens the entries itself, scalars too, in half the time of raveling each.
    return np.concatenate(list(observation.values()), axis=None, dtype=np.float32, casting="unsafe")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


@cache
def _suite() -> ModuleType:
    with _mujoco_gl("disable"):
        from dm_control import suite
    _redirect_warnings()  # again: dm_control has put its own handler in place
    return suite


def _redirect_warnings() -> None:
    """Send MuJoCo's warnings to a logger; its own handler writes MUJOCO_LOG.TXT into the current folder."""
    with _mujoco_gl("disable"):
        import mujoco
    mujoco.set_mju_user_warning(_log_warning)


def _log_warning(message: str) -> None:
    if "is deprecated" not in message:  # said of attributes in models that are not ours
        logging.getLogger("mujoco").warning(message)


@cache
def _dm_control_tasks() -> dict[str, tuple[str, str]]:
    return {f"{domain}-{task}": (domain, task) for domain, task in _suite().ALL_TASKS}


def _gymnasium_task(name: str, render_mode: str | None) -> gymnasium.Env:
    _redirect_warnings()
    with _mujoco_gl("disable"):
        try:
            how: dict[str, Any] = (
                {} if render_mode is None else {"render_mode": render_mode}
            )  # not all take it
            return gymnasium.make(name, disable_env_checker=True, **how)
        except Exception as error:  # whatever the constructor of anybody's task raises
            raise UserError(f"Gymnasium cannot make {name}: {_one_line(error)}") from error


def _time_limit(env: gymnasium.Env) -> int | None:
    return None if env.spec is None else env.spec.max_episode_steps


def _gl_library() -> str:
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    return wanted if wanted in ("osmesa", "glfw") else "egl"


@contextmanager
def _mujoco_gl(library: str) -> Iterator[None]:
    """Set MUJOCO_GL for the time of an import or a drawing.

    A user's own value (clusters set it for everybody) must not make training load a GL library that is
    not there.
    """
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = library
    try:
        yield
    finally:
        if before is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = before
