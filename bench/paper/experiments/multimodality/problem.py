"""A bandit with actions in [-1, 1]^2 whose Q has four optima: Q(a) = sum_k h_k exp(-|a - c_k|^2 / (2 sigma^2)).

The optima are (+-1/2, +-1/2) and so narrow that they do not touch: the maximum at c_k is h_k to 1e-3.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algos.core.agent import Agent
from algos.core.replay import Replay
from bench.training.trainer import AT_BOUND

Array = NDArray[np.float64]

CENTRES = ((0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5), (0.5, -0.5))
SIGMA = 0.25
HEIGHTS = {"equal": (1.0, 1.0, 1.0, 1.0), "unequal": (1.0, 0.9, 0.8, 0.7)}
OBS_DIM, ACT_DIM = 1, 2
BLOCK = 20  # actions taken at a time, and updates after them

# An optimum is covered when so large a share of all samples is nearest to it, inside and that good (claims 3a, 3b).
SHARE, INSIDE, GOOD = 0.05, 0.95, 0.9


class Bandit:
    """heights: "equal" or "unequal"."""

    def __init__(self, heights: str):
        self.heights = HEIGHTS[heights]

    def q(self, obs: Tensor, action: Tensor) -> Tensor:
        """(S, B, O), (S, B, 2) -> (S, B); obs is not looked at."""
        centres = torch.tensor(CENTRES, dtype=action.dtype)
        squares = (action.unsqueeze(-2) - centres).square().sum(-1)  # (S, B, 4)
        return (torch.exp(-squares / (2 * SIGMA**2)) * torch.tensor(self.heights, dtype=action.dtype)).sum(-1)

    def values(self, actions: Array) -> Array:
        """(..., 2) -> (...)"""
        flat = torch.from_numpy(actions.reshape(1, -1, 2))
        return self.q(flat, flat).numpy().reshape(actions.shape[:-1])

    def boltzmann(self, alpha: float, cells: int) -> Array:
        """exp(Q / alpha), normalised on [-1, 1]^2, as the mass of cells x cells squares (first axis a_1).

        Each square's mass is the mean over 5 x 5 points in it.
        """
        fine = 5 * cells
        middle = (2 * np.arange(fine) + 1) / fine - 1
        q = self.values(np.stack(np.meshgrid(middle, middle, indexing="ij"), -1))
        mass = np.exp((q - q.max()) / alpha).reshape(cells, 5, cells, 5).sum((1, 3))
        return mass / mass.sum()

    def sample_boltzmann(self, alpha: float, n: int, rng: np.random.Generator) -> Array:
        """n samples of that density, uniform within squares of 1/200: (n, 2)."""
        cells = 400
        flat = rng.choice(cells * cells, n, p=self.boltzmann(alpha, cells).ravel())
        square = np.stack(np.unravel_index(flat, (cells, cells)), -1)
        return (square + rng.random((n, 2))) / cells * 2 - 1

    def nearest(self, actions: Array) -> NDArray[np.int64]:
        """The index of the optimum nearest to each action: (n, 2) -> (n,)."""
        return np.square(actions[:, None] - np.array(CENTRES)).sum(-1).argmin(1)

    def modes_covered(self, actions: Array) -> int:
        """How many optima n samples (n, 2) cover."""
        good = self.values(actions) >= GOOD * max(self.heights)
        counted = good & (np.abs(actions) < INSIDE).all(1)
        nearest = self.nearest(actions)
        return sum(bool(np.mean(counted & (nearest == k)) >= SHARE) for k in range(len(CENTRES)))


def masses(actions: Array, cells: int) -> Array:
    """Shares of samples (n, 2) in cells x cells squares of [-1, 1]^2."""
    edges = np.linspace(-1, 1, cells + 1)
    counts, _, _ = np.histogram2d(actions[:, 0], actions[:, 1], [edges, edges])
    return counts / len(actions)


def at_bound(actions: Array) -> float:
    """The share of coordinates that lie at +-1."""
    return float((np.abs(actions) > AT_BOUND).mean())


def train(agent: Agent, updates: int, random_actions: int) -> dict[str, Array]:
    """As a run does it, as many actions of the behaviour policy as updates, but `BLOCK` at a time.

    random_actions: uniform ones, before the first update. Returns each metric's mean over the updates, (S,).
    """
    S = len(agent.seeds)
    replay = Replay(random_actions + updates, OBS_DIM, ACT_DIM, agent.seeds)
    obs = torch.zeros(S, BLOCK, OBS_DIM)
    still, nothing = np.zeros((S, OBS_DIM), np.float32), np.zeros(S, np.float32)
    rng = [np.random.default_rng(seed) for seed in agent.seeds]
    for action in np.stack([r.uniform(-1, 1, (random_actions, ACT_DIM)) for r in rng], 1):
        replay.add(still, action, nothing, nothing + 1, still)
    total: dict[str, Array] = {}
    for _ in range(updates // BLOCK):
        for action in agent.act(obs, mode="behaviour").transpose(0, 1).numpy():
            replay.add(still, action, nothing, nothing + 1, still)
        for _ in range(BLOCK):
            for name, value in agent.update(replay.sample(agent.transitions())).items():
                total[name] = total.get(name, 0.0) + value.numpy().astype(np.float64)
    return {name: value / (updates // BLOCK * BLOCK) for name, value in total.items()}


def samples(agent: Agent, n: int) -> Array:
    """n actions of each seed's policy, without exploration noise: (S, n, 2)."""
    obs = torch.zeros(len(agent.seeds), n, OBS_DIM)
    return agent.act(obs, mode="sample").numpy().astype(np.float64)
