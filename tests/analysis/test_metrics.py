"""Logged metrics on the steps of the evaluations, and final returns over the values of a setting."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from msgspec.structs import replace as replace_struct

from bench.analysis import style
from bench.analysis.scores.load import load
from bench.analysis.scores.metrics import metric_figures
from bench.analysis.scores.sensitivity import sensitivity_figures
from bench.errors import UserError
from tests.analysis import helpers


def log(run, rows):
    """Replace what a run logged: (env_step, kind, name, value)."""
    lines = [f"{step},{kind},{name},{value!r}\n" for step, kind, name, value in rows]
    (run / "train.csv").write_text("env_step,kind,name,value\n" + "".join(lines))
    helpers.seal(run)


def test_a_metric_is_averaged_between_evaluations(tmp_path):
    folder = helpers.study(tmp_path, algos=["qsm", "sac"], seeds=2, evaluations=3)
    for seed in (0, 1):
        rows = [(500, 1.0), (1000, 3.0), (1001, 10.0), (1900, 20.0), (2500, 5.0 + seed)]
        loss = [(step, "loss", "q_gradient", value) for step, value in rows]
        log(folder / f"cheetah-run/qsm/seed-{seed}", [*loss, (700, "episode", "return", 4.0)])
        log(folder / f"cheetah-run/sac/seed-{seed}", [(700, "episode", "return", 8.0)])
    figure = metric_figures(load(tmp_path, "made-up"), ["q_gradient"])[0]["q_gradient"]
    (ax,) = figure.axes
    mean = ax.lines[-1]
    assert mean.get_xdata().tolist() == [1000, 2000, 3000]
    assert mean.get_ydata().tolist() == [2.0, 15.0, 5.5]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["QSM (n = 2†)"]
    assert ax.get_ylabel() == "q_gradient"
    returns = metric_figures(load(tmp_path, "made-up"), ["episode_return"])[0]["episode_return"]
    assert [line.get_ydata().tolist() for line in returns.axes[0].lines if line.get_marker() != "None"] == [
        [8.0],
        [4.0],
    ]
    with pytest.raises(UserError, match="no metric 'q_gradent' was logged here; did you mean 'q_gradient'"):
        metric_figures(replace(load(tmp_path, "made-up"), required={"metrics"}), ["q_gradent"])


def test_a_metric_is_shown_as_far_as_every_seed_has_it(tmp_path):
    folder = helpers.study(tmp_path, algos=["qsm"], seeds=2, evaluations=3)
    log(folder / "cheetah-run/qsm/seed-0", [(step, "loss", "q", 1.0) for step in (1000, 2000, 3000)])
    log(folder / "cheetah-run/qsm/seed-1", [(1000, "loss", "q", 1.0), (2000, "loss", "q", float("nan"))])
    figure = metric_figures(load(tmp_path, "made-up"), ["q"])[0]["q"]
    assert figure.axes[0].lines[-1].get_xdata().tolist() == [1000]


VARIANTS = {  # label -> M_q, T
    "qsm": (50.0, 5),
    "qsm-M_q=5": (5.0, 5),
    "qsm-M_q=20": (20.0, 5),
    "qsm-T=20": (50.0, 20),
    "qsm-M_q=5-T=20": (5.0, 20),
}


@pytest.fixture
def variants(tmp_path):
    folder = helpers.study(tmp_path, algos=[*VARIANTS, "sac"], seeds=2)
    for run in folder.glob("*/*/seed-*"):
        M_q, T = VARIANTS.get(run.parent.name, (0.0, 0))
        algo = run.parent.name.partition("-")[0]
        helpers.change_meta(
            run, algo=algo, config={"M_q": M_q, "T": T, "hidden": [64, 64]} if T else {"hidden": [64, 64]}
        )
        helpers.set_returns(run, [10 * M_q + T + run.name.endswith("1")] * 10)
    return load(tmp_path, "made-up")


def drawn(figure):
    """Of each line: value of the setting, at the tick next to it, -> return."""
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    ticks = figure.axes[0].get_xticks()
    return {
        name: {
            float(ticks[np.abs(ticks - x).argmin()]): y
            for x, y in zip(line.get_xdata().tolist(), line.get_ydata().tolist())
        }
        for name, line in zip(names, lines, strict=True)
    }


def test_sensitivity_of_a_setting_with_three_values_is_drawn_unasked(variants):
    figures = sensitivity_figures(variants, [])[0]
    assert list(figures) == ["M_q"]
    assert drawn(figures["M_q"]) == {"QSM (n = 2†)": {5.0: 55.5, 20.0: 205.5, 50.0: 505.5}}


def test_or_of_one_that_was_asked_for(variants):
    both = drawn(sensitivity_figures(variants, ["qsm:M_q=5,50"])[0]["qsm-M_q"])
    assert both == {"QSM (n = 2†)": {5.0: 55.5, 50.0: 505.5}, "QSM T=20 (n = 2†)": {5.0: 70.5, 50.0: 520.5}}
    by_T = drawn(sensitivity_figures(variants, ["T"])[0]["T"])
    assert by_T == {"QSM (n = 2†)": {5.0: 505.5, 20.0: 520.5}, "QSM M_q=5 (n = 2†)": {5.0: 55.5, 20.0: 70.5}}


def test_lines_stand_side_by_side_at_a_value(variants):
    (ax,) = sensitivity_figures(variants, ["qsm:M_q=5,50"])[0]["qsm-M_q"].axes
    first, second = (line.get_xdata() for line in ax.lines)
    assert ax.get_xscale() == "log"
    assert (first < [5, 50]).all()
    assert (second > [5, 50]).all()
    assert np.allclose(first * second, [25, 2500])  # about the value, which the axis shows


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("M_p", "no variants of any algorithm here differ in 'M_p'; did you mean 'M_q'?"),
        ("sac:T", "no variants of sac here differ in 'T'"),
        ("qsm:M_q=5,6", "qsm:M_q=5,6: no variant here has M_q=6"),
    ],
)
def test_what_no_variants_have_is_refused(variants, word, complaint):
    with pytest.raises(UserError) as refused:
        sensitivity_figures(replace(variants, required={"sensitivity"}), [word])
    assert complaint in str(refused.value)


def test_values_that_are_no_numbers_stand_side_by_side(tmp_path):
    folder = helpers.study(tmp_path, algos=["sac", "sac-critic=simba"], seeds=2)
    for run in folder.glob("*/*/seed-*"):
        helpers.change_meta(
            run, algo="sac", config={"critic": "simba" if "simba" in run.parent.name else "mlp"}
        )
    (ax,) = sensitivity_figures(load(tmp_path, "made-up"), ["critic"])[0]["critic"].axes
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["mlp", "simba"]
    assert np.isfinite(ax.lines[0].get_ydata()).all()


@pytest.mark.parametrize("width", ["column", "page"])
@pytest.mark.parametrize(
    ("values", "first", "last"),
    [
        ([1.0, 2.0, 5.0, 40.0, 50.0, 60.0, 70.0, 80.0, 100.0, 120.0], "1", "120"),
        ([0.0, 0.1, 0.2, 0.21, 0.22], "0", "0.22"),
        ([[512, 512], [64, 64], [1024, 1024, 1024], [256, 256]], "64x64", "1024x1024x1024"),
    ],
)
def test_names_of_values_do_not_meet(tmp_path, values, first, last, width):
    labels = [f"qsm-x={i}" for i in range(len(values))]
    folder = helpers.study(tmp_path, ["a-run", "b-run", "c-run"], labels, seeds=1)
    for run in folder.glob("*/*/seed-*"):
        helpers.change_meta(run, algo="qsm", config={"x": values[labels.index(run.parent.name)]})
    results = load(tmp_path, "made-up")
    results = replace(results, choice=replace_struct(results.choice, width=width))
    with style.drawing():
        figure = sensitivity_figures(results, ["x"])[0]["x"]
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # lays it out
        canvas.draw()
        written = [tick for tick in figure.axes[0].get_xticklabels() if tick.get_text()]
        boxes = [tick.get_window_extent(canvas.get_renderer()) for tick in written]
    assert (written[0].get_text(), written[-1].get_text()) == (first, last)
    line = written[0].get_fontsize() * figure.dpi / 72
    slope = np.sin(np.radians(written[0].get_rotation()))
    for left, right in pairwise(boxes):  # apart, or turned and a line apart
        assert left.x1 < right.x0 or (right.x1 - left.x1) * slope > line
