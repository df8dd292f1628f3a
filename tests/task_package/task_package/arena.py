"""Registers its task by Gymnasium's entry points, which name the function and the namespace."""

import gymnasium


def register():
    gymnasium.register("Slide-v1", "task_package.slide:Slide", max_episode_steps=50, kwargs={"width": 2.0})
