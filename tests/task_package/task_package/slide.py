"""A point that slides over a plane: a Box of observations, or a Dict with a goal."""

import json
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.wrappers import TimeLimit

FRICTION = json.loads((Path(__file__).parent / "slide.json").read_text())["friction"]
REACHED = 0.3


class Slide(gymnasium.Env):
    """Observation: position and velocity (4,). Action: a force with bounds of its own (2,)."""

    observation_space = Box(-np.inf, np.inf, (4,), np.float64)
    action_space = Box(np.array([-2.0, -1.0]), np.array([2.0, 3.0]), dtype=np.float64)

    def __init__(self, width=1.0):
        self.width = width

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.velocity = self.np_random.uniform(-self.width, self.width, 2), np.zeros(2)
        return self.observe(), {}

    def step(self, action):
        self.velocity = (1 - FRICTION) * self.velocity + 0.1 * action
        self.at = self.at + 0.1 * self.velocity
        return self.observe(), -float(np.linalg.norm(self.at)), self.over(), False, {}

    def observe(self):
        return np.concatenate([self.at, self.velocity])

    def over(self):
        return False


class SlideToGoal(Slide):
    """The same with a goal: ends where it is reached."""

    observation_space = Dict(
        {
            "observation": Box(-np.inf, np.inf, (4,), np.float64),
            "desired_goal": Box(-2.0, 2.0, (2,), np.float64),
            "achieved_goal": Box(-np.inf, np.inf, (2,), np.float64),
        }
    )

    def reset(self, *, seed=None, options=None):
        self.goal = np.zeros(2)
        _, info = super().reset(seed=seed)
        self.goal = self.np_random.uniform(-2.0, 2.0, 2)
        return self.observe(), info

    def observe(self):
        return {"observation": super().observe(), "desired_goal": self.goal, "achieved_goal": self.at}

    def over(self):
        return bool(np.linalg.norm(self.at - self.goal) < REACHED)


def far():
    """A Gymnasium environment of a factory, with a time limit of its own."""
    return TimeLimit(Slide(width=5.0), 40)
