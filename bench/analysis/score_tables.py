"""The tables of a study's scores."""

from __future__ import annotations

import textwrap

import numpy as np

from bench.analysis import stats
from bench.analysis.load import FinalMode, Results
from bench.analysis.scores import (
    FEWEST_TIES,
    STATISTICS,
    Estimate,
    TaskSet,
    aggregate,
    best_labels,
    cells_of,
    common_tasks,
    extreme_tasks,
    improvement,
    mean_over_seeds,
    standard_deviation,
    steps_to_best,
)
from bench.analysis.style import display_name
from bench.analysis.tables import MISSING, Entry, Table, number, to_terminal, within

INTERVALS = "Brackets: 95% bootstrap intervals over seeds."
FEW = (
    f"† Fewer than {stats.FEW_SEEDS} seeds: the interval covers less than it says "
    "(3 seeds about 85%, 5 about 90%)."
)


def count(n: int) -> str:
    """The number of seeds as shown everywhere: "n = 5†"."""
    return f"n = {n}" + ("†" if n < stats.FEW_SEEDS else "")


def _seeds(n: int) -> Entry:
    return number(n, detail="†" if n < stats.FEW_SEEDS else "")


def all_tables(results: Results) -> list[Table]:
    """Every table that this study has data for."""
    tables = [final_return(results), scores(results), *aggregates(results), improvements(results)]
    tables += [steps_to_90(results), final_policies(results)]
    return [table for table in tables if table is not None and table.rows]


def final_return(results: Results) -> Table:
    """Task x algorithm: mean final return."""
    labels = [label for label in results.labels if any(results.cell(env, label) for env in results.envs)]
    flagged = extreme_tasks(results)
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for env in results.envs:
        best = best_labels(results, env)
        row: list[Entry] = [f"{env} ({flagged[env]})" if env in flagged else env]
        for label in labels:
            cell = results.cell(env, label)
            if cell is None:
                row.append(MISSING)
                continue
            estimate = mean_over_seeds(cell, cell.final)
            detail = f"{within(estimate.low, estimate.high)} {count(cell.n)}"
            row.append(number(estimate.value, detail=detail, bold=label in best))
            records.append(
                {"env": env, "label": label, "algo": cell.algo, **_record(estimate), "best": label in best}
            )
        if len(row) > 1:
            rows.append(row)
    names = [display_name(label, results.algos[label]) for label in labels]
    notes = [
        "Mean over seeds of the final return: the mean of the last tenth of a run's evaluations. "
        + INTERVALS,
        f"Bold: the highest mean, and with at least {FEWEST_TIES} seeds those not told apart from it.",
        *_common_notes(results),
    ]
    return Table("final_return", "Final return", ["Task", *names], rows, records, notes)


def summary(results: Results) -> str:
    """The scores for a terminal 80 columns wide: a Markdown table and what must be known to read it."""
    rows: list[list[Entry]] = []
    for (env, label), cell in results.cells.items():
        final = mean_over_seeds(cell, cell.final)
        row: list[Entry] = [env, display_name(label, cell.algo), _seeds(cell.n)]
        row.append(number(final.value, detail=within(final.low, final.high)))
        row += [number(standard_deviation(cell.final)), number(cell.area.mean()), number(cell.best.mean())]
        rows.append(row)
    columns = ("Task", "Algorithm", "n", "Final [95%]", "SD", "AUC", "Best*")
    notes = [
        "Final: mean of the last tenth of the evaluations, mean over n seeds, 95% bootstrap interval. "
        "SD: over seeds. AUC: mean return over training. Best*: the highest evaluation, biased upwards.",
        *_common_notes(results),
    ]
    steps = results.settings.get("steps", "?")
    head = f"{results.study}: returns in {steps} environment steps"
    body = to_terminal(Table("scores", head, columns, rows, ())) if rows else "No run has been scored yet.\n"
    lines = [line for note in notes for line in textwrap.wrap(note, 80)]
    return "\n".join([*textwrap.wrap(head, 80), "", body, *lines, ""])


def scores(results: Results) -> Table:
    """One row per cell: final return, area under the curve and best side by side, with n and spread."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for env in results.envs:
        for label in results.labels:
            cell = results.cell(env, label)
            if cell is None:
                continue
            final, area, best = (
                mean_over_seeds(cell, per_seed) for per_seed in (cell.final, cell.area, cell.best)
            )
            spread = standard_deviation(cell.final)
            rows.append(
                [
                    env,
                    display_name(label, cell.algo),
                    _seeds(cell.n),
                    number(final.value, detail=within(final.low, final.high)),
                    number(spread),
                    number(area.value, detail=within(area.low, area.high)),
                    number(best.value),
                    number(cell.diverged),
                    number(cell.expected - cell.n),
                ]
            )
            record: dict[str, object] = {"env": env, "label": label, "algo": cell.algo, "n": cell.n}
            for measure, estimate in (("final", final), ("area", area), ("best_biased", best)):
                record |= {
                    measure: estimate.value,
                    f"{measure}_low": estimate.low,
                    f"{measure}_high": estimate.high,
                }
            record |= {"final_sd": spread, "diverged": cell.diverged, "unscored": cell.expected - cell.n}
            records.append(record)
    columns = ["Task", "Algorithm", "n", "Final return", "SD", "Area under curve", "Best (biased)"]
    notes = [
        "Means over seeds. " + INTERVALS + " SD: standard deviation of the final return over seeds.",
        "Area under curve: mean return over training. "
        "Best: the highest evaluation, biased upwards by its noise.",
        *_common_notes(results),
    ]
    columns += ["Diverged", "Unscored"]
    return Table("scores", "Scores by task and algorithm", columns, rows, records, notes)


def aggregates(results: Results) -> list[Table]:
    """IQM, median, mean and optimality gap over tasks, with and without those at floor or ceiling."""
    flagged = extreme_tasks(results)
    tables = [_aggregates(results, common_tasks(results), "aggregates", "Aggregates over all tasks")]
    if flagged:
        tasks = common_tasks(results, without_extremes=True)
        title = "Aggregates without tasks at floor or ceiling"
        tables.append(_aggregates(results, tasks, "aggregates_without_extremes", title))
    return tables


def _aggregates(results: Results, tasks: TaskSet, name: str, title: str) -> Table:
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for label in tasks.labels:
        cells = cells_of(results, label, tasks.envs)
        row: list[Entry] = [display_name(label, results.algos[label])]
        row.append(_seeds(min(cell.n for cell in cells)))
        for measure, statistic in STATISTICS.items():
            estimate = aggregate(cells, statistic)
            row.append(number(estimate.value, 3, detail=within(estimate.low, estimate.high, 3)))
            record = {"label": label, "algo": results.algos[label], "statistic": measure}
            records.append({**record, **_record(estimate), "tasks": " ".join(tasks.envs)})
        rows.append(row)
    notes = [
        f"Final return / 1000 over {len(tasks.envs)} tasks: {', '.join(tasks.envs)}. "
        "n: seeds of the task with the fewest. "
        "Stratified bootstrap over seeds within tasks, 95% intervals.",
        *tasks.notes,
        *_common_notes(results),
    ]
    return Table(name, title, ["Algorithm", "n", *STATISTICS], rows, records, notes)


def improvements(results: Results) -> Table:
    """For every ordered pair of learners: how likely a run of the first beats one of the second."""
    tasks = common_tasks(results)
    labels = [label for label in tasks.labels if label in results.learners]
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for ours in labels:
        row: list[Entry] = [display_name(ours, results.algos[ours])]
        for theirs in labels:
            if ours == theirs:
                row.append(MISSING)
                continue
            pair = [cells_of(results, label, tasks.envs) for label in (ours, theirs)]
            estimate = improvement(*pair)
            row.append(number(estimate.value, 2, detail=within(estimate.low, estimate.high, 2)))
            records.append({"label": ours, "over": theirs, **_record(estimate)})
        rows.append(row)
    columns = ["P(row > column)", *(display_name(label, results.algos[label]) for label in labels)]
    notes = [
        "Probability that the final return of a run of the row's algorithm is higher than one of the "
        "column's on the same task, ties half, averaged over tasks. 95% bootstrap intervals over seeds.",
        *tasks.notes,
    ]
    return Table(
        "improvement", "Probability of improvement", columns, rows if len(labels) > 1 else [], records, notes
    )


def steps_to_90(results: Results) -> Table:
    """Environment steps to 90% of the best mean final return of the task in this study."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for env in results.envs:
        threshold, steps = steps_to_best(results, env)
        if not steps or np.isnan(threshold):
            continue
        row: list[Entry] = [env, number(threshold)]
        for label in results.learners:
            per_seed = steps.get(label)
            if per_seed is None:
                row.append(MISSING)
                continue
            reached = int(np.isfinite(per_seed).sum())
            middle = float(np.sort(per_seed)[(len(per_seed) - 1) // 2])
            row.append(number(middle, detail=f"{reached} of {len(per_seed)}"))
            record: dict[str, object] = {"env": env, "threshold": threshold, "label": label}
            records.append({**record, "median_env_steps": middle, "reached": reached, "n": len(per_seed)})
        rows.append(row)
    columns = ["Task", "Threshold", *(display_name(x, results.algos[x]) for x in results.learners)]
    notes = [
        "Environment steps at the first evaluation at or above the threshold, 90% of the best algorithm's "
        "mean final return (outside DM Control: of its distance from the lowest evaluation). "
        "Lower median over seeds, with how many seeds got there; ∞: fewer than half did."
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
        row: list[Entry] = [env, display_name(label, cell.algo)]
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
    ]
    columns = ["Task", "Algorithm", *(_mode_name(mode) for mode in modes)]
    return Table("final_policies", "Final policies by evaluation mode", columns, rows, records, notes)


def _mode_name(mode: FinalMode) -> str:
    return mode[0].capitalize() if mode[1] == 1 else f"Best of {mode[1]} ({mode[0]})"


def _record(estimate: Estimate) -> dict[str, object]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def _common_notes(results: Results) -> list[str]:
    """What a reader of any table of this study must know."""
    notes = []
    cells = list(results.cells.values())
    if any(cell.n < stats.FEW_SEEDS for cell in cells):
        notes.append(FEW)
    diverged = sum(cell.diverged for cell in cells)
    if diverged:
        notes.append(
            f"{diverged} run{'s' * (diverged > 1)} diverged: scored 0 from the divergence on "
            "(outside DM Control: the lowest evaluation of the task in the study)."
        )
    if results.unscored:
        notes.append(
            f"{len(results.unscored)} of {len(results.runs)} runs have no score (missing, unfinished, failed "
            "or damaged) and enter no number; the list of runs names them."
        )
    flagged = extreme_tasks(results)
    if flagged:
        named = ", ".join(f"{env} ({which})" for env, which in flagged.items())
        notes.append(f"Tasks that cannot tell the algorithms apart: {named}.")
    return notes
