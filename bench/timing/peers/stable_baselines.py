"""SAC and TD3 of Stable-Baselines3 (PyTorch) or of SBX (JAX), which has the same interface. Runs in their environment.

`python -m bench.timing.peers.stable_baselines sb3|sbx`. Everything that determines the amount of work is set to ours
(2x256, batch 256, an update per step, a delay of 2 for TD3's actor); the rest are library defaults. An update is their
`train(1, 256)`, sampling and logging included. A step end to end is one of their `learn`, in the environment that ours
is timed in.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module, metadata
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise

from bench.envs import tasks as envs
from bench.timing.peers.serve import serve
from bench.timing.peers.work import BATCH, ENV, HIDDEN, ROWS, STEPS, transitions
from bench.timing.stopwatch import seconds

PACKAGES = {"sb3": ("stable-baselines3", "torch"), "sbx": ("sbx-rl", "jax", "jaxlib", "flax", "optax")}
MODULES = {"sb3": "stable_baselines3", "sbx": "sbx"}


def make(library: str, algo: str) -> Any:
    """A model with a full replay buffer."""
    env = envs.make(ENV)
    settings: dict[str, Any] = {
        "policy_kwargs": {"net_arch": list(HIDDEN)},
        "buffer_size": ROWS,
        "batch_size": BATCH,
    }
    if algo == "td3":
        act_dim = env.action_space.shape[0]  # type: ignore[index]
        settings["action_noise"] = NormalActionNoise(np.zeros(act_dim), np.full(act_dim, 0.1))
    cls = getattr(import_module(MODULES[library]), algo.upper())
    model = cls("MlpPolicy", env, learning_starts=0, seed=0, device="cpu", **settings)
    model.set_logger(Logger(None, []))
    fill(model.replay_buffer, env)
    return model


def fill(buffer: Any, env: Any) -> None:
    o, a = env.observation_space.shape[0], env.action_space.shape[0]
    rows = transitions(o, a)
    buffer.observations[:, 0] = rows[:, :o]
    buffer.actions[:, 0] = rows[:, o : o + a]
    buffer.rewards[:, 0] = rows[:, o + a]
    buffer.dones[:, 0] = 1 - rows[:, o + a + 1]
    buffer.next_observations[:, 0] = rows[:, o + a + 2 :]
    buffer.full = True


def update(model: Any, period: int) -> float:
    """Seconds per update, over so many of them."""
    return seconds(lambda: [model.train(1, BATCH) for _ in range(period)]) / period


def end_to_end(model: Any) -> float:
    """Seconds per environment step."""
    return seconds(lambda: model.learn(STEPS, reset_num_timesteps=False)) / STEPS


def main(library: str) -> None:
    torch.set_num_threads(1)
    tasks = {}
    for algo, period in (("sac", 1), ("td3", 2)):
        tasks[f"{algo}/update"] = partial(update, make(library, algo), period)
        tasks[f"{algo}/end_to_end"] = partial(end_to_end, make(library, algo))
    serve(tasks, {"versions": {package: metadata.version(package) for package in PACKAGES[library]}})


if __name__ == "__main__":
    main(sys.argv[1])
