"""The curves of a figure as data, from which the page draws them again, to be hovered, zoomed and toggled.

They are read off the figure itself, so that page and paper show the same: the lines that its legend names, each with
the band and the thin lines of single seeds that were drawn before it in its colour.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray

from bench.analysis.resampling import Array
from bench.analysis.style import unplain

DIGITS = 4  # significant ones of the largest number in a panel: more than can be seen, and no more bytes
SHOWN = 3  # those that the tables have, and that a reader is shown at the cursor

Look = tuple[str, tuple[float, ...], str]  # colour, dashes, marker
Data = dict[str, Any]


def chart(figure: Figure) -> str | None:
    """The figure's panels and curves as JSON that may stand in a script element of a page.

    None where the figure shows anything besides such curves (bars, marks, reference lines, names of values in place of
    numbers, logarithms): part of a figure would not be that figure.
    """
    names = dict(_named(figure))
    panels = [_panel(ax, list(names)) for ax in figure.axes if ax.axison]
    if not names or not panels or any(panel is None for panel in panels):
        return None
    record = {
        "names": [
            {"name": name.text, "group": name.group, "color": color, "dash": dashes, "width": name.width}
            for (color, dashes, _), name in names.items()
        ],
        "columns": grid.ncols if (grid := figure.axes[0].get_gridspec()) else 1,
        "panels": panels,
    }
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@dataclass(frozen=True)
class _Name:
    """An entry of a legend. group: the legend's title; width: of its line, 1 for the usual one."""

    text: str
    group: str
    width: float


def _named(figure: Figure) -> Iterator[tuple[Look, _Name]]:
    """What each look stands for, in the order of the legends."""
    for legend in figure.legends:
        for handle, text in zip(legend.legend_handles, legend.get_texts()):
            if isinstance(handle, Line2D):
                width = round(handle.get_linewidth() / matplotlib.rcParams["lines.linewidth"], 2)
                yield _look(handle), _Name(unplain(text.get_text()), legend.get_title().get_text(), width)


def _look(line: Line2D) -> Look:
    # matplotlib tells how a line is dashed in this attribute alone; its public getter says "--" for every pattern
    dashes = line._unscaled_dash_pattern[1]  # type: ignore[attr-defined]
    return to_hex(line.get_color()), tuple(map(float, dashes or ())), str(line.get_marker())


def _panel(ax: Axes, looks: Sequence[Look]) -> Data | None:
    """One pair of axes; None where something in it is no curve of the legend, nor belongs to one."""
    if not _shows_lines_alone(ax):
        return None
    waiting: list[PolyCollection | Line2D] = []
    curves: list[Data] = []
    xs: list[Array] = []
    decimals = _decimals(ax)
    shown = max(0, SHOWN - 1 - math.floor(math.log10(max(map(abs, ax.get_ylim())))))
    for artist in ax.get_children():  # in the order in which they were drawn
        if not isinstance(artist, PolyCollection | Line2D):
            continue
        if not (isinstance(artist, Line2D) and _look(artist) in looks):
            waiting.append(artist)
            continue
        x = np.asarray(artist.get_xdata(), float)
        steps = artist.get_drawstyle() == "steps-post"
        mine = [other for other in waiting if _color(other) == to_hex(artist.get_color())]
        waiting = [other for other in waiting if other not in mine]
        curve: Data = {"name": looks.index(_look(artist)), "x": _index(xs, x)}
        curve["y"] = _shown(np.asarray(artist.get_ydata(), float), shown)
        for other in mine:
            if isinstance(other, Line2D):
                if not np.array_equal(x, np.asarray(other.get_xdata(), float)):
                    return None
                seed = _rounded(np.asarray(other.get_ydata(), float), decimals)
                curve.setdefault("seeds", []).append(seed)
            elif (bounds := _bounds(other, x, steps)) is not None:
                curve["low"], curve["high"] = (_rounded(bound, shown) for bound in bounds)
            elif other.get_paths():
                return None
        curves.append(curve | ({"steps": True} if steps else {}))
    if waiting or not curves:
        return None
    return {
        "title": unplain(ax.get_title()),
        **_labels(ax),
        "xs": [_rounded(x, 6) for x in xs],
        "xlim": [float(edge) for edge in ax.get_xlim()],
        "ylim": _rounded(np.array(ax.get_ylim()), decimals),
        "decimals": shown,
        "curves": curves,
    }


def _shows_lines_alone(ax: Axes) -> bool:
    """Whether all that is drawn is lines and bands, on linear axes of numbers."""
    drawn = [*ax.lines, *ax.collections, *ax.patches, *ax.texts, *ax.images]
    named = any(isinstance(axis.get_major_locator(), FixedLocator) for axis in (ax.xaxis, ax.yaxis))
    linear = ax.get_xscale() == ax.get_yscale() == "linear"
    return linear and not named and all(isinstance(artist, PolyCollection | Line2D) for artist in drawn)


def _decimals(ax: Axes) -> int:
    """Of the numbers in a panel: its largest has DIGITS digits."""
    values = np.abs(
        np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines] or [np.zeros(1)])
    )
    largest = float(np.max(values[np.isfinite(values)], initial=0))
    return DIGITS - 1 - math.floor(math.log10(largest)) if largest > 0 else 0


def _labels(ax: Axes) -> dict[str, str]:
    """What its axes show: by its own labels, or the figure's, or the y label of its row's first panel."""
    figure, place = ax.get_figure(root=True), ax.get_subplotspec()
    assert figure is not None  # it was found in one
    first = next(other for other in figure.axes if place is None or _row(other) == _row(ax))
    return {
        "x": unplain(ax.get_xlabel() or figure.get_supxlabel()),
        "y": unplain(ax.get_ylabel() or figure.get_supylabel() or first.get_ylabel()),
    }


def _row(ax: Axes) -> int | None:
    place = ax.get_subplotspec()
    return place.rowspan.start if place else None


def _color(artist: PolyCollection | Line2D) -> str:
    """Of a line, or of a band's inside; "" where there is none."""
    if isinstance(artist, Line2D):
        return to_hex(artist.get_color())
    faces = np.asarray(artist.get_facecolor(), float).reshape(-1, 4)
    return to_hex(tuple(faces[0, :3].tolist())) if len(faces) else ""


def _index(xs: list[Array], x: Array) -> int:
    """Where `x` stands in `xs`; it is added where it is new."""
    for i, known in enumerate(xs):
        if np.array_equal(known, x):
            return i
    xs.append(x)
    return len(xs) - 1


def _bounds(band: PolyCollection, x: Array, steps: bool) -> tuple[Array, Array] | None:
    """Low and high of a band over all of `x`, from the polygon that `fill_between` makes: its start, along the first
    bound, its end, and back along the second. None for any other polygon.
    """
    if len(band.get_paths()) != 1:
        return None
    vertices: NDArray[np.float64] = np.asarray(band.get_paths()[0].vertices, float)
    count = 2 * len(x) - 1 if steps else len(x)
    first, second = vertices[1 : count + 1], vertices[count + 2 : 2 * count + 2][::-1]
    if steps:
        first, second = first[::2], second[::2]
    if not (np.array_equal(first[:, 0], x) and np.array_equal(second[:, 0], x)):
        return None
    return first[:, 1], second[:, 1]


def _shown(values: Array, decimals: int) -> list[float | int | None]:
    """With one decimal more than is shown (a curve is drawn finer), which cannot change how it rounds to those shown.

    What is cut off of a number that ends in 0 or 5 makes that a 1 or 6: 0.4501 becomes 0.46 and is shown as 0.5, as it
    is in a table; 0.45 would be shown as 0.4 or 0.5.
    """
    size = np.abs(values) * 10.0 ** (decimals + 1)
    cut = np.floor(size)
    with np.errstate(invalid="ignore"):  # of what is no number
        cut += (size > cut) & (cut % 5 == 0)
    return _rounded(np.copysign(cut, values) / 10.0 ** (decimals + 1), decimals + 1)


def _rounded(values: Array, decimals: int) -> list[float | int | None]:
    """Numbers for JSON: rounded to the digits that can be seen, null where there is none."""
    return [
        None if not math.isfinite(value) else int(value) if value == int(value) else value
        for value in (round(value, decimals) for value in values.tolist())
    ]
