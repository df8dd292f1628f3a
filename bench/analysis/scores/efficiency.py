"""Sample efficiency: what is reached after a tenth, a quarter, half and all of the environment steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.analysis.scores.estimates import Estimate, TaskSet, cells_of, common_tasks, iqm_of, mean_over_seeds
from bench.analysis.scores.figures import label_panels, legend_name, panels, short_count, single_width
from bench.analysis.scores.results import LARGEST_RETURN, UNIT_SCORE, Results
from bench.analysis.scores.tables import common_notes, record_of, seeds_entry
from bench.analysis.style import Style, legend, looks, named, plain
from bench.analysis.table import Entry, Table, number, within

SHARES = (0.10, 0.25, 0.50, 1.00)  # of the budget
Shares = list[tuple[str, int]]  # of `columns`
Points = dict[str, list[Estimate]]  # label -> one estimate per column of `columns`


def columns(results: Results) -> Shares:
    """What stands above each share, "25% (20k)", and the index of its evaluation: the last at or before it.

    A share before the first evaluation is left out, and so is one that falls on the same evaluation as that before.
    """
    steps = next((cell.env_steps for cell in results.cells.values()), np.empty(0))
    found: dict[int, str] = {}
    for share in SHARES:
        index = (
            int(np.searchsorted(steps, share * steps[-1] * (1 + 1e-9), side="right")) - 1
            if len(steps)
            else -1
        )
        if index >= 0 and index not in found:
            found[index] = f"{share:.0%} ({short_count(float(steps[index]))})"
    return [(name, index) for index, name in found.items()]


def sample_efficiency(results: Results) -> tuple[Table, Figure | None]:
    """Return at each share of the budget: over all tasks first, then task by task; and the figure of it."""
    shares, tasks = columns(results), common_tasks(results)
    over_tasks = _over_tasks(results, shares, tasks) if len(tasks.envs) > 1 else {}
    on_task = {env: _on_task(results, env, shares) for env in results.envs}
    return (
        _table(results, shares, tasks, over_tasks, on_task),
        _figure(results, shares, tasks, over_tasks, on_task) if len(shares) > 1 else None,
    )


def _table(
    results: Results, shares: Shares, tasks: TaskSet, over_tasks: Points, on_task: dict[str, Points]
) -> Table:
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []

    def add(what: str, label: str, n: int, tasks: int, estimates: list[Estimate], digits: int) -> None:
        shown = [number(e.value, digits, detail=within(e.low, e.high, digits)) for e in estimates]
        rows.append([what, named(results, label), seeds_entry(n, tasks), *shown])
        for (name, _), estimate in zip(shares, estimates, strict=True):
            records.append({"task": what, "label": label, "budget": name, **record_of(estimate)})

    for label, estimates in over_tasks.items():
        fewest = min(cell.n for cell in cells_of(results, label, tasks.envs))
        add(f"IQM of {len(tasks.envs)} tasks", label, fewest, len(tasks.envs), estimates, 3)
    for env, points in on_task.items():
        for label, estimates in points.items():
            add(env, label, results.cells[env, label].n, 1, estimates, 0)
    notes = [
        "Return at the last evaluation at or before each share of the environment steps, with 95% intervals over "
        "seeds. It is a single evaluation; the final return is the mean of the last tenth of them.",
        *([f"The IQM is of {results.score_name}.", *results.scale_notes] if len(tasks.envs) > 1 else []),
        *common_notes(results),
    ]
    heads = ["Task", "Algorithm", "n", *(name for name, _ in shares)]
    return Table(
        "sample_efficiency", "Sample efficiency", heads, rows if len(shares) > 1 else [], records, notes
    )


def _figure(
    results: Results, shares: Shares, tasks: TaskSet, over_tasks: Points, on_task: dict[str, Points]
) -> Figure:
    """The same over all tasks; without two tasks on one scale, a panel for each task."""
    look = looks(results)
    if len(tasks.envs) > 1:
        made, (ax,) = panels(1, width=single_width(results))
        points = over_tasks
        handles = _draw(ax, points, look, shares)
        ax.set(
            xlabel="Share of the environment steps",
            ylabel=f"IQM of {results.score_name}\n({len(tasks.envs)} tasks)",
        )
        if results.score_name == UNIT_SCORE:
            ax.set_ylim(bottom=0)
        names = [legend_name(results, x, cells_of(results, x, tasks.envs), len(tasks.envs)) for x in points]
    else:
        envs = [env for env, points in on_task.items() if points]
        made, axes = panels(len(envs), width=results.choice.width)
        handles = {}
        for env, ax in zip(envs, axes):
            handles |= _draw(ax, on_task[env], look, shares)
            ax.set_title(plain(env))
            if env in results.control_envs:
                ax.set_ylim(0, min(max(ax.get_ylim()[1], 50), LARGEST_RETURN))
        label_panels(made, axes, "Share of the environment steps", "Return")
        points = {label: [] for label in results.labels if label in handles}
        names = [legend_name(results, x, [c for c in results.cells.values() if c.label == x]) for x in points]
    legend(made, [handles[label] for label in points], names)
    return made


def _over_tasks(results: Results, shares: Shares, tasks: TaskSet) -> Points:
    return {
        label: [iqm_of(cells_of(results, label, tasks.envs), index, tasks.cut) for _, index in shares]
        for label in tasks.labels
    }


def _on_task(results: Results, env: str, shares: Shares) -> Points:
    cells = [cell for label in results.labels if (cell := results.cell(env, label))]
    return {
        cell.label: [mean_over_seeds(cell, cell.returns[:, index]) for _, index in shares] for cell in cells
    }


def _draw(ax: Axes, points: Points, look: dict[str, Style], shares: Shares) -> dict[str, Any]:
    """A group of markers with their intervals for each share, in the order of the legend."""
    room = 0.8 / max(len(points), 1)
    handles = {}
    for position, (label, estimates) in enumerate(points.items()):
        x = np.arange(len(shares)) + (position - (len(points) - 1) / 2) * room
        value = np.array([estimate.value for estimate in estimates])
        low, high = (np.array([getattr(e, end) for e in estimates]) for end in ("low", "high"))
        style = look[label]
        ax.vlines(x, low, high, color=style.color, linewidth=1.0)
        handles[label] = ax.plot(
            x, value, color=style.color, marker=style.marker or "_", linestyle="", markersize=style.size
        )[0]
    ax.set_xticks(range(len(shares)), [name.replace(" ", "\n") for name, _ in shares])
    for edge in np.arange(len(shares) - 1) + 0.5:
        ax.axvline(edge, color="#cccccc", linewidth=0.5)
    ax.grid(axis="x", visible=False)
    ax.set_xlim(-0.5, len(shares) - 0.5)
    return handles
