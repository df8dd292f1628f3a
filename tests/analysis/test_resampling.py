"""Resampled seeds and the stretched interval, against cases worked out by hand and against Student's t."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
from scipy import stats as distributions

from bench.analysis import resampling, stats
from bench.analysis.resampling import Resampled, resample


def means(scores: np.ndarray, name: str = "a", draws: int = 10_000) -> Resampled:
    return stats.resampled(stats.mean, [scores], [(len(scores), (name,))], draws)


def test_draws_depend_on_the_key_alone():
    first = resampling.draws(5, "cheetah-run", "qsm", resamples=50)
    assert (first == resampling.draws(5, "cheetah-run", "qsm", resamples=50)).all()
    assert (first != resampling.draws(5, "cheetah-run", "sac", resamples=50)).any()
    assert (first != resampling.draws(5, "walker-run", "qsm", resamples=50)).any()
    assert set(np.unique(first)) == set(range(5))


@pytest.mark.parametrize("sizes", [(3,), (2, 3), (5,)])
def test_every_resample_has_its_probability(sizes):
    """Against all n^n ordered resamples."""
    found = resample([(n, ()) for n in sizes])
    expected: dict[tuple[int, ...], float] = {}
    for rows in itertools.product(*(itertools.product(range(n), repeat=n) for n in sizes)):
        key = tuple(row.count(i) for row, n in zip(rows, sizes) for i in range(n))
        expected[key] = expected.get(key, 0) + float(np.prod([1 / n**n for n in sizes]))
    listed = {tuple(row): float(w) for row, w in zip(np.hstack(found.counts).tolist(), found.weights)}
    assert listed.keys() == expected.keys()
    assert [listed[key] for key in expected] == pytest.approx(list(expected.values()))


def test_few_resamples_are_listed_and_many_are_drawn():
    assert resample([(5, ("a",)), (5, ("b",))]).weights is not None  # 126 x 126, as for a difference
    assert resample([(10, ("a",))]).weights is None
    assert len(resample([(10, ("a",))], 300).counts[0]) == 300


def test_listed_ends_are_those_of_the_whole_distribution():
    scores = np.array([0.0, 1.0, 10.0])
    ordered = np.sort([np.mean(rows) for rows in itertools.product(scores, repeat=3)])
    # of 27 the lowest and the highest have the chance 1 / 27 > 0.025 each
    assert means(scores).percentile() == (ordered[0], ordered[-1])
    # a tail of 0.1 holds two of 27
    assert means(scores).percentile(0.8) == (ordered[2], ordered[-3])


@pytest.mark.parametrize("n", [3, 5, 8, 12, 40])
def test_of_one_task_the_stretch_is_students_t(n):
    scores = np.random.default_rng(n).standard_normal(n)
    found = means(scores)
    low, high = found.percentile()
    t = distributions.t.ppf(0.975, n - 1) / distributions.norm.ppf(0.975)
    stretch = np.sqrt(n / (n - 1)) * t
    assert found.degrees_of_freedom == pytest.approx(n - 1)
    mean = scores.mean()
    assert found.interval() == pytest.approx((mean - stretch * (mean - low), mean + stretch * (high - mean)))


def test_of_many_normal_seeds_the_interval_is_the_t_interval():
    scores = np.random.default_rng(0).standard_normal(30)
    half = distributions.t.ppf(0.975, 29) * scores.std(ddof=1) / np.sqrt(30)
    low, high = means(scores).interval()
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)


@pytest.mark.parametrize("draws", [10_000, 3000])
def test_over_groups_the_degrees_of_freedom_are_satterthwaites(draws):
    """Of a difference of two means, where Welch's test has them in closed form."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal(4), 3 * rng.standard_normal(7)
    groups = [(4, ("x",)), (7, ("y",))]
    found = stats.resampled_difference(stats.mean, [x], [y], groups, draws)
    expected = distributions.ttest_ind(x, y, equal_var=False)
    assert found.value == pytest.approx(x.mean() - y.mean())
    assert found.degrees_of_freedom == pytest.approx(expected.df, rel=0.1)
    # the variance with n - 1, and t at these degrees of freedom: the width of Welch's interval
    low, high = found.interval()
    welch = expected.confidence_interval()
    assert high - low == pytest.approx(welch.high - welch.low, rel=0.15)
    assert found.p() == pytest.approx(expected.pvalue, abs=0.05)


def test_listed_degrees_of_freedom_are_exact():
    x, y = np.array([1.0, 2, 4]), np.array([0.0, 5, 6])
    found = stats.resampled_difference(stats.mean, [x], [y], [(3, ("x",)), (3, ("y",))], 10_000)
    assert found.degrees_of_freedom == pytest.approx(distributions.ttest_ind(x, y, equal_var=False).df)


def test_a_task_that_does_not_vary_adds_no_freedom():
    tasks = [np.array([1.0, 2, 4, 9, 3]), np.full(5, 7.0)]
    found = stats.resampled(stats.mean, tasks, [(5, ("a",)), (5, ("b",))], 10_000)
    assert found.degrees_of_freedom == pytest.approx(4)


def test_random_draws_add_no_freedom_of_their_own():
    """A task of 60 seeds that does not vary takes no share, though its random counts seem to go with the mean."""
    tasks = [np.random.default_rng(0).standard_normal(12), np.full(60, 7.0)]
    found = stats.resampled(stats.mean, tasks, [(12, ("a",)), (60, ("b",))], 2000)
    assert found.degrees_of_freedom == pytest.approx(11, abs=0.3)


def test_where_nothing_varies_the_interval_is_the_value():
    tasks = [np.full(3, 7.0), np.full(4, 9.0)]
    for draws in (10_000, 20):
        found = stats.resampled(stats.mean, tasks, [(3, ("a",)), (4, ("b",))], draws)
        assert found.interval() == (8.0, 8.0)


def test_a_single_seed_has_no_interval():
    found = stats.resampled(stats.mean, [np.array([3.0]), np.arange(5.0)], [(1, ("a",)), (5, ("b",))], 100)
    assert np.isnan(found.interval()).all()


def test_curves_have_the_interval_of_each_checkpoint():
    rng = np.random.default_rng(0)
    tasks = [rng.random((6, 4)), rng.random((6, 3))]
    groups = [(4, ("a",)), (3, ("b",))]
    iqm = partial(stats.iqm, cut=0.25)
    for draws in (10_000, 100):
        low, high = stats.resampled(iqm, tasks, groups, draws).interval()
        for k in range(6):
            one = stats.resampled(iqm, [scores[k] for scores in tasks], groups, draws).interval()
            assert (low[k], high[k]) == pytest.approx(one)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 18, 19, 100, 1000])
@pytest.mark.parametrize("level", [0.95, 0.93, 1 - 0.05 / 3, 0.5, 1.0])
def test_the_percentile_interval_is_numpys_to_the_last_bit(count, level):
    samples = np.random.default_rng(count).standard_normal((count, 60)) * 1e3
    samples[:, 1] = np.round(samples[:, 1] / 500)  # ties
    samples[-1, 2] = np.nan
    tail = 50.0 * (1.0 - level)
    expected = np.percentile(samples, [tail, 100.0 - tail], axis=0)
    np.testing.assert_array_equal(resampling.interval(samples, level), expected)
