"""Statistics over seeds (Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
Precipice", NeurIPS 2021).

The seed is the unit. Scores of one algorithm are a list over tasks of arrays whose last axis is the seeds
of that task, so tasks may have different numbers of seeds: "tasks" below is [(..., n_1), (..., n_2), ...].
Leading axes are carried along: the resamples of a bootstrap, or the evaluations of a learning curve.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

Array = NDArray[np.float64]
Tasks = Sequence[Array]
Statistic = Callable[[Tasks], Array]

RESAMPLES = 2000
LEVEL = 0.95
FEW_SEEDS = 10  # below it intervals cover clearly less than they say:
COVERAGE = {2: (50, 70), 3: (75, 85), 5: (84, 89)}  # seeds -> %, of one task's mean, and over several tasks
CHUNK = 4_000_000  # numbers held at once while resampling
CACHED = 128  # resamples worked on at once, so that they stay in the processor's cache


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


def iqm(tasks: Tasks) -> Array:
    """Interquartile mean: of the runs of all tasks together, without the lowest and the highest quarter."""
    scores = np.sort(np.concatenate(tasks, axis=-1), axis=-1)
    cut = scores.shape[-1] // 4
    return scores[..., cut : scores.shape[-1] - cut].mean(axis=-1)


def mean(tasks: Tasks) -> Array:
    """Mean over tasks of the mean over seeds."""
    return np.mean([scores.mean(axis=-1) for scores in tasks], axis=0)


def median(tasks: Tasks) -> Array:
    """Median over tasks of the mean over seeds."""
    return np.median([scores.mean(axis=-1) for scores in tasks], axis=0)


def optimality_gap(tasks: Tasks) -> Array:
    """How far the scores stay below 1, the highest score a task allows; more than 1 counts as 1."""
    return 1.0 - mean([np.minimum(scores, 1.0) for scores in tasks])


def performance_profile(tasks: Tasks, thresholds: Array) -> Array:
    """Share of the runs of all tasks above each threshold: (..., number of thresholds)."""
    scores = np.sort(np.concatenate(tasks, axis=-1), axis=-1)
    rows = scores.reshape(-1, scores.shape[-1])
    below = np.stack([np.searchsorted(row, thresholds, side="right") for row in rows])
    return (1.0 - below / scores.shape[-1]).reshape(*scores.shape[:-1], len(thresholds))


def probability_of_improvement(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    """P(a run of ours scores higher than a run of theirs on the same task), ties half, averaged over tasks.

    The Mann-Whitney U statistic over n m, for each task. ours, theirs: the same tasks in the same order.
    """
    return float(np.mean([_wins(x, y).mean() for x, y in zip(ours, theirs, strict=True)]))


def _wins(x: Array, y: Array) -> Array:
    return np.heaviside(x[:, None] - y[None, :], 0.5)


# --- the bootstrap ----------------------------------------------------------------------------------------


def draws(n: int, *key: str, resamples: int = RESAMPLES) -> NDArray[np.int32]:
    """Seeds drawn with replacement: (resamples, n) indices below n.

    They depend on the key alone (task and algorithm), so that every measure and every checkpoint of a cell
    sees the same resampled seeds, and no cell's interval changes when another cell is added.
    """
    rng = np.random.default_rng([zlib.crc32(part.encode()) for part in key])
    return rng.integers(0, n, size=(resamples, n), dtype=np.int32)


def bootstrap(tasks: Tasks, statistic: Statistic, drawn: Sequence[NDArray[np.int32]]) -> Array:
    """The statistic on every resample, stratified by task: [(n_t,)], drawn [(B, n_t)] -> (B, ...)."""
    size = max(1, CHUNK // sum(scores.shape[-1] for scores in tasks))
    chunks = [
        statistic([scores[rows[start : start + size]] for scores, rows in zip(tasks, drawn, strict=True)])
        for start in range(0, len(drawn[0]), size)
    ]
    return np.concatenate(chunks)


def counts_of(drawn: NDArray[np.int32]) -> NDArray[np.int16]:
    """How often each seed is in each resample: (B, n) -> (B, n)."""
    resamples, n = drawn.shape
    flat = drawn + n * np.arange(resamples, dtype=np.int64)[:, None]
    return np.bincount(flat.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.int16)


def bootstrap_iqm(tasks: Tasks, counts: Sequence[NDArray[np.int16]]) -> Array:
    """`bootstrap` of the IQM at many checkpoints, the same resamples at each: [(K, n_t)], [(B, n_t)] ->
    (K, B).

    With the runs in order of their score, the running sum of their counts in a resample says which of them
    lie between the quartiles, without sorting any resample.
    """
    held = np.concatenate([count.T for count in counts])  # (runs, B)
    scores = np.concatenate(tasks, axis=-1)
    runs, resamples = held.shape
    cut = runs // 4
    order = np.argsort(scores, axis=-1)
    # the sum of score x count, by parts: the steps between neighbouring scores x the running counts
    steps = -np.diff(np.take_along_axis(scores, order, axis=-1), append=0.0) / (runs - 2 * cut)
    result = np.empty((len(scores), resamples))
    for block in range(0, resamples, CACHED):
        width = min(CACHED, resamples - block)
        columns = np.zeros((runs, -(-width // 4) * 4), np.int16)
        columns[:, :width] = held[:, block : block + width]
        for k in range(len(scores)):
            # four sums of 16 bits in one of 64: none is negative or carries over, as int16 holds `runs`
            up_to = np.cumsum(columns[order[k]].view(np.int64), axis=0).view(np.int16)
            kept = np.clip(up_to, cut, runs - cut, out=up_to) - cut  # runs between the quartiles, up to here
            result[k, block : block + width] = (steps[k] @ kept.astype(np.float64))[:width]
    return result


def bootstrap_means(curves: Array, counts: NDArray[np.int16]) -> Array:
    """Means over resampled seeds of whole curves: (n, ...), (B, n) -> (B, ...)."""
    return counts.astype(np.float64) @ curves / len(curves)


def bootstrap_improvement(
    ours: Sequence[Array],
    theirs: Sequence[Array],
    counts: Sequence[NDArray[np.int16]],
    their_counts: Sequence[NDArray[np.int16]],
) -> Array:
    """`probability_of_improvement` on every resample of both sides: (B,)."""
    tasks = []
    for x, y, held, their_held in zip(ours, theirs, counts, their_counts, strict=True):
        won = bootstrap_means(_wins(x, y), held)  # (B, m): against each run of theirs
        tasks.append((won * their_held).sum(axis=1) / len(y))
    return np.mean(tasks, axis=0)


def interval(samples: Array, level: float = LEVEL) -> tuple[Array, Array]:
    """Percentile interval over the first axis: (B, ...) -> low (...), high (...)."""
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(samples, [tail, 100.0 - tail], axis=0)
    return low, high


@dataclass(frozen=True)
class Contrast:
    """A difference with its interval. `level`: the confidence of this interval alone, after Holm."""

    value: float
    low: float
    high: float
    level: float


def holm(
    values: Mapping[str, float], samples: Mapping[str, Array], level: float = LEVEL, hypotheses: int = 0
) -> dict[str, Contrast]:
    """Intervals of several differences that hold together at `level`: Holm's step-down by bootstrap p-value.

    The smallest p-value is tested at (1 - level) / m, the next at (1 - level) / (m - 1), and so on; from the
    first whose interval contains 0 on, the rest keeps that one's width. Ties: the order of `values`.
    m: the number of differences, or `hypotheses` where some that belong to them could not be computed.
    """
    p = {name: two_sided_p(samples[name]) for name in values}
    left = max(len(values), hypotheses)
    result: dict[str, Contrast] = {}
    for name in sorted(values, key=lambda name: p[name]):
        own = 1.0 - (1.0 - level) / left
        low, high = (float(bound) for bound in interval(samples[name], own))
        result[name] = Contrast(values[name], low, high, own)
        if low > 0 or high < 0:
            left -= 1
    return {name: result[name] for name in values}


def two_sided_p(samples: Array) -> float:
    """Twice the share of resampled differences on the far side of 0, at least 1 / (B + 1)."""
    far_side = min((samples <= 0).sum(), (samples >= 0).sum())
    return float(min(1.0, 2.0 * (far_side + 1) / (len(samples) + 1)))


def difference_of_shares(
    k: int, n: int, k_other: int, n_other: int, level: float = LEVEL
) -> tuple[float, float]:
    """Newcombe's hybrid score interval of k/n - k_other/n_other (Statistics in Medicine 17, 1998, method 10).

    A bootstrap of shares that are all 0 or all 1 would give an interval of no width.
    """
    z = float(distributions.norm.ppf(0.5 + level / 2))
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
