"""How algorithms look: one colour each in every figure, distinct in grey by line and marker as well."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import seaborn
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from bench.analysis.scores.results import name_parts

COLUMN, PAGE = 3.25, 6.75  # inches: one column and both columns of a two-column paper (ICML's)

_BLUE, _ORANGE, _GREEN, _VERMILION, _PURPLE, _BROWN, _, _, _, _SKY = map(
    to_hex, seaborn.color_palette("colorblind")
)
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1)),
    (0, (6, 1, 1, 1)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (8, 2)),
)
MARKERS = "osD^vP*X<>ph"
_KNOWN: dict[str, tuple[str, Any, str]] = {
    "qsm": (_BLUE, _DASHES[0], "o"),
    "dql": (_VERMILION, _DASHES[1], "s"),
    "dql-bc": (_ORANGE, _DASHES[4], "D"),
    "sac": (_GREEN, _DASHES[3], "^"),
    "td3": (_PURPLE, _DASHES[2], "v"),
    "random": ("#6e6e6e", (0, (2, 2)), ""),
}
_OTHERS = ("#222222", "#808000", "#8b1a1a", _SKY, _BROWN)
_NAMES = {"qsm": "QSM", "dql": "DQL", "dql-bc": "DQL-BC", "sac": "SAC", "td3": "TD3", "random": "Random"}


@dataclass(frozen=True)
class Style:
    color: str
    linestyle: Any
    marker: str


def display_name(label: str, algo: str) -> str:
    """What a reader sees for an algorithm's label: "QSM", "QSM M_q=120 T=20"."""
    shown = _NAMES.get(algo, algo)
    overrides = " ".join(name_parts(label.removeprefix(algo)))
    return f"{shown}{overrides}" if label.startswith(algo) else label


def order(algo: str) -> tuple[int, str]:
    """Sorts algorithms as the suite lists its own, then the others by name."""
    return (list(_KNOWN).index(algo) if algo in _KNOWN else len(_KNOWN), algo)


def styles(algos: Mapping[str, str]) -> dict[str, Style]:
    """Label -> style, given label -> algorithm.

    An algorithm's variants share its colour, paler from one to the next, with lines and markers of their own.
    The colour of an unknown algorithm follows from its name; only where two names meet does the later
    move on.
    """
    base = {algo: _KNOWN[algo] for algo in sorted(set(algos.values())) if algo in _KNOWN}
    free = list(range(len(_OTHERS)))
    for algo in sorted(set(algos.values()) - set(_KNOWN)):
        start = zlib.crc32(algo.encode())
        index = min(free or range(len(_OTHERS)), key=lambda i: (i - start) % len(_OTHERS))
        free = [i for i in free if i != index]
        base[algo] = (_OTHERS[index], _DASHES[(index + 1) % len(_DASHES)], MARKERS[5 + index])
    result = {}
    for algo, (color, line, marker) in base.items():
        variants = sorted((label for label in algos if algos[label] == algo), key=lambda x: (x != algo, x))
        for i, label in enumerate(variants):
            pale = 0.65 * i / max(len(variants) - 1, 1)
            red, green, blue = (c + (1 - c) * pale for c in to_rgb(color))
            result[label] = Style(
                color=to_hex((red, green, blue)),
                linestyle=line
                if i == 0
                else _DASHES[(_DASHES.index(line) + i) % len(_DASHES)]
                if marker
                else line,
                marker=marker
                if i == 0 or not marker
                else MARKERS[(MARKERS.index(marker) + i) % len(MARKERS)],
            )
    return result


def plain(text: str) -> str:
    """Text that matplotlib draws as it stands: no mathematics, and no leading underscore, which hides a
    legend.
    """
    return ("\u200a" if text.startswith("_") else "") + text.replace("$", r"\$")


def unplain(text: str) -> str:
    """The text that `plain` was given."""
    return text.removeprefix("\u200a").replace(r"\$", "$")


@contextmanager
def drawing() -> Iterator[None]:
    """The one look of all figures, whatever matplotlibrc the user has."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(seaborn.axes_style("ticks"))
        matplotlib.rcParams.update(
            {
                "font.family": "DejaVu Sans",
                "font.size": 7.5,
                "axes.titlesize": 8,
                "axes.labelsize": 7.5,
                "legend.fontsize": 7.5,
                "xtick.labelsize": 6.5,
                "ytick.labelsize": 6.5,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.linewidth": 0.6,
                "xtick.major.width": 0.6,
                "ytick.major.width": 0.6,
                "xtick.major.size": 2.5,
                "ytick.major.size": 2.5,
                "axes.grid": True,
                "grid.color": "#e4e4e4",
                "grid.linewidth": 0.5,
                "lines.linewidth": 1.3,
                "lines.markersize": 3.5,
                "legend.frameon": False,
                "pdf.fonttype": 42,
                "savefig.dpi": 220,
            }
        )
        yield


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PDF and PNG beside each other, without dates: the same figure, the same bytes."""
    Path(f"{path}.png").write_bytes(png(figure))
    figure.set_layout_engine("none")  # it is laid out now; doing it again would take as long as drawing
    figure.savefig(f"{path}.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 256 colours: a third of the size, to look the same."""
    pixels, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(pixels, format="png")
    dpi = matplotlib.rcParams["savefig.dpi"]
    palette = Image.open(pixels).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    palette.save(packed, format="PNG", optimize=True, dpi=(dpi, dpi))
    return packed.getvalue()


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One legend for all panels, above them."""
    widest = max((len(label) for label in labels), default=1)
    per_row = max(1, min(len(labels), int(figure.get_figwidth() / (0.062 * widest + 0.6))))
    rows = -(-len(labels) // per_row)
    per_row = -(-len(labels) // rows)  # rows of about the same length
    figure.set_figheight(figure.get_figheight() + 0.16 * rows)  # the panels keep their height
    figure.legend(
        handles,
        [plain(label) for label in labels],
        loc="outside upper center",
        ncols=per_row,
        handlelength=3.2,
    )
