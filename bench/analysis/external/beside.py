"""Our scores beside those measured by others, which are always marked as external."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.analysis.coverage import FEW_SEEDS_ONLY, mark
from bench.analysis.scores.figures import finish_panel, label_panels, legend_name, line, panels, steps_axis
from bench.analysis.scores.results import Results
from bench.analysis.scores.tables import count
from bench.analysis.style import MARKERS, display_name, legend, styles
from bench.analysis.table import Entry, Table, number, within


def beside_ours(results: Results, external: pd.DataFrame) -> pd.DataFrame:
    """The external scores of this study's tasks, up to its last step, of algorithms that it has too."""
    last = max((float(cell.env_steps[-1]) for cell in results.cells.values()), default=0.0)
    ours = set(results.algos.values())
    keep = external["env"].isin(results.envs) & external["algo"].isin(ours) & (external["env_step"] <= last)
    return external[keep]


def other_algorithms(results: Results, external: pd.DataFrame) -> list[str]:
    """Algorithms with external scores on this study's tasks that the study itself does not have: not shown."""
    names = set(external.loc[external["env"].isin(results.envs), "algo"])
    return sorted(names - set(results.algos.values()))


def table(results: Results, external: pd.DataFrame) -> Table:
    """External scores beside our mean over seeds at the same environment step."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for item in beside_ours(results, external).to_dict("records"):
        labels = [
            x
            for x in results.labels
            if results.algos[x] == item["algo"] and (item["env"], x) in results.cells
        ]
        for label in labels:
            cell = results.cells[item["env"], label]
            at = np.flatnonzero(cell.env_steps == item["env_step"])
            if not len(at):
                continue
            ours = cell.returns[:, at[0]]
            seeds = "n not stated" if np.isnan(item["n"]) else f"n = {item['n']:.0f}"
            spread = "" if np.isnan(item["low"]) else within(item["low"], item["high"]) + " "
            rows.append(
                [
                    item["env"],
                    display_name(label, cell.algo),
                    number(item["env_step"]),
                    item["source"],
                    number(item["mean"], detail=spread + seeds),
                    number(ours.mean(), detail=f"{within(ours.min(), ours.max())} {count(cell.n)}"),
                ]
            )
            record = {
                "label": label,
                **{f"external_{key}": item[key] for key in ("mean", "low", "high", "n")},
            }
            record |= {
                "ours_mean": ours.mean(),
                "ours_low": ours.min(),
                "ours_high": ours.max(),
                "ours_n": cell.n,
            }
            records.append({**{key: item[key] for key in ("env", "algo", "source", "env_step")}, **record})
    notes = [
        "External: measured by others, under protocols that differ from ours in widths, learning rate, batch "
        "or action repeat; see results/published/README.md. Brackets: lowest and highest seed.",
        *([FEW_SEEDS_ONLY] if any(mark(cell.n) for cell in results.cells.values()) else []),
    ]
    columns = ["Task", "Algorithm", "Env steps", "Source (external)", "External", "Ours at this step"]
    return Table("external", "Beside external scores", columns, rows, records, notes)


def figure(results: Results, external: pd.DataFrame) -> Figure | None:
    """Our mean learning curves with the external scores as open markers, from lowest to highest seed."""
    shown = beside_ours(results, external)
    envs = [env for env in results.envs if (shown["env"] == env).any()]
    if not envs:
        return None
    look, their_look = styles(results.algos), styles({algo: algo for algo in results.algos.values()})
    markers = {source: MARKERS[i % len(MARKERS)] for i, source in enumerate(sorted(set(shown["source"])))}
    made, axes = panels(len(envs))
    handles: dict[str, Any] = {}
    for env, ax in zip(envs, axes):
        for label in results.labels:
            cell = results.cell(env, label)
            if cell is not None:
                mean = cell.returns.mean(axis=0)
                handles[label] = line(ax, cell.env_steps, mean, look[label])
        for item in _side_by_side(shown[shown["env"] == env]).to_dict("records"):
            _open_marker(ax, markers[item["source"]], their_look[item["algo"]].color, item)
        finish_panel(ax, results, env, steps_axis)
    label_panels(made, axes, "Environment steps", "Return")
    order = [label for label in results.labels if label in handles]
    names = [legend_name(results, x, [c for c in results.cells.values() if c.label == x]) for x in order]
    nowhere = {"env_step": np.nan, "mean": np.nan, "low": np.nan, "high": np.nan}
    points = [_open_marker(axes[0], marker, "#444444", nowhere) for marker in markers.values()]
    legend(made, [*(handles[x] for x in order), *points], [*names, *(f"external: {x}" for x in markers)])
    return made


def _side_by_side(shown: pd.DataFrame) -> pd.DataFrame:
    """Scores at the same step, a little apart, so that none hides another."""
    grouped = shown.groupby("env_step")["mean"]
    place = grouped.cumcount() - (grouped.transform("size") - 1) / 2
    return shown.assign(env_step=shown["env_step"] + 0.02 * place * shown["env_step"].max())


def _open_marker(ax: Axes, marker: str, color: str, item: dict[str, Any]) -> Any:
    """One external score; nan where no seeds' spread is known leaves out the bar."""
    if not np.isnan(item["low"]):
        ax.plot([item["env_step"]] * 2, [item["low"], item["high"]], color=color, linewidth=0.7)
    return ax.plot(
        item["env_step"],
        item["mean"],
        marker=marker,
        linestyle="",
        markersize=4.5,
        markerfacecolor="white",
        markeredgecolor=color,
        markeredgewidth=0.9,
    )[0]
