"""What the runs of a study scored: estimates per cell of the grid and over all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.analysis import stats
from bench.analysis.scores.results import LARGEST_RETURN, RANDOM, Cell, Results
from bench.analysis.stats import Array, Statistic

FLOOR, CEILING = 0.05, 0.95  # of the largest return
CURVE_RESAMPLES = 1000  # the first of a cell's, for a band that is looked at, not read off
FEWEST_TIES = 7  # seeds; below it a difference is too uncertain to call a tie
STATISTICS: dict[str, Statistic] = {
    "IQM": stats.iqm,
    "Median": stats.median,
    "Mean": stats.mean,
    "Optimality gap": stats.optimality_gap,
}


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% bootstrap interval over seeds; n: the smallest number of seeds behind it.

    A single seed says nothing about its spread: low and high are nan then.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, value: float, samples: Array, cells: Sequence[Cell]) -> Estimate:
        """From the value itself and its resamples (B,)."""
        n = min(cell.n for cell in cells)
        low, high = stats.interval(samples) if n > 1 else (float("nan"), float("nan"))
        return cls(float(value), float(low), float(high), n)


@dataclass(frozen=True)
class TaskSet:
    """The tasks that an aggregate covers, what was left out, and why."""

    envs: tuple[str, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())


def mean_over_seeds(cell: Cell, per_seed: Array) -> Estimate:
    """Mean and interval of one number per seed: (n,)."""
    return Estimate.of(per_seed.mean(), stats.bootstrap_means(per_seed, cell.counts), [cell])


def standard_deviation(per_seed: Array) -> float:
    """Spread over seeds (n - 1 in the denominator); nan for a single seed."""
    return float(per_seed.std(ddof=1)) if len(per_seed) > 1 else float("nan")


def best_labels(results: Results, env: str) -> set[str]:
    """The learner with the highest mean final return on a task.

    From FEWEST_TIES seeds on also those whose difference to it has an interval (95%) that contains 0.
    """
    cells = [cell for label in results.learners if (cell := results.cell(env, label))]
    if len(cells) < 2:
        return set()
    top = max(cells, key=lambda cell: float(cell.final.mean()))
    best = {top.label}
    for cell in cells:
        if cell is not top and min(cell.n, top.n) >= FEWEST_TIES:
            apart = difference(top, cell)
            if apart.low <= 0 <= apart.high:
                best.add(cell.label)
    return best


def difference(ours: Cell, theirs: Cell) -> Estimate:
    """Mean final return of one cell minus that of another."""
    sides = [stats.bootstrap_means(side.final, side.counts) for side in (ours, theirs)]
    return Estimate.of(ours.final.mean() - theirs.final.mean(), sides[0] - sides[1], [ours, theirs])


# --- over all tasks ---------------------------------------------------------------------------------------


def common_tasks(results: Results, *, without_extremes: bool = False) -> TaskSet:
    """The DM Control tasks on which every aggregated algorithm has scores.

    An algorithm with scores on fewer than half of the study's tasks is left out; so is a task that one of the
    others lacks. `without_extremes` leaves out the tasks at floor or ceiling too.
    """
    tasks = results.control_envs
    covered = {label: [env for env in tasks if results.cell(env, label)] for label in results.labels}
    labels = tuple(
        label for label in results.labels if covered[label] and 2 * len(covered[label]) >= len(tasks)
    )
    notes = [
        f"{label} is left out of the aggregates: scores on {len(covered[label])} of {len(tasks)} tasks."
        for label in results.labels
        if tasks and label not in labels
    ]
    envs = [env for env in tasks if all(env in covered[label] for label in labels)]
    dropped = sorted(set(tasks) - set(envs))
    if dropped:
        notes.append(f"Left out of the aggregates, not yet scored for all algorithms: {', '.join(dropped)}.")
    others = sorted(set(results.envs) - set(tasks))
    if others:
        notes.append(
            f"Aggregates are over DM Control tasks alone (returns / 1000), without {', '.join(others)}."
        )
    if without_extremes:
        flagged = extreme_tasks(results)
        envs = [env for env in envs if env not in flagged]
    return TaskSet(tuple(envs), labels if envs else (), tuple(notes))


def extreme_tasks(results: Results) -> dict[str, str]:
    """Tasks that cannot tell the algorithms apart: {task: "floor" or "ceiling"}.

    Floor: no algorithm's mean final return / 1000 is above 0.05, or 0.05 above the random policy's where the
    study has one. Ceiling: every algorithm's is at least 0.95.
    """
    flagged = {}
    for env in results.control_envs:
        means = {
            label: float(cell.final.mean()) / LARGEST_RETURN
            for label in results.labels
            if (cell := results.cell(env, label))
        }
        random = max((means[label] for label in means if results.algos[label] == RANDOM), default=0.0)
        learned = [means[label] for label in means if results.algos[label] != RANDOM]
        if learned and max(learned) <= random + FLOOR:
            flagged[env] = "floor"
        elif learned and min(learned) >= CEILING:
            flagged[env] = "ceiling"
    return flagged


def cells_of(results: Results, label: str, envs: Sequence[str]) -> list[Cell]:
    """The label's cells on these tasks, all of which it has."""
    return [results.cells[env, label] for env in envs]


def aggregate(cells: Sequence[Cell], statistic: Statistic) -> Estimate:
    """A statistic of final return / 1000 over tasks and seeds."""
    tasks = [cell.final / LARGEST_RETURN for cell in cells]
    samples = stats.bootstrap(tasks, statistic, [cell.draws() for cell in cells])
    return Estimate.of(float(statistic(tasks)), samples, cells)


def aggregate_curve(cells: Sequence[Cell]) -> tuple[Array, Array, Array]:
    """IQM of return / 1000 at every evaluation: value, low, high, each (K,)."""
    tasks = [cell.returns.T / LARGEST_RETURN for cell in cells]
    samples = stats.bootstrap_iqm(tasks, [cell.counts[:CURVE_RESAMPLES] for cell in cells])
    value = stats.iqm(tasks)
    return value, *_band(value, samples.T, cells)


def profile(cells: Sequence[Cell], thresholds: Array) -> tuple[Array, Array, Array]:
    """Performance profile of final return / 1000: value, low, high, each (number of thresholds,)."""
    tasks = [cell.final / LARGEST_RETURN for cell in cells]

    def statistic(resampled: stats.Tasks) -> Array:
        return stats.performance_profile(resampled, thresholds)

    share = statistic(tasks)
    return share, *_band(share, stats.bootstrap(tasks, statistic, [cell.draws() for cell in cells]), cells)


def _band(value: Array, samples: Array, cells: Sequence[Cell]) -> tuple[Array, Array]:
    """Low and high around a curve, all nan where a task has a single seed."""
    if min(cell.n for cell in cells) > 1:
        return stats.interval(samples)
    return np.full_like(value, np.nan), np.full_like(value, np.nan)


def improvement(ours: Sequence[Cell], theirs: Sequence[Cell]) -> Estimate:
    """Probability that a run of ours scores higher than one of theirs on the same task, averaged over
    tasks.
    """
    x, y = [cell.final for cell in ours], [cell.final for cell in theirs]
    samples = stats.bootstrap_improvement(
        x, y, [cell.counts for cell in ours], [cell.counts for cell in theirs]
    )
    return Estimate.of(stats.probability_of_improvement(x, y), samples, [*ours, *theirs])


def steps_to_best(results: Results, env: str, share: float = 0.9) -> tuple[float, dict[str, Array]]:
    """Steps of each seed to `share` of the task's best mean final return: the threshold, {label: (n,)}.

    The distance is counted from 0, or from the random policy where returns can be negative (not DM Control).
    Infinity where a seed never gets there.
    """
    cells = [cell for label in results.learners if (cell := results.cell(env, label))]
    best = max((float(cell.final.mean()) for cell in cells), default=float("nan"))
    threshold = share * best
    if env not in results.control_envs:
        lowest = min((float(cell.returns.min()) for cell in cells), default=float("nan"))
        threshold = lowest + share * (best - lowest)
    return threshold, {
        cell.label: stats.steps_to_threshold(cell.env_steps, cell.returns, threshold) for cell in cells
    }
