"""What the runs of a study scored: estimates per cell of the grid and over all tasks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bench.analysis import stats
from bench.analysis.resampling import RESAMPLES, Array, Counts, Resampled, curve_resamples, resample
from bench.analysis.scores.results import LARGEST_RETURN, RANDOM, Cell, Results, shared_tasks
from bench.analysis.stats import Statistic, Tasks
from bench.analysis.style import named

FLOOR, CEILING = 0.05, 0.95  # of the largest return
FEWEST_TIES = 7  # seeds; below it a difference is too uncertain to call a tie
RLIABLE_RESAMPLES = 2000  # of P(X > Y), whose own interval needs no bootstrap
Scale = tuple[float, float]  # the lowest and the highest value that a number can have
EVERYTHING: Scale = (-np.inf, np.inf)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval over seeds; n: the smallest number of seeds behind it.

    rliable_low, rliable_high: the plain percentile interval of the bootstrap. p: of the permutation test, for a
    difference of means. All of these are nan for a single seed, which has no spread.
    """

    value: float
    low: float
    high: float
    n: int
    rliable_low: float = np.nan
    rliable_high: float = np.nan
    p: float = np.nan

    @classmethod
    def of(cls, found: Resampled, cells: Sequence[Cell], scale: Scale = EVERYTHING) -> Estimate:
        """The stretched interval, cut off where the `scale` of the number ends."""
        n = min(cell.n for cell in cells)
        if n == 1:
            return cls(float(found.value), np.nan, np.nan, n)
        low, high = np.clip(found.interval(), *scale)
        return cls(float(found.value), float(low), float(high), n, *map(float, found.percentile()))


@dataclass(frozen=True)
class TaskSet:
    """The tasks that an aggregate covers, what was left out, and why."""

    envs: tuple[str, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    # The share of the weight that the IQM leaves out at either end, the same for all labels
    cut: float = 0.25


def return_scale(*cells: Cell) -> Scale:
    """The returns that are possible on these cells' tasks.

    In DM Control 1000 rewards in [0, 1], except on its lqr tasks, whose rewards have no lower bound. The true mean lies
    in that range, so cutting an interval at its ends loses no coverage.
    """
    bounded = all(
        cell.scaled and cell.returns.min() >= 0 and cell.returns.max() <= LARGEST_RETURN for cell in cells
    )
    return (0.0, LARGEST_RETURN) if bounded else EVERYTHING


def mean_over_seeds(cell: Cell, per_seed: Array) -> Estimate:
    """Mean and interval of one number per seed, in units of return: (n,)."""
    found = stats.resampled(stats.mean, [per_seed], [cell.group], RESAMPLES)
    return Estimate.of(found, [cell], return_scale(cell))


def curve_band(cell: Cell) -> tuple[Array, Array]:
    """Low and high of the mean return at every evaluation, each (K,); nan for a single seed."""
    found = stats.resampled(stats.mean, [cell.returns.T], [cell.group], curve_resamples(len(cell.env_steps)))
    return _band(found, [cell], return_scale(cell))


def standard_deviation(per_seed: Array) -> float:
    """Spread over seeds (n - 1 in the denominator); nan for a single seed."""
    return float(per_seed.std(ddof=1)) if len(per_seed) > 1 else float("nan")


def best_labels(results: Results, env: str) -> set[str]:
    """The learner with the highest mean final return on a task.

    From FEWEST_TIES seeds on, also every learner whose difference to it has a 95% interval that contains 0.
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
    """Mean final return of one cell minus that of another, with the p-value of the permutation test."""
    groups = [ours.group, theirs.group]
    found = stats.resampled_difference(stats.mean, [ours.final], [theirs.final], groups, RESAMPLES)
    low, high = return_scale(ours, theirs)
    estimate = Estimate.of(found, [ours, theirs], (low - high, high - low))
    return replace(estimate, p=stats.permutation_p(ours.final, theirs.final)) if estimate.n > 1 else estimate


# --- over all tasks ---------------------------------------------------------------------------------------


def common_tasks(results: Results, *, without_extremes: bool = False, any_scale: bool = False) -> TaskSet:
    """The tasks with a common scale (`Results.bounds`) on which every aggregated algorithm has scores (`shared_tasks`).

    `without_extremes` leaves out the tasks at floor or ceiling too. `any_scale`: also tasks without a
    common scale, for what compares runs of one task only.
    """
    tasks = [env for env in results.envs if any_scale or env in results.bounds]
    covered = {label: [env for env in tasks if results.cell(env, label)] for label in results.labels}
    labels, shared = shared_tasks(covered, tasks)
    envs = list(shared)
    notes = []
    for label in results.labels:
        if tasks and label not in labels:
            lacks = ", ".join(env for env in tasks if env not in covered[label])
            notes.append(f"{named(results, label)} is left out of the aggregates: no scores on {lacks}.")
    dropped = sorted(set(tasks) - set(envs))
    if dropped:
        notes.append(f"Left out of the aggregates, not yet scored for all algorithms: {', '.join(dropped)}.")
    others = sorted(set(results.envs) - set(tasks))
    if others and tasks:
        notes.append(
            f"Aggregates are without {', '.join(others)}: no bounds between which to normalise (NORMALISE)."
        )
    notes += () if any_scale else results.scale_notes
    if without_extremes:
        flagged = extreme_tasks(results)
        envs = [env for env in envs if env not in flagged]
    if not envs or not labels:
        return TaskSet(tuple(envs), (), tuple(notes))
    sizes = {results.cells[env, label].n for env in envs for label in labels}
    if len(sizes) > 1:
        notes.append(
            "Seeds differ between tasks or algorithms: each run weighs 1/n of its task, and the IQM leaves out a "
            "quarter of the weight at either end."
        )
    return TaskSet(tuple(envs), labels, tuple(notes), stats.trimmed_share(sizes, len(envs)))


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


def statistics(cut: float) -> dict[str, Statistic]:
    """The aggregates over tasks by name; cut: as in TaskSet."""
    return {
        "IQM": functools.partial(stats.iqm, cut=cut),
        "Median": stats.median,
        "Mean": stats.mean,
        "Optimality gap": stats.optimality_gap,
    }


def aggregate(cells: Sequence[Cell], statistic: Statistic) -> Estimate:
    """A statistic of the normalised final return over tasks and seeds."""
    tasks = [cell.scores(cell.final) for cell in cells]
    found = stats.resampled(statistic, tasks, [cell.group for cell in cells], RESAMPLES)
    return Estimate.of(found, cells, _unit_scale(cells))


def aggregate_curve(cells: Sequence[Cell], cut: float) -> tuple[Array, Array, Array]:
    """IQM of normalised return at every evaluation: value, low, high, each (K,). cut: as in TaskSet."""
    tasks = [cell.scores(cell.returns.T) for cell in cells]
    iqm = functools.partial(stats.iqm, cut=cut)
    draws = curve_resamples(len(cells[0].env_steps))
    found = stats.resampled(iqm, tasks, [cell.group for cell in cells], draws)
    return found.value, *_band(found, cells, _unit_scale(cells))


def iqm_of(cells: Sequence[Cell], index: int, cut: float) -> Estimate:
    """IQM of normalised return at one evaluation. cut: as in TaskSet."""
    tasks = [cell.scores(cell.returns[:, index]) for cell in cells]
    found = stats.resampled(
        functools.partial(stats.iqm, cut=cut), tasks, [cell.group for cell in cells], RESAMPLES
    )
    return Estimate.of(found, cells, _unit_scale(cells))


def profile(cells: Sequence[Cell], thresholds: Array) -> tuple[Array, Array, Array]:
    """Performance profile of normalised final return: value, low, high, each (number of thresholds,)."""

    def statistic(tasks: Tasks, counts: Sequence[Counts] | None) -> Array:
        return stats.performance_profile(tasks, thresholds, counts)

    tasks = [cell.scores(cell.final) for cell in cells]
    draws = curve_resamples(len(thresholds))
    found = stats.resampled(statistic, tasks, [cell.group for cell in cells], draws)
    return found.value, *_band(found, cells, (0.0, 1.0))


def _unit_scale(cells: Sequence[Cell]) -> Scale:
    low, high = return_scale(*cells)
    return (
        min(float(cell.scores(np.array(low))) for cell in cells),
        max(float(cell.scores(np.array(high))) for cell in cells),
    )


def _band(found: Resampled, cells: Sequence[Cell], scale: Scale) -> tuple[Array, Array]:
    """Low and high around a curve, all nan where a task has a single seed."""
    if min(cell.n for cell in cells) == 1:
        return np.full_like(found.value, np.nan), np.full_like(found.value, np.nan)
    low, high = np.clip(found.interval(), *scale)
    return low, high


def improvement(ours: Sequence[Cell], theirs: Sequence[Cell]) -> Estimate:
    """Probability that a run of ours scores higher than one of theirs on the same task, averaged over tasks,
    with the interval of `stats.improvement_interval`.
    """
    x, y = [cell.final for cell in ours], [cell.final for cell in theirs]
    value, n = float(stats.probability_of_improvement(x, y)), min(cell.n for cell in [*ours, *theirs])
    low, high = stats.improvement_interval(x, y) if n > 1 else (np.nan, np.nan)
    return Estimate(value, low, high, n)


def bootstrapped_improvement(ours: Sequence[Cell], theirs: Sequence[Cell]) -> Estimate:
    """`improvement` with rliable's bounds too."""
    estimate = improvement(ours, theirs)
    if estimate.n == 1:
        return estimate
    resamples = resample([cell.group for cell in [*ours, *theirs]], RLIABLE_RESAMPLES)
    counts, their_counts = resamples.counts[: len(ours)], resamples.counts[len(ours) :]
    x, y = [cell.final for cell in ours], [cell.final for cell in theirs]
    samples = stats.probability_of_improvement(x, y, counts, their_counts)
    low, high = Resampled(np.array(estimate.value), samples, resamples).percentile()
    return replace(estimate, rliable_low=float(low), rliable_high=float(high))


def compared_labels(results: Results, labels: Sequence[str]) -> list[str]:
    """Those of `labels` that are compared: the learners, and the random policy where it was asked for."""
    chosen = (results.choice.subject, *results.choice.baselines)
    return [label for label in labels if label in results.learners or label in chosen]


def pairs(results: Results, labels: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of these learners that are compared: the subject with every other or every baseline.

    Without a subject each learner with every baseline; without either the first learner with every other.
    """
    chosen = results.choice
    baselines = [label for label in chosen.baselines if label in labels]
    if chosen.subject or not chosen.baselines:
        subjects = [
            label for label in ([chosen.subject] if chosen.subject else labels[:1]) if label in labels
        ]
        others = baselines if chosen.baselines else labels
    else:
        subjects, others = [label for label in labels if label not in baselines], baselines
    return [(ours, theirs) for ours in subjects for theirs in others if ours != theirs]


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
