"""Figures and tables of the experiment `theorem`: does the step of QSM's loss raise the exact Q?"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from bench.analysis.report.sections import Picture
from bench.analysis.style import PAGE, legend, styles
from bench.analysis.table import Entry, Table
from bench.paper.experiments.data import interval, mean_entry, read_scores, read_table, values

TITLE = "The step of QSM's loss"
ASKS = (
    "Does the step of QSM's loss, which aligns the score with the action gradient of Q, raise Q? Q of the policy is "
    "computed exactly after every step, over step size, M_q and T."
)
LENGTHS = (0.1, 0.25, 0.5, 1.0, 2.0)  # of the path, at which the experiment takes its shares
PROBLEMS = {"linear-quadratic": "Linear-quadratic", "gridworld": "Gridworld"}
KNOBS = {"step": "Step size", "M_q": "$M_q$", "T": "T"}
GAINS = [-1e6, -1e3, -30, -10, -3, -1, -0.3, 0, 0.3, 1, 3, 10, 30, 1e3]  # where the axis has ticks
MOVES = {"match": "QSM's step", "add": "adding only"}


def pictures(folder: Path) -> list[Picture]:
    """Everything that is drawn of results/experiments/theorem."""
    scores, steps = read_scores(folder), read_table(folder, "steps")
    n = " and ".join(
        f"n = {len(values(scores, 'share_of_steps_up', problem, 'qsm'))} ({title.lower()})"
        for problem, title in PROBLEMS.items()
    )
    base = "; the other two knobs at step 0.01, M_q = 1, T = 5"
    return [
        Picture(
            "theorem_share",
            "Share of steps after which the exact Q is higher than before, over one knob"
            f"{base}. Mean over seeds, {n}, with 95% intervals, along the whole path: a share depends on the path's "
            "length. M_q is in units in which the first grad_a Q has root mean square 1.",
            _shares(scores),
        ),
        Picture(
            "theorem_paths",
            "Gain of mean Q since the first policy, relative to its size, along the way from it (step size × number of "
            f"steps){base}. Median over seeds, {n}; a line ends where Q of half of the seeds has become infinite. "
            "QSM's step.",
            _paths(steps),
        ),
    ]


def tables(folder: Path) -> list[Table]:
    """The judged cell at several lengths of the path, and every cell along the whole of it."""
    scores = read_scores(folder)
    return [_lengths(scores), _cells(scores)]


def _lengths(scores: pd.DataFrame) -> Table:
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for problem, title in PROBLEMS.items():
        for length in LENGTHS:
            share, always, above = (
                values(scores, f"{measure}={length:g}", f"path-{problem}", "qsm")
                for measure in ("share_up_to", "always_up_to", "above_start_at")
            )
            n = len(share)
            entries = [f"{round(group.sum())} of {n}" for group in (always, above)]
            rows.append([title, f"{length:g}", mean_entry(share, "theorem", problem, "path"), *entries])
            record = {"problem": problem, "length": length, "n": n, "share_up": share.mean() if n else None}
            records.append({**record, "seeds_always_up": always.sum(), "seeds_above_start": above.sum()})
    return Table(
        "theorem_lengths",
        "The step of QSM's loss along its path",
        ["Problem", "Length", "Share of steps up", "Seeds with every step up", "Seeds above the start"],
        rows,
        records,
        [
            "QSM's step at size 0.01, M_q = 1, T = 5, the cell of claims 5a and 5b. Length: step size times number of "
            "steps. Share: of the steps up to that length after which mean Q is higher, mean over seeds [95% "
            "interval]. Above the start: mean Q after them is higher than that of the first policy."
        ],
    )


def _cells(scores: pd.DataFrame) -> Table:
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for problem, title in PROBLEMS.items():
        for setting, move, knobs in _settings(scores, problem):
            found = {
                measure: values(scores, measure, setting, "qsm")
                for measure in ("share_of_steps_up", "share_everywhere", "finite", "total_gain")
            }
            n = len(found["finite"])
            shown = [f"{knobs[knob]:g}" for knob in KNOBS]
            entries = [mean_entry(group, "theorem", setting, measure) for measure, group in found.items()]
            rows.append([title, MOVES[move], *shown, *entries, str(n)])
            means = {measure: float(group.mean()) for measure, group in found.items()}
            records.append({"problem": problem, "move": move, **knobs, **means, "n": n})
    return Table(
        "theorem",
        "Steps that align the score with the action gradient of Q",
        ["Problem", "Step", "Size", "M_q", "T", "Q up", "up everywhere", "Q finite", "Total gain", "n"],
        rows,
        records,
        [
            "Mean over seeds [95% interval], along a path of length 2. Q up: share of steps after which Q, averaged "
            "over fixed state-action pairs, is higher; up everywhere: nowhere lower. Q finite: share of seeds whose Q "
            "stays finite to the end. Total gain: of mean Q, relative to the first policy's. QSM's step moves eps "
            "towards −M_q grad_a Q; adding only adds a multiple of it."
        ],
    )


def _settings(scores: pd.DataFrame, problem: str) -> list[tuple[str, str, dict[str, float]]]:
    """(setting, move, knobs) of a problem's cells, sorted."""
    found = []
    for setting in scores["setting"].unique():
        if setting.startswith(problem + "-"):
            move, knobs = _parsed(setting, problem)
            found.append((setting, move, knobs))
    return sorted(found, key=lambda cell: (cell[1] != "match", *cell[2].values()))


def _parsed(name: str, problem: str) -> tuple[str, dict[str, float]]:
    """ "gridworld-match-step=0.01-M_q=1-T=5" -> ("match", {"step": 0.01, "M_q": 1, "T": 5})"""
    move, *words = name.removeprefix(problem + "-").split("-")
    return move, {key: float(value) for key, _, value in (word.partition("=") for word in words)}


def _along(scores: pd.DataFrame, problem: str, knob: str, move: str) -> list[tuple[float, str]]:
    """(value of the knob, setting) where the other knobs are at their base."""
    base = {"step": 0.01, "M_q": 1.0, "T": 5.0}
    return [
        (knobs[knob], setting)
        for setting, its_move, knobs in _settings(scores, problem)
        if its_move == move and all(knobs[other] == base[other] for other in KNOBS if other != knob)
    ]


def _grid(height: float) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(PAGE, height), layout="constrained")
    return figure, figure.subplots(len(PROBLEMS), len(KNOBS), sharey="row")


def _shares(scores: pd.DataFrame) -> Figure:
    figure, axes = _grid(3.4)
    look = styles({"qsm": "qsm", "qsm-add": "qsm"})
    handles = {}
    for row, (problem, title) in zip(axes, PROBLEMS.items()):
        for ax, (knob, name) in zip(row, KNOBS.items()):
            for move, label in (("match", "qsm"), ("add", "qsm-add")):
                cells = _along(scores, problem, knob, move)
                if len(cells) < 2:
                    continue
                x, settings = zip(*cells)
                groups = [values(scores, "share_of_steps_up", setting, "qsm") for setting in settings]
                means = np.array([group.mean() for group in groups])
                bounds = np.array(
                    [interval(g, "theorem", s, "share_of_steps_up") for g, s in zip(groups, settings)]
                )
                style = look[label]
                handles[move] = ax.errorbar(
                    x,
                    means,
                    np.abs(bounds.T - means),
                    color=style.color,
                    linestyle=style.linestyle,
                    marker=style.marker,
                )
            _log_axis(ax, _along(scores, problem, knob, "match"))
            ax.set_ylim(-0.03, 1.05)
            if problem == list(PROBLEMS)[-1]:
                ax.set_xlabel(name)
        row[0].set_ylabel(f"{title}:\nshare of steps up")
    legend(figure, [handles[move] for move in handles], [MOVES[move] for move in handles])
    return figure


def _log_axis(ax: Axes, cells: list[tuple[float, str]]) -> None:
    ax.set_xscale("log")
    ax.set_xticks([x for x, _ in cells], [f"{x:g}" for x, _ in cells])
    ax.minorticks_off()


def _paths(steps: pd.DataFrame) -> Figure:
    figure, axes = _grid(3.9)
    for row, (problem, title) in zip(axes, PROBLEMS.items()):
        parts = pd.DataFrame({"setting": steps["part"].unique()})
        for ax, (knob, name) in zip(row, KNOBS.items()):
            cells = _along(parts, problem, knob, "match")
            for index, (value, part) in enumerate(cells):
                size = _parsed(part, problem)[1]["step"]
                gains = steps[steps["part"] == part].pivot(index="seed", columns="number", values="gain")
                way = np.cumsum(gains.to_numpy(np.float64), axis=1)
                way[np.isnan(way)] = -np.inf
                median = np.concatenate([[0.0], np.median(way, axis=0)])
                median[~np.isfinite(median)] = np.nan
                color = matplotlib.colormaps["viridis"](0.92 * index / max(len(cells) - 1, 1))
                ax.plot(size * np.arange(len(median)), median, color=color, label=f"{value:g}", linewidth=1)
            ax.axhline(0, color="#777777", linewidth=0.6)
            ax.set_yscale("asinh", linear_width=0.3)
            ax.yaxis.set_major_locator(FixedLocator(GAINS))
            ax.yaxis.set_major_formatter(lambda gain, _: f"{gain:g}".replace("-", "−"))
            ax.yaxis.set_minor_locator(NullLocator())
            ax.set_xlim(0, 2)
            ax.legend(title=name, fontsize=6, title_fontsize=6.5, handlelength=1.2, labelspacing=0.2)
            if problem == list(PROBLEMS)[-1]:
                ax.set_xlabel("Step size × steps")
        row[0].set_ylabel(f"{title}:\ngain of Q / |first Q|")
    return figure
