"""Figures and tables of the experiment `exploration`: visited states, ends of the final policies, first actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from bench.analysis import stats
from bench.analysis.report.sections import Picture
from bench.analysis.resampling import curve_resamples
from bench.analysis.scores.figures import line, short_count
from bench.analysis.style import COLUMN, PAGE, display_name, legend, plain, styles
from bench.analysis.table import Entry, Table, number, within
from bench.paper.experiments.data import interval, mean_entry, read_scores, read_table, values

TITLE = "Exploration"
ASKS = (
    "Which states does training visit, compared with uniform random actions, and does the final policy "
    "end at a near goal that pays little or at a far one that pays more? With the noise that the authors "
    "add to actions, and without."
)
ALGOS = ("qsm", "dql", "sac", "td3", "random")
NOISELESS = "-action_noise=0"
TASKS = {"point": "Point with two goals", "swingup": "cartpole-swingup"}
SHOWN_SEEDS = 5  # of the first actions
ACTION_CELLS = 20


def pictures(folder: Path) -> list[Picture]:
    """Everything that is drawn of results/experiments/exploration."""
    coverage, scores = read_table(folder, "coverage"), read_scores(folder)
    actions = read_table(folder, "actions")
    n = {task: int(_rows(coverage, task, "random")["seed"].nunique()) for task in TASKS}
    return [
        Picture(
            "exploration_coverage",
            "Cells of the state space visited so far in training, divided by the mean of uniform random actions "
            f"after as many steps: mean over seeds (n = {n['point']} on the point, {n['swingup']} on "
            "cartpole-swingup) and 95% interval. Above: with the noise that the authors add to actions (SAC and "
            "random have none); below: without.",
            _coverage(coverage),
        ),
        Picture(
            "exploration_ends",
            "Where most episodes of the final policy end, share of seeds "
            f"(n = {n['point']}): within 0.3 of the far goal (pays 1), of the near one (pays 0.3), or elsewhere.",
            _ends(scores),
        ),
        Picture(
            "exploration_first_actions",
            "Actions sampled at the first state of cartpole-swingup (at rest, pole down, where left and right are "
            f"equally good) over training, one panel per seed (n = {n['swingup']}), authors' noise in training, "
            "none in the samples. Colour: share of 500 samples, darker is more.",
            _first_actions(actions),
        ),
    ]


def tables(folder: Path) -> list[Table]:
    """The same as numbers."""
    scores = read_scores(folder)
    return [_coverage_table(scores), _ends_table(scores), _actions_table(read_table(folder, "actions"))]


def _rows(coverage: pd.DataFrame, task: str, label: str) -> pd.DataFrame:
    return coverage[coverage["part"].str.startswith(f"{task}-") & (coverage["label"] == label)]


def _coverage(coverage: pd.DataFrame) -> Figure:
    look = styles({algo: algo for algo in ALGOS})
    figure = Figure(figsize=(PAGE, 3.9), layout="constrained")
    axes = figure.subplots(2, 2, sharex="col", sharey=True)
    handles: dict[str, Any] = {}
    for column, (task, title) in enumerate(TASKS.items()):
        reference = _curves(_rows(coverage, task, "random"))[1].mean(axis=0)
        for row, suffix in enumerate(("", NOISELESS)):
            ax = axes[row, column]
            for algo in reversed(ALGOS):
                rows = _rows(coverage, task, algo + suffix)
                rows = rows if len(rows) else _rows(coverage, task, algo)  # no noise to leave out
                steps, cells = _curves(rows)
                relative = cells / reference
                groups = [(len(cells), ("coverage", task, algo))]
                draws = curve_resamples(len(steps))
                low, high = stats.resampled(stats.mean, [relative.T], groups, draws).interval()
                ax.fill_between(steps, low, high, color=look[algo].color, alpha=0.18, linewidth=0)
                handles[algo] = line(ax, steps, relative.mean(axis=0), look[algo])
            if row == 0:
                ax.set_title(title)
            else:
                ax.set_xlabel("Environment steps")
            ax.xaxis.set_major_formatter(lambda value, _: short_count(value))
            ax.set_xlim(left=0)
    axes[0, 0].set_ylim(bottom=0)  # of all panels, when everything is drawn
    axes[0, 0].set_ylabel("Cells / random's,\nauthors' noise")
    axes[1, 0].set_ylabel("Cells / random's,\nno added noise")
    legend(figure, [handles[algo] for algo in ALGOS], [display_name(algo, algo) for algo in ALGOS])
    return figure


def _curves(rows: pd.DataFrame) -> tuple[stats.Array, stats.Array]:
    """Steps (K,) and cells (n, K). Raises ValueError where there are none."""
    if rows.empty:
        raise ValueError("the table coverage lacks a part")
    table = rows.pivot(index="seed", columns="env_step", values="cells")
    return table.columns.to_numpy(np.float64), table.to_numpy(np.float64)


def _labels(scores: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(setting, algorithm, name) of everything that ran on the point."""
    there = set(zip(scores["setting"], scores["algo"]))
    return [
        (setting, algo, display_name(algo, algo) + (", no noise" if setting == "no-noise" else ""))
        for algo in ALGOS
        for setting in ("authors", "no-noise")
        if (setting, algo) in there
    ]


def _ends(scores: pd.DataFrame) -> Figure:
    look = styles({algo: algo for algo in ALGOS})
    labels = _labels(scores)
    figure = Figure(figsize=(COLUMN, 0.75 + 0.22 * len(labels)), layout="constrained")
    ax = figure.subplots()
    for position, (setting, algo, _) in enumerate(labels):
        far, near = (values(scores, f"{goal}_goal", setting, algo).mean() for goal in ("far", "near"))
        color = look[algo].color
        ax.barh(position, far, color=color, height=0.7)
        ax.barh(position, near, left=far, color=color, alpha=0.35, height=0.7)
        ax.barh(
            position,
            1 - far - near,
            left=far + near,
            color="none",
            edgecolor="#999999",
            linewidth=0.5,
            height=0.7,
        )
    ax.set_yticks(range(len(labels)), [plain(name) for _, _, name in labels])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlim=(0, 1), xlabel="Share of seeds:\nfar (full), near (pale), elsewhere (empty)")
    return figure


def _first_actions(actions: pd.DataFrame) -> Figure:
    algos = [algo for algo in ALGOS if algo in set(actions["label"])]
    seeds = sorted(actions["seed"].unique())[:SHOWN_SEEDS]
    figure = Figure(figsize=(PAGE, 0.95 * len(algos) + 0.3), layout="constrained")
    axes = figure.subplots(len(algos), len(seeds), sharex=True, sharey=True)
    for row, algo in zip(axes, algos):
        for ax, seed in zip(row, seeds):
            _heat(ax, actions[(actions["label"] == algo) & (actions["seed"] == seed)])
        row[0].set_ylabel(f"{display_name(algo, algo)}\naction")
    for ax, seed in zip(axes[0], seeds):
        ax.set_title(f"seed {seed:g}")
    for ax in axes[-1]:
        ax.set_xlabel("Environment steps")
        ax.xaxis.set_major_formatter(lambda value, _: short_count(value))
    return figure


def _heat(ax: Axes, rows: pd.DataFrame) -> None:
    """Time runs to the right; a column is one moment."""
    steps = np.sort(rows["env_step"].unique())
    counts = np.zeros((ACTION_CELLS, len(steps)))
    counts[rows["cell"].to_numpy(int), np.searchsorted(steps, rows["env_step"])] = rows["count"]
    half = (steps[1] - steps[0]) / 2
    ax.imshow(
        counts / counts.sum(axis=0),
        origin="lower",
        aspect="auto",
        extent=(steps[0] - half, steps[-1] + half, -1, 1),
        cmap="viridis_r",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    ax.grid(False)
    ax.set_yticks([-1, 0, 1])


def _coverage_table(scores: pd.DataFrame) -> Table:
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for algo in ALGOS:
        row: list[Entry] = [display_name(algo, algo)]
        sizes = []
        for setting in ("authors", "no-noise", "swingup-authors", "swingup-no-noise"):
            found = values(scores, "coverage", setting, algo)
            row.append(mean_entry(found, "coverage", setting, algo))
            if len(found):
                low, high = interval(found, "coverage", setting, algo)
                record = {"algo": algo, "setting": setting, "mean": found.mean(), "low": low, "high": high}
                records.append({**record, "n": len(found)})
                sizes.append(f"{len(found)}")
        rows.append([*row, "/".join(dict.fromkeys(sizes))])
    return Table(
        "coverage",
        "State coverage of all of training, relative to random",
        ["Algorithm", "Point", "no noise", "cartpole-swingup", "no noise ", "n"],
        rows,
        records,
        [
            "Cells visited divided by the mean of uniform random actions, mean over seeds [95% interval]. n: on the "
            "point / on cartpole-swingup. SAC and random have no added noise."
        ],
    )


def _ends_table(scores: pd.DataFrame) -> Table:
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for setting, algo, name in _labels(scores):
        row: list[Entry] = [name]
        record: dict[str, object] = {"algo": algo, "setting": setting}
        for goal in ("far", "near"):
            found = values(scores, f"{goal}_goal", setting, algo)
            low, high = _wilson(int(found.sum()), len(found))
            row.append(number(float(found.mean()), 2, detail=within(low, high, 2)))
            record |= {goal: float(found.mean()), f"{goal}_low": low, f"{goal}_high": high, "n": len(found)}
        rows.append([*row, str(record["n"])])
        records.append(record)
    return Table(
        "ends",
        "Where the final policy ends on the point",
        ["Algorithm", "Far goal", "Near goal", "n"],
        rows,
        records,
        [
            "Share of seeds for which more than half of the last 20 episodes end within 0.3 of the goal [95% score "
            "interval]."
        ],
    )


def _wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a share, 95%."""
    found = binomtest(k, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _actions_table(actions: pd.DataFrame) -> Table:
    """Of each seed's last samples: the share on the rarer side, and in the outermost cells."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    last = actions[actions["env_step"] == actions["env_step"].max()]
    for algo in (algo for algo in ALGOS if algo in set(last["label"])):
        minor, outer = [], []
        for _, mine in last[last["label"] == algo].groupby("seed"):
            total = mine["count"].sum()
            left = mine.loc[mine["cell"] < ACTION_CELLS / 2, "count"].sum() / total
            minor.append(min(left, 1 - left))
            outer.append(mine.loc[mine["cell"].isin([0, ACTION_CELLS - 1]), "count"].sum() / total)
        found = {"rarer_side": np.array(minor), "outermost": np.array(outer)}
        rows.append(
            [
                display_name(algo, algo),
                *(mean_entry(group, "first actions", algo) for group in found.values()),
                str(len(minor)),
            ]
        )
        records.append({"algo": algo, **{k: float(v.mean()) for k, v in found.items()}, "n": len(minor)})
    return Table(
        "first_actions",
        "Actions at the first state of cartpole-swingup after training",
        ["Algorithm", "On the rarer side", "Within 0.1 of ±1", "n"],
        rows,
        records,
        [
            "Shares of 500 samples of each seed's policy, mean over seeds [95% interval]. The rarer side is the sign "
            "that fewer samples of that seed have: 0.5 where both are equally frequent, 0 where all have the same."
        ],
    )
