"""`bench.load`, `bench.policy`, and the files of numbers in a report."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bench
from bench.analysis.data_files import CURVES, data_files
from bench.analysis.report.output import build
from bench.analysis.report.request import load_chosen
from bench.analysis.scores.estimates import common_tasks
from bench.analysis.scores.load import load as load_results
from bench.analysis.scores.tables import scores as scores_table
from bench.studies.report import read_choice
from tests.analysis import helpers
from tests.launching import REPO
from tests.synthetic import make_study

RUN = REPO / "results/quick/cartpole-swingup/qsm/seed-0"
KEYS = ["study", "env", "algo", "label", "seed", "state", "scored"]


def test_importing_the_suite_loads_nothing_large():
    code = (
        "import bench, sys; print({'torch', 'pandas', 'numpy', 'matplotlib', 'gymnasium'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert {"load", "policy", "UserError"} <= set(dir(bench))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        bench.lode  # noqa: B018


@pytest.mark.seconds
def test_reading_a_study_needs_no_torch():
    code = "import bench, sys; bench.load('results/quick').scores; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tasks, two algorithms, three seeds; one run has diverged, one is missing, one is at work."""
    folder = helpers.study(tmp_path, ["cheetah-run", "walker-run"])
    helpers.change_meta(
        folder / "walker-run/sac/seed-0", config={"M_q": None, "hidden": [8, 8], "critic": {"k": 1}}
    )
    helpers.diverge(folder / "cheetah-run/qsm/seed-0", 4000, [10.0, 20.0, 30.0])
    for name in ("run.json", "eval.csv", "train.csv", "time.csv", "final.csv", "policy.pt", "done.json"):
        (folder / "cheetah-run/qsm/seed-1" / name).unlink()
    (folder / "cheetah-run/qsm/seed-2/done.json").unlink()
    return folder


@pytest.mark.parametrize("kind", [str, Path])
def test_scores_are_those_of_the_report(folder, kind):
    data = bench.load(kind(folder))
    frame = data.scores
    assert list(frame)[:12] == [*KEYS, "reason", "env_step", "final", "area", "best_biased"]
    assert frame["state"].value_counts().to_dict() == {"done": 9, "diverged": 1, "missing": 1, "stale": 1}
    assert frame["scored"].sum() == 10
    means = frame[frame.scored].groupby(["env", "label"])[["final", "area"]].mean()
    for record in scores_table(load_results(folder.parent, "made-up")).records:
        ours = means.loc[(record["env"], record["label"])]
        assert (ours["final"], ours["area"]) == (
            pytest.approx(record["final"]),
            pytest.approx(record["area"]),
        )
    assert frame.loc[frame.state == "missing", "final"].isna().all()
    assert frame["config.M_q"].dtype == np.float64
    assert set(frame["config.hidden"].dropna()) == {"8x8"}
    assert set(frame["config.critic.hidden"].dropna()) == {"256x256"}
    assert "12 runs (9 done, 1 diverged" in repr(data)


def test_curves_hold_every_evaluation(folder):
    frame = bench.load(folder).curves
    assert list(frame)[: len(CURVES)] == list(CURVES)
    done = frame.query("label == 'sac' and env == 'walker-run' and seed == 1")
    raw = pd.read_csv(folder / "walker-run/sac/seed-1/eval.csv").groupby("env_step")["return"].mean()
    assert dict(zip(done["env_step"], done["return"])) == pytest.approx(raw.to_dict())
    assert set(done["config.M_q"]) == {50.0}
    diverged = frame.query("state == 'diverged'")
    assert diverged["return"].tolist() == [10, 20, 30, *[0] * 7]
    stale = frame.query("state == 'stale'")
    assert (len(stale), stale["scored"].any()) == (10, False)
    assert frame.query("state == 'missing'").empty


def test_what_training_logged_and_how_long_it_took(folder):
    data = bench.load(folder, algos="sac", envs=["walker-run"])
    assert list(data.train) == [*KEYS, "env_step", "kind", "name", "value"]
    losses = data.train.query("name == 'critic_loss' and seed == 2")
    raw = pd.read_csv(folder / "walker-run/sac/seed-2/train.csv").query("name == 'critic_loss'")
    assert losses["value"].tolist() == raw["value"].tolist()
    assert data.times["update_s"].tolist() == [15.0] * 30
    assert len(data.runs) == 3


def test_several_studies(tmp_path):
    one, two = helpers.study(tmp_path), helpers.study(tmp_path, ["walker-run"], name="other")
    data = bench.load(one, str(two), algos=["sac"])
    assert data.studies == ("made-up", "other")
    assert data.scores.groupby("study").size().to_dict() == {"made-up": 3, "other": 3}
    (tmp_path / "b").mkdir()
    with pytest.raises(bench.UserError, match="two studies have the name made-up"):
        bench.load(one, helpers.study(tmp_path / "b"))


def test_a_variant_is_chosen_by_its_label(tmp_path):
    folder = helpers.study(tmp_path, algos=["qsm", "sac"])
    assert set(bench.load(folder, algos="qsm").scores["label"]) == {"qsm"}
    assert len(bench.load(folder, algos="qsm sac").runs) == 6


@pytest.mark.parametrize(
    ("arguments", "choice", "complaint"),
    [
        ([], {}, "load needs the folder of a study"),
        (["none"], {}, "no study 'none'"),
        (["made-ip"], {}, "did you mean 'made-up'"),
        ([""], {}, "is no study but holds some: name one, such as"),
        (["made-up"], {"algos": "qsn"}, "no run of the algorithm 'qsn' is there; did you mean 'qsm'"),
        (
            ["made-up"],
            {"envs": ["cheetah"]},
            "no run of the task 'cheetah' is there; did you mean 'cheetah-run'",
        ),
        (["~nobody-of-that-name/x"], {}, "is no home folder"),
    ],
)
def test_errors_are_one_line(tmp_path, arguments, choice, complaint):
    helpers.study(tmp_path)
    with pytest.raises(bench.UserError) as refused:
        bench.load(*(x if x.startswith("~") else f"{tmp_path}/{x}" for x in arguments), **choice)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


# --- files ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_files_of_numbers(folder):
    paths = [path.name for path in build(folder.parent, "made-up")]
    assert {"curves.csv.gz", "score_matrices.json", "score_matrices.npz"} <= set(paths)
    tables = folder / "report/tables"
    first = {path.name: path.read_bytes() for path in tables.glob("*.gz")} | {
        path.name: path.read_bytes() for path in tables.glob("score_*")
    }
    assert first["curves.csv.gz"][4:8] == bytes(4)  # no time in its head
    read = pd.read_csv(tables / "curves.csv.gz")
    expected = bench.load(folder).curves[list(CURVES)]
    pd.testing.assert_frame_equal(read, expected.astype(read.dtypes.to_dict()), check_exact=True)
    build(folder.parent, "made-up")
    assert {name: (tables / name).read_bytes() for name in first} == first


def test_a_label_with_a_comma_keeps_its_column(tmp_path):
    folder = helpers.study(tmp_path, algos=["qsm"], seeds=1)
    results = load_results(tmp_path, "made-up")
    run = results.runs[0]
    object.__setattr__(run.run, "label", "qsm-a=1,2")
    text = gzip.decompress(data_files(results)["tables/curves.csv.gz"]).decode()
    assert folder.is_dir()
    assert set(pd.read_csv(io.StringIO(text))["label"]) == {"qsm-a=1,2"}


def test_score_matrices_as_rliable_takes_them(folder):
    """runs x tasks without a gap: of qsm the one seed that both tasks have, though another task has three."""
    matrices = bench.load(folder).score_matrices()
    assert {label: matrix.shape for label, matrix in matrices.items()} == {"qsm": (1, 2), "sac": (3, 2)}
    scores = bench.load(folder).scores.query("label == 'sac'")
    by_task = {env: rows["final"].tolist() for env, rows in scores.groupby("env")}
    assert matrices["sac"][:, 0].tolist() == by_task["cheetah-run"]
    assert matrices["sac"][:, 1].tolist() == by_task["walker-run"]
    files = data_files(load_results(folder.parent, "made-up"))
    record = json.loads(files["tables/score_matrices.json"])
    assert record["tasks"] == ["cheetah-run", "walker-run"]
    with np.load(io.BytesIO(files["tables/score_matrices.npz"])) as arrays:
        for label, matrix in matrices.items():
            np.testing.assert_array_equal(arrays[label], matrix)
            np.testing.assert_array_equal(record["scores"][label], matrix)
    with pytest.raises(bench.UserError, match="measure 'best': expected final or area"):
        bench.load(folder).score_matrices("best")


def test_score_matrices_of_several_studies(tmp_path):
    """The same seeds twice are two things; seeds of one algorithm that are divided among studies are one."""
    one, two = helpers.study(tmp_path), helpers.study(tmp_path, algos=["sac"], name="other")
    both = bench.load(one, two).score_matrices()
    assert [*both] == ["qsm", "sac@made-up", "sac@other"]
    for study in (one, two):
        alone = bench.load(study).score_matrices()["sac"]
        np.testing.assert_array_equal(both[f"sac@{study.name}"], alone)
    results = load_chosen(tmp_path, ["made-up", "other"], read_choice({}), "make figures", "mine")
    with np.load(io.BytesIO(data_files(results)["tables/score_matrices.npz"])) as arrays:
        assert {label: array.tolist() for label, array in arrays.items()} == {
            label: matrix.tolist() for label, matrix in both.items()
        }
    rng = np.random.default_rng(0)
    make_study(tmp_path, "more", ["cheetah-run"], ["sac"], (7, 8), 10, rng, episodes=3, origin=helpers.ORIGIN)
    assert {x: len(matrix) for x, matrix in bench.load(two, tmp_path / "more").score_matrices().items()} == {
        "sac": 5
    }


def test_no_matrices_where_no_seed_has_every_task(tmp_path):
    folder = helpers.study(tmp_path, ["cheetah-run", "walker-run"], ["qsm"], 1)
    (folder / "walker-run/qsm/seed-0/done.json").unlink()
    files = data_files(load_results(tmp_path, "made-up"))
    assert json.loads(files["tables/score_matrices.json"])["tasks"] == ["cheetah-run"]
    (folder / "cheetah-run/qsm/seed-0/done.json").unlink()
    assert not [name for name in data_files(load_results(tmp_path, "made-up")) if "matrices" in name]


def test_a_label_with_few_tasks_does_not_take_tasks_from_the_others(tmp_path):
    """As in the report's aggregates."""
    folder = helpers.study(tmp_path, ["cheetah-run", "walker-run", "hopper-hop"], ["qsm", "sac", "mine"], 2)
    for env in ("walker-run", "hopper-hop"):
        shutil.rmtree(folder / env / "mine")
    shapes = {x: matrix.shape for x, matrix in bench.load(folder).score_matrices().items()}
    assert shapes == {"qsm": (2, 3), "sac": (2, 3)}
    assert common_tasks(load_results(tmp_path, "made-up")).envs == bench.load(folder).tasks
    shutil.rmtree(folder / "hopper-hop" / "sac")  # of two thirds, which are enough
    assert bench.load(folder).tasks == ("cheetah-run", "walker-run")


def test_parquet_where_pyarrow_is(folder):
    pytest.importorskip("pyarrow")
    files = data_files(load_results(folder.parent, "made-up"))
    frame = pd.read_parquet(io.BytesIO(files["tables/curves.parquet"]))
    pd.testing.assert_frame_equal(frame, bench.load(folder).curves[list(CURVES)])


# --- policies ---------------------------------------------------------------------------------------------


def test_a_policy_is_a_function_of_observations():
    policy = bench.policy(str(RUN))
    assert repr(policy) == "<policy of qsm on cartpole-swingup, seed 0: (5,) -> (1,)>"
    rows = np.random.default_rng(0).standard_normal((4, 5))
    actions = policy(rows, mode="greedy", candidates=1)
    assert (actions.shape, actions.dtype) == ((4, 1), np.float32)
    assert (np.abs(actions) <= 1).all()
    one = bench.policy(RUN)(rows[0], mode="greedy", candidates=1)
    assert one.shape == (1,)
    np.testing.assert_array_equal(bench.policy(RUN)(rows), bench.policy(RUN)(rows))  # from the run's seed


@pytest.mark.seconds
def test_a_policy_acts_on_its_task():
    policy = bench.policy(REPO / "results/quick/cartpole-swingup/sac/seed-0")
    env = policy.make_env()
    obs, _ = env.reset(seed=0)
    obs, reward, *_ = env.step(policy(obs))
    assert obs.shape == (policy.obs_dim,)
    assert np.isfinite(reward)
    env.close()


@pytest.mark.parametrize(
    ("obs", "mode", "complaint"),
    [
        (np.zeros(4), "", r"cartpole-swingup has observations \(5,\), or \(n, 5\) for n of them, not \(4,\)"),
        (np.zeros((1, 1, 5)), "", r"not \(1, 1, 5\)"),
        (0.0, "", r"not \(\)"),
        (np.zeros(5), "best", "mode 'best': expected sample or greedy"),
    ],
)
def test_other_observations_are_refused(obs, mode, complaint):
    with pytest.raises(bench.UserError, match=complaint):
        bench.policy(RUN)(obs, mode=mode)


def test_no_run_no_policy(tmp_path):
    with pytest.raises(bench.UserError, match="is not a run directory: expected results/"):
        bench.policy(tmp_path)
