"""The gridworld: its chain's law against sampling, its Q against the Bellman equation."""

from __future__ import annotations

import numpy as np
import pytest

from algos.core.diffusion import vp_schedule
from bench.paper.experiments.theorem import gridworld
from bench.paper.experiments.theorem.gridworld import ACTIONS, GRID, NODES, STATES, World


@pytest.fixture(scope="module")
def policy():
    """A schedule and noise predictions that are far from the normal distribution's."""
    schedule = vp_schedule(5)
    eps = gridworld.normal_policy(schedule, 3)
    return schedule, eps + 0.8 * np.sin(3 * ACTIONS) + 0.3


def sampled(schedule, eps: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Actions of the chain with eps (T, A, 2) of one state, as counts on the grid (A,); the law's own rules."""
    weights = np.exp(-(gridworld.STARTS**2) / 2)
    x = rng.choice(gridworld.STARTS, (n, 2), p=weights / weights.sum())
    table = eps.reshape(schedule.T, NODES, NODES, 2)
    for t in reversed(range(schedule.T)):
        at = np.clip((x + 1) / (GRID[1] - GRID[0]), 0, NODES - 1)  # in units of the grid
        low = np.minimum(at.astype(int), NODES - 2)
        part = at - low
        predicted = sum(
            table[t, low[:, 0] + i, low[:, 1] + j]
            * (np.abs(1 - i - part[:, 0]) * np.abs(1 - j - part[:, 1]))[:, None]
            for i in (0, 1)
            for j in (0, 1)
        )
        x = (x - (1 - schedule.alpha[t]) / np.sqrt(1 - schedule.alpha_bar[t]) * predicted) / np.sqrt(
            schedule.alpha[t]
        )
        at = (x + 1) / (GRID[1] - GRID[0])
        if t > 0:
            at += np.sqrt(schedule.beta[t]) * rng.normal(size=x.shape) / (GRID[1] - GRID[0])
            index = np.rint(np.clip(at, 0, NODES - 1)).astype(int)
        else:
            at = np.clip(at, 0, NODES - 1)
            index = np.floor(at + rng.random(x.shape)).astype(int).clip(0, NODES - 1)
        x = GRID[index]
    return np.bincount(index[:, 0] * NODES + index[:, 1], minlength=NODES**2)


def test_the_law_is_that_of_the_chain(policy):
    schedule, eps = policy
    law = gridworld.law(schedule, eps)
    assert law.shape == (len(STATES), len(ACTIONS))
    assert law.min() >= 0
    assert law.sum(1) == pytest.approx(np.ones(len(STATES)))
    n = 100_000
    for state in (0, 17):
        counts = sampled(schedule, eps[:, state], n, np.random.default_rng(state))
        noise = np.sqrt(law[state] / n).sum() * np.sqrt(2 / np.pi)  # the expected sum of |differences|
        assert np.abs(counts / n - law[state]).sum() < 1.3 * noise
    assert np.abs(law[0] - law[17]).sum() > 0.1  # the states' laws are told apart


def test_the_first_policy_knows_little_of_the_state():
    law = gridworld.law(vp_schedule(5), gridworld.normal_policy(vp_schedule(5), 0))
    assert np.abs(law - law.mean(0)).sum(1).max() < 0.6
    assert np.abs(law @ ACTIONS).max() < 0.35


def test_q_satisfies_the_bellman_equation(policy):
    world = World.random(1)
    law = gridworld.law(*policy)
    q = world.q(law)
    V = (law * q).sum(1)
    expected = np.empty_like(q)
    for s, state in enumerate(STATES):
        for a, action in enumerate(ACTIONS):
            end = np.clip(state + action, 0, gridworld.SIDE - 1)
            bump = lambda at, end=end: np.exp(-np.square(end - at).sum() / 2)  # noqa: E731
            reward = bump(world.goal) - bump(world.trap) - 0.02 * np.square(action).sum()
            low = np.minimum(end.astype(int), gridworld.SIDE - 2)
            x, y = end - low
            corners = V.reshape(gridworld.SIDE, -1)[low[0] : low[0] + 2, low[1] : low[1] + 2]
            expected[s, a] = reward + gridworld.GAMMA * np.array([1 - x, x]) @ corners @ np.array([1 - y, y])
    assert q == pytest.approx(expected, abs=1e-10)


def test_transitions_are_probabilities():
    P, r = World.random(0).transitions
    assert P.min() >= 0
    assert P.sum(-1) == pytest.approx(np.ones(r.shape))


def test_goal_and_trap_lie_apart():
    for seed in range(20):
        world = World.random(seed)
        assert np.linalg.norm(world.goal - world.trap) >= 2


def test_the_gradient_along_each_axis():
    """Central differences are exact inside for a quadratic."""
    q = ACTIONS[:, 0] ** 2 + 3 * ACTIONS[:, 1]
    found = gridworld.gradient(q[None])[0].reshape(NODES, NODES, 2)
    assert found[1:-1, :, 0] == pytest.approx(np.tile(2 * GRID[1:-1, None], NODES))
    assert found[..., 1] == pytest.approx(np.full((NODES, NODES), 3.0))


def test_weights_of_the_points_beside():
    weights = gridworld.split(np.array([-2.0, -1.0, 0.05, 1.0, 3.0]), GRID)
    assert weights.sum(1) == pytest.approx(np.ones(5))
    assert weights @ GRID == pytest.approx([-1, -1, 0.05, 1, 1])
