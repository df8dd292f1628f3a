"""What figures show that their data alone do not say: axes, labels, one legend, who is told apart how."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bench.analysis import style
from bench.analysis.scores import figures
from bench.analysis.scores.load import load
from tests.analysis import helpers

ALGOS = {name: name for name in ("qsm", "dql", "dql-bc", "sac", "td3", "random", "sdac", "dipo")}


def test_every_algorithm_has_a_colour_a_line_and_a_marker_of_its_own():
    looks = style.styles(ALGOS).values()
    assert len({look.color for look in looks}) == len(ALGOS)
    assert len({(str(look.linestyle), look.marker) for look in looks}) == len(ALGOS)  # in grey


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
