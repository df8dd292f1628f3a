"""Statistics against cases worked out by hand, against rliable's recorded numbers, and against simulation."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as distributions

from bench.analysis import resampling, stats
from bench.analysis.resampling import Resampled, Resamples

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
    # a quarter of three runs is less than one run
    assert stats.iqm([np.array([1.0, 2, 30])]) == pytest.approx(11)


def test_each_run_weighs_one_nth_of_its_task():
    easy, hard = np.full(10, 850.0), np.full(5, 100.0)
    # half of the weight on either task, whichever has more seeds: a quarter of the weight each is left
    assert stats.iqm([easy, hard]) == pytest.approx(475)
    assert stats.iqm([easy[:5], np.full(10, 100.0)]) == pytest.approx(475)
    assert stats.performance_profile([easy, hard], np.array([500.0])) == pytest.approx(0.5)


def test_the_weighted_iqm_cuts_a_quarter_of_the_weight_and_parts_of_runs():
    tasks = [np.array([1.0, 9.0]), np.array([2.0, 4.0, 6.0])]
    # in units of 1/12: weights 3 3 and 2 2 2; from 3 to 9 of 12 there are 2 of the run at 2, 2 at 4, 2 at 6
    assert stats.iqm(tasks) == pytest.approx(4.0)
    # cut a third: from 4 to 8 of 12 there are 1 at 2, 2 at 4, 1 at 6
    assert stats.iqm(tasks, cut=1 / 3) == pytest.approx(4.0)
    assert stats.iqm([np.array([0.0, 12.0]), np.array([1.0, 2.0, 3.0])]) == pytest.approx(2.0)
    assert stats.iqm([np.array([0.0, 2.5]), np.array([1.0, 2.0, 3.0])]) == pytest.approx(
        (2 + 4 + 2 * 2.5) / 6
    )


@pytest.mark.parametrize(
    ("sizes", "tasks", "share"), [([5, 5], 3, 3 / 15), ([3], 1, 0), ([8], 1, 0.25), ([5, 6], 2, 0.25)]
)
def test_the_cut_is_whole_runs_where_all_that_is_compared_has_equal_seeds(sizes, tasks, share):
    assert stats.trimmed_share(sizes, tasks) == share


def test_mean_median_and_optimality_gap_weigh_tasks_alike():
    tasks = [np.array([0.2, 0.4]), np.array([0.6]), np.array([0.9, 1.0, 1.4])]
    assert stats.mean(tasks) == pytest.approx((0.3 + 0.6 + 1.1) / 3)
    assert stats.median(tasks) == pytest.approx(0.6)
    assert stats.optimality_gap(tasks) == pytest.approx(1 - (0.3 + 0.6 + 2.9 / 3) / 3)  # 1.4 counts as 1


def test_statistics_carry_leading_axes():
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
def test_percentile_intervals_agree_with_rliable_to_the_noise_of_resampling(name):
    tasks = columns("x")
    groups = [(len(scores), (f"task {i}",)) for i, scores in enumerate(tasks)]
    bounds = stats.resampled(getattr(stats, name), tasks, groups, 20_000).percentile()
    width = RLIABLE["intervals"][name][1] - RLIABLE["intervals"][name][0]
    np.testing.assert_allclose(bounds, RLIABLE["intervals"][name], atol=0.03 * width)


# --- on resamples -----------------------------------------------------------------------------------------


def drawn_seeds(tasks: list[np.ndarray], resamples: int, name: str = "") -> tuple[list, list]:
    """Resampled seeds of each task as indices (resamples, n) and as counts."""
    rows = [
        resampling.draws(scores.shape[-1], name, str(i), resamples=resamples)
        for i, scores in enumerate(tasks)
    ]
    return rows, [resampling.counts_of(drawn) for drawn in rows]


@pytest.mark.parametrize("sizes", [(7, 10, 5), (3,), (1, 1), (2, 2), (13, 11, 9, 8, 7)])
def test_statistics_by_counts_are_those_of_the_resamples(sizes, monkeypatch):
    monkeypatch.setattr(stats, "CACHED", 7)
    rng = np.random.default_rng(0)
    tasks = [np.round(rng.random((4, n)), 1) for n in sizes]  # with ties
    rows, counts = drawn_seeds(tasks, 50)
    for statistic in (stats.iqm, stats.mean, stats.median, stats.optimality_gap):
        samples = statistic(tasks, counts)
        assert samples.shape == (50, 4)
        for b in range(50):
            resampled = [scores[:, drawn[b]] for scores, drawn in zip(tasks, rows)]
            np.testing.assert_allclose(samples[b], statistic(resampled), atol=1e-12)
        np.testing.assert_allclose(statistic([scores[2] for scores in tasks], counts), samples[:, 2])


def test_the_profile_by_counts_is_that_of_the_resamples():
    rng = np.random.default_rng(0)
    tasks, thresholds = [rng.random(4), rng.random(6)], np.linspace(0, 1, 5)
    rows, counts = drawn_seeds(tasks, 20)
    expected = [
        stats.performance_profile([scores[drawn[b]] for scores, drawn in zip(tasks, rows)], thresholds)
        for b in range(20)
    ]
    np.testing.assert_allclose(stats.performance_profile(tasks, thresholds, counts), expected)


def test_bootstrap_of_improvement_resamples_both_sides():
    rng = np.random.default_rng(0)
    ours, theirs = [rng.random(4), rng.random(5)], [rng.random(3), rng.random(6)]
    ours[0][1] = theirs[0][2]
    rows, counts = drawn_seeds(ours, 30, "a")
    their_rows, their_counts = drawn_seeds(theirs, 30, "b")
    expected = [
        stats.probability_of_improvement(
            [x[drawn[b]] for x, drawn in zip(ours, rows)],
            [y[drawn[b]] for y, drawn in zip(theirs, their_rows)],
        )
        for b in range(30)
    ]
    found = stats.probability_of_improvement(ours, theirs, counts, their_counts)
    np.testing.assert_allclose(found, expected)


# --- several contrasts ------------------------------------------------------------------------------------


def normal(mean: float, deviation: float) -> Resampled:
    """A difference whose 10,000 resamples have the normal distribution's quantiles, of very many seeds."""
    quantiles = distributions.norm.ppf((np.arange(10_000) + 0.5) / 10_000)
    resamples = Resamples((np.ones((10_000, 10_000), np.int8),), None)
    return Resampled(np.array(mean), mean + deviation * quantiles, resamples)


@pytest.mark.seconds
def test_holm_steps_down_from_the_smallest_p():
    contrasts = {"b": normal(0.2, 0.1), "a": normal(1.0, 0.1), "c": normal(0.22, 0.1)}
    found = stats.holm(contrasts)
    assert list(found) == ["b", "a", "c"]
    assert found["a"].level == pytest.approx(1 - 0.05 / 3)
    assert found["c"].level == pytest.approx(1 - 0.05 / 2)  # p = 0.028 > 0.05 / 2: not rejected, so
    assert found["b"].level == pytest.approx(1 - 0.05 / 2)  # the rest keeps this width, though p = 0.0455
    assert found["b"].low < 0 < found["c"].high
    assert found["a"].low == pytest.approx(1 - 2.394 * 0.1, abs=1e-3)
    assert contrasts["c"].p() == pytest.approx(0.0278, abs=5e-4)


def test_holm_counts_contrasts_that_could_not_be_computed():
    found = stats.holm({"a": normal(1.0, 0.1)}, hypotheses=3)
    assert found["a"].level == pytest.approx(1 - 0.05 / 3)


def test_the_permutation_test_lists_every_split():
    low, high = np.arange(5.0), np.arange(5.0) + 10
    assert stats.permutation_p(low, high) == pytest.approx(2 / 252)  # no other split is as far apart
    assert stats.permutation_p(high[:3], low[:3]) == pytest.approx(2 / 20)
    assert stats.permutation_p(np.ones(4), np.ones(3)) == 1.0
    x, y = np.array([1.0, 5.0]), np.array([2.0, 3.0, 9.0])
    apart = [
        abs(sum(pair) / 2 - (20 - sum(pair)) / 3) for pair in itertools.combinations([1.0, 5, 2, 3, 9], 2)
    ]
    assert stats.permutation_p(x, y) == pytest.approx(np.mean([a >= abs(3 - 14 / 3) - 1e-9 for a in apart]))


def test_the_permutation_test_draws_splits_where_there_are_many():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(30), rng.standard_normal(40) + 0.5
    expected = distributions.ttest_ind(x, y).pvalue  # close for so many normal scores
    assert stats.permutation_p(x, y) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (5, 5), (4, 9)])
def test_newcombes_interval_of_a_share_of_pairs(n, m):
    """Its bounds solve method 5's equation, contain the value, and mirror each other."""
    z, N = distributions.norm.ppf(0.975), (n + m) / 2 - 1
    for share in (0.0, 0.3, 0.5, 0.92, 1.0):
        low, high = stats.mann_whitney_interval(np.array(share), n, m)
        assert 0 <= low <= share <= high <= 1
        assert low < high
        for p in (float(low), float(high)):
            if 0 < p < 1:
                error = np.sqrt(p * (1 - p) * (1 + N * (1 - p) / (2 - p) + N * p / (1 + p)) / (n * m))
                assert abs(p - share) == pytest.approx(z * error, abs=1e-9)
        mirrored = stats.mann_whitney_interval(np.array(1 - share), n, m)
        np.testing.assert_allclose(mirrored, (1 - high, 1 - low), atol=1e-12)


def test_the_interval_of_improvement_adds_squares_over_tasks():
    ours, theirs = [np.array([3.0, 4, 5]), np.array([1.0, 5, 9])], [np.zeros(3), np.array([2.0, 4, 6])]
    low, high = stats.improvement_interval(ours, theirs)
    one, two = (
        stats.improvement_interval(ours[:1], theirs[:1]),
        stats.improvement_interval(ours[1:], theirs[1:]),
    )
    value, shares = stats.probability_of_improvement(ours, theirs), (1.0, 5 / 9)
    assert value == pytest.approx((1 + 5 / 9) / 2)
    assert low == pytest.approx(value - np.hypot(shares[0] - one[0], shares[1] - two[0]) / 2)
    assert high == pytest.approx(value + np.hypot(one[1] - shares[0], two[1] - shares[1]) / 2)
    assert low < 1 - 1e-3  # though every run of the first task wins


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
