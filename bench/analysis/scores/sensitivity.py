"""Final return over the values of one setting, from the variants of an algorithm that a study has: qsm, qsm:M_q=5, …"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.analysis.coverage import mark
from bench.analysis.resampling import Array
from bench.analysis.scores.estimates import mean_over_seeds
from bench.analysis.scores.figures import label_panels, panels
from bench.analysis.scores.results import LARGEST_RETURN, Cell, Results, name_parts
from bench.analysis.style import legend, named, plain, styles
from bench.errors import UserError, suggest
from bench.studies.lookup import look_up

ENOUGH = 3  # values of a number that are drawn without being asked for
WIDE = 8.0  # values whose largest is so many times the smallest have a logarithmic axis
APART = 0.015  # of the axis: between two lines at the same value
CHARACTER, BESIDE = 0.055, 0.75  # inches: of a tick's label, of a panel beside its axis


@dataclass
class Line:
    """Variants that differ in one setting alone."""

    algo: str
    name: str
    cells: list[tuple[Any, Cell]] = field(default_factory=list)  # value, cell

    def values(self) -> set[Any]:
        return {value for value, _ in self.cells}


def sensitivity_figures(results: Results, wanted: Sequence[str]) -> tuple[dict[str, Figure], list[str]]:
    """A figure for each setting: those wanted ("M_q", "qsm:M_q", "qsm:M_q=5,20,120"), else every numeric setting of
    which variants of one algorithm have at least ENOUGH values.

    And a line for each wanted setting or value that no variants differ in: UserError where it is required.
    """
    settings = _settings(results)
    if wanted:
        drawn, left_out = look_up(
            wanted, partial(_wanted, results, settings), "sensitivity" in results.required
        )
        return dict(drawn), left_out
    found = {setting: _lines(results, setting, "") for setting in settings}
    enough = {
        s: [x for x in of_s if len(x.values()) >= ENOUGH] for s, of_s in found.items() if _numeric(of_s)
    }
    return {setting: _figure(results, setting, of_s) for setting, of_s in enough.items() if of_s}, []


def _wanted(results: Results, settings: Collection[str], word: str) -> tuple[str, Figure]:
    """The name of a figure, and the figure. Raises UserError."""
    algo, setting, values = _asked(word)
    lines = [x for x in _lines(results, setting, algo) if len(x.values()) > 1]
    if not lines:
        there = f"{algo or 'any algorithm'} here"
        raise UserError(
            f"sensitivity: no variants of {there} differ in {setting!r}{suggest(setting, settings)}"
        )
    if values:
        for x in lines:
            x.cells = [(value, cell) for value, cell in x.cells if _text(value) in values]
        missing = [value for value in values if not any(value in map(_text, x.values()) for x in lines)]
        if missing:
            raise UserError(f"sensitivity: {word}: no variant here has {setting}={missing[0]}")
    return f"{algo}-{setting}" if algo else setting, _figure(results, setting, lines)


def _asked(word: str) -> tuple[str, str, list[str]]:
    """ "qsm:M_q=5,20" -> ("qsm", "M_q", ["5", "20"]); algorithm and values may be left out."""
    algo, colon, rest = word.partition(":")
    setting, _, values = (rest if colon else word).partition("=")
    return algo if colon else "", setting, [_text(_number(value)) for value in values.split(",") if value]


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _text(value: Any) -> str:
    return (
        f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value).lower()
    )


def _configs(results: Results) -> Iterator[tuple[Cell, dict[str, Any]]]:
    for cell in results.cells.values():
        config = cell.runs[0].run.meta.get("config", {})
        yield cell, {key: "x".join(map(str, v)) if isinstance(v, list) else v for key, v in config.items()}


def _settings(results: Results) -> list[str]:
    """The settings in which variants of one algorithm differ on one task."""
    seen: dict[tuple[str, str, str], set[str]] = {}
    for cell, config in _configs(results):
        for key, value in config.items():
            seen.setdefault((key, cell.env, cell.algo), set()).add(json.dumps(value))
    return sorted({key for (key, _, _), values in seen.items() if len(values) > 1})


def _lines(results: Results, setting: str, algo: str) -> list[Line]:
    """The variants grouped by everything but the setting; a line may have one value."""
    found: dict[tuple[str, str, str], Line] = {}
    for cell, config in _configs(results):
        if setting not in config or (algo and cell.algo != algo):
            continue
        # the study's own value may differ between tasks, so the name of a line decides what belongs to it
        label, _, study = cell.label.partition("@")
        first, *changes = name_parts(label)
        own = "-".join([first, *(change for change in changes if not change.startswith(f"{setting}="))])
        own = f"{own}@{study}" if study else own
        rest = json.dumps({k: v for k, v in config.items() if k != setting}, sort_keys=True)
        group = found.setdefault((own, cell.env, rest), Line(cell.algo, own))
        group.cells.append((config[setting], cell))
    joined: dict[str, Line] = {}
    for line in found.values():
        joined.setdefault(line.name, Line(line.algo, line.name)).cells += line.cells
    return list(joined.values())


def _numeric(lines: Sequence[Line]) -> bool:
    values = {value for line in lines for value in line.values()}
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _figure(results: Results, setting: str, lines: Sequence[Line]) -> Figure:
    envs = [env for env in results.envs if any(cell.env == env for line in lines for _, cell in line.cells)]
    figure, axes = panels(len(envs), width=results.choice.width)
    look = styles({line.name: line.algo for line in lines})
    numeric = _numeric(lines)
    values = sorted(
        {value for line in lines for value in line.values()}, key=lambda v: (v,) if numeric else _in_order(v)
    )
    place = {value: float(value) if numeric else float(i) for i, value in enumerate(values)}
    logarithmic = numeric and min(values) > 0 and max(values) > WIDE * min(values)
    between = 0.6 / len(lines) / max(len(values) - 1, 1)  # two lines at the same name
    handles = {}
    for env, ax in zip(envs, axes):
        for number, line in enumerate(lines):
            here = [(place[value], cell) for value, cell in line.cells if cell.env == env]
            points = sorted(here, key=lambda point: point[0])
            if not points:
                continue
            # side by side, or intervals would hide each other
            aside = (APART if numeric else min(4 * APART, between)) * (number - (len(lines) - 1) / 2)
            x = _moved(np.array([at for at, _ in points]), aside, [*place.values()], logarithmic)
            found = [mean_over_seeds(cell, cell.final) for _, cell in points]
            style = look[line.name]
            ax.vlines(x, [e.low for e in found], [e.high for e in found], color=style.color, linewidth=0.8)
            handles[line.name] = ax.plot(
                x,
                [e.value for e in found],
                color=style.color,
                linestyle=style.linestyle if numeric else "",  # names have no order that a line could follow
                marker=style.marker or "o",
                markersize=style.size,
                linewidth=1.0,
            )[0]
        ax.set_title(plain(env))
        if logarithmic:
            ax.set_xscale("log")
            ax.minorticks_off()
        _value_axis(ax, [*place.values()], [_text(value) for value in values], numeric)
        if env in results.control_envs:
            ax.set_ylim(0, min(1.05 * ax.dataLim.ymax, LARGEST_RETURN * 1.02))
    label_panels(figure, axes, f"{setting} (log scale)" if logarithmic else setting, "Final return")
    shown = [line for line in lines if line.name in handles]
    legend(
        figure,
        [handles[x.name] for x in shown],
        [f"{named(results, x.name, x.algo)} (n = {_sizes(x)})" for x in shown],
    )
    return figure


def _in_order(value: Any) -> list[tuple[int, str]]:
    """Sorts names as a reader expects: "64x64" before "256x256"."""
    return [(int(part or -1), word) for word, part in re.findall(r"([^0-9]*)([0-9]*)", str(value))]


def _moved(x: Array, aside: float, places: Sequence[float], logarithmic: bool) -> Array:
    """x moved by a share of the axis."""
    low, high = min(places), max(places)
    return x * (high / low) ** aside if logarithmic else x + aside * (high - low)


def _sizes(line: Line) -> str:
    sizes = sorted({cell.n for _, cell in line.cells})
    ends = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}"
    return f"{ends}{mark(sizes[0])}"


def _value_axis(ax: Axes, places: Sequence[float], names: Sequence[str], numeric: bool) -> None:
    """A tick at every value. Of numbers that would touch, some are not written; names are turned instead."""
    figure, spec = ax.get_figure(root=True), ax.get_subplotspec()
    assert figure is not None
    assert spec is not None
    room = figure.get_figwidth() / spec.get_gridspec().ncols - BESIDE
    at = np.log(places) if ax.get_xscale() == "log" else np.array(places)
    at = room * (at - at[0]) / ((at[-1] - at[0]) or 1)
    widths = [CHARACTER * (len(name) + 1) for name in names]

    def touch(i: int, j: int) -> bool:
        return bool(at[j] - at[i] < (widths[i] + widths[j]) / 2)

    if not numeric:
        turned = any(touch(i, i + 1) for i in range(len(names) - 1))
        ax.set_xticks(places, [plain(name) for name in names])
        for text in ax.get_xticklabels() if turned else ():
            text.set(rotation=30, ha="right", rotation_mode="anchor")
        return
    written = [0]
    for i in range(1, len(names)):
        if i == len(names) - 1:  # the last is, in place of those before it
            written = written[:1] + [j for j in written[1:] if not touch(j, i)]
        if not touch(written[-1], i):
            written.append(i)
    ax.set_xticks(places, [plain(name) if i in written else "" for i, name in enumerate(names)])
