"""From run directories to scores: every state, the rule for diverged runs, and damaged data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.analysis.scores import load as loading
from bench.analysis.scores.load import load
from bench.analysis.scores.runs import warnings
from bench.errors import UserError
from tests.analysis import helpers


def scores(results, env="cheetah-run", label="qsm"):
    return {
        score.run.seed: score for score in results.runs if (score.run.env, score.run.label) == (env, label)
    }


def test_an_evaluation_is_the_mean_of_its_episodes(tmp_path):
    folder = helpers.study(tmp_path, seeds=1)
    rows = "1000,0,10.0,1000,1.0\n1000,1,30.0,1000,1.0\n2000,0,5.0,1000,2.0\n2000,1,6.0,1000,2.0\n"
    for label in ("qsm", "sac"):
        run = folder / "cheetah-run" / label / "seed-0"
        (run / "eval.csv").write_text("env_step,episode,return,length,wall_s\n" + rows)
        helpers.seal(run)
    cell = load(tmp_path, "made-up").cell("cheetah-run", "qsm")
    assert cell.env_steps.tolist() == [1000, 2000]
    assert cell.returns.tolist() == [[20.0, 5.5]]
    assert cell.final.tolist() == [5.5]
    assert cell.area.tolist() == [12.75]
    assert cell.best.tolist() == [20.0]


def test_a_diverged_run_scores_zero_from_the_divergence_on(tmp_path):
    folder = helpers.study(tmp_path)
    # evaluated at 1000 to 5000; what stands there after the divergence does not count
    helpers.diverge(folder / "cheetah-run/qsm/seed-1", 4000, [100, 200, 300, 400, 500])
    results = load(tmp_path, "made-up")
    cell = results.cell("cheetah-run", "qsm")
    assert cell.n == 3
    assert cell.diverged == 1
    assert cell.returns[1].tolist() == [100, 200, 300, 0, 0, 0, 0, 0, 0, 0]
    assert scores(results)[1].scored
    assert scores(results)[1].reason == "critic loss is nan"


def test_outside_dm_control_a_diverged_run_scores_the_lowest_evaluation_of_its_task(tmp_path):
    folder = helpers.study(tmp_path, envs=["Pendulum-v1", "cheetah-run"])
    helpers.set_returns(folder / "Pendulum-v1/sac/seed-0", [-1500.0, *[-300.0] * 9])
    helpers.diverge(folder / "Pendulum-v1/qsm/seed-0", 2500, [-900.0, -800.0])
    cell = load(tmp_path, "made-up").cell("Pendulum-v1", "qsm")
    assert cell.returns[0].tolist() == [-900, -800] + [-1500] * 8


def test_a_return_that_is_not_finite_counts_as_a_divergence_and_is_named(tmp_path):
    folder = helpers.study(tmp_path)
    helpers.set_returns(folder / "cheetah-run/qsm/seed-0", [10.0, np.nan, *[50.0] * 8])
    results = load(tmp_path, "made-up")
    cell = results.cell("cheetah-run", "qsm")
    assert cell.returns[0].tolist() == [10] + [0] * 9
    assert cell.diverged == 1
    assert "not finite at env step 2000" in scores(results)[0].reason


def test_what_is_not_finished_has_no_score_and_is_named(tmp_path):
    folder = helpers.study(tmp_path, seeds=6)
    cell = folder / "cheetah-run/qsm"
    for file in list((cell / "seed-0").iterdir()):
        file.unlink()
    (cell / "seed-1/done.json").unlink()
    (cell / "seed-2/eval.csv").write_text("garbage")
    (cell / "seed-3/done.json").unlink()
    (cell / "seed-3/failure.json").write_text(
        json.dumps({"format": 1, "attempt": 1, "time": "x", "reason": "ValueError: no", "traceback": "x"})
    )
    helpers.change_meta(cell / "seed-4", hash="0" * 64)
    results = load(tmp_path, "made-up")
    states = {seed: score.state for seed, score in scores(results).items()}
    assert states == {
        0: "missing",
        1: "stale",
        2: "damaged",
        3: "failed",
        4: "configuration changed",
        5: "done",
    }
    found = results.cell("cheetah-run", "qsm")
    assert (found.n, found.expected) == (1, 6)
    assert {score.run.seed for score in results.unscored} == {0, 1, 2, 3, 4}
    assert scores(results)[3].reason == "ValueError: no"
    named = " ".join(results.problems)
    assert "seed-2" in named
    assert "seed-4" in named
    assert str(tmp_path) not in named + " ".join(score.reason for score in results.runs)


@pytest.mark.parametrize("file", ["eval.csv", "train.csv", "policy.pt", "run.json"])
def test_a_finished_run_whose_bytes_changed_is_left_out(tmp_path, file):
    folder = helpers.study(tmp_path)
    path = folder / "cheetah-run/qsm/seed-0" / file
    path.write_bytes(path.read_bytes() + b"\n")
    results = load(tmp_path, "made-up")
    assert scores(results)[0].state == "damaged"
    assert results.cell("cheetah-run", "qsm").n == 2
    (line,) = results.problems
    assert line.startswith("made-up/cheetah-run/qsm/seed-0: left out: ")
    assert file in line


@pytest.mark.parametrize("file", ["run.json", "eval.csv", "done.json"])
@pytest.mark.parametrize("seed", [0, 2])
def test_a_damaged_seed_leaves_the_names_of_its_algorithm_and_task(tmp_path, seed, file):
    folder = helpers.study(tmp_path, ["cheetah-run", "Pendulum-v1"], ["sac", "random"])
    path = folder / "cheetah-run" / "random" / f"seed-{seed}" / file
    path.write_text(path.read_text().replace("1", "2"))
    results = load(tmp_path, "made-up")
    assert results.algos == {"sac": "sac", "random": "random"}
    assert results.learners == ("sac",)
    assert results.cell("cheetah-run", "random").algo == "random"
    assert {score.run.algo for score in results.runs} == {"sac", "random"}


def test_a_file_damaged_after_the_check_is_caught(tmp_path, monkeypatch):
    folder = helpers.study(tmp_path)
    original = loading.verified

    def read_then_damage(run):
        found = original(run)
        (folder / "cheetah-run/qsm/seed-0/eval.csv").write_text("gone bad")
        return found

    monkeypatch.setattr(loading, "verified", read_then_damage)
    results = load(tmp_path, "made-up")
    assert scores(results)[0].state == "damaged"
    assert "eval.csv" in scores(results)[0].reason
    assert str(tmp_path) not in scores(results)[0].reason + " ".join(results.problems)
    assert results.cell("cheetah-run", "qsm").n == 2


def test_a_run_evaluated_at_other_steps_is_left_out(tmp_path):
    folder = helpers.study(tmp_path)
    helpers.set_returns(folder / "cheetah-run/qsm/seed-0", [1.0] * 10, every=500)
    results = load(tmp_path, "made-up")
    assert results.cell("cheetah-run", "qsm").n == 2
    assert "other steps" in scores(results)[0].reason


def test_where_all_diverged_the_settings_say_when_evaluations_were_due(tmp_path):
    folder = helpers.study(tmp_path, algos=["qsm"], seeds=1)
    helpers.diverge(folder / "cheetah-run/qsm/seed-0", 1500, [70.0])
    cell = load(tmp_path, "made-up").cell("cheetah-run", "qsm")
    assert cell.env_steps.tolist() == [1000.0 * (i + 1) for i in range(10)]
    assert cell.returns.tolist() == [[70.0] + [0.0] * 9]
    helpers.change_meta(folder / "cheetah-run/qsm/seed-0", settings={"steps": "many"})
    helpers.change_study(folder, settings={"steps": "many"})
    assert load(tmp_path, "made-up").cells == {}


def test_final_policies_by_mode_and_candidates(tmp_path):
    folder = helpers.study(tmp_path)
    run = folder / "cheetah-run/qsm/seed-0"
    (run / "final.csv").write_text(
        "mode,candidates,episode,return,length\nsample,1,0,10.0,1000\nsample,1,1,20.0,1000\n"
        "greedy,1,0,30.0,1000\nsample,10,0,40.0,1000\n"
    )
    helpers.seal(run)
    finals = scores(load(tmp_path, "made-up"))[0].finals
    assert finals == {("sample", 1): 15.0, ("greedy", 1): 30.0, ("sample", 10): 40.0}


def test_the_order_is_the_grids_with_the_random_policy_last(tmp_path):
    helpers.study(tmp_path, envs=["walker-run", "cheetah-run"], algos=["random", "td3", "qsm"])
    results = load(tmp_path, "made-up")
    assert results.envs == ("walker-run", "cheetah-run")
    assert results.labels == ("td3", "qsm", "random")
    assert results.learners == ("td3", "qsm")


def test_reading_on_several_cores_gives_the_same(tmp_path, monkeypatch):
    helpers.study(tmp_path)
    alone = load(tmp_path, "made-up")
    monkeypatch.setattr(loading, "ALONE", 0)
    monkeypatch.setattr(loading, "available_cores", lambda: 2)
    together = load(tmp_path, "made-up")
    for key, cell in alone.cells.items():
        np.testing.assert_array_equal(together.cells[key].returns, cell.returns)
    assert together.problems == alone.problems


def test_no_such_study_suggests_another(tmp_path):
    helpers.study(tmp_path)
    with pytest.raises(UserError, match="made-up"):
        load(tmp_path, "made-upp")


@pytest.mark.parametrize(
    ("env", "expected"),
    [("cheetah-run", True), ("Hopper-v5", False), ("lqr-lqr_2_1", False), ("Ant-v4", False)],
)
def test_the_family_of_an_older_run_is_read_from_its_name(tmp_path, env, expected):
    helpers.study(tmp_path, envs=[env], seeds=1)
    assert (env in load(tmp_path, "made-up").control_envs) is expected


def test_a_run_that_never_learned_is_no_score(tmp_path):
    folder = helpers.study(tmp_path, algos=["sac", "random"], seeds=2)
    for algo in ("sac", "random"):
        settings = {"steps": 10_000, "random_steps": 10_000, "action_repeat": 1}
        helpers.change_meta(folder / f"cheetah-run/{algo}/seed-0", settings=settings)
    results = load(tmp_path, "made-up")
    states = {(score.run.algo, score.run.seed): score.state for score in results.runs}
    assert states == {
        ("sac", 0): "untrained",
        ("sac", 1): "done",
        ("random", 0): "done",
        ("random", 1): "done",
    }
    assert results.cell("cheetah-run", "sac").n == 1
    reason = "steps = 10000 with random_steps = 10000 never updates the policy; 10001 steps would"
    assert warnings(results)[0] == f"No score, untrained: cheetah-run/sac/seed-0. {reason}"


@pytest.mark.parametrize(("family", "filling"), [("gymnasium", -50.0), ("dm_control", 0.0)])
def test_the_recorded_family_decides_and_not_the_name(tmp_path, family, filling):
    for env in ("my-task", "MyTask-v1"):  # the names say the contrary of each other
        folder = helpers.study(tmp_path / env, envs=[env], algos=["qsm"], seeds=2)
        runs = [folder / env / f"qsm/seed-{k}" for k in range(2)]
        for run in runs:
            helpers.change_meta(run, family=family)
        helpers.set_returns(runs[0], [-50.0] * 10)
        helpers.diverge(runs[1], 1500, [70.0])
        results = load(tmp_path / env, "made-up")
        assert results.control_envs == ((env,) if family == "dm_control" else ())
        assert results.cell(env, "qsm").returns[1].tolist() == [70.0] + [filling] * 9
