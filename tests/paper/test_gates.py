"""The gates: our seeds beside others' under the same protocol."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions

from bench.errors import UserError
from bench.paper import gates
from bench.paper.documents import HERE
from tests.analysis import helpers

BAND = """[[band]]
algo = "sac"
env = "cheetah-run"
env_step = 10000
sources = ["them"]
why = "theirs"
"""
CURVES = "env,algo,source,seed,env_step,return\n"


def curve(values, *, source="them", seed=0, step=10000, env="cheetah-run", algo="sac"):
    """One evaluation at a step for each value, of seeds from `seed` on."""
    return "".join(f"{env},{algo},{source},{seed + i},{step},{value}\n" for i, value in enumerate(values))


def write_curves(root, rows, source="them"):
    (root / f"published/curves/{source}.csv").write_text(CURVES + rows)


@pytest.fixture
def root(tmp_path):
    """Eleven published seeds at 100, 120 ... 300: 110, 200 and 290 are their percentiles."""
    (tmp_path / "published/curves").mkdir(parents=True)
    (tmp_path / "published/bands.toml").write_text(BAND)
    (tmp_path / "published/authors_curves.csv").write_text(CURVES)
    write_curves(tmp_path, curve(range(100, 301, 20)))
    return tmp_path


def sac_gate(root, finals, study="gate-sac"):
    folder = helpers.study(root, algos=["sac"], seeds=len(finals), name=study)
    for seed, value in enumerate(finals):
        helpers.set_returns(folder / f"cheetah-run/sac/seed-{seed}", [0.0] * 9 + [value])
    return folder


def test_a_band_is_computed_from_the_seeds_of_its_sources(root):
    (band,) = gates.bands(root)
    assert (band.low, band.middle, band.high) == (110, 200, 290)
    (root / "published/bands.toml").write_text(BAND.replace('"them"', '"them", "others"'))
    others = curve([1000.0] * 10, source="others") + curve([0.0] * 9, source="others", env="walker-run")
    write_curves(root, others + curve([0.0] * 9, source="others", algo="td3"), "others")
    (band,) = gates.bands(root)
    pooled = [*range(100, 301, 20), *[1000.0] * 10]  # every seed counts once
    assert (band.low, band.middle, band.high) == tuple(np.percentile(pooled, [5, 50, 95]))
    assert band.sources == {"them": 11, "others": 10}
    assert band.interpolated == ()


def test_a_source_without_an_evaluation_at_the_step_is_interpolated_and_marked(root):
    """Seed by seed, between its own evaluations; a seed that ended before has no value."""
    rows = curve([0.0, 100.0], step=9000) + curve([200.0, 500.0], step=11000)
    write_curves(root, rows + curve([7.0], seed=2, step=9999))
    (band,) = gates.bands(root)
    assert band.sources == {"them": 2}
    assert (band.low, band.middle, band.high) == pytest.approx((110, 200, 290))
    assert band.interpolated == ("them",)
    assert gates.published(root).rows[0][5] == "them 2, interpolated (theirs)"


def test_a_source_that_has_no_such_run_is_named(root):
    write_curves(root, curve([1.0], step=9999))
    with pytest.raises(UserError, match="them has no run of sac on cheetah-run that reaches 10,000 steps"):
        gates.published(root)


@pytest.mark.parametrize(
    ("finals", "verdict"),
    [
        ((110, 50, 900), "inside"),  # the median, 110
        ((109, 50, 900), "outside, below"),
        ((291, 50, 900), "outside, above"),
    ],
)
def test_the_median_seed_against_the_published_band(root, finals, verdict):
    sac_gate(root, finals)
    (record,) = gates.published(root).records
    assert record["verdict"] == verdict
    assert record["ours_median"] == np.median(finals)
    assert record["ours_n"] == 3
    (row,) = gates.published(root).rows
    assert row[3].detail == "[50, 900] n = 3†"


def test_a_gate_is_judged_on_the_comparison_that_has_its_task_too(root):
    sac_gate(root, (110, 50, 900), "early-100k")
    (record,) = gates.published(root).records
    assert (record["verdict"], record["ours_n"]) == ("inside", 3)
    sac_gate(root, (0, 0))  # fewer seeds than the comparison has
    assert gates.published(root).records[0]["ours_n"] == 3


def test_ours_is_a_single_evaluation_at_the_step_of_the_band(root):
    """Not the mean of the last tenth of a longer run."""
    folder = sac_gate(root, (200,))
    helpers.set_returns(folder / "cheetah-run/sac/seed-0", [0.0] * 9 + [200.0])
    write_curves(root, curve(range(100, 301, 20), step=9000))
    (root / "published/bands.toml").write_text(BAND.replace("10000", "9000"))
    assert gates.published(root).records[0]["ours_median"] == 0


@pytest.mark.parametrize(
    ("spread", "verdict"),
    [
        ((0.0, 1000.0), "says nothing"),
        ((-50.0, 2000.0), "says nothing"),  # what lies beyond the scale does not count
        ((0.0, 890.0), "inside"),
        ((110.0, 2000.0), "inside"),
    ],
)
def test_a_band_that_spans_the_scale_says_nothing(root, spread, verdict):
    write_curves(root, curve([spread[0]] * 5 + [500.0] + [spread[1]] * 5))
    sac_gate(root, (450,))
    assert gates.published(root).records[0]["verdict"] == verdict


def test_a_gate_that_was_not_run_or_ended_elsewhere_says_so(root):
    assert [record["verdict"] for record in gates.published(root).records] == ["not run yet"]
    folder = sac_gate(root, (200, 200))
    (root / "published/bands.toml").write_text(BAND.replace("10000", "99000"))
    write_curves(root, curve([1.0], step=99000))
    assert [record["verdict"] for record in gates.published(root).records] == ["not run yet"]
    shutil.rmtree(folder / "cheetah-run/sac/seed-1")
    assert any("1 of 2 runs have no score yet" in note for note in gates.published(root).notes)


def authors_gate(root, ours, theirs):
    """Our finals at step 10,000 and theirs; every earlier evaluation of ours is 500 more or less, theirs 0."""
    folder = helpers.study(
        root, envs=["cartpole-swingup"], algos=["qsm"], seeds=len(ours), name="gate-authors"
    )
    for seed, value in enumerate(ours):
        helpers.set_returns(folder / f"cartpole-swingup/qsm/seed-{seed}", [500.0 + seed] * 9 + [value])
    rows = [
        f"cartpole-swingup,qsm,them,{i},{step},0.0\n" for i in range(len(theirs)) for step in (1000, 2000)
    ]
    rows += [f"cartpole-swingup,qsm,them,{i},10000,{value}\n" for i, value in enumerate(theirs)]
    rows += [f"cartpole-swingup,qsm,them,{i},99000,0.0\n" for i in range(len(theirs))]
    (root / "published/authors_curves.csv").write_text(CURVES + "".join(rows))


@pytest.mark.parametrize(("theirs", "verdict"), [((400, 700), "inside"), ((900, 950), "outside, above")])
def test_the_authors_seeds_against_ours(root, theirs, verdict):
    ours = (500.0, 550.0, 600.0)
    authors_gate(root, ours, theirs)
    (record,) = gates.authors(root).records
    half = distributions.t.ppf(0.975, 2) * 50 * np.sqrt(1 / 3 + 1 / 2)  # 196
    assert (record["low"], record["high"]) == pytest.approx((550 - half, 550 + half))
    assert record["verdict"] == verdict
    assert (record["env_step"], record["evaluations"]) == (10000, 3)  # of 99,000 we know nothing
    assert record["inside"] == (verdict == "inside")
    assert (record["ours_median"], record["authors_mean"], record["authors_n"]) == (550, np.mean(theirs), 2)


def test_one_seed_of_ours_predicts_nothing(root):
    authors_gate(root, (500.0,), (500, 500))
    assert [record["verdict"] for record in gates.authors(root).records] == ["not run yet"]


@pytest.mark.seconds
def test_a_prediction_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(4000):
        low, high = gates.prediction_interval(rng.standard_normal(3), 2)
        inside += low <= rng.standard_normal(2).mean() <= high
    assert inside / 4000 == pytest.approx(0.95, abs=0.012)


def test_an_expectation_that_spans_the_scale_says_nothing(root):
    """Three seeds of two fates predict anything; where they agree, the same authors' seed is inside."""
    authors_gate(root, (10.0, 500.0, 990.0), (423,))
    (record,) = gates.authors(root).records
    assert (record["low"] < 0, record["high"] > 1000) == (True, True)
    assert (record["verdict"], record["says_nothing"], record["inside"]) == ("says nothing", 1, 0)
    (row,) = gates.authors(root).rows
    assert row[-1] == "says nothing; inside at 0 of 2 evaluations (1 more say nothing)"


@pytest.mark.seconds
def test_the_bands_of_this_repository_are_those_of_the_committed_curves():
    """Of the SAC bands that the source's own README gives, recomputed here without our code."""
    found = {(band.env, band.algo, tuple(band.sources)): band for band in gates.bands(HERE / "results")}
    frame = pd.concat(pd.read_csv(path) for path in (HERE / "results/published/curves").glob("*.csv"))
    for (env, algo, sources), band in found.items():
        rows = frame[(frame["env"] == env) & (frame["algo"] == algo) & frame["source"].isin(sources)]
        rows = rows[rows["env_step"] == band.env_step]
        assert len(rows) == sum(band.sources.values())
        assert not band.interpolated
        assert (band.low, band.middle, band.high) == pytest.approx(np.percentile(rows["return"], [5, 50, 95]))
    pooled = found["walker-walk", "sac", ("pytorch_sac", "simba", "tdmpc2")]
    assert [round(x) for x in (pooled.low, pooled.middle, pooled.high)] == [581, 790, 941]
