"""Estimates, the marking of the best, tasks that say nothing, and which tasks an aggregate covers."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
from scipy import stats as distributions

from bench.analysis import stats
from bench.analysis.resampling import RESAMPLES
from bench.analysis.scores import comparisons as comparison_tables
from bench.analysis.scores import estimates as scores
from bench.analysis.scores import tables as score_tables
from bench.analysis.scores.load import load
from bench.analysis.scores.results import shared_tasks
from bench.analysis.table import to_markdown
from bench.paper.claims import judge as claims
from tests.analysis import helpers


def set_finals(folder, env, label, finals):
    """Runs whose every evaluation is their final return."""
    for seed, value in enumerate(finals):
        helpers.set_returns(folder / env / label / f"seed-{seed}", [value] * 10)


def test_an_estimate_is_the_mean_with_its_stretched_interval_and_rliables(tmp_path):
    folder = helpers.study(tmp_path, seeds=4)
    set_finals(folder, "cheetah-run", "qsm", [100, 200, 300, 800])
    cell = load(tmp_path, "made-up").cell("cheetah-run", "qsm")
    estimate = scores.mean_over_seeds(cell, cell.final)
    resampled = [np.mean(rows) for rows in itertools.product(cell.final, repeat=4)]  # all 256
    low, high = np.percentile(resampled, [2.5, 97.5])
    stretch = np.sqrt(4 / 3) * distributions.t.ppf(0.975, 3) / distributions.norm.ppf(0.975)
    assert estimate.value == 350
    assert (estimate.rliable_low, estimate.rliable_high) == pytest.approx((low, high))
    assert estimate.high == pytest.approx(350 + stretch * (high - 350))
    assert 350 - stretch * (350 - low) < 0
    assert estimate.low == 0  # where the returns of DM Control end
    assert estimate.n == 4


@pytest.mark.parametrize(
    ("env", "cut"), [("cheetah-run", True), ("lqr-lqr_2_1", False), ("Pendulum-v1", False)]
)
def test_intervals_end_where_the_returns_of_the_task_do(tmp_path, env, cut):
    folder = helpers.study(tmp_path, envs=[env], seeds=2)
    set_finals(folder, env, "qsm", [10, 300])
    set_finals(folder, env, "sac", [700, 990])
    results = load(tmp_path, "made-up")
    ours, theirs = results.cells[env, "qsm"], results.cells[env, "sac"]
    estimates = [scores.mean_over_seeds(cell, cell.final) for cell in (ours, theirs)]
    apart = scores.difference(ours, theirs)
    ends = (estimates[0].low, estimates[1].high, apart.low)
    assert (ends == (0, 1000, -1000)) is cut
    assert all(np.array(ends) <= (0, np.inf, -1000))


def test_a_contrast_of_one_task_has_its_permutation_p(tmp_path):
    folder = helpers.study(tmp_path, seeds=5)
    set_finals(folder, "cheetah-run", "qsm", [500, 510, 520, 530, 540])
    set_finals(folder, "cheetah-run", "sac", [100, 110, 120, 130, 140])
    table = comparison_tables.by_task(load(tmp_path, "made-up"))
    assert table.records[0]["permutation_p"] == pytest.approx(2 / 252)
    assert "p = 0.008" in table.rows[0][1].detail


def test_with_unequal_seeds_equal_algorithms_have_equal_aggregates(tmp_path):
    """An easy task at 850 and a hard one at 100; one algorithm has more seeds on the easy one, the others on the
    hard one.
    """
    algos = ["qsm", "sac", "td3", "dql"]
    folder = helpers.study(tmp_path, envs=["easy-run", "hard-run"], algos=algos, seeds=10)
    rng = np.random.default_rng(0)
    for label in algos:
        for env, level in (("easy-run", 850), ("hard-run", 100)):
            set_finals(folder, env, label, level + 20 * rng.standard_normal(10))
            for seed in range(5, 10) if (env == "easy-run") != (label == "qsm") else ():
                shutil.rmtree(folder / env / label / f"seed-{seed}")
    results = load(tmp_path, "made-up")
    tasks = scores.common_tasks(results)
    assert tasks.cut == 0.25
    assert any("each run weighs 1/n of its task" in note for note in tasks.notes)
    found = {label: scores.cells_of(results, label, tasks.envs) for label in algos}
    estimates = [scores.aggregate(cells, scores.statistics(tasks.cut)["IQM"]) for cells in found.values()]
    for estimate in estimates:
        assert estimate.value == pytest.approx(0.475, abs=0.03)
    assert max(estimate.low for estimate in estimates) < min(estimate.high for estimate in estimates)
    ends = [scores.aggregate_curve(cells, tasks.cut)[0][-1] for cells in found.values()]
    assert ends == pytest.approx([0.475] * 4, abs=0.03)
    shares = [scores.profile(cells, np.array([0.5]))[0][0] for cells in found.values()]
    assert shares == pytest.approx([0.5] * 4)
    verdicts = {finding.verdict for finding in claims.judge(results, [])[0].findings}
    assert not verdicts & {"better", "worse"}


def test_a_grid_in_progress_shows_equal_algorithms_as_equal(tmp_path):
    """3 to 10 seeds a task, on tasks from 100 to 900."""
    envs = [f"{name}-run" for name in "abcdef"]
    folder = helpers.study(tmp_path, envs=envs, seeds=10)
    rng = np.random.default_rng(1)
    for label, sizes in (("qsm", [10, 9, 7, 5, 3, 3]), ("sac", [3, 3, 4, 6, 9, 10])):
        for env, level, n in zip(envs, (900, 900, 700, 300, 100, 100), sizes):
            set_finals(folder, env, label, level + 20 * rng.standard_normal(10))
            for seed in range(n, 10):
                shutil.rmtree(folder / env / label / f"seed-{seed}")
    results = load(tmp_path, "made-up")
    tasks = scores.common_tasks(results)
    qsm, sac = (scores.cells_of(results, label, tasks.envs) for label in ("qsm", "sac"))
    for statistic in scores.statistics(tasks.cut).values():
        ours, theirs = (scores.aggregate(cells, statistic) for cells in (qsm, sac))
        assert max(ours.low, theirs.low) < min(ours.high, theirs.high)
        assert ours.value == pytest.approx(theirs.value, abs=0.03)
    improvement = scores.improvement(qsm, sac)
    assert improvement.low < 0.5 < improvement.high


@pytest.mark.parametrize(("seeds", "marked"), [(6, {"sac"}), (7, {"qsm", "sac"})])
def test_ties_with_the_best_are_marked_from_seven_seeds_on(tmp_path, seeds, marked):
    folder = helpers.study(tmp_path, algos=["qsm", "sac", "td3", "random"], seeds=seeds)
    wide = np.linspace(-100, 100, seeds)
    set_finals(folder, "cheetah-run", "qsm", 500 + wide)
    set_finals(folder, "cheetah-run", "sac", 510 + wide)
    set_finals(folder, "cheetah-run", "td3", 100 + wide / 10)
    set_finals(folder, "cheetah-run", "random", 300 + wide / 10)
    results = load(tmp_path, "made-up")
    assert scores.best_labels(results, "cheetah-run") == marked
    (row,) = score_tables.final_return(results).rows
    assert {label for label, entry in zip(results.labels, row[1:]) if entry.bold} == marked


def test_the_random_policy_is_no_competitor(tmp_path):
    folder = helpers.study(tmp_path, algos=["qsm", "sac", "random"], seeds=7)
    for label, level in (("qsm", 500), ("sac", 100), ("random", 900)):
        set_finals(folder, "cheetah-run", label, level + np.arange(7))
    assert scores.best_labels(load(tmp_path, "made-up"), "cheetah-run") == {"qsm"}


def test_floor_and_ceiling(tmp_path):
    envs = ["walker-run", "hopper-hop", "cartpole-balance", "cheetah-run"]
    folder = helpers.study(tmp_path, envs=envs, algos=["qsm", "sac", "random"], seeds=2)
    levels = {
        "walker-run": (60, 80, 40),  # the best is less than 50 above the random policy
        "hopper-hop": (60, 91, 40),
        "cartpole-balance": (950, 999, 300),
        "cheetah-run": (949, 999, 300),
    }
    for env, values in levels.items():
        for label, value in zip(("qsm", "sac", "random"), values):
            set_finals(folder, env, label, [value] * 2)
    results = load(tmp_path, "made-up")
    assert scores.extreme_tasks(results) == {"walker-run": "floor", "cartpole-balance": "ceiling"}
    assert scores.common_tasks(results, without_extremes=True).envs == ("hopper-hop", "cheetah-run")
    tables = comparison_tables.aggregates(results)
    assert [table.name for table in tables] == ["aggregates", "aggregates_without_extremes"]
    finals = score_tables.final_return(results)
    assert "walker-run (floor)" in to_markdown(finals).replace("\\", "")
    marked = {row[0]: any(entry.bold for entry in row[1:]) for row in finals.rows}
    assert marked == {
        "walker-run (floor)": False,
        "hopper-hop": True,
        "cartpole-balance (ceiling)": False,
        "cheetah-run": True,
    }
    for table in (comparison_tables.steps_to_90(results), comparison_tables.by_task(results)):
        assert [row[0] for row in table.rows] == list(marked)


def test_where_no_task_tells_the_algorithms_apart_the_aggregates_say_so(tmp_path):
    folder = helpers.study(tmp_path, seeds=2)
    for label in ("qsm", "sac"):
        set_finals(folder, "cheetah-run", label, [3, 4])
    every, apart = comparison_tables.aggregates(load(tmp_path, "made-up"))
    assert "Without tasks at floor or ceiling none is left." in every.notes
    assert every.rows
    assert not apart.rows


def test_aggregates_cover_what_all_algorithms_have(tmp_path):
    envs = ["a-run", "b-run", "c-run", "Hopper-v5"]
    folder = helpers.study(tmp_path, envs=envs, algos=["qsm", "sac", "mine"], seeds=2)
    for env, label in (("a-run", "sac"), ("a-run", "mine"), ("b-run", "mine")):
        shutil.rmtree(folder / env / label)
    for run in folder.glob("*/mine/seed-*"):
        helpers.change_meta(run, title="My Own")
    tasks = scores.common_tasks(load(tmp_path, "made-up"))
    assert tasks.envs == ("b-run", "c-run")
    assert tasks.labels == ("qsm", "sac")
    notes = " ".join(tasks.notes)
    assert "My Own is left out of the aggregates: no scores on a-run, b-run." in notes
    assert "Left out of the aggregates, not yet scored for all algorithms: a-run." in notes
    assert "Hopper-v5" in notes


def test_one_algorithm_that_lacks_a_task_does_not_take_it_from_the_others():
    names = ["a", "b", "c"]
    half_run = {"qsm": names, "sac": names, "td3": names, "mine": ["a", "b"]}
    assert shared_tasks(half_run, names) == (("qsm", "sac", "td3"), ("a", "b", "c"))
    assert shared_tasks({"qsm": names, "sac": ["a", "c"]}, names) == (("qsm", "sac"), ("a", "c"))
    as_many = {"qsm": ["a", "b"], "sac": ["b"]}  # two pairs either way: both algorithms stay
    assert shared_tasks(as_many, ["a", "b"]) == (("qsm", "sac"), ("b",))
    assert shared_tasks({"qsm": ["a"], "sac": ["b"]}, names)[1] == ()


def test_the_aggregate_curve_is_the_iqm_at_each_evaluation(tmp_path):
    helpers.study(tmp_path, envs=["a-run", "b-run"], seeds=3)
    results = load(tmp_path, "made-up")
    cells = scores.cells_of(results, "qsm", results.envs)
    value, low, high = scores.aggregate_curve(cells, 1 / 6)  # whole runs: one of six
    last = [cell.returns[:, -1] / 1000 for cell in cells]
    assert value[-1] == pytest.approx(stats.iqm(last))
    expected = stats.resampled(stats.iqm, last, [cell.group for cell in cells], RESAMPLES)
    assert (low[-1], high[-1]) == pytest.approx(expected.interval())


def test_a_curve_that_ends_in_the_final_return_ends_in_its_interval(tmp_path):
    helpers.study(tmp_path, seeds=8)
    cell = load(tmp_path, "made-up").cells["cheetah-run", "qsm"]
    low, high = scores.curve_band(cell)
    printed = scores.mean_over_seeds(cell, cell.returns[:, -1])
    assert (low[-1], high[-1]) == pytest.approx((printed.low, printed.high))


def test_steps_to_90_percent_of_the_best(tmp_path):
    folder = helpers.study(tmp_path, envs=["cheetah-run", "Pendulum-v1"], seeds=2)
    helpers.set_returns(folder / "cheetah-run/qsm/seed-0", [0, 80, 85, 90, *[100] * 6])
    helpers.set_returns(folder / "cheetah-run/qsm/seed-1", [0, 90, *[100] * 8])
    set_finals(folder, "cheetah-run", "sac", [20, 20])
    for seed in range(2):
        helpers.set_returns(folder / f"Pendulum-v1/qsm/seed-{seed}", [-1500, -500, *[-300] * 8])
        helpers.set_returns(folder / f"Pendulum-v1/sac/seed-{seed}", [-1500] * 10)
    results = load(tmp_path, "made-up")
    threshold, steps = scores.steps_to_best(results, "cheetah-run")
    assert threshold == 90
    assert steps["qsm"].tolist() == [4000, 2000]
    assert steps["sac"].tolist() == [np.inf, np.inf]
    (row, _) = comparison_tables.steps_to_90(results).rows
    assert [(entry.text, entry.detail) for entry in row[2:]] == [("2,000", "2 of 2†"), ("∞", "0 of 2†")]
    threshold, steps = scores.steps_to_best(results, "Pendulum-v1")
    assert threshold == pytest.approx(-1500 + 0.9 * 1200)
    assert steps["qsm"].tolist() == [3000, 3000]


def test_n_is_printed_and_marked_up_to_twenty(tmp_path):
    folder = helpers.study(tmp_path, envs=["a-run"], seeds=21)
    results = load(tmp_path, "made-up")
    shown = to_markdown(score_tables.final_return(results))
    assert "QSM (n = 21)" in shown
    assert "†" not in shown
    shutil.rmtree(folder / "a-run/qsm/seed-0")
    results = load(tmp_path, "made-up")
    shown = to_markdown(score_tables.final_return(results))
    assert "n = 20†" in shown
    assert "SAC (n = 21)" in shown
    assert "1 of 42 runs have no score" in shown
    assert "† With so few seeds" in score_tables.summary(results)


def test_the_summary_fits_a_terminal(tmp_path):
    helpers.study(
        tmp_path, envs=["a-run", "Pendulum-v1"], algos=["qsm", "an-algorithm-of-my-own-" * 4], seeds=2
    )
    text = score_tables.summary(load(tmp_path, "made-up"))
    assert max(map(len, text.splitlines())) <= 80
    assert "| a-run" in text


def test_the_summary_keeps_the_algorithms_of_a_task_together(tmp_path):
    """Whatever the order in which they were asked for."""
    folder = helpers.study(tmp_path, envs=["a-run", "b-run"], algos=["qsm", "sac"], seeds=2)
    grid = sorted(helpers.read_grid(folder), key=lambda cell: (cell["label"], cell["env"]))
    helpers.change_study(folder, grid=grid)
    rows = [
        row.split("|")
        for row in score_tables.summary(load(tmp_path, "made-up")).splitlines()
        if "-run" in row
    ]
    assert [(row[1].strip(), row[2].strip()) for row in rows] == [
        (env, name) for env in ("a-run", "b-run") for name in ("QSM", "SAC")
    ]


def test_final_policies_side_by_side(tmp_path):
    folder = helpers.study(tmp_path, seeds=3)
    helpers.diverge(folder / "cheetah-run/qsm/seed-2", 100, [])
    table = comparison_tables.final_policies(load(tmp_path, "made-up"))
    assert table.columns[2:] == ["Sample", "Greedy", "Best of 10 (sample)"]
    assert [row[2].detail.split("n = ")[1] for row in table.rows] == ["2†", "3†"]


def test_improvements_of_a_pair_add_up_to_one(tmp_path):
    helpers.study(tmp_path, envs=["a-run", "b-run"], seeds=5)
    table = comparison_tables.improvements(load(tmp_path, "made-up"))
    assert [(row[1].text, row[1].detail) for row in table.rows] == [("5", "†")] * 2
    assert any(note.startswith("† With so few seeds") for note in table.notes)
    records = table.records
    assert [(record["label"], record["over"]) for record in records] == [("qsm", "sac"), ("sac", "qsm")]
    assert records[0]["value"] + records[1]["value"] == pytest.approx(1)
