"""The figures of a study's scores. Each function returns a matplotlib figure, or None where there is
nothing to show.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bench.analysis.coverage import mark
from bench.analysis.resampling import Array
from bench.analysis.scores.estimates import (
    FLOOR,
    aggregate_curve,
    cells_of,
    common_tasks,
    compared_labels,
    curve_band,
    improvement,
    pairs,
    profile,
)
from bench.analysis.scores.results import LARGEST_RETURN, UNIT_SCORE, Cell, Results
from bench.analysis.style import COLUMN, MANY, PAGE, Style, legend, looks, named, plain

SINGLE_LINES = 20  # a panel with at most so many runs shows the curve of each; more would hide the means

LONGEST_TICK = 26  # characters on a line beside an axis


def legend_name(results: Results, label: str, cells: Sequence[Cell], tasks: int = 1) -> str:
    """Name and number of seeds behind numbers that cover so many tasks: "QSM (n = 20)", "QSM (n = 3–5†)"."""
    sizes = sorted({cell.n for cell in cells})
    shown = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}" if sizes else "0"
    few = mark(sizes[0], tasks) if sizes else ""
    return f"{named(results, label)} (n = {shown}{few})"


def panels(count: int, *, height: float = 1.6, width: str = "") -> tuple[Figure, list[Axes]]:
    """A grid of `count` axes, as wide as a "column" of a paper or its "page"; "": a column for one, else the page."""
    narrow = width == "column" or (not width and count == 1)
    columns = min(count, 2) if narrow else 3 if count in (5, 6, 9) else min(count, 4)  # few empty places
    rows = -(-count // columns)
    tall = 2.1 if count == 1 else min(height, 1.45) if narrow else height
    size = (COLUMN if narrow else PAGE, tall * rows + 0.35)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, list(axes[:count])


def single_width(results: Results) -> str:
    """The width of a figure with one panel: "page" where a column is too narrow for so many algorithms."""
    return results.choice.width or ("page" if len(results.labels) > MANY else "column")


def learning_curves(results: Results) -> Figure | None:
    """Return against environment steps, one panel per task: mean over seeds, 95% interval, and single
    seeds.
    """

    def steps(cell: Cell) -> Array:
        return cell.env_steps

    return curves(results, steps, "Environment steps", steps_axis)


def curves(
    results: Results,
    time: Callable[[Cell], Array | None],
    xlabel: str,
    format_axis: Callable[[Axes], None] = lambda axes: None,
    ylabel: str = "Return",
) -> Figure | None:
    """The cells' values against `time(cell)`; a cell for which that is None is left out."""
    shown = [env for env in results.envs if any(results.cell(env, label) for label in results.labels)]
    if not shown:
        return None
    look = looks(results)
    figure, axes = panels(len(shown), width=results.choice.width)
    handles: dict[str, Any] = {}
    single = shows_single_runs(results)
    for env, ax in zip(shown, axes):
        for label in reversed(results.labels):  # the first algorithm lies on top
            cell = results.cell(env, label)
            x = time(cell) if cell else None
            if cell is not None and x is not None:
                handles[label] = _draw_cell(ax, cell, x, look[label], single)
        finish_panel(ax, results, env, format_axis)
    label_panels(figure, axes, xlabel, ylabel)
    order = [label for label in results.labels if label in handles]
    cells = {label: [cell for cell in results.cells.values() if cell.label == label] for label in order}
    legend(figure, [handles[x] for x in order], [legend_name(results, x, cells[x]) for x in order])
    return figure


def shows_single_runs(results: Results) -> bool:
    """Whether every panel of the learning curves has few enough runs to show each."""
    runs = {env: sum(cell.n for cell in results.cells.values() if cell.env == env) for env in results.envs}
    return max(runs.values(), default=0) <= SINGLE_LINES


def finish_panel(ax: Axes, results: Results, env: str, format_axis: Callable[[Axes], None]) -> None:
    """Title and axes of one task's panel; DM Control returns start at 0."""
    ax.set_title(plain(env))
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    format_axis(ax)
    ax.set_xlim(left=0)
    if env in results.control_envs:
        ax.set_ylim(0, max(1.05 * ax.dataLim.ymax, FLOOR * LARGEST_RETURN))  # noise at the floor stays small


def label_panels(
    figure: Figure, axes: Sequence[Axes], xlabel: str, ylabel: str, *, legend_below: bool = False
) -> None:
    """One label below all panels (under each column where a legend is below), and one at the first of each row."""
    for ax in axes:
        place = ax.get_subplotspec()
        assert place is not None
        if place.is_first_col():
            ax.set_ylabel(ylabel)
        if legend_below and (
            place.is_last_row() or place.colspan.start >= len(axes) % place.get_gridspec().ncols > 0
        ):
            ax.set_xlabel(xlabel)
    if not legend_below:
        figure.supxlabel(xlabel, fontsize=axes[0].xaxis.label.get_fontsize())


def _draw_cell(ax: Axes, cell: Cell, x: Array, style: Style, single: bool) -> Any:
    mean = cell.returns.mean(axis=0)
    if cell.n > 1:
        low, high = curve_band(cell)
        ax.fill_between(x, low, high, color=style.color, alpha=0.18 if single else 0.12, linewidth=0)
        if single:
            ax.plot(x, cell.returns.T, color=style.color, alpha=0.35, linewidth=0.5)
    return line(ax, x, mean, style)


def line(ax: Axes, x: Array, y: Array, style: Style) -> Any:
    """A curve in the algorithm's style, with about seven markers however many points it has."""
    every = max(1, len(x) // 7)
    return ax.plot(
        x,
        y,
        color=style.color,
        linestyle=style.linestyle,
        marker=style.marker,
        markevery=(every // 2, every),
        markersize=style.size,
        markeredgewidth=0,
    )[0]


def steps_axis(ax: Axes) -> None:
    """Environment steps as 100k, 1M."""
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))


def short_count(value: float) -> str:
    """100000 -> "100k", 1500000 -> "1.5M"."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def aggregate_iqm(results: Results) -> Figure | None:
    """IQM of normalised return over tasks and seeds against environment steps, with 95% intervals."""
    tasks = common_tasks(results)
    if not tasks.labels:
        return None
    look = looks(results)
    figure, (ax,) = panels(1, width=single_width(results))
    handles, names = [], []
    for label in tasks.labels:
        cells = cells_of(results, label, tasks.envs)
        value, low, high = aggregate_curve(cells, tasks.cut)
        x = cells[0].env_steps
        ax.fill_between(x, low, high, color=look[label].color, alpha=0.18, linewidth=0)
        handles.append(line(ax, x, value, look[label]))
        names.append(legend_name(results, label, cells, len(cells)))
    steps_axis(ax)
    ax.set(xlabel="Environment steps", ylabel=f"IQM of {results.score_name}\n({_tasks(len(tasks.envs))})")
    ax.set_xlim(left=0)
    if results.score_name == UNIT_SCORE:
        ax.set_ylim(bottom=0)
    legend(figure, handles, names)
    return figure


def _tasks(count: int) -> str:
    return f"{count} task" + "s" * (count != 1)


def performance_profiles(results: Results) -> Figure | None:
    """Share of runs whose normalised final return exceeds each threshold, with 95% intervals."""
    tasks = common_tasks(results)
    if not tasks.labels:
        return None
    look = looks(results)
    every = [
        cell.scores(cell.final) for label in tasks.labels for cell in cells_of(results, label, tasks.envs)
    ]
    lowest, highest = (float(end([end(scores) for scores in every])) for end in (np.min, np.max))
    # by tenths; where scores have bounds of their own, those alone
    unit = results.score_name == UNIT_SCORE
    ends = (0.0, 1.0) if unit else (min(0, np.floor(10 * lowest) / 10), max(1, np.ceil(10 * highest) / 10))
    thresholds = np.linspace(ends[0], ends[1], 101)
    figure, (ax,) = panels(1, width=single_width(results))
    handles, names = [], []
    for label in tasks.labels:
        cells = cells_of(results, label, tasks.envs)
        share, low, high = profile(cells, thresholds)
        ax.fill_between(thresholds, low, high, color=look[label].color, alpha=0.15, linewidth=0, step="post")
        handles.append(line(ax, thresholds, share, look[label]))
        handles[-1].set_drawstyle("steps-post")
        names.append(legend_name(results, label, cells, len(cells)))
    ax.set(
        xlabel=f"Threshold τ of final {results.score_name}",
        ylabel=f"Share of runs above τ\n({_tasks(len(tasks.envs))})",
        xlim=ends,
        ylim=(0, 1.02),
    )
    legend(figure, handles, names)
    return figure


def probability_of_improvement(results: Results) -> Figure | None:
    """How likely a run of one learner scores higher than one of another, for the pairs of `estimates.pairs`, with 95%
    intervals.
    """
    tasks = common_tasks(results, any_scale=True)
    compared = pairs(results, compared_labels(results, tasks.labels))
    if not compared:
        return None
    look = looks(results)
    count = len(tasks.envs)
    subjects, others = {ours for ours, _ in compared}, {theirs for _, theirs in compared}
    full = {x: legend_name(results, x, cells_of(results, x, tasks.envs), count) for x in subjects | others}
    if len(subjects) == 1:
        names, what = [full[theirs] for _, theirs in compared], f"P({full[compared[0][0]]} scores higher)"
    elif len(others) == 1:
        names, what = [full[ours] for ours, _ in compared], f"P(higher than {full[compared[0][1]]})"
    else:
        names = [f"{full[ours]} over {named(results, theirs)}" for ours, theirs in compared]
        what = "P(the first scores higher)"
    width = PAGE if results.choice.width == "page" else COLUMN
    shown = [textwrap.fill(plain(name), LONGEST_TICK, break_long_words=False) for name in names]
    lines = sum(1 + name.count("\n") for name in shown)
    figure = Figure(figsize=(width, 0.75 + 0.12 * (lines + len(compared))), layout="constrained")
    ax = figure.subplots()
    for position, (ours, theirs) in enumerate(compared):
        estimate = improvement(*(cells_of(results, x, tasks.envs) for x in (ours, theirs)))
        if not np.isnan(estimate.low):
            color = look[theirs if len(subjects) == 1 else ours].color
            extent = estimate.high - estimate.low
            ax.barh(position, extent, left=estimate.low, height=0.5, alpha=0.35, color=color)
        ax.plot([estimate.value] * 2, [position - 0.25, position + 0.25], color="black", linewidth=1.4)
    ax.set_ylim(len(compared) - 0.5, -0.5)  # the first on top
    ax.axvline(0.5, color="#555555", linewidth=0.8, linestyle=(0, (3, 2)))
    ax.set_yticks(range(len(compared)), shown)
    ax.grid(axis="y", visible=False)
    ax.set_xlim(0, 1)
    # below the whole figure, since long names can leave the axes too narrow for it
    figure.supxlabel(f"{plain(what)},\n{_tasks(count)}", fontsize=ax.xaxis.label.get_fontsize())
    return figure
