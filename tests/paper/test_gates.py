"""The gates: our seeds beside others' under the same protocol."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from scipy import stats as distributions

from bench.analysis.external.scores import load_external
from bench.paper import gates
from bench.paper.documents import HERE
from tests.analysis import helpers

BANDS = """[[band]]
algo = "sac"
env = "cheetah-run"
env_step = 10000
low = 100
middle = 200
high = 300
what = "somebody's"
"""
CURVES = "env,algo,source,seed,env_step,return\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "published").mkdir()
    (tmp_path / "published/bands.toml").write_text(BANDS)
    (tmp_path / "published/authors_curves.csv").write_text(CURVES)
    return tmp_path


def sac_gate(root, finals, study="gate-sac"):
    folder = helpers.study(root, algos=["sac"], seeds=len(finals), name=study)
    for seed, value in enumerate(finals):
        helpers.set_returns(folder / f"cheetah-run/sac/seed-{seed}", [0.0] * 9 + [value])
    return folder


@pytest.mark.parametrize(
    ("finals", "verdict"),
    [
        ((100, 50, 900), "inside"),  # the median, 100
        ((99, 50, 900), "outside, below"),
        ((301, 50, 900), "outside, above"),
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
    sac_gate(root, (100, 50, 900), "early-100k")
    (record,) = gates.published(root).records
    assert (record["verdict"], record["ours_n"]) == ("inside", 3)


def test_a_gate_that_was_not_run_or_ended_elsewhere_says_so(root):
    assert [record["verdict"] for record in gates.published(root).records] == ["not run yet"]
    folder = sac_gate(root, (200, 200))
    (root / "published/bands.toml").write_text(BANDS.replace("10000", "99000"))
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


@pytest.mark.parametrize(("theirs", "verdict"), [((400, 700), "inside"), ((900, 950), "outside")])
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


def test_a_prediction_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(4000):
        low, high = gates.prediction_interval(rng.standard_normal(3), 2)
        inside += low <= rng.standard_normal(2).mean() <= high
    assert inside / 4000 == pytest.approx(0.95, abs=0.012)


def test_the_bands_of_this_repository_agree_with_the_scores_they_come_from():
    frame, _ = load_external(HERE / "results")
    for record in gates.published(HERE / "results").records:
        at = frame[(frame["env"] == record["env"]) & (frame["algo"] == record["algo"])]
        at = at[at["env_step"] == record["env_step"]]
        if record["algo"] == "td3":
            (one,) = at[at["source"] == "LQNew_spinup"].to_dict("records")
            assert (record["low"], record["high"]) == (one["low"], one["high"])
        else:
            assert at["low"].min() <= record["low"] < record["middle"] < record["high"] <= at["high"].max()
