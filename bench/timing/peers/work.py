"""The common workload: the same sizes, and the same random transitions to learn from."""

from __future__ import annotations

from typing import Any

import numpy as np

ENV, HIDDEN, BATCH = "cheetah-run", (256, 256), 256
STEPS = 25  # of the environment, in a sample end to end
ROWS = 100_000  # of a replay buffer, full: as much as a run of 100,000 steps fills
#: Our algorithms: name here -> algorithm and overrides. Stable-Baselines3's TD3 is the paper's, whose actor
#: asks the first critic alone.
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "sac": ("sac", {}),
    "td3": ("td3", {}),
    "td3-paper": ("td3", {"actor_q": "first", "clip_target_action": True, "delay_targets": True}),
    "qsm": ("qsm", {"T": 5}),
    "dql": ("dql", {"T": 5}),
}


def transitions(obs_dim: int, act_dim: int) -> np.ndarray:
    """(ROWS, width) float32 rows [obs, action, reward, mask, next_obs]; masks 1, as everywhere in DM Control."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((ROWS, 2 * obs_dim + act_dim + 2), np.float32)
    rows[:, obs_dim : obs_dim + act_dim] = rng.uniform(-1, 1, (ROWS, act_dim))
    rows[:, obs_dim + act_dim] = rng.random(ROWS)
    rows[:, obs_dim + act_dim + 1] = 1.0
    return rows
