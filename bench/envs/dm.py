"""dm_env environments as Gymnasium's: DM Control's own, and those of packages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Tuple

from bench.envs.simulator import Renderer
from bench.errors import UserError


class DmEnv(gymnasium.Env[Any, np.ndarray]):
    """A dm_env environment: observations as its specs describe them, actions in its own bounds and type.

    The entries of an observation keep the order of the specs. A last step of discount 0 is a termination, any other
    one a truncation. `reset(seed=k)` seeds by the environment's own method `seed(k)`, or by the `RandomState` that
    DM Control's environments have as `task.random` or `random_state`.

    Args:
        env: the environment.
        name: for messages.
        render_mode: None, or "rgb_array": what has MuJoCo's `physics` is then drawn.

    Raises:
        UserError: the specs cannot be read, or there is no way to seed it.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium declares it so)

    def __init__(self, env: Any, name: str, render_mode: str | None = None):
        self.native = env
        self._seed = _seeding(env, name)
        self.observation_space = _space(env.observation_spec(), name)
        self.action_space = _space(env.action_spec(), name)
        limit = getattr(env, "_step_limit", math.inf)  # of DM Control's environments, in steps
        self.max_episode_steps: int | None = math.ceil(limit) if math.isfinite(limit) else None
        self.render_mode = render_mode
        if callable(timestep := getattr(env, "control_timestep", None)):
            self.metadata = {**self.metadata, "render_fps": round(1 / timestep())}
        self._renderer: Renderer | None = None
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._seed(seed)
        self._running = True
        return self._observation(self.native.reset().observation), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self._running:  # dm_env would silently start the next episode
            raise RuntimeError("the episode is over: reset first")
        step = self.native.step(action)
        last = step.last()
        self._running = not last
        terminated = last and step.discount == 0.0
        return self._observation(step.observation), step.reward, terminated, last and not terminated, {}

    def _observation(self, observation: Any) -> Any:
        return observation

    def render(self) -> Any:
        if self.render_mode is None:
            return None
        physics = self.native.physics
        if self._renderer is None:
            self._renderer = Renderer(physics.model.ptr)
        return self._renderer.draw(physics.data.ptr)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self.native.close()


def _seeding(env: Any, name: str) -> Callable[[int], object]:
    own = getattr(env, "seed", None)
    if callable(own):
        return own
    for owner, attribute in ((getattr(env, "task", None), "random"), (env, "random_state")):
        state = getattr(owner, attribute, None)
        if isinstance(state, np.random.RandomState):
            return state.seed
    raise UserError(
        f"{name} is a dm_env environment that cannot be seeded, so that no run of it could be repeated or resumed: "
        "give it a method seed(k), after which a reset depends on k alone"
    )


def _space(spec: Any, name: str) -> gymnasium.Space:
    """The Gymnasium space of a dm_env spec, or of specs in a mapping or sequence."""
    from dm_env import specs

    if isinstance(spec, Mapping):
        return Dict([(key, _space(inner, name)) for key, inner in spec.items()])
    if isinstance(spec, specs.DiscreteArray):
        return Discrete(spec.num_values)
    if isinstance(spec, specs.Array) and (
        np.issubdtype(spec.dtype, np.number) or np.issubdtype(spec.dtype, np.bool_)
    ):
        return _box(spec)
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        return Tuple([_space(inner, name) for inner in spec])
    raise UserError(f"{name} has the spec {spec!r}, which is not an array of numbers; it cannot be trained")


def _box(spec: Any) -> Box:
    if np.issubdtype(spec.dtype, np.bool_):
        return Box(0, 1, spec.shape, np.int8)
    low, high = getattr(spec, "minimum", -np.inf), getattr(spec, "maximum", np.inf)
    if np.issubdtype(spec.dtype, np.integer):
        limits = np.iinfo(spec.dtype)
        low, high = np.maximum(low, limits.min), np.minimum(high, limits.max)
    low, high = (np.broadcast_to(end, spec.shape).astype(spec.dtype) for end in (low, high))
    return Box(low, high, dtype=spec.dtype)
