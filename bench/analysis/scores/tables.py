"""The tables of a study's scores."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np

from bench.analysis.coverage import FEW, mark
from bench.analysis.scores.estimates import (
    FEWEST_TIES,
    Estimate,
    best_labels,
    extreme_tasks,
    mean_over_seeds,
    standard_deviation,
)
from bench.analysis.scores.results import Results
from bench.analysis.scores.runs import pooled_code
from bench.analysis.style import named
from bench.analysis.table import MISSING, Entry, Table, number, to_terminal, within

INTERVALS = "Brackets: 95% intervals over seeds."


def count(n: int) -> str:
    """The number of seeds as shown everywhere: "n = 5†"."""
    return f"n = {n}{mark(n)}"


def task_name(env: str, flagged: Mapping[str, str]) -> str:
    """A task with what `extreme_tasks` says of it: "humanoid-walk (floor)"."""
    return f"{env} ({flagged[env]})" if env in flagged else env


def seeds_entry(n: int, tasks: int = 1) -> Entry:
    """The number of seeds behind a number that covers so many tasks."""
    return number(n, detail=mark(n, tasks))


def p_value(p: float) -> str:
    """ "p = 0.016"; "" where there is none."""
    return "" if np.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def final_return(results: Results) -> Table:
    """Task x algorithm: mean final return."""
    labels = [label for label in results.labels if any(results.cell(env, label) for env in results.envs)]
    sizes = {label: {cell.n for cell in results.cells.values() if cell.label == label} for label in labels}
    flagged = extreme_tasks(results)
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for env in results.envs:
        best = set() if env in flagged else best_labels(results, env)
        row: list[Entry] = [task_name(env, flagged)]
        for label in labels:
            cell = results.cell(env, label)
            if cell is None:
                row.append(MISSING)
                continue
            estimate = mean_over_seeds(cell, cell.final)
            own = f" {count(cell.n)}" if len(sizes[label]) > 1 else ""
            row.append(
                number(estimate.value, detail=within(estimate.low, estimate.high) + own, bold=label in best)
            )
            record = {"env": env, "label": label, "algo": cell.algo, **record_of(estimate)}
            records.append({**record, "best": label in best})
        rows.append(row)
    names = [
        named(results, label) + (f" ({count(*sizes[label])})" if len(sizes[label]) == 1 else "")
        for label in labels
    ]
    notes = [
        "Mean over seeds of the final return: the mean of the last tenth of a run's evaluations. "
        + INTERVALS,
        f"Bold: the highest mean and, from {FEWEST_TIES} seeds on, every mean not significantly different from it. "
        "Nothing is bold on floor or ceiling tasks.",
        *common_notes(results),
    ]
    return Table("final_return", "Final return", ["Task", *names], rows if labels else [], records, notes)


def summary(results: Results) -> str:
    """The scores for a terminal 80 columns wide: a Markdown table and what must be known to read it."""
    rows: list[list[Entry]] = []
    cells = [cell for env in results.envs for label in results.labels if (cell := results.cell(env, label))]
    for cell in cells:
        final = mean_over_seeds(cell, cell.final)
        row: list[Entry] = [cell.env, named(results, cell.label), seeds_entry(cell.n)]
        row.append(number(final.value, detail=within(final.low, final.high)))
        row += [number(standard_deviation(cell.final)), number(cell.area.mean()), number(cell.best.mean())]
        rows.append(row)
    columns = ("Task", "Algorithm", "n", "Final [95%]", "SD", "AUC", "Best*")
    notes = [
        "Final: mean of the last tenth of the evaluations, mean over n seeds, 95% interval. "
        "SD: over seeds. AUC: mean return over training. Best*: the highest evaluation, biased upwards.",
        *common_notes(results),
        *results.left_out,
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
                    named(results, label),
                    seeds_entry(cell.n),
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
                    f"{measure}_rliable_low": estimate.rliable_low,
                    f"{measure}_rliable_high": estimate.rliable_high,
                }
            record |= {"final_sd": spread, "diverged": cell.diverged, "unscored": cell.expected - cell.n}
            records.append(record)
    columns = ["Task", "Algorithm", "n", "Final return", "SD", "Area under curve", "Best (biased)"]
    notes = [
        "Means over seeds. " + INTERVALS + " SD: standard deviation of the final return over seeds.",
        "Area under curve: mean return over training. "
        "Best: the highest evaluation, biased upwards by its noise.",
        *common_notes(results),
    ]
    columns += ["Diverged", "Unscored"]
    return Table("scores", "Scores by task and algorithm", columns, rows, records, notes)


def record_of(estimate: Estimate) -> dict[str, object]:
    """The columns of an estimate in a CSV, with rliable's bounds behind ours."""
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "rliable_low": estimate.rliable_low,
        "rliable_high": estimate.rliable_high,
    }


def common_notes(results: Results, tasks: int = 1) -> list[str]:
    """What a reader of any table of this study must know; tasks: how many each of its numbers covers."""
    notes = []
    cells = list(results.cells.values())
    if any(mark(cell.n, tasks) for cell in cells):
        notes.append(FEW)
    diverged = sum(cell.diverged for cell in cells)
    if diverged:
        notes.append(
            f"{diverged} run{'s' * (diverged > 1)} diverged: scored 0 from the divergence on "
            "(outside DM Control: the lowest evaluation of the task in the study)."
        )
    notes += pooled_code(results)
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
