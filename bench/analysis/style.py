"""How algorithms look: one colour each in every figure, distinct in grey by line and marker as well."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import matplotlib
import seaborn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image

from bench.analysis.scores.results import Results, name_parts

COLUMN, PAGE = 3.25, 6.75  # inches: one column and both columns of a two-column paper (ICML's)

_BLUE, _ORANGE, _GREEN, _VERMILION, _PURPLE, _BROWN, _PINK, _, _, _SKY = map(
    to_hex, seaborn.color_palette("colorblind")
)
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1)),
    (0, (6, 1, 1, 1)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (8, 2)),
    (0, (2, 2, 6, 2)),
)
MANY = 8  # curves in a panel; more are drawn thinner
MARKERS = "osD^vP*X<>ph"
_KNOWN: dict[str, tuple[str, Any, str]] = {
    "qsm": (_BLUE, _DASHES[0], "o"),
    "dql": (_VERMILION, _DASHES[1], "s"),
    "dql-bc": (_ORANGE, _DASHES[4], "D"),
    "sac": (_GREEN, _DASHES[3], "^"),
    "td3": (_PURPLE, _DASHES[2], "v"),
    "random": ("#6e6e6e", (0, (2, 2)), ""),
}
# Of everybody else, in an order in which neighbours differ: hue, lightness, dash and marker at once.
_OTHERS = (
    *("#222222", "#808000", "#8b1a1a", _SKY, _BROWN, "#4b0082", _PINK),
    *("#006d6d", "#c2185b", "#9e9d24", "#3e5c9a", "#7a6a4f", "#e08e79", "#5d8a3a"),
    *("#0f3d5c", "#b5651d", "#8f7fb8", "#4d4d4d"),
)
_NAMES = {
    **{"qsm": "QSM", "dql": "DQL", "dql-bc": "DQL-BC", "sac": "SAC", "td3": "TD3", "random": "Random"},
    **{
        "dacer": "DACER",
        "dime": "DIME",
        "dipo": "DIPO",
        "dpmd": "DPMD",
        "maxentdp": "MaxEntDP",
        "qvpo": "QVPO",
    },
    **{
        "rfm": "RFM",
        "sdac": "SDAC",
        "crossq": "CrossQ",
        "q-langevin": "Q-Langevin",
        "ddpg": "DDPG",
        "mpo": "MPO",
    },
    **{
        "xqc": "XQC",
        "simba": "SimBa",
        "simbav2": "SimbaV2",
        "bro": "BRO",
        "brc": "BRC",
        "redq": "REDQ",
        "td7": "TD7",
    },
    **{"tdmpc": "TD-MPC", "tdmpc2": "TD-MPC2", "dreamerv3": "DreamerV3", "d4pg": "D4PG", "dmpo": "DMPO"},
}


SIZES = {
    "D": 2.9,
    "s": 3.2,
    "*": 5.0,
    "P": 4.0,
    "X": 3.9,
}  # points, so that all markers look as large as a circle of 3.5


@dataclass(frozen=True)
class Style:
    color: str
    linestyle: Any
    marker: str

    @property
    def size(self) -> float:
        """Of the marker, in points."""
        return SIZES.get(self.marker, 3.5)


def display_name(label: str, algo: str, title: str = "") -> str:
    """What a reader sees for an algorithm's label: "QSM", "QSM M_q=120 T=20", "SAC (gate-sac)" of a certain study.

    title: of an algorithm that is not the suite's; without one its registry name stands for it.
    """
    label, _, study = label.partition("@")
    overrides = " ".join(name_parts(label.removeprefix(algo)))
    shown = f"{_NAMES.get(algo) or title or algo}{overrides}" if label.startswith(algo) else label
    return f"{shown} ({study})" if study else shown


def named(results: Results, label: str, algo: str = "") -> str:
    """The name of a label in this report, chosen or made. algo: of a label that is none of the report's own."""
    algo = algo or results.algos[label]
    return results.choice.names.get(label) or display_name(label, algo, results.titles.get(algo, ""))


def order(algo: str) -> tuple[int, str]:
    """Sorts algorithms as the suite lists its own, then the others by name."""
    return (list(_KNOWN).index(algo) if algo in _KNOWN else len(_KNOWN), algo)


def looks(results: Results) -> dict[str, Style]:
    """Label -> style in this report; a chosen colour replaces the colour alone."""
    found = styles(results.algos)
    return found | {
        label: replace(found[label], color=to_hex(color)) for label, color in results.choice.colors.items()
    }


def styles(algos: Mapping[str, str]) -> dict[str, Style]:
    """Label -> style, given label -> algorithm.

    An algorithm's variants share its colour, paler from one to the next, with lines and markers of their own.
    The colour of an unknown algorithm follows from its name; only where two names meet does the later
    move on. No two labels have the same line and marker, so that a print without colours tells them apart, as long
    as there are pairs of them.
    """
    base = {algo: _KNOWN[algo] for algo in sorted(set(algos.values())) if algo in _KNOWN}
    taken = {(str(line), marker) for _, line, marker in _KNOWN.values()}
    free = list(range(len(_OTHERS)))
    for algo in sorted(set(algos.values()) - set(_KNOWN)):
        free = free or list(range(len(_OTHERS)))
        start = zlib.crc32(algo.encode())
        index = min(free, key=lambda i: (i - start) % len(_OTHERS))
        free.remove(index)
        line, marker = _untaken(index + 1, 5 + index, taken)
        base[algo] = (_OTHERS[index], line, marker)
    result = {}
    for algo, (color, line, marker) in base.items():
        variants = sorted((label for label in algos if algos[label] == algo), key=lambda x: (x != algo, x))
        for i, label in enumerate(variants):
            pale = 0.6 * i / len(variants)
            red, green, blue = (c + (1 - c) * pale for c in to_rgb(color))
            if i and marker:
                line, marker = _untaken(_DASHES.index(line) + 1, MARKERS.index(marker) + 1, taken)
            result[label] = Style(to_hex((red, green, blue)), line, marker)
    return result


def _untaken(dash: int, marker: int, taken: set[tuple[str, str]]) -> tuple[Any, str]:
    """The first line and marker from these on that nobody has; it is noted in `taken`. Both change at each step."""
    pairs = len(_DASHES) * len(MARKERS)  # 7 and 12 have no common factor: every pair comes
    tried = [(_DASHES[(dash + i) % len(_DASHES)], MARKERS[(marker + i) % len(MARKERS)]) for i in range(pairs)]
    found = next((pair for pair in tried if (str(pair[0]), pair[1]) not in taken), tried[0])
    taken.add((str(found[0]), found[1]))
    return found


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
    # by the canvas, since `savefig` first draws the figure once in vain, here and below
    FigureCanvasPdf(figure).print_pdf(
        f"{path}.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None}
    )


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 256 colours: a third of the size, to look the same."""
    figure.dpi = dpi = matplotlib.rcParams["savefig.dpi"]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())
    packed = io.BytesIO()
    palette = pixels.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    palette.save(packed, format="PNG", optimize=True, dpi=(dpi, dpi))
    return packed.getvalue()


def legend(
    figure: Figure,
    handles: Sequence[Any],
    labels: Sequence[str],
    *,
    place: Literal["outside upper center", "outside lower center"] = "outside upper center",
    title: str | None = None,
) -> None:
    """One legend for all panels, above them or where `place` says.

    Where many have the same number of seeds it stands above them, once.
    """
    shown, seeds = _without_shared(labels) if len(labels) > MANY and title is None else (labels, None)
    title = title or seeds
    widest = max((len(label) for label in shown), default=1)
    per_row = max(1, min(len(shown), int(figure.get_figwidth() / (0.062 * widest + 0.6))))
    rows = -(-len(shown) // per_row)
    per_row = -(-len(shown) // rows)  # rows of about the same length
    figure.set_figheight(
        figure.get_figheight() + 0.16 * (rows + (title is not None))
    )  # the panels keep their height
    made = figure.legend(
        handles,
        [plain(label) for label in shown],
        loc=place,
        ncols=per_row,
        handlelength=3.2,
    )
    if title:
        made.set_title(title, prop=FontProperties(size=7.5))


def _without_shared(labels: Sequence[str]) -> tuple[Sequence[str], str | None]:
    """ "SAC (n = 10†)", … -> "SAC", … and "n = 10†", where all of them end alike."""
    ends = {label[label.rfind(" (n = ") :] for label in labels if " (n = " in label}
    if len(ends) != 1 or not all(label.endswith(end := next(iter(ends))) for label in labels):
        return labels, None
    return [label.removesuffix(end) for label in labels], end.strip(" ()")
