"""A dm_env environment: hold a height. It has a scalar and a vector, in this order, and falls to its end."""

from collections import OrderedDict

import dm_env
import numpy as np
from dm_env import specs

LIMIT = 30


class Hover(dm_env.Environment):
    def seed(self, seed):
        self._random = np.random.default_rng(seed)

    def observation_spec(self):
        height = specs.Array((), np.float64, "height")
        return OrderedDict(velocity=specs.Array((2,), np.float64, "velocity"), height=height)

    def action_spec(self):
        return specs.BoundedArray((1,), np.float32, 0.0, 4.0, "thrust")

    def reset(self):
        self._height, self._velocity, self._steps = self._random.uniform(1.0, 2.0), np.zeros(2), 0
        return dm_env.restart(self._observe())

    def step(self, action):
        self._steps += 1
        self._velocity = self._velocity + 0.1 * np.array([0.0, float(action[0]) - 2.0])
        self._height += 0.1 * self._velocity[1]
        reward = 1.0 - abs(self._height - 1.5)
        if self._height < 0:
            return dm_env.termination(reward, self._observe())
        if self._steps == LIMIT:
            return dm_env.truncation(reward, self._observe())
        return dm_env.transition(reward, self._observe())

    def _observe(self):
        return OrderedDict(velocity=self._velocity, height=self._height)


def hover():
    return Hover()
