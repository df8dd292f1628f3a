"""Learning curves of what was logged in training: losses, entropy, q_gradient, at_bound, the length of episodes, …"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bench.analysis.resampling import Array
from bench.analysis.scores.figures import curves, steps_axis
from bench.analysis.scores.results import Results, RunScore
from bench.errors import UserError, suggest
from bench.runs import DamagedRun
from bench.studies.lookup import look_up

Logged = dict[str, tuple[Array, Array]]  # name -> environment steps and values, (rows,) each


def metric_figures(results: Results, names: Sequence[str]) -> tuple[dict[str, Figure | None], list[str]]:
    """A figure for each metric; and a line for each that no scored run has logged: UserError where it is required."""
    if not names:
        return {}, []
    logged = {score.run.path: _logged(score) for score in results.runs if score.scored}
    known = {name for of_run in logged.values() for name in of_run}

    def draw(name: str) -> tuple[str, Figure | None]:
        if name not in known:
            raise UserError(f"no metric {name!r} was logged here{suggest(name, known)}")
        return name, _figure(results, name, logged)

    drawn, left_out = look_up(names, draw, "metrics" in results.required)
    return dict(drawn), left_out


def _logged(score: RunScore) -> Logged:
    """Everything in train.csv. "return" and "length" of training episodes are "episode_return" and "episode_length"."""
    try:
        table = score.run.columns("train.csv")
    except DamagedRun:
        return {}  # damaged files are reported elsewhere; the scores were read before
    kinds, names = table["kind"].astype(str), table["name"].astype(str)
    full = np.where(kinds == "episode", np.char.add("episode_", names), names)
    return {
        str(name): (table["env_step"][full == name], table["value"][full == name]) for name in np.unique(full)
    }


def _figure(results: Results, name: str, logged: Mapping[Path, Logged]) -> Figure | None:
    """Between two evaluations the mean of what was logged: the steps at which metrics are logged differ."""
    cells = {}
    for key, cell in results.cells.items():
        values = [
            _binned(*found[name], cell.env_steps) for s in cell.runs if name in (found := logged[s.run.path])
        ]
        if not values:
            continue
        rows = np.array(values)
        whole = np.isfinite(rows).all(axis=0)  # as far as every seed has it
        if whole.any():
            cells[key] = replace(cell, env_steps=cell.env_steps[whole], returns=rows[:, whole], scaled=False)
    labels = tuple(label for label in results.labels if any(label == other for _, other in cells))
    families = dict.fromkeys(results.families, "")  # no scale of returns
    shown = replace(results, cells=cells, labels=labels, families=families)
    return curves(shown, lambda cell: cell.env_steps, "Environment steps", steps_axis, name)


def _binned(steps: Array, values: Array, edges: Array) -> Array:
    """Means of the values logged after one edge and up to the next, (K,); nan where there are none."""
    finite = np.isfinite(values)
    at = np.searchsorted(edges, steps[finite], side="left")
    inside = at < len(edges)
    counts = np.bincount(at[inside], minlength=len(edges))
    sums = np.bincount(at[inside], weights=values[finite][inside], minlength=len(edges))
    return np.divide(sums, counts, out=np.full(len(edges), np.nan), where=counts > 0)
