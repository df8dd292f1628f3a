"""The closed forms of the reading of CQSM, and that sampled paths lead to them."""

from __future__ import annotations

import numpy as np
import pytest

from bench.analysis.table import plain_entry
from bench.paper.experiments.cqsm import run as cqsm
from bench.paper.experiments.cqsm import show
from bench.paper.experiments.cqsm.run import ACTIONS, RHO, SIGMA, STATES, Problem
from bench.paper.experiments.parts import write_rows

START = np.hstack([np.zeros((ACTIONS, STATES)), -np.eye(ACTIONS)])


@pytest.fixture(params=[0, 1])
def problem(request):
    return Problem.random(np.random.default_rng(request.param), 1.0)


@pytest.mark.seconds
def test_q_is_what_the_discounted_reward_adds_up_to(problem):
    """E of the discounted reward over many paths from one z, against -(z'P z + p)."""
    rng, dt, K = np.random.default_rng(5), 0.01, START
    P = problem.value(K)
    start = np.array([1.0, -1.0, 0.5])
    z, total = np.tile(start, (4000, 1)), np.zeros(4000)
    for k in range(1500):
        psi = z @ K.T
        reward = -np.einsum("pi,ij,pj->p", z, problem.M, z) - problem.cost / 2 * np.square(psi).sum(-1)
        total += np.exp(-RHO * k * dt) * reward * dt
        z = z + dt * (z @ problem.F.T + psi @ problem.G.T) + SIGMA * dt**0.5 * rng.normal(size=z.shape)
    exact = -(start @ P @ start + SIGMA**2 * np.trace(P) / RHO)
    assert total.mean() == pytest.approx(exact, rel=0.03)


def test_no_other_score_is_better_than_the_optimum(problem):
    best, rng = problem.best(), np.random.default_rng(2)
    np.testing.assert_allclose(best, -2 / problem.cost * problem.G.T @ problem.value(best), atol=1e-8)
    for _ in range(20):
        assert problem.loss(best + 0.05 * rng.normal(size=best.shape)) > problem.loss(best)


def test_sampled_paths_give_q_and_lead_to_the_optimum(problem):
    P, exact = cqsm.evaluate(problem, START, 0.02, np.random.default_rng(0)), problem.value(START)
    assert np.linalg.norm(P - exact) < 0.2 * np.linalg.norm(exact)
    path = cqsm.learn(problem, 0.04, np.random.default_rng(0))
    best = problem.best()
    assert np.linalg.norm(path[-1] - best) < 0.2 * np.linalg.norm(best) < np.linalg.norm(path[0] - best)


def test_the_table_shows_every_setting_with_its_seeds(tmp_path):
    cells = cqsm.settings()
    for part in cqsm.parts():
        tables = {"scores": [
            {"measure": m, "setting": f"cost={part.settings['cost']:g},dt={part.settings['dt']:g}",
             "algo": "cqsm-reading", "seed": seed, "value": value}
            for m, values in {"distance": (0.1, 0.3, 0.2), "regret": (0.0, np.inf, 0.1), "finite": (1, 0, 1)}.items()
            for seed, value in enumerate(values)
        ]}  # fmt: skip
        write_rows(tmp_path / "scores" / f"{part.name}.csv", tables["scores"])
    write_rows(tmp_path / "scores.csv", cqsm.scores(tmp_path))
    (table,) = show.tables(tmp_path)
    assert len(table.rows) == len(cells)
    row = [plain_entry(entry) for entry in table.rows[0]]
    assert row[2:] == ["3", "2", "0.200 [0.100, 0.300]", "0.100 [0.000, ∞]"]
