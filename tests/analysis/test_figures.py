"""What figures show that their data alone do not say: axes, labels, one legend, who is told apart how."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from bench.analysis import style
from bench.analysis.scores import figures
from bench.analysis.scores.load import load
from tests.analysis import helpers

ALGOS = {name: name for name in ("qsm", "dql", "dql-bc", "sac", "td3", "random", "sdac", "dipo")}


def test_every_algorithm_has_a_colour_a_line_and_a_marker_of_its_own():
    looks = style.styles(ALGOS).values()
    assert len({look.color for look in looks}) == len(ALGOS)
    assert len({(str(look.linestyle), look.marker) for look in looks}) == len(ALGOS)  # in grey


def test_two_dozen_strangers_have_looks_of_their_own():
    """Distinct in grey, by line and marker; the first dozen and a half in colour as well."""
    algos = {name: name for name in [*ALGOS, *(f"algo-{i}" for i in range(24))]}
    looks = style.styles(algos)
    assert len({(str(look.linestyle), look.marker) for look in looks.values()}) == len(algos)
    dozen = style.styles({name: name for name in list(algos)[: len(style._KNOWN) + 18]})
    assert len({look.color for look in dozen.values()}) == len(dozen)


def test_colours_can_be_told_apart():
    """By their distance in CIE L*a*b*, in which 2.3 is just noticeable."""
    colors = [*(look[0] for look in style._KNOWN.values()), *style._OTHERS]
    points = [cspace(color) for color in colors]
    nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2))
    assert nearest > 8


def cspace(color: str) -> np.ndarray:
    """sRGB -> CIE L*a*b* (D65)."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    scaled = np.array(matrix) @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(scaled > (6 / 29) ** 3, np.cbrt(scaled), scaled / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_a_colour_does_not_depend_on_who_else_is_there():
    everyone = style.styles(ALGOS)
    for first, second in itertools.combinations([name for name in ALGOS if name in style._KNOWN], 2):
        pair = style.styles({first: first, second: second})
        assert pair[first] == everyone[first]


def test_variants_of_an_algorithm_are_told_apart():
    labels = {f"qsm-T={T}": "qsm" for T in (1, 5, 20)} | {"qsm": "qsm"}
    looks = style.styles(labels)
    assert len({look.color for look in looks.values()}) == 4
    assert looks["qsm"] == style.styles(ALGOS)["qsm"]


@pytest.mark.parametrize(("count", "width"), [(1, style.COLUMN), (2, style.PAGE), (8, style.PAGE)])
def test_figures_have_a_papers_widths(count, width):
    figure, axes = figures.panels(count)
    assert figure.get_figwidth() == width
    assert len(axes) == count


@pytest.mark.parametrize(
    ("count", "width", "inches", "columns"), [(3, "column", 3.25, 2), (1, "page", 6.75, 1)]
)
def test_or_the_width_that_was_chosen(count, width, inches, columns):
    figure, axes = figures.panels(count, width=width)
    assert (figure.get_figwidth(), axes[0].get_gridspec().ncols) == (inches, columns)


def test_single_runs_are_drawn_while_they_are_few(tmp_path):
    helpers.study(tmp_path / "few", algos=list(ALGOS)[:4], seeds=5)
    helpers.study(tmp_path / "many", algos=list(ALGOS)[:4], seeds=6)
    few, many = (figures.learning_curves(load(tmp_path / name, "made-up")) for name in ("few", "many"))
    assert (len(few.axes[0].lines), len(many.axes[0].lines)) == (4 * 5 + 4, 4)


def test_a_legend_of_many_gives_their_number_of_seeds_once(tmp_path):
    helpers.study(tmp_path, algos=[*ALGOS, "own-a", "own-b"], seeds=2)
    (legend,) = figures.learning_curves(load(tmp_path, "made-up")).legends
    assert legend.get_title().get_text() == "n = 2†"
    assert "SAC" in [text.get_text() for text in legend.get_texts()]


def test_axes_of_learning_curves(tmp_path):
    """From 0, with room above; noise at the floor of a task does not fill its panel."""
    folder = helpers.study(tmp_path, envs=["a-run", "b-run", "Pendulum-v1"], seeds=2)
    for run in folder.glob("b-run/*/seed-*"):
        helpers.set_returns(run, [3.0, 1.0] * 5)
    for run in folder.glob("a-run/*/seed-*"):
        helpers.set_returns(run, [995.0] * 10)
    for run in folder.glob("Pendulum-v1/*/seed-*"):
        helpers.set_returns(run, [-1500.0] * 10)
    figure = figures.learning_curves(load(tmp_path, "made-up"))
    limits = [ax.get_ylim() for ax in figure.axes]
    assert limits[0] == pytest.approx((0, 1.05 * 995))
    assert limits[1] == (0, 50)
    assert limits[2][0] < -1500 < limits[2][1]
    assert {ax.get_xlim()[0] for ax in figure.axes} == {0}


@pytest.mark.seconds
def test_nothing_is_cut_off_and_legend_and_label_do_not_meet(tmp_path):
    helpers.study(tmp_path, envs=["a-run", "b-run", "c-run", "d-run", "e-run"], algos=list(ALGOS), seeds=2)
    with style.drawing():
        figure = figures.learning_curves(load(tmp_path, "made-up"))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # lays it out
        canvas.draw()
        renderer = canvas.get_renderer()
        (legend,) = figure.legends
        label, names = (item.get_window_extent(renderer) for item in (figure._supxlabel, legend))
        shown = [ax.get_tightbbox(renderer) for ax in figure.axes if ax.axison]
    assert 0 <= label.y0 < label.y1 <= min(box.y0 for box in shown)
    assert max(box.y1 for box in shown) <= names.y0
    for box in (names, *shown):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1


def test_a_single_seed_has_a_curve_and_no_band(tmp_path):
    helpers.study(tmp_path, seeds=1, algos=["qsm"])
    (ax,) = figures.learning_curves(load(tmp_path, "made-up")).axes
    assert len(ax.lines) == 1
    assert not ax.collections
    assert np.isfinite(ax.lines[0].get_ydata()).all()


@pytest.mark.parametrize(
    ("label", "algo", "shown"),
    [
        ("dql-bc", "dql-bc", "DQL-BC"),
        ("qsm-M_q=120-T=20", "qsm", "QSM M_q=120 T=20"),
        ("sac-actor_q=min-target_entropy_per_dim=-1", "sac", "SAC actor_q=min target_entropy_per_dim=-1"),
        ("mine-tau=1e-05", "mine", "mine tau=1e-05"),
    ],
)
def test_a_variant_is_named_by_its_overrides_with_the_signs_of_their_values(label, algo, shown):
    assert style.display_name(label, algo) == shown


def test_a_figure_is_drawn_once_for_each_file_and_laid_out_once(tmp_path, monkeypatch):
    """A large report spends most of its time here."""
    drawn, laid_out = [], []
    draw, execute = Figure.draw, ConstrainedLayoutEngine.execute
    monkeypatch.setattr(Figure, "draw", lambda self, renderer: (drawn.append(1), draw(self, renderer))[1])
    monkeypatch.setattr(
        ConstrainedLayoutEngine,
        "execute",
        lambda self, figure: (laid_out.append(1), execute(self, figure))[1],
    )
    with style.drawing():
        figure, (ax,) = figures.panels(1)
        ax.plot([0, 1], [0, 1])
        style.save(figure, tmp_path / "line")
    assert (len(drawn), len(laid_out)) == (2, 1)
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".pdf"}
    width, height = Image.open(tmp_path / "line.png").size
    assert width == pytest.approx(220 * style.COLUMN, abs=1)
    assert height == pytest.approx(220 * figure.get_figheight(), abs=1)
