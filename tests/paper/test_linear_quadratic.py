"""Q of a linear-quadratic problem in closed form, against the Bellman equation with everything else sampled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from algos.core.diffusion import vp_schedule
from bench.paper.experiments.theorem import linear_quadratic

SEEDS = range(3)


def q(value: linear_quadratic.Value, s: np.ndarray, a: np.ndarray) -> np.ndarray:
    """(..., n), (..., m) -> (...)"""
    form = lambda x, H, y: np.einsum("...i,ij,...j->...", x, H, y)  # noqa: E731
    return -(form(s, value.ss, s) + 2 * form(s, value.sa, a) + form(a, value.aa, a) + value.constant)


def chain(policy: linear_quadratic.Policy, s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Actions (n, m) of the reverse chain in the states s (n, states), step by step as the suite samples."""
    schedule = policy.schedule
    a = rng.normal(size=(len(s), linear_quadratic.ACTIONS))
    for t in reversed(range(schedule.T)):
        eps = a @ policy.E[t].T + s @ policy.F[t].T
        a = (a - (1 - schedule.alpha[t]) / np.sqrt(1 - schedule.alpha_bar[t]) * eps) / np.sqrt(
            schedule.alpha[t]
        )
        if t > 0:
            a = a + np.sqrt(schedule.beta[t]) * rng.normal(size=a.shape)
    return a


@pytest.mark.seconds
@pytest.mark.parametrize("seed", SEEDS)
def test_q_satisfies_the_bellman_equation(seed):
    """Q(s, a) = r(s, a) + gamma E Q(s', a'), s' and a' sampled."""
    problem, policy, _ = linear_quadratic.start(5, seed)
    problem = replace(problem, W=np.eye(linear_quadratic.STATES))  # so that what noise costs is seen
    value = linear_quadratic.evaluate(problem, policy)
    rng = np.random.default_rng(seed)
    n = 200_000
    for _ in range(3):
        s, a = rng.normal(size=linear_quadratic.STATES), rng.normal(size=linear_quadratic.ACTIONS)
        noise = rng.normal(size=(n, linear_quadratic.STATES)) @ np.linalg.cholesky(problem.W).T
        after = problem.A @ s + problem.B @ a + noise
        sampled = q(value, after, chain(policy, after, rng))
        right = -(s @ problem.C @ s + a @ problem.R @ a) + linear_quadratic.GAMMA * sampled.mean()
        error = linear_quadratic.GAMMA * sampled.std() / np.sqrt(n)
        assert q(value, s, a) == pytest.approx(right, abs=5 * error)
        assert error < 0.01 * abs(right)


def test_the_first_policy_is_about_standard_normal():
    _, policy, _ = linear_quadratic.start(5, 0)
    K, Sigma = policy.law()
    assert np.abs(K).max() < 0.5
    assert np.abs(Sigma - np.eye(linear_quadratic.ACTIONS)).max() < 0.7


def test_the_target_is_minus_m_q_times_the_gradient():
    _, _, value = linear_quadratic.start(5, 1)
    rng = np.random.default_rng(0)
    s, a = rng.normal(size=linear_quadratic.STATES), rng.normal(size=linear_quadratic.ACTIONS)
    h = 1e-5 * np.eye(linear_quadratic.ACTIONS)
    gradient = np.array([(q(value, s, a + d) - q(value, s, a - d)) / 2e-5 for d in h])
    E, F = linear_quadratic.target(value, 3.0)
    assert E @ a + F @ s == pytest.approx(-3 * gradient, rel=1e-6)
    many = (
        rng.normal(size=(50_000, linear_quadratic.STATES)),
        rng.normal(size=(50_000, linear_quadratic.ACTIONS)),
    )
    size = np.sqrt(np.square(many[1] @ E.T + many[0] @ F.T).mean()) / 3
    assert value.gradient_rms() == pytest.approx(size, rel=0.02)
    assert value.mean() == pytest.approx(q(value, *many).mean(), rel=0.02)


def test_nowhere_below_is_about_every_pair():
    _, _, value = linear_quadratic.start(5, 0)
    raised = linear_quadratic.Value(value.ss, value.sa, value.aa, value.constant - 1)
    assert raised.nowhere_below(value)
    assert not value.nowhere_below(raised)
    # higher here, lower far out
    turned = linear_quadratic.Value(value.ss, value.sa + 0.1, value.aa, value.constant - 1)
    assert turned.mean() > value.mean()
    assert not turned.nowhere_below(value)


def test_an_unstable_loop_has_no_q():
    problem, policy, _ = linear_quadratic.start(5, 0)
    unstable = linear_quadratic.Problem(3 * problem.A, problem.B, problem.C, problem.R, problem.W)
    assert linear_quadratic.evaluate(unstable, policy) is None
    schedule = vp_schedule(5)
    wild = linear_quadratic.Policy(schedule, 1e200 * policy.E, policy.F)
    with np.errstate(all="ignore"):
        assert linear_quadratic.evaluate(problem, wild) is None


def test_a_whole_step_arrives_at_the_target():
    _, policy, value = linear_quadratic.start(10, 0)
    target = linear_quadratic.target(value, 1.0)
    there = policy.moved(target, keep=0.0, step=1.0)
    eps, aim = there.with_target(target)
    assert np.array_equal(eps, aim)
    half = policy.moved(target, keep=0.5, step=0.5)
    assert half.F[3] == pytest.approx((policy.F[3] + target[1]) / 2)
