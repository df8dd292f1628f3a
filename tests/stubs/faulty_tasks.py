"""Tasks with one fault each, which `python -m bench check faulty_tasks:NAME-v0` finds."""

from __future__ import annotations

import os
import time

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Text

LIMIT = 30


class Sound(gymnasium.Env):
    """A point on a line."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = self.start(), 0
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        self.at += self.move(float(action[0]))
        return self.observe(), -abs(self.at), self.over(), False, {}

    def start(self):
        return float(self.np_random.normal())

    def move(self, action):
        return 0.1 * action

    def observe(self):
        return np.array([self.at, self.steps], np.float32)

    def over(self):
        return False


class NoSeed(Sound):
    def start(self):
        return float(np.random.default_rng().normal())


class Remembers(Sound):
    """The start depends on the episode before."""

    def start(self):
        return super().start() + getattr(self, "at", 0.0)


class NoisySteps(Sound):
    """Moves by a generator that no reset seeds."""

    def __init__(self):
        self.noise = np.random.default_rng(0)

    def move(self, action):
        return 0.1 * action + 0.01 * float(self.noise.normal())


class ReadsTheClock(Sound):
    def move(self, action):
        return 0.1 * action + 1e-3 * (time.perf_counter_ns() % 1000)


class GlobalNumbers(Sound):
    """Seeds NumPy's own generator: alone it repeats itself, beside another environment it does not."""

    def start(self):
        np.random.seed(int(self.np_random.integers(2**31)))
        return float(np.random.normal())

    def move(self, action):
        return 0.1 * action + 0.01 * float(np.random.normal())


class OfItsProcess(Sound):
    def start(self):
        return super().start() + os.getpid()


class TerminatesAtTheLimit(Sound):
    def over(self):
        return self.steps == 20


class NotFinite(Sound):
    def observe(self):
        return np.array([self.at, np.inf if self.steps > 3 else 0], np.float32)


class AnotherShape(Sound):
    def observe(self):
        return np.zeros(3, np.float32)


class BeyondItsBounds(Sound):
    observation_space = Box(-1.0, 10.0, (2,), np.float32)


class Raises(Sound):
    def move(self, action):
        raise ArithmeticError("the simulation is unstable")


class DiscreteActions(Sound):
    action_space = Discrete(3)


class UnboundedActions(Sound):
    action_space = Box(-np.inf, np.inf, (1,), np.float32)


class Images(Sound):
    observation_space = Dict({"state": Box(-1, 1, (2,)), "camera": Box(0, 255, (8, 8, 3), np.uint8)})


class Words(Sound):
    observation_space = Dict({"state": Box(-1, 1, (2,)), "mission": Text(10)})


for kind in Sound.__subclasses__():
    gymnasium.register(f"{kind.__name__}-v0", kind, max_episode_steps=LIMIT)
gymnasium.register("Sound-v0", Sound, max_episode_steps=LIMIT)
gymnasium.register("Endless-v0", Sound)
