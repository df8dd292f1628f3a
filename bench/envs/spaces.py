"""Which spaces can be trained on, and how they become vectors: observations as flat float32, actions in [-1, 1].

Other spaces are refused by a one-line `UserError`: images, texts and graphs as observations; actions that are not a
Box of floats; and actions without bounds, to which [-1, 1] cannot be mapped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.spaces.utils import flatdim, flatten

from bench.errors import UserError

#: MuJoCo (mjMAXVAL), and libraries that write the largest float32 or float64, mean "no bound" by a bound of this size.
NO_BOUND = 1e10

Encode = Callable[[Any], np.ndarray]


def size(space: gymnasium.Space) -> int:
    """The number of elements of a Box."""
    assert space.shape is not None  # a Box has a shape
    return math.prod(space.shape)


def observations(space: gymnasium.Space, name: str) -> tuple[int, Encode]:
    """The length of the observation vector, and the function that makes it: float32 (obs_dim,).

    A Box is flattened in C order. Everything else is flattened by `gymnasium.spaces.flatten`, as `FlattenObservation`
    does it: the entries of a Dict in the order of its space (alphabetical where it was made from a plain dict), those
    of a Tuple one after the other, a Discrete and each number of a MultiDiscrete as one-hot.

    Raises:
        UserError: the space holds images, or values that cannot become a vector.
    """
    _check_observation(space, name, "")
    dim = flatdim(space)
    if dim == 0:
        raise UserError(f"{name} has observations without a number in them; a policy has nothing to act on")
    if isinstance(space, Box):
        return dim, _flat
    return dim, lambda obs: np.asarray(flatten(space, obs), np.float32)


def _flat(obs: Any) -> np.ndarray:
    return np.asarray(obs, np.float32).reshape(-1)


def _check_observation(space: gymnasium.Space, name: str, entry: str) -> None:
    where = f" (in {entry!r})" if entry else ""
    if isinstance(space, (Dict, Tuple)):
        entries = space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces)
        for key, inner in entries:
            _check_observation(inner, name, f"{entry}.{key}" if entry else str(key))
    elif isinstance(space, Box):
        if len(space.shape) > 2 or (len(space.shape) == 2 and space.dtype == np.uint8):
            raise UserError(
                f"{name} has images of shape {space.shape} as observations{where}; "
                "the networks here take vectors, so it cannot be trained"
            )
    elif not isinstance(space, (Discrete, MultiBinary, MultiDiscrete)):
        raise UserError(
            f"{name} has observations in a {type(space).__name__} space{where}; it cannot be trained, since only "
            "Box, Discrete, MultiBinary, MultiDiscrete, and Dict and Tuple of these become a vector"
        )


@dataclass(frozen=True)
class ActionMap:
    """Actions in [-1, 1] to those of a task: clipped, then affine, in the task's shape and type."""

    middle: np.ndarray
    half: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype

    def __call__(self, action: np.ndarray) -> np.ndarray:
        # middle + half * a, not low + (a + 1) * half: where the bounds are ±1 it is exactly a.
        native = np.minimum(np.maximum(action, -1.0), 1.0) * self.half + self.middle
        return native.astype(self.dtype, copy=False).reshape(self.shape)


def actions(space: gymnasium.Space, name: str) -> ActionMap:
    """How actions in [-1, 1] (act_dim,) become those of a task.

    Raises:
        UserError: the space is not a Box of floats, or not bounded on both sides everywhere.
    """
    if not isinstance(space, Box):
        raise UserError(
            f"{name} has actions in a {type(space).__name__} space; it cannot be trained, since the algorithms here "
            "choose real numbers (a Box of floats)"
        )
    if not np.issubdtype(space.dtype, np.floating):
        raise UserError(
            f"{name} has actions of type {space.dtype}; it cannot be trained, since the algorithms here choose real "
            "numbers (a Box of floats)"
        )
    if size(space) == 0:
        raise UserError(f"{name} has actions without a number in them; there is nothing to learn")
    low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    below, above = low > -NO_BOUND, high < NO_BOUND
    for bounded, what in ((below != above, "bounded on one side only"), (~below, "without bounds")):
        if bounded.any():
            raise UserError(
                f"{name} has actions {what} (number {int(np.flatnonzero(bounded)[0])} of {len(low)}); it cannot be "
                "trained, since nothing says which range [-1, 1] stands for: give the action space bounds"
            )
    return ActionMap((low + high) / 2, (high - low) / 2, space.shape, space.dtype)
