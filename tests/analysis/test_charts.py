"""The curves of a figure as data: what the figure shows, number by number, or nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from bench.analysis import style
from bench.analysis.report.charts import chart
from bench.analysis.scores import estimates, figures
from bench.analysis.scores.load import load
from tests.analysis import helpers

X = np.array([0.0, 1.0, 2.0])


@pytest.fixture
def results(tmp_path):
    helpers.study(tmp_path, envs=["a-run", "b-walk"], algos=["qsm", "sac", "td3"], seeds=3)
    return load(tmp_path, "made-up")


def read(figure) -> dict:
    text = chart(figure)
    assert text is not None
    return json.loads(text)


def named(found: dict, panel: int, name: str) -> dict:
    (index,) = (i for i, each in enumerate(found["names"]) if each["name"].startswith(name))
    (curve,) = (each for each in found["panels"][panel]["curves"] if each["name"] == index)
    return curve


def test_learning_curves_are_means_intervals_and_seeds(results):
    with style.drawing():
        found = read(figures.learning_curves(results))
    assert [each["name"] for each in found["names"]] == ["QSM (n = 3†)", "SAC (n = 3†)", "TD3 (n = 3†)"]
    assert found["names"][0]["dash"] == []
    assert found["names"][1]["dash"]  # told apart without colours
    assert [panel["title"] for panel in found["panels"]] == ["a-run", "b-walk"]
    assert {(panel["x"], panel["y"]) for panel in found["panels"]} == {("Environment steps", "Return")}
    for place, env in enumerate(results.envs):
        for label, name in (("qsm", "QSM"), ("sac", "SAC"), ("td3", "TD3")):
            cell, curve = results.cells[env, label], named(found, place, name)
            low, high = estimates.curve_band(cell)
            assert found["panels"][place]["xs"][curve["x"]] == cell.env_steps.tolist()
            assert curve["y"] == pytest.approx(cell.returns.mean(axis=0), abs=0.1)
            assert curve["low"] == pytest.approx(low, abs=0.5)
            assert curve["high"] == pytest.approx(high, abs=0.5)
            assert np.array(curve["seeds"]) == pytest.approx(cell.returns, abs=0.05)


def test_profiles_are_steps(results):
    with style.drawing():
        found = read(figures.performance_profiles(results))
    cells = [results.cells[env, "sac"] for env in results.envs]
    thresholds = np.linspace(0, 1, 101)
    share, low, high = estimates.profile(cells, thresholds)
    curve = named(found, 0, "SAC")
    assert curve["steps"]
    assert curve["y"] == pytest.approx(share, abs=1e-3)
    assert curve["low"] == pytest.approx(low, abs=2e-3)
    assert curve["high"] == pytest.approx(high, abs=2e-3)


@pytest.mark.parametrize("scale", [1.0, 100.0, 2e4])
def test_a_value_is_shown_as_a_table_rounds_it_with_no_more_digits_than_that_takes(scale):
    values = np.concatenate([np.random.default_rng(0).uniform(-1, 1, 2000), [0.4501, 0.45, 0.4449, 0.5, 1.0]])
    figure = Figure()
    (line,) = figure.subplots().plot(np.arange(len(values)), scale * values)
    figure.legend([line], ["one"])
    panel = read(figure)["panels"][0]
    assert panel["decimals"] == max(0, 2 - int(np.log10(scale)))
    y = panel["curves"][0]["y"]
    assert y == [round(shown, panel["decimals"] + 1) for shown in y]
    for shown, exact in zip(y, scale * values):
        assert f"{shown:.{panel['decimals']}f}" == f"{exact:.{panel['decimals']}f}"


def two_of_one_colour() -> Figure:
    figure = Figure()
    ax = figure.subplots()
    for level, line in ((1.0, "-"), (5.0, "--")):
        ax.fill_between(X, X + level - 0.5, X + level + 0.5, color="#0000ff", alpha=0.2)
        ax.plot(X, X + level, color="#0000ff", linestyle=line)
    figure.legend(ax.lines, ["one", style.plain("_two </script> $5")])
    return figure


def test_a_band_belongs_to_the_next_curve_of_its_colour():
    text = chart(two_of_one_colour())
    assert text is not None
    assert "</script>" not in text
    found = json.loads(text)
    assert found["names"][1]["name"] == "_two </script> $5"
    for name, level in (("one", 1.0), ("_two", 5.0)):
        assert named(found, 0, name)["low"] == (X + level - 0.5).tolist()
        assert named(found, 0, name)["high"] == (X + level + 0.5).tolist()


@pytest.mark.parametrize(
    "more",
    [
        lambda ax: ax.axvline(1.0, color="#555555"),
        lambda ax: ax.plot([1.0], [1.0], marker="x", color="#ff0000"),
        lambda ax: ax.bar([1.0], [1.0]),
        lambda ax: ax.errorbar(X, X, X, color="#0000ff"),
        lambda ax: ax.text(1.0, 1.0, "here"),
        lambda ax: ax.imshow([[1.0]]),
        lambda ax: ax.set_xscale("log"),
        lambda ax: ax.set_xticks(X, ["a", "b", "c"]),
        lambda ax: ax.fill_between(X[:2], X[:2], X[:2] + 1, color="#0000ff"),
    ],
)
def test_a_figure_that_shows_more_than_named_curves_stays_as_it_is(more):
    figure = two_of_one_colour()
    assert chart(figure) is not None
    more(figure.axes[0])
    assert chart(figure) is None


def test_no_legend_no_curves():
    figure = Figure()
    figure.subplots().plot(X, X)
    assert chart(figure) is None
    assert chart(Figure()) is None


def test_what_is_no_number_is_null():
    figure = Figure()
    (line,) = figure.subplots().plot(X, [1.0, np.nan, np.inf])
    figure.legend([line], ["one"])
    assert read(figure)["panels"][0]["curves"][0]["y"] == [1, None, None]
