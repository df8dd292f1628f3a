"""The figures of the timing studies, and return against hours."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.analysis.scores.figures import curves, panels
from bench.analysis.scores.results import Cell, Results
from bench.analysis.stats import Array
from bench.analysis.style import COLUMN, legend, order, plain, styles
from bench.analysis.wallclock.timings import CHAINS, GROWING, TimingSet, slope_over_T

STEP_PARTS = {  # of one environment step of training: what -> (heading, grey, hatch); colours are algorithms'
    "env_step": ("Environment", "#2e2e2e", ""),
    "act_1": ("Act", "#b0b0b0", "////"),
    "critic_update": ("Critic update", "#8f8f8f", ""),
    "actor_update": ("Actor update", "#5c5c5c", "xxx"),
    "rest": ("Rest", "#dedede", ""),
}


def return_against_hours(results: Results, seconds: dict[str, float]) -> Figure | None:
    """Learning curves against hours on an idle machine: env steps times the timed seconds per step."""
    if len(seconds) < 2:
        return None

    def hours(cell: Cell) -> Array | None:
        per_step = seconds.get(cell.label)
        return None if per_step is None else cell.env_steps * per_step / 3600

    longest = max(cell.env_steps[-1] * seconds.get(cell.label, 0.0) for cell in results.cells.values())
    if longest >= 3600:
        return curves(results, hours, "Hours on an idle machine")
    return curves(results, lambda cell: _times(hours(cell), 60), "Minutes on an idle machine")


def _times(values: Array | None, factor: float) -> Array | None:
    return None if values is None else values * factor


def update_time_over_T(timings: TimingSet) -> Figure | None:
    """Median time of the whole and of the actor's update over the denoising steps T, with fitted lines."""
    size = timings.reference_size()
    timed = {
        what: {algo: slope_over_T(timings, algo=algo, what=what, **size) for algo in CHAINS}
        for what in GROWING
    }
    shown = [what for what, slopes in timed.items() if any(slopes.values())]
    if not shown:
        return None
    look = styles({algo: algo for algo in CHAINS})
    figure, axes = panels(len(shown), height=2.1)
    figure.set_figwidth(COLUMN * len(shown))
    for what, ax in zip(shown, axes):
        handles: list[Any] = []
        names = []
        for algo, found in timed[what].items():
            if found is None:
                continue
            color, line = look[algo].color, look[algo].linestyle
            ends = np.array([0.0, found.T[-1]])
            fitted = 1e3 * (found.intercept + found.slope * ends)
            ax.plot(ends, fitted, color=color, linestyle=line, linewidth=1)
            handles += ax.plot(
                found.T, 1e3 * found.seconds, color=color, marker=look[algo].marker, linestyle=""
            )
            slope = f"{1e3 * found.slope:z.2f}".replace("-", "−")
            names.append(f"{timings.shown(algo)}: {slope} ms per step")
        ax.legend(handles, names, loc="upper left", handletextpad=0.2)
        ax.set(
            title=what.replace("_", " ").capitalize(), xlabel="Denoising steps T", ylabel="Median time, ms"
        )
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    return figure


def where_time_goes(timings: TimingSet, T: str = "5") -> Figure | None:
    """The parts of one environment step of training, at the reference size."""
    size = timings.reference_size()
    timed = sorted(set(timings.samples["algo"]), key=order)
    algos = [algo for algo in timed if _step_parts(timings, algo, size, T)]
    if not algos:
        return None
    figure = Figure(figsize=(COLUMN, 0.6 + 0.26 * len(algos)), layout="constrained")
    ax = figure.subplots()
    handles = {}
    for position, algo in enumerate(algos):
        left, parts = 0.0, _step_parts(timings, algo, size, T)
        for part, milliseconds in parts.items():
            _, color, hatch = STEP_PARTS[part]
            handles[part] = ax.barh(
                position,
                milliseconds,
                left=left,
                color=color,
                hatch=hatch,
                edgecolor="white",
                height=0.62,
                linewidth=0.3,
            )
            left += milliseconds
        whole = 1e3 * float(
            np.median(timings.seconds(algo=algo, what="end_to_end", **_chain(algo, T), **size))
        )
        ax.text(max(left, whole), position, f" {whole:.1f}", va="center", fontsize=6.5)
    names = [timings.shown(algo) + (f", T = {T}" if algo in CHAINS else "") for algo in algos]
    ax.set_yticks(range(len(algos)), [plain(name) for name in names])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlim(0, 1.14 * ax.dataLim.xmax)  # room for the numbers
    ax.set_xlabel("Median ms per environment step")
    legend(figure, list(handles.values()), [STEP_PARTS[part][0] for part in handles])
    return figure


def _step_parts(timings: TimingSet, algo: str, size: dict[str, str], T: str) -> dict[str, float]:
    """Median milliseconds of each part; empty where the whole step was not timed."""
    where = {"algo": algo, **_chain(algo, T), **size}
    medians = 1e3 * timings.at(**where).groupby("what", observed=True)["seconds"].median()
    if "end_to_end" not in medians:
        return {}
    parts = {part: float(medians[part]) for part in STEP_PARTS if part in medians}
    return parts | {"rest": max(0.0, float(medians["end_to_end"]) - sum(parts.values()))}


def _chain(algo: str, T: str) -> dict[str, str]:
    return {"T": T if algo in CHAINS else ""}
