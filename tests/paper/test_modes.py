"""Modes of a policy, counted on samples whose number of modes is known."""

from __future__ import annotations

import numpy as np
import pytest

from bench.paper.experiments.multimodality.modes import CELLS, count_modes
from bench.paper.experiments.multimodality.problem import Bandit, masses

N = 8192


def uniform(rng):
    return rng.uniform(-1, 1, (N, 2))


def one(rng):
    return rng.normal(0.2, 0.3, (N, 2)).clip(-1, 1)


def corners(rng):
    return rng.choice([-1.0, 1.0], (N, 2))


def two_edges(rng):
    """One coordinate at the bound on either side, the other free."""
    return np.stack([rng.choice([-1.0, 1.0], N), rng.normal(0, 0.4, N).clip(-1, 1)], -1)


def uneven(rng):
    """Three clusters, of 90%, 7% and 3%: the last is too small."""
    centre = np.array([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]])[rng.choice(3, N, p=[0.90, 0.07, 0.03])]
    return centre + rng.normal(0, 0.08, (N, 2))


def shoulder(rng):
    """Two clusters so near each other that nothing lies between them."""
    return np.stack([rng.choice([-0.15, 0.15], N) + rng.normal(0, 0.2, N), rng.normal(0, 0.2, N)], -1)


def optima(rng):
    return Bandit("equal").sample_boltzmann(0.1, N, rng)


def pointlike(rng):
    return np.tile([[-1.0, -1.0]], (N, 1))


@pytest.mark.seconds
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (uniform, 1),
        (one, 1),
        (corners, 4),
        (two_edges, 2),
        (uneven, 2),
        (shoulder, 1),
        (optima, 4),
        (pointlike, 1),
    ],
)
def test_modes_are_counted(drawn, expected, seed):
    actions = drawn(np.random.default_rng(seed))
    assert count_modes(masses(actions, CELLS)) == expected
