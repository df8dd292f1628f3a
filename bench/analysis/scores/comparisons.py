"""The tables that need more than one cell of the grid: aggregates over tasks, comparisons, final policies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.analysis.coverage import FEW_SEEDS_ONLY, mark
from bench.analysis.scores.estimates import (
    TaskSet,
    aggregate,
    bootstrapped_improvement,
    cells_of,
    common_tasks,
    compared_labels,
    difference,
    extreme_tasks,
    pairs,
    standard_deviation,
    statistics,
    steps_to_best,
)
from bench.analysis.scores.results import FinalMode, Results
from bench.analysis.scores.tables import common_notes, count, p_value, record_of, seeds_entry, task_name
from bench.analysis.style import named
from bench.analysis.table import MISSING, Entry, Table, number, within


def aggregates(results: Results) -> list[Table]:
    """IQM, median, mean and optimality gap over tasks, with and without those at floor or ceiling."""
    every, apart = common_tasks(results), common_tasks(results, without_extremes=True)
    if every.labels and not apart.envs:
        every = replace(every, notes=(*every.notes, "Without tasks at floor or ceiling none is left."))
    tables = [_aggregates(results, every, "aggregates", "Aggregates over all tasks")]
    if extreme_tasks(results):
        title = "Aggregates without tasks at floor or ceiling"
        tables.append(_aggregates(results, apart, "aggregates_without_extremes", title))
    return tables


def _aggregates(results: Results, tasks: TaskSet, name: str, title: str) -> Table:
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for label in tasks.labels:
        cells = cells_of(results, label, tasks.envs)
        row: list[Entry] = [named(results, label)]
        row.append(seeds_entry(min(cell.n for cell in cells), len(cells)))
        for measure, statistic in statistics(tasks.cut).items():
            estimate = aggregate(cells, statistic)
            row.append(number(estimate.value, 3, detail=within(estimate.low, estimate.high, 3)))
            record = {"label": label, "algo": results.algos[label], "statistic": measure}
            records.append({**record, **record_of(estimate), "tasks": " ".join(tasks.envs)})
        rows.append(row)
    notes = [
        f"Final {results.score_name} over {len(tasks.envs)} tasks: {', '.join(tasks.envs)}. "
        "n: seeds of the task with the fewest. "
        "Brackets: 95% intervals over seeds, resampled within tasks.",
        *tasks.notes,
        *common_notes(results, len(tasks.envs)),
    ]
    return Table(name, title, ["Algorithm", "n", *statistics(tasks.cut)], rows, records, notes)


def improvements(results: Results) -> Table:
    """For every ordered pair of learners: how likely a run of the first beats one of the second."""
    tasks = common_tasks(results, any_scale=True)
    labels = compared_labels(results, tasks.labels)
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for ours in labels:
        fewest = min(cell.n for cell in cells_of(results, ours, tasks.envs))
        row: list[Entry] = [named(results, ours), seeds_entry(fewest, len(tasks.envs))]
        for theirs in labels:
            if ours == theirs:
                row.append(MISSING)
                continue
            pair = [cells_of(results, label, tasks.envs) for label in (ours, theirs)]
            estimate = bootstrapped_improvement(*pair)
            row.append(number(estimate.value, 2, detail=within(estimate.low, estimate.high, 2)))
            records.append({"label": ours, "over": theirs, **record_of(estimate)})
        rows.append(row)
    columns = ["P(row > column)", "n", *(named(results, label) for label in labels)]
    notes = [
        "Probability that the final return of a run of the row's algorithm is higher than one of the "
        "column's on the same task, ties half, averaged over tasks. Brackets: 95% intervals (Newcombe's method 5 for "
        "each task, combined by square and add). n: seeds of the task with the fewest.",
        *tasks.notes,
        *common_notes(results, len(tasks.envs)),
    ]
    return Table(
        "improvement", "Probability of improvement", columns, rows if len(labels) > 1 else [], records, notes
    )


def steps_to_90(results: Results) -> Table:
    """Environment steps to 90% of the best mean final return of the task in this study."""
    flagged = extreme_tasks(results)
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for env in results.envs:
        threshold, steps = steps_to_best(results, env)
        if not steps or np.isnan(threshold):
            continue
        row: list[Entry] = [task_name(env, flagged), number(threshold)]
        for label in results.learners:
            per_seed = steps.get(label)
            if per_seed is None:
                row.append(MISSING)
                continue
            reached = int(np.isfinite(per_seed).sum())
            middle = float(np.sort(per_seed)[(len(per_seed) - 1) // 2])
            row.append(number(middle, detail=f"{reached} of {len(per_seed)}{mark(len(per_seed))}"))
            record: dict[str, object] = {"env": env, "threshold": threshold, "label": label}
            records.append({**record, "median_env_steps": middle, "reached": reached, "n": len(per_seed)})
        rows.append(row)
    columns = ["Task", "Threshold", *(named(results, x) for x in results.learners)]
    notes = [
        "Environment steps at the first evaluation at or above the threshold, 90% of the best algorithm's "
        "mean final return (outside DM Control: of its distance from the lowest evaluation). "
        "Lower median over seeds, with how many seeds got there; ∞: fewer than half did.",
        *common_notes(results),
    ]
    return Table("steps_to_90", "Steps to 90% of the best", columns, rows, records, notes)


def final_policies(results: Results) -> Table:
    """The final policies under every evaluation mode."""
    modes: list[FinalMode] = sorted(
        {mode for score in results.runs for mode in score.finals},
        key=lambda m: (m[1], m[0] != "sample", m[0]),
    )
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for (env, label), cell in results.cells.items():
        row: list[Entry] = [env, named(results, label)]
        for mode in modes:
            per_seed = np.array([score.finals[mode] for score in cell.runs if mode in score.finals])
            if not len(per_seed):
                row.append(MISSING)
                continue
            spread = standard_deviation(per_seed)
            detail = "" if np.isnan(spread) else f"± {spread:,.0f} "
            row.append(number(float(per_seed.mean()), detail=detail + count(len(per_seed))))
            record = {"env": env, "label": label, "mode": mode[0], "candidates": mode[1]}
            records.append({**record, "mean": float(per_seed.mean()), "sd": spread, "n": len(per_seed)})
        if len(row) > 2 and any(entry != MISSING for entry in row[2:]):
            rows.append(row)
    notes = [
        "Mean return of the final policy ± standard deviation over seeds. "
        "Sample: an action drawn from the policy; greedy: its mean, or the denoising chain without "
        "added noise; best of k: of k samples, the one with the highest Q.",
        "Runs that diverged have no final policy and are not in this table.",
        *([FEW_SEEDS_ONLY] if any(mark(cell.n) for cell in results.cells.values()) else []),
    ]
    columns = ["Task", "Algorithm", *(_mode_name(mode) for mode in modes)]
    return Table("final_policies", "Final policies by evaluation mode", columns, rows, records, notes)


def _mode_name(mode: FinalMode) -> str:
    return mode[0].capitalize() if mode[1] == 1 else f"Best of {mode[1]} ({mode[0]})"


def by_task(results: Results) -> Table:
    """Difference of mean final return on each task, for the pairs of `estimates.pairs`. Descriptive."""
    compared = pairs(results, compared_labels(results, results.labels))
    flagged = extreme_tasks(results)
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for env in results.envs:
        row: list[Entry] = [task_name(env, flagged)]
        for ours, theirs in compared:
            cell, other = results.cell(env, ours), results.cell(env, theirs)
            if cell is None or other is None:
                row.append(MISSING)
                continue
            estimate = difference(cell, other)
            detail = f"{within(estimate.low, estimate.high)} {p_value(estimate.p)} {count(estimate.n)}"
            row.append(number(estimate.value, detail=" ".join(detail.split())))
            record = {"env": env, "label": ours, "minus": theirs, **record_of(estimate)}
            records.append({**record, "permutation_p": estimate.p})
        if any(entry != MISSING for entry in row[1:]):
            rows.append(row)
    columns = ["Task", *(f"{named(results, ours)} − {named(results, theirs)}" for ours, theirs in compared)]
    notes = [
        "Difference of mean final returns with 95% intervals over seeds and the p-value of a two-sided permutation "
        "test (exact up to 10 against 10 seeds), neither corrected for their number: descriptive, they decide no "
        "claim.",
        *common_notes(results),
    ]
    return Table("differences_by_task", "Differences by task", columns, rows, records, notes)
