"""Paths of steps towards the action gradient of Q: what is counted, and that the judged cells are there."""

from __future__ import annotations

import numpy as np
import pytest

from bench.paper.experiments.theorem import run as theorem


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(theorem, "DISTANCE", 0.05)
    monkeypatch.setattr(theorem, "FEWEST", 3)


def value(tables, measure, setting="linear-quadratic"):
    return [r["value"] for r in tables["scores"] if (r["measure"], r["setting"]) == (measure, setting)]


def test_each_cell_is_run_once_and_the_judged_one_has_the_smallest_step():
    parts = theorem.parts()
    assert len({part.name for part in parts}) == len(parts)
    assert theorem.BASE["step"] == min(part.settings["step"] for part in parts)
    for problem, seeds in theorem.SEEDS.items():
        assert seeds >= 5  # claims 5a, 5b
        mine = [dict(part.settings) for part in parts if part.settings["problem"] == problem]
        assert mine.count({"problem": problem, **theorem.BASE, "seeds": seeds}) == 1
        assert {cell["T"] for cell in mine} == set(theorem.T)
        assert {cell["M_q"] for cell in mine} == set(theorem.M_Q)


@pytest.mark.parametrize("problem", ["linear-quadratic", "gridworld"])
def test_a_path(problem, tmp_path, short):
    tables = theorem.run(tmp_path, problem, **{**theorem.BASE, "seeds": 1})
    assert len(tables["steps"]) == 5
    assert value(tables, "finite", problem) == [1.0]
    apart = [row["disagreement"] for row in tables["steps"]]
    assert apart == sorted(apart, reverse=True)  # score and target come closer


def test_a_path_into_infinite_q_counts_as_a_step_down(tmp_path, short):
    """With M_q so large that the chain is unstable, at once."""
    tables = theorem.run(tmp_path, "linear-quadratic", move="add", step=1.0, M_q=1e4, T=5, seeds=1)
    setting = tables["scores"][0]["setting"]
    assert setting == "linear-quadratic-add-step=1-M_q=10000-T=5"
    assert value(tables, "finite", setting) == [0.0]
    assert value(tables, "share_of_steps_up", setting) == [0.0]
    assert [row["gain"] for row in tables["steps"]] == [""]


def test_steps_from_agreement_do_not_count(tmp_path, monkeypatch):
    """Where a step begins at the target to rounding there is nothing to align."""

    def walk(seed, M_q, T, keep, step, count):
        return -1.0, iter([(0.5, 1.0, True), (1e-12, -1.0, False)])

    monkeypatch.setattr(theorem, "walk_linear_quadratic", walk)
    tables = theorem.run(tmp_path, "linear-quadratic", **{**theorem.BASE, "seeds": 1})
    assert value(tables, "share_of_steps_up") == [1.0]
    assert len(tables["steps"]) == 2


def test_disagreement():
    eps, target = np.array([2.0, 0.0]), np.array([1.0, 0.0])
    assert theorem.disagreement(eps, target, in_size=True) == pytest.approx(1)
    assert theorem.disagreement(eps, target, in_size=False) == pytest.approx(0)
    assert theorem.disagreement(np.array([0.0, 1.0]), target, in_size=True) == pytest.approx(np.sqrt(2))


def made_steps(gains, seed=0):
    return [
        {"seed": str(seed), "number": str(k), "disagreement": "0.5", "gain": gain, "everywhere": "1"}
        for k, gain in enumerate(gains)
    ]


def test_a_path_is_judged_at_fixed_lengths():
    """Up for 0.1 (10 steps), then down as far, then nothing: the share of steps up depends on the length."""
    rows = made_steps(["1.0"] * 10 + ["-1.0"] * 15 + ["0.0"] * 175)
    found = {row["measure"]: row["value"] for row in theorem.path_measures("gridworld", rows)}
    assert found["share_up_to=0.1"] == 1
    assert found["share_up_to=0.25"] == pytest.approx(10 / 25)
    assert found["share_up_to=2"] == pytest.approx(10 / 200)
    assert (found["always_up_to=0.1"], found["always_up_to=0.25"]) == (1, 0)
    assert (found["above_start_at=0.1"], found["above_start_at=0.25"], found["above_start_at=2"]) == (1, 0, 0)


def test_a_path_into_infinite_q_ends_below_its_start():
    found = {
        (row["seed"], row["measure"]): row["value"]
        for row in theorem.path_measures(
            "gridworld", [*made_steps(["9.0"] * 10 + [""]), *made_steps(["9.0"] * 200, 1)]
        )
    }
    assert (found[0, "above_start_at=0.1"], found[0, "above_start_at=0.25"]) == (1, 0)
    assert (found[1, "above_start_at=0.1"], found[1, "above_start_at=2"]) == (1, 1)


def test_further_seeds_of_a_cell_have_names_of_their_own(tmp_path, short):
    tables = theorem.run(tmp_path, "gridworld", **{**theorem.BASE, "seeds": 1, "first": 7})
    assert {row["seed"] for row in (*tables["scores"], *tables["steps"])} == {7}
    assert {row["setting"] for row in tables["scores"]} == {"more-gridworld-match-step=0.01-M_q=1-T=5"}
