"""Statistics over seeds (Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
Precipice", NeurIPS 2021).

The seed is the unit. Scores of one algorithm are a list over tasks of arrays whose last axis is the seeds
of that task, so tasks may have different numbers of seeds: "tasks" below is [(..., n_1), (..., n_2), ...].
Leading axes, such as the evaluations of a learning curve, are carried along. With `counts`, how often each
seed is in each resample [(B, n_1), (B, n_2), ...], a statistic is computed on every resample: (B, ...).

Tasks weigh alike: over several tasks each run weighs 1/n of its task, so that an algorithm with more seeds on
an easy task is no better for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bench.analysis.resampling import LEVEL, Array, Counts, Group, Resampled, resample

Tasks = Sequence[Array]
Statistic = Callable[[Tasks, Sequence[Counts] | None], Array]

CACHED = 128  # resamples worked on at once, so that they stay in the processor's cache
SPLITS = 200_000  # of two groups of seeds that are all listed, as for 10 against 10
RANDOM_SPLITS = 20_000  # drawn where there are more


# --- one run's learning curve -> one number ---------------------------------------------------------------


def final_return(returns: Array) -> Array:
    """Mean of the last tenth of the evaluations, rounded up: (..., K) -> (...)."""
    return returns[..., -(-returns.shape[-1] // 10) * -1 :].mean(axis=-1)


def area_under_curve(env_steps: Array, returns: Array) -> Array:
    """Trapezoidal area divided by the steps it spans, in units of return: (K,), (..., K) -> (...)."""
    if len(env_steps) == 1:
        return returns[..., 0]
    return np.trapezoid(returns, env_steps, axis=-1) / (env_steps[-1] - env_steps[0])


def best_return(returns: Array) -> Array:
    """The highest evaluation. Biased upwards, the more so the noisier the evaluations: (..., K) -> (...)."""
    return returns.max(axis=-1)


def steps_to_threshold(env_steps: Array, returns: Array, threshold: float) -> Array:
    """Environment steps at the first evaluation that reaches `threshold`; infinity where none does.

    (K,), (..., K) -> (...)
    """
    reached = returns >= threshold
    return np.where(reached.any(axis=-1), env_steps[reached.argmax(axis=-1)], np.inf)


# --- tasks -> one number ----------------------------------------------------------------------------------


def iqm(tasks: Tasks, counts: Sequence[Counts] | None = None, cut: float | None = None) -> Array:
    """Interquartile mean: of the runs of all tasks together, each with the weight 1/n of its task, without
    the share `cut` of the weight at either end (default: `trimmed_share` of these tasks).

    tasks: [(n_t,)] or [(K, n_t)] -> () or (K,); with counts (B,) or (B, K).

    With the runs in order of their score, the running sum of their weights in a resample says which of them
    lie between the quartiles, without sorting any resample.
    """
    sizes = [scores.shape[-1] for scores in tasks]
    share = trimmed_share(sizes, len(tasks)) if cut is None else cut
    scores = np.concatenate([np.atleast_2d(task) for task in tasks], axis=-1)
    if counts is None:
        held = np.concatenate([_weights(np.ones((1, n), np.int16), sizes) for n in sizes], axis=1).T
    else:
        held = np.concatenate([_weights(count, sizes) for count in counts], axis=1).T  # (runs, B)
    samples = _trimmed_means(scores, held, share)
    samples = samples[:, 0] if counts is None else samples.T
    return samples[..., 0] if tasks[0].ndim == 1 else samples


def trimmed_share(sizes: Collection[int], tasks: int) -> float:
    """The share of the weight that the IQM leaves out at either end, for everything that is compared.

    sizes: the numbers of seeds of all tasks and algorithms in the comparison. A quarter; where all are equal,
    whole runs, their number rounded down, as rliable has it (scipy's trim_mean). That share depends on the
    number of runs, so it does not compare algorithms fairly if their numbers differ.
    """
    if len(set(sizes)) != 1:
        return 0.25
    runs = tasks * next(iter(sizes))
    return (runs // 4) / runs


def _weights(count: Counts, sizes: Sequence[int]) -> NDArray[np.int16] | Array:
    """The weight of each seed in each resample (B, n), in whole numbers where those stay small."""
    unit = 4 * math.lcm(*sizes)  # the weight of a task; times 4, since a quarter is cut
    n = count.shape[1]
    if unit * len(sizes) <= np.iinfo(np.int16).max:
        return count * np.int16(unit // n)
    return count / n


def _trimmed_means(scores: Array, held: NDArray[np.int16] | Array, share: float) -> Array:
    """Means of scores (K, runs) weighted by held (runs, B) without `share` of the weight at either end: (K, B)."""
    runs, resamples = held.shape
    whole = held.dtype == np.int16
    total = held[:, 0].sum(dtype=np.int64 if whole else np.float64)
    cut = share * total
    cut, top = (round(cut), total - round(cut)) if whole else (cut, total - cut)
    order = np.argsort(scores, axis=-1)
    # the sum of score x weight, by parts: the steps between neighbouring scores x the running weights
    steps = -np.diff(np.take_along_axis(scores, order, axis=-1), append=0.0) / (top - cut)
    result = np.empty((len(scores), resamples))
    for block in range(0, resamples, CACHED):
        width = min(CACHED, resamples - block)
        columns = np.zeros((runs, -(-width // 4) * 4), held.dtype)
        columns[:, :width] = held[:, block : block + width]
        # four sums of 16 bits in one of 64: none is negative or carries over, as int16 holds the total
        lanes = columns.view(np.int64) if whole else columns
        for k in range(len(scores)):
            up_to = np.cumsum(lanes[order[k]], axis=0).view(held.dtype)
            kept = np.clip(up_to, cut, top, out=up_to) - cut  # weight between the quartiles, up to here
            result[k, block : block + width] = (steps[k] @ kept.astype(np.float64))[:width]
    return result


def mean(tasks: Tasks, counts: Sequence[Counts] | None = None) -> Array:
    """Mean over tasks of the mean over seeds."""
    means = task_means(tasks, counts)
    return means[0] if len(means) == 1 else np.mean(means, axis=0)


def median(tasks: Tasks, counts: Sequence[Counts] | None = None) -> Array:
    """Median over tasks of the mean over seeds."""
    return np.median(task_means(tasks, counts), axis=0)


def optimality_gap(tasks: Tasks, counts: Sequence[Counts] | None = None) -> Array:
    """How far the scores stay below 1, the highest score a task allows; more than 1 counts as 1."""
    return 1.0 - mean([np.minimum(scores, 1.0) for scores in tasks], counts)


def performance_profile(tasks: Tasks, thresholds: Array, counts: Sequence[Counts] | None = None) -> Array:
    """Share of runs above each threshold, averaged over tasks: [(n_t,)] -> (K,); with counts (B, K)."""
    return mean([(scores > thresholds[:, None]).astype(np.float64) for scores in tasks], counts)


def task_means(tasks: Tasks, counts: Sequence[Counts] | None = None) -> list[Array]:
    """The mean over seeds of each task: [(...)]; with counts [(B, ...)]."""
    if counts is None:
        return [scores.mean(axis=-1) for scores in tasks]
    return [
        np.tensordot(count.astype(np.float64), scores, axes=(1, -1)) / count.shape[1]
        for scores, count in zip(tasks, counts, strict=True)
    ]


def probability_of_improvement(
    ours: Sequence[Array],
    theirs: Sequence[Array],
    counts: Sequence[Counts] | None = None,
    their_counts: Sequence[Counts] | None = None,
) -> Array:
    """P(a run of ours scores higher than a run of theirs on the same task), ties half, averaged over tasks.

    The Mann-Whitney U statistic over n m, for each task. ours, theirs: the same tasks in the same order.
    """
    wins = [np.heaviside(x[:, None] - y[None, :], 0.5) for x, y in zip(ours, theirs, strict=True)]
    if counts is None or their_counts is None:
        return np.mean([won.mean() for won in wins])
    shares = [
        ((held @ won) * their_held).sum(axis=1) / won.size
        for won, held, their_held in zip(wins, counts, their_counts, strict=True)
    ]
    return np.mean(shares, axis=0)


# --- with resamples ---------------------------------------------------------------------------------------


def resampled(statistic: Statistic, tasks: Tasks, groups: Sequence[Group], draws: int) -> Resampled:
    """A statistic of tasks [(..., n_t)] on resamples of their seeds; groups: one for each task."""
    resamples = resample(groups, draws)
    return Resampled(statistic(tasks, None), statistic(tasks, resamples.counts), resamples)


def resampled_difference(
    statistic: Statistic, ours: Tasks, theirs: Tasks, groups: Sequence[Group], draws: int
) -> Resampled:
    """The statistic of ours minus that of theirs; groups: those of our tasks, then those of theirs."""
    resamples = resample(groups, draws)
    counts, their_counts = resamples.counts[: len(ours)], resamples.counts[len(ours) :]
    value = statistic(ours, None) - statistic(theirs, None)
    return Resampled(value, statistic(ours, counts) - statistic(theirs, their_counts), resamples)


@dataclass(frozen=True)
class Contrast:
    """A difference with its interval.

    level: the confidence of this interval alone, after Holm. degrees_of_freedom: those behind its width.
    p: of the permutation test of the same difference, where that is one of means on one task; otherwise nan.
    """

    value: float
    low: float
    high: float
    level: float
    degrees_of_freedom: float = math.inf
    p: float = math.nan


def holm(
    contrasts: Mapping[str, Resampled], level: float = LEVEL, hypotheses: int = 0
) -> dict[str, Contrast]:
    """Holm's step-down over several differences: a probability of at most 1 - level that any interval of a
    difference that is 0 leaves out 0.

    The smallest p-value is tested at (1 - level) / m, the next at (1 - level) / (m - 1), and so on; from the
    first whose interval contains 0 on, the rest keeps that one's width. Ties: the order of `contrasts`.
    m: the number of differences, or `hypotheses` where some that belong to them could not be computed.

    The tests hold together, the intervals do not: only the first one has Bonferroni's level, so that all of
    them contain their true values in fewer than `level` of all studies.
    """
    left = max(len(contrasts), hypotheses)
    p = {name: contrast.p() for name, contrast in contrasts.items()}
    result: dict[str, Contrast] = {}
    for name in sorted(contrasts, key=lambda name: p[name]):
        own = 1.0 - (1.0 - level) / left
        result[name] = contrast_of(contrasts[name], own)
        if result[name].low > 0 or result[name].high < 0:
            left -= 1
    return {name: result[name] for name in contrasts}


def contrast_of(resampled: Resampled, level: float) -> Contrast:
    """One number with its stretched interval."""
    low, high = resampled.interval(level)
    return Contrast(
        float(resampled.value), float(low), float(high), level, float(resampled.degrees_of_freedom)
    )


# --- comparisons without a bootstrap ----------------------------------------------------------------------


def permutation_p(ours: Array, theirs: Array) -> float:
    """Two-sided p-value of the difference of two means (n,), (m,) if the runs of both are alike.

    The share of all splits of the n + m runs into n and m whose difference is at least as far from 0; above
    SPLITS splits, of RANDOM_SPLITS random ones and the split seen.
    """
    n, m = len(ours), len(theirs)
    pooled = np.concatenate([ours, theirs])
    pooled = pooled - pooled.mean()
    seen = abs(pooled[:n].sum()) * (1 - 1e-9)  # a sum in another order rounds differently
    if math.comb(n + m, n) <= SPLITS:
        half = (
            n + m
        ) // 2  # a split takes k of this half and n - k of the other: no list of splits is needed
        first, second = _subset_sums(pooled[:half]), _subset_sums(pooled[half:])
        extreme = sum(
            np.count_nonzero(np.abs(first[k][:, None] + second[n - k]) >= seen)
            for k in range(max(0, n - len(second) + 1), min(n, half) + 1)
        )
        return float(extreme / math.comb(n + m, n))
    drawn = np.random.default_rng(0).permuted(np.tile(pooled, (RANDOM_SPLITS, 1)), axis=1)
    return float((1 + (np.abs(drawn[:, :n].sum(axis=1)) >= seen).sum()) / (1 + RANDOM_SPLITS))


def _subset_sums(values: Array) -> list[Array]:
    """The sums of all subsets of values (N,), by size: [(1,), (N,), ..., (1,)]."""
    sums = [np.zeros(1)]
    for value in values:
        larger = [found + value for found in sums]
        sums = [np.concatenate(pair) for pair in zip([*sums, np.empty(0)], [np.empty(0), *larger])]
    return sums


def mann_whitney_interval(share: Array, n: int, m: int, level: float = LEVEL) -> tuple[Array, Array]:
    """Newcombe's score interval of P(X > Y) from n and m runs (Statistics in Medicine 25, 2006, part 2, method 5).

    The bounds are the values p at which |share - p| is z times the standard error at p, whose square is
    p (1 - p) (1 + N (1 - p) / (2 - p) + N p / (1 + p)) / (n m) with N = (n + m) / 2 - 1. Where one side wins all
    pairs, where a bootstrap has no width, it still has one.
    """
    z = special.ndtri(0.5 + level / 2)
    N = (n + m) / 2 - 1

    def lower(share: Array) -> Array:
        below, above = np.zeros_like(share), np.asarray(share, np.float64)
        for _ in range(50):
            p = (below + above) / 2
            error = np.sqrt(p * (1 - p) * (1 + N * ((1 - p) / (2 - p) + p / (1 + p))) / (n * m))
            too_low = p + z * error < share
            below, above = np.where(too_low, p, below), np.where(too_low, above, p)
        return above

    share = np.asarray(share, np.float64)
    return lower(share), 1.0 - lower(1.0 - share)  # the standard error is the same at p and 1 - p


def improvement_interval(
    ours: Sequence[Array], theirs: Sequence[Array], level: float = LEVEL
) -> tuple[float, float]:
    """Interval of `probability_of_improvement`: Newcombe's of each task, combined by square and add
    (Zou and Donner, Statistics in Medicine 27, 2008): the distances from the value to its bounds add like errors.
    """
    pairs = list(zip(ours, theirs, strict=True))
    shares = np.array([probability_of_improvement([x], [y]) for x, y in pairs])
    low, high = np.empty(len(pairs)), np.empty(len(pairs))
    sizes = [(len(x), len(y)) for x, y in pairs]
    for n, m in dict.fromkeys(sizes):  # tasks of the same numbers of seeds at once
        at = [i for i, size in enumerate(sizes) if size == (n, m)]
        low[at], high[at] = mann_whitney_interval(shares[at], n, m, level)
    value = float(probability_of_improvement(ours, theirs))
    below, above = np.linalg.norm(shares - low), np.linalg.norm(high - shares)
    return value - float(below) / len(pairs), value + float(above) / len(pairs)


def difference_of_shares(
    k: int, n: int, k_other: int, n_other: int, level: float = LEVEL
) -> tuple[float, float]:
    """Newcombe's hybrid score interval of k/n - k_other/n_other (Statistics in Medicine 17, 1998, method 10).

    A bootstrap of shares that are all 0 or all 1 would give an interval of no width.
    """
    z = float(special.ndtri(0.5 + level / 2))
    p, low, high = _wilson(k, n, z)
    q, low_other, high_other = _wilson(k_other, n_other, z)
    return (
        p - q - float(np.hypot(p - low, high_other - q)),
        p - q + float(np.hypot(high - p, q - low_other)),
    )


def _wilson(k: int, n: int, z: float) -> tuple[float, float, float]:
    share = k / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return share, centre - half, centre + half
