"""Statistics against cases worked out by hand, against rliable's recorded numbers, and against simulation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.analysis import stats

RLIABLE = json.loads((Path(__file__).parent / "rliable.json").read_text())


def columns(name: str) -> list[np.ndarray]:
    """rliable's (runs, tasks) as a list over tasks of (runs,)."""
    return list(np.array(RLIABLE[name]).T)


# --- by hand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "last"), [(1, 1), (9, 1), (10, 1), (11, 2), (20, 2), (21, 3), (200, 20)])
def test_final_return_is_the_mean_of_the_last_tenth_rounded_up(count, last):
    returns = np.arange(count, dtype=float) ** 2
    assert stats.final_return(returns) == pytest.approx(returns[count - last :].mean())


def test_final_return_keeps_leading_axes():
    assert stats.final_return(np.arange(40.0).reshape(2, 20)).tolist() == [18.5, 38.5]


def test_area_under_curve_weighs_uneven_steps():
    # trapezoids: (0 + 10)/2 * 1 + (10 + 30)/2 * 3 = 65 over 4 steps
    assert stats.area_under_curve(np.array([1.0, 2, 5]), np.array([0.0, 10, 30])) == pytest.approx(65 / 4)
    assert stats.area_under_curve(np.array([7.0]), np.array([[3.0], [4.0]])).tolist() == [3, 4]


def test_best_and_steps_to_threshold():
    steps = np.array([10.0, 20, 30])
    returns = np.array([[1.0, 5, 4], [1, 2, 3]])
    assert stats.best_return(returns).tolist() == [5, 3]
    assert stats.steps_to_threshold(steps, returns, 4.0).tolist() == [20, np.inf]
    assert stats.steps_to_threshold(steps, returns, 3.0).tolist() == [20, 30]


def test_iqm_cuts_whole_runs_from_both_ends_of_the_pooled_scores():
    tasks = [np.array([100.0, 1, 2, 3]), np.array([4.0, 5, 6, -50])]
    assert stats.iqm(tasks) == pytest.approx(3.5)  # of -50 1 2 3 4 5 6 100, two are cut from each end
    assert stats.iqm([np.array([1.0, 2, 30])]) == pytest.approx(
        11
    )  # a quarter of three runs is less than one run


def test_mean_median_and_optimality_gap_weigh_tasks_alike():
    tasks = [np.array([0.2, 0.4]), np.array([0.6]), np.array([0.9, 1.0, 1.4])]
    assert stats.mean(tasks) == pytest.approx((0.3 + 0.6 + 1.1) / 3)
    assert stats.median(tasks) == pytest.approx(0.6)
    assert stats.optimality_gap(tasks) == pytest.approx(1 - (0.3 + 0.6 + 2.9 / 3) / 3)  # 1.4 counts as 1


def test_statistics_work_on_a_batch_of_resamples():
    rng = np.random.default_rng(0)
    tasks = [rng.random((6, 5)), rng.random((6, 3))]
    for statistic in (stats.iqm, stats.mean, stats.median, stats.optimality_gap):
        one_by_one = [statistic([scores[b] for scores in tasks]) for b in range(6)]
        np.testing.assert_allclose(statistic(tasks), one_by_one)


def test_probability_of_improvement_counts_ties_half():
    # task 1: pairs 3>2, 3>1, 1<2, 1=1 -> 2.5 of 4; task 2: 0 > -1 -> 1
    assert stats.probability_of_improvement(
        [np.array([3.0, 1]), np.array([0.0])], [np.array([2.0, 1]), np.array([-1.0])]
    ) == pytest.approx((2.5 / 4 + 1) / 2)


def test_profile_is_strictly_above():
    share = stats.performance_profile([np.array([0.1, 0.5]), np.array([0.5, 0.9])], np.array([0.0, 0.5, 0.9]))
    assert share.tolist() == [1, 0.25, 0]


# --- against rliable 1.2.0 (record_rliable.py says how) ---------------------------------------------------


def test_aggregates_agree_with_rliable():
    tasks = columns("x")
    assert stats.iqm(tasks) == pytest.approx(RLIABLE["iqm"], rel=1e-12)
    assert stats.iqm(columns("y")) == pytest.approx(RLIABLE["iqm_y"], rel=1e-12)
    assert stats.mean(tasks) == pytest.approx(RLIABLE["mean"], rel=1e-12)
    assert stats.median(tasks) == pytest.approx(RLIABLE["median"], rel=1e-12)
    assert stats.optimality_gap(tasks) == pytest.approx(RLIABLE["optimality_gap"], rel=1e-12)


def test_comparisons_agree_with_rliable():
    improvement = stats.probability_of_improvement(columns("x"), columns("y"))
    assert improvement == pytest.approx(RLIABLE["probability_of_improvement"], rel=1e-12)
    profile = stats.performance_profile(columns("x"), np.array(RLIABLE["thresholds"]))
    np.testing.assert_allclose(profile, RLIABLE["score_distribution"], rtol=1e-12)


@pytest.mark.parametrize("name", ["iqm", "mean", "optimality_gap"])
def test_intervals_agree_with_rliable_to_the_noise_of_resampling(name):
    tasks = columns("x")
    drawn = [stats.draws(len(scores), f"task {i}", resamples=20_000) for i, scores in enumerate(tasks)]
    bounds = stats.interval(stats.bootstrap(tasks, getattr(stats, name), drawn))
    width = RLIABLE["intervals"][name][1] - RLIABLE["intervals"][name][0]
    np.testing.assert_allclose(bounds, RLIABLE["intervals"][name], atol=0.03 * width)


# --- the bootstrap ----------------------------------------------------------------------------------------


def test_draws_depend_on_the_key_alone():
    first = stats.draws(5, "cheetah-run", "qsm", resamples=50)
    assert (first == stats.draws(5, "cheetah-run", "qsm", resamples=50)).all()
    assert (first != stats.draws(5, "cheetah-run", "sac", resamples=50)).any()
    assert (first != stats.draws(5, "walker-run", "qsm", resamples=50)).any()
    assert set(np.unique(first)) == set(range(5))


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    tasks = [rng.random(5), rng.random(7)]
    drawn = [stats.draws(len(scores), str(i), resamples=101) for i, scores in enumerate(tasks)]
    whole = stats.bootstrap(tasks, stats.iqm, drawn)
    monkeypatch.setattr(stats, "CHUNK", 40)
    np.testing.assert_array_equal(stats.bootstrap(tasks, stats.iqm, drawn), whole)


@pytest.mark.parametrize("sizes", [(7, 10, 5), (3,), (1, 1), (2, 2)])
def test_iqm_by_counts_is_the_iqm_of_the_resamples(sizes, monkeypatch):
    monkeypatch.setattr(stats, "CACHED", 7)
    rng = np.random.default_rng(0)
    tasks = [np.round(rng.random((4, n)), 1) for n in sizes]  # with ties
    drawn = [stats.draws(n, str(i), resamples=50) for i, n in enumerate(sizes)]
    samples = stats.bootstrap_iqm(tasks, [stats.counts_of(rows) for rows in drawn])
    assert samples.shape == (4, 50)
    for k in range(4):
        np.testing.assert_allclose(
            samples[k], stats.bootstrap([t[k] for t in tasks], stats.iqm, drawn), atol=1e-12
        )


def test_curves_are_resampled_as_whole_seeds():
    rng = np.random.default_rng(0)
    curves, drawn = rng.random((6, 9)), stats.draws(6, "x", resamples=40)
    expected = curves[drawn].mean(axis=1)  # the same seeds at every checkpoint
    np.testing.assert_allclose(stats.bootstrap_means(curves, stats.counts_of(drawn)), expected)


def test_bootstrap_of_improvement_resamples_both_sides():
    rng = np.random.default_rng(0)
    ours, theirs = [rng.random(4), rng.random(5)], [rng.random(3), rng.random(6)]
    ours[0][1] = theirs[0][2]
    drawn = [stats.draws(len(x), "a", resamples=30) for x in ours]
    other = [stats.draws(len(y), "b", resamples=30) for y in theirs]
    expected = [
        stats.probability_of_improvement(
            [x[rows[b]] for x, rows in zip(ours, drawn)], [y[rows[b]] for y, rows in zip(theirs, other)]
        )
        for b in range(30)
    ]
    counts = [[stats.counts_of(rows) for rows in side] for side in (drawn, other)]
    np.testing.assert_allclose(stats.bootstrap_improvement(ours, theirs, *counts), expected)


@pytest.mark.parametrize(("n", "lowest", "highest"), [(5, 0.85, 0.95), (10, 0.89, 0.97), (30, 0.92, 0.98)])
def test_intervals_cover_the_truth_about_as_often_as_documented(n, lowest, highest):
    """300 simulated studies of four tasks; the truth is the IQM of a very large one."""
    rng = np.random.default_rng(n)
    levels, spreads = np.array([0.3, 0.5, 0.7, 0.9]), np.array([0.15, 0.1, 0.1, 0.05])

    def study(seeds: int) -> list[np.ndarray]:
        return list((levels + spreads * rng.standard_normal((seeds, 4))).T)

    truth = stats.iqm(study(200_000))
    covered = 0
    for trial in range(300):
        tasks = study(n)
        drawn = [stats.draws(n, str(trial), str(task), resamples=400) for task in range(4)]
        low, high = stats.interval(stats.bootstrap(tasks, stats.iqm, drawn))
        covered += low <= truth <= high
    assert lowest <= covered / 300 <= highest


@pytest.mark.parametrize("n", stats.COVERAGE)
@pytest.mark.parametrize(("tasks", "statistic"), [(1, stats.mean), (4, stats.mean), (4, stats.iqm)])
def test_intervals_of_few_seeds_cover_as_rarely_as_the_tables_say(n, tasks, statistic):
    """1000 simulated studies with normal scores, as every table's note states it."""
    rng = np.random.default_rng(n)
    levels = np.linspace(0.3, 0.9, tasks)

    def study(shape: tuple[int, ...]) -> list[np.ndarray]:
        return [level + 0.1 * rng.standard_normal(shape) for level in levels]

    truth = statistic(study((200_000,)))
    drawn = [stats.draws(n, str(task), resamples=500) for task in range(tasks)]
    studies = study((1000, n))
    samples = [statistic([scores[i][rows] for scores, rows in zip(studies, drawn)]) for i in range(1000)]
    low, high = stats.interval(np.stack(samples, axis=1))
    covered = 100 * np.mean((low <= truth) & (truth <= high))
    assert covered == pytest.approx(stats.COVERAGE[n][tasks > 1], abs=6)


# --- several contrasts ------------------------------------------------------------------------------------


def normal(mean: float, deviation: float) -> np.ndarray:
    """10,000 numbers whose quantiles are the normal distribution's."""
    return mean + deviation * stats.distributions.norm.ppf((np.arange(10_000) + 0.5) / 10_000)


def test_holm_steps_down_from_the_smallest_p():
    samples = {"b": normal(0.2, 0.1), "a": normal(1.0, 0.1), "c": normal(0.22, 0.1)}
    found = stats.holm({name: float(values.mean()) for name, values in samples.items()}, samples)
    assert list(found) == ["b", "a", "c"]
    assert found["a"].level == pytest.approx(1 - 0.05 / 3)
    assert found["c"].level == pytest.approx(1 - 0.05 / 2)  # p = 0.028 > 0.05 / 2: not rejected, so
    assert found["b"].level == pytest.approx(1 - 0.05 / 2)  # the rest keeps this width, though p = 0.0455
    assert found["b"].low < 0 < found["c"].high
    assert found["a"].low == pytest.approx(1 - 2.394 * 0.1, abs=1e-3)


def test_holm_counts_contrasts_that_could_not_be_computed():
    found = stats.holm({"a": 1.0}, {"a": normal(1.0, 0.1)}, hypotheses=3)
    assert found["a"].level == pytest.approx(1 - 0.05 / 3)


def test_two_sided_p_is_never_zero():
    assert stats.two_sided_p(np.ones(999)) == pytest.approx(0.002)
    assert stats.two_sided_p(np.array([-1.0, 1.0])) == 1.0


@pytest.mark.parametrize(
    ("counts", "expected"),
    [  # Newcombe 1998, table II, method 10
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((10, 10, 0, 20), (0.6791, 1.0000)),
        ((10, 10, 0, 10), (0.6075, 1.0000)),
    ],
)
def test_difference_of_shares_as_published(counts, expected):
    np.testing.assert_allclose(stats.difference_of_shares(*counts), expected, atol=6e-5)
