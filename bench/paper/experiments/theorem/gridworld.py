"""A small world with continuous positions and moves in which Q of a diffusion policy is computed exactly (claim 5b).

The position lies in [0, N-1]^2, an action in [-1, 1]^2 moves it by that much, walls stop it. Values are kept at the
N x N whole positions; a move that ends between them goes to the four around it with the bilinear weights as
probabilities, so that the world is a finite Markov decision process with continuous actions. Reward: a goal and a trap
(bumps at the next position) minus a cost of moving.

The policy is the reverse chain of the suite's noise schedule, clipped to [-1, 1] at every step as in the QSM authors'
sampler. eps_t(s, a) is a table over whole positions and a grid of actions; outside [-1, 1] the nearest action's holds.
The law of the chain on the grid of actions is carried through its steps without sampling: a normal variable goes to
the grid point nearest to it (clipped actions to the outermost), a mean without noise to its neighbours in
proportion. V solves a linear system. Nothing is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from algos.core.diffusion import Schedule

Array = NDArray[np.float64]

SIDE = 5  # whole positions per axis
NODES = 15  # actions per axis
GAMMA = 0.9
MOVE_COST = 0.02  # times |a|^2
WIDTH = 1.0  # of goal and trap, in positions
STARTS = np.linspace(-3.5, 3.5, 29)  # where the chain's first normal variable may lie, per axis

GRID = np.linspace(-1, 1, NODES)
ACTIONS = np.stack(np.meshgrid(GRID, GRID, indexing="ij"), -1).reshape(-1, 2)  # (NODES^2, 2)
STATES = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), -1).reshape(-1, 2)


def split(x: Array, points: Array) -> Array:
    """Weights (n, len(points)) of the two points next to each x, so that their mean is x; clipped at the ends."""
    at = np.clip((x - points[0]) / (points[1] - points[0]), 0, len(points) - 1)
    return np.maximum(0.0, 1 - np.abs(at[..., None] - np.arange(len(points))))


@dataclass(frozen=True)
class World:
    """goal, trap: positions (2,)."""

    goal: Array
    trap: Array

    @classmethod
    def random(cls, seed: int) -> World:
        """Goal and trap at random, at least two positions apart."""
        rng = np.random.default_rng(seed)
        while True:
            goal, trap = rng.uniform(0, SIDE - 1, (2, 2))
            if np.linalg.norm(goal - trap) >= 2:
                return cls(goal, trap)

    @cached_property
    def transitions(self) -> tuple[Array, Array]:
        """P (S, A, S) and r (S, A)."""
        end = np.clip(STATES[:, None] + ACTIONS[None], 0, SIDE - 1)  # (S, A, 2)
        rows, columns = (split(end[..., i], np.arange(float(SIDE))) for i in (0, 1))
        P = (rows[..., :, None] * columns[..., None, :]).reshape(*end.shape[:2], -1)
        bumps = [
            np.exp(-np.square(end - at).sum(-1) / (2 * WIDTH**2)) * height
            for at, height in ((self.goal, 1.0), (self.trap, -1.0))
        ]
        return P, bumps[0] + bumps[1] - MOVE_COST * np.square(ACTIONS).sum(-1)

    def q(self, law: Array) -> Array:
        """Q of the policy with the law (S, A), at every position and action of the grid: (S, A)."""
        P, r = self.transitions
        chain = np.einsum("sa,sat->st", law, P)
        V = np.linalg.solve(np.eye(len(STATES)) - GAMMA * chain, (law * r).sum(1))
        return r + GAMMA * P @ V


def gradient(q: Array) -> Array:
    """grad_a Q on the grid, by central differences, one-sided at its edge: (S, A) -> (S, A, 2)."""
    cells = q.reshape(-1, NODES, NODES)
    return np.stack(np.gradient(cells, GRID, GRID, axis=(1, 2)), -1).reshape(len(q), -1, 2)


def normal_policy(schedule: Schedule, seed: int) -> Array:
    """eps (T, S, A, 2) of about the standard normal distribution in every state, clipped.

    sqrt(1 - abar_t) times (a + a random linear function of the action, of a tenth of its size).
    """
    rng = np.random.default_rng([seed, 1])
    sigma = np.sqrt(1 - np.array(schedule.alpha_bar))[:, None, None, None]
    shape = (schedule.T, len(STATES), 2)
    slope, offset = 0.1 * rng.normal(size=(*shape, 2)), 0.1 * rng.normal(size=shape)
    random = np.einsum("tsij,aj->tsai", slope, ACTIONS) + offset[:, :, None]
    return sigma * (ACTIONS + random)


def law(schedule: Schedule, eps: Array) -> Array:
    """The distribution of the chain's action in every state: eps (T, S, A, 2) -> (S, A)."""
    edges = np.concatenate([[-np.inf], (GRID[1:] + GRID[:-1]) / 2, [np.inf]])
    start = np.exp(-(STARTS**2) / 2)
    mass = np.outer(start, start).reshape(1, -1) / start.sum() ** 2
    points = np.stack(np.meshgrid(STARTS, STARTS, indexing="ij"), -1).reshape(-1, 2)
    inside = np.einsum("xi,xj->xij", *(split(points[:, i], GRID) for i in (0, 1))).reshape(len(points), -1)
    for t in reversed(range(schedule.T)):
        predicted = inside @ eps[t] if t == schedule.T - 1 else eps[t]  # (S, points, 2)
        alpha = schedule.alpha[t]
        weight = (1 - alpha) / np.sqrt(1 - schedule.alpha_bar[t])
        mean = (points - weight * predicted) / np.sqrt(alpha)
        if t > 0:
            bounds = ndtr((edges - mean[..., None]) / np.sqrt(schedule.beta[t]))  # (S, points, 2, NODES + 1)
            kernel = np.diff(bounds, axis=-1)
        else:
            kernel = split(mean, GRID)
        first, second = kernel[..., 0, :], kernel[..., 1, :]
        mass = (first.swapaxes(1, 2) @ (mass[..., None] * second)).reshape(len(STATES), -1)
        points = ACTIONS
    return mass
