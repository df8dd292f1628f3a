"""Scores in the forms in which others publish and log them: taken with a word on what was understood, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.__main__ import main
from bench.analysis.external.importing import Wishes, import_scores, pairs
from bench.analysis.external.layouts import EVENTS
from bench.analysis.external.names import parts_of, parts_of_path, pattern
from bench.analysis.external.tasks import every_task, our_names
from bench.errors import UserError

CHEETAH = Wishes(values={"env": "cheetah-run", "algo": "ours"})

INDEXED = """,exp_name,env_name,seed,metric,env_step,value
0,Net-A,cheetah_run,7000,avg_return,0.0,5.5
1,Net-A,cheetah_run,7000,avg_return,100000.0,510.5
2,Net-A,cheetah_run,7000,avg_success,100000.0,0.25
3,Net-A,finger-turn-hard,8000,avg_return,100000.0,700.25
"""
TABS = "Epoch\tAverageEpRet\tAverageTestEpRet\tTotalEnvInteracts\n1\t3.5\t4.5\t4000\n2\t5\t6\t8000\n"
CHART = """"global_step","dry-sun-1 - eval/return","dry-sun-1 - eval/return__MIN","late-fox-2 - eval/return"
"1000","12.5","11.5",""
"1010","","","14.5"
"""
HISTORY = "_step,_runtime,eval/return,loss\n500,1.0,,0.5\n1000,2.0,31.5,0.25\n2000,4.0,42,0.125\n"


def take(tmp_path: Path, name: str, text: str, wishes: Wishes | None = None) -> tuple[list[tuple], str]:
    """Import one file of this text: the rows (env, algo, seed, env_step, return), and what was said."""
    file = tmp_path / "in" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    imported = import_scores([file], tmp_path, wishes)
    return rows(imported.path), "\n".join(imported.lines)


def rows(path: Path) -> list[tuple]:
    frame = pd.read_csv(path)[["env", "algo", "seed", "env_step", "return"]]
    return list(frame.itertuples(index=False, name=None))


def refusal(tmp_path: Path, name: str, text: str, wishes: Wishes | None = None) -> str:
    with pytest.raises(UserError) as refused:
        take(tmp_path, name, text, wishes)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "external").exists()
    return str(refused.value)


# --- layouts ----------------------------------------------------------------------------------------------


def test_a_table_with_metrics_and_an_index_without_a_name(tmp_path):
    """As XQC and SimBa publish theirs."""
    found, said = take(tmp_path, "net.csv", INDEXED)
    assert found == [
        ("cheetah-run", "net-a", 7000, 0, 5.5),
        ("cheetah-run", "net-a", 7000, 100_000, 510.5),
        ("finger-turn_hard", "net-a", 8000, 100_000, 700.25),
    ]
    assert "env = env_name, algo = exp_name, return = value" in said
    assert "return = the metric avg_return, not avg_success" in said
    assert "tasks under our names: cheetah-run (cheetah_run), finger-turn_hard (finger-turn-hard)" in said
    assert "algorithms: net-a\nseeds of each: 1; 3 evaluations, steps 0 to 100,000" in said


def test_another_metric_when_asked_for(tmp_path):
    found, _ = take(tmp_path, "net.csv", INDEXED, Wishes(metric="avg_success"))
    assert found == [("cheetah-run", "net-a", 7000, 100_000, 0.25)]


def test_a_file_for_each_task(tmp_path):
    """As TD-MPC2 publishes its results: the algorithm is the folder, the task the file."""
    for task, value in (("cup-catch", 900), ("walker-walk", 800)):
        file = tmp_path / "in/planner" / f"{task}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"step,reward,seed\n100000,{value}.5,3\n100000,{value},1\n")
    imported = import_scores([tmp_path / "in/planner"], tmp_path)
    assert imported.path == tmp_path / "external/planner.csv"
    assert rows(imported.path) == [
        ("ball_in_cup-catch", "planner", 1, 100_000, 900),
        ("ball_in_cup-catch", "planner", 3, 100_000, 900.5),
        ("walker-walk", "planner", 1, 100_000, 800),
        ("walker-walk", "planner", 3, 100_000, 800.5),
    ]
    said = "\n".join(imported.lines)
    assert "env from the path of the file (2 files)" in said
    assert "ACTION_REPEAT=2 where one of theirs is two" in said


def test_steps_that_are_decisions_become_environment_steps(tmp_path):
    wishes = Wishes(values={"env": "walker-walk", "algo": "x", "seed": "0"}, action_repeat=2)
    found, said = take(tmp_path, "a.csv", "step,reward\n500,1\n1000,2\n", wishes)
    assert [step for *_, step, _ in found] == [1000, 2000]
    assert "one of theirs is 2 environment steps" in said


def test_tabs(tmp_path):
    """As Spinning Up writes them; its folder names algorithm, task and seed."""
    file = tmp_path / "in/TD3-ball_in_cup-catch/TD3-ball_in_cup-catch_s104/progress.txt"
    file.parent.mkdir(parents=True)
    file.write_text(TABS)
    imported = import_scores([tmp_path / "in"], tmp_path, Wishes(source="spun"))
    assert rows(imported.path) == [
        ("ball_in_cup-catch", "td3", 104, 4000, 4.5),
        ("ball_in_cup-catch", "td3", 104, 8000, 6.0),
    ]
    assert "env_step = TotalEnvInteracts, return = AverageTestEpRet" in "\n".join(imported.lines)


@pytest.mark.parametrize("mark", [" ", "\t", ","])
def test_two_columns_without_a_header(tmp_path, mark):
    """As jaxrl's evaluations, <task>/<seed>.txt."""
    file = tmp_path / "in/hopper-hop/12.txt"
    file.parent.mkdir(parents=True)
    file.write_text(f"5000{mark}1.5\n10000{mark}2.5\n")
    imported = import_scores([file], tmp_path, Wishes(source="jax", values={"algo": "redq"}))
    assert rows(imported.path) == [
        ("hopper-hop", "redq", 12, 5000, 1.5),
        ("hopper-hop", "redq", 12, 10_000, 2.5),
    ]


@pytest.mark.parametrize("columns", [("seed_0", "seed_4"), ("0", "4"), ("s0", "s4")])
def test_a_column_for_each_seed(tmp_path, columns):
    found, said = take(tmp_path, "w.csv", f"step,{','.join(columns)}\n1000,1,2\n2000,3,\n", CHEETAH)
    assert [(seed, step, value) for *_, seed, step, value in found] == [
        (0, 1000, 1),
        (0, 2000, 3),
        (4, 1000, 2),
    ]
    assert "a wide table with a column for each seed" in said


def test_wandb_chart(tmp_path):
    """The __MIN and __MAX columns are left out, and runs without a seed in their name are numbered."""
    found, said = take(tmp_path, "chart.csv", CHART, CHEETAH)
    assert found == [("cheetah-run", "ours", 0, 1000, 12.5), ("cheetah-run", "ours", 1, 1010, 14.5)]
    assert "every run counts as a seed, numbered in their order: 0 = dry-sun-1, 1 = late-fox-2" in said
    assert "calls of wandb.log" not in said


def test_wandb_chart_of_runs_whose_names_say_what_they_are(tmp_path):
    text = CHART.replace("dry-sun-1", "Hopper-v5__sac_v2__3__17e5").replace("17e5", "1700000000")
    text = text.replace("late-fox-2", "Hopper-v5__sac_v2__4__1700000001")
    found, said = take(tmp_path, "chart.csv", text, Wishes(rename={"sac_v2": "sac"}))
    assert found == [("Hopper-v5", "sac", 3, 1000, 12.5), ("Hopper-v5", "sac", 4, 1010, 14.5)]
    assert "algorithms under our names: sac (sac_v2)" in said
    named = CHART.replace("dry-sun-1", "td3/walker_walk/s1").replace("late-fox-2", "sac/walker_run/s0")
    found, _ = take(tmp_path, "other.csv", named, Wishes(names="{algo}/{env}/s{seed}"))
    assert found == [("walker-run", "sac", 0, 1010, 14.5), ("walker-walk", "td3", 1, 1000, 12.5)]


def test_wandb_chart_against_its_own_step_or_the_time(tmp_path):
    _, said = take(tmp_path, "chart.csv", CHART.replace("global_step", "Step"), CHEETAH)
    assert "W&B's own Step counts calls of wandb.log" in said
    other = tmp_path / "other"
    refused = refusal(other, "c.csv", CHART.replace("global_step", "Relative Time (Process)"), CHEETAH)
    assert "against 'Relative Time (Process)', which is not an environment step" in refused


def test_wandb_history(tmp_path):
    """Rows in which only something else was logged are left out."""
    wishes = Wishes(values={**CHEETAH.values, "seed": "3"})
    found, said = take(tmp_path, "history.csv", HISTORY, wishes)
    assert [(seed, step, value) for *_, seed, step, value in found] == [(3, 1000, 31.5), (3, 2000, 42)]
    assert "env_step = _step, return = eval/return" in said


def test_arrays(tmp_path):
    file = tmp_path / "in/bro.npy"
    file.parent.mkdir()
    np.save(file, np.array([[1.0, 2], [3, 4], [5, 6]]))
    with pytest.raises(UserError, match="does not say at which steps; EVERY="):
        import_scores([file], tmp_path, CHEETAH)
    wishes = Wishes(values=CHEETAH.values, every=25_000)
    imported = import_scores([file], tmp_path, wishes)
    assert [row[2:] for row in rows(imported.path)][:3] == [(0, 25_000, 1), (0, 50_000, 2), (1, 25_000, 3)]
    assert "an array of 3 seeds x 2 evaluations, one every 25,000 steps" in imported.lines[0]
    np.save(file, np.zeros((2, 2, 2)))
    with pytest.raises(UserError, match="expected numbers"):
        import_scores([file], tmp_path, wishes)
    np.save(file, np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match="allow_pickle"):
        import_scores([file], tmp_path, wishes)


def test_evaluations_of_stable_baselines(tmp_path):
    file = tmp_path / "in/evaluations.npz"
    file.parent.mkdir()
    np.savez(file, timesteps=[1000, 2000], results=[[1.0, 2], [3, 5]], ep_lengths=[[9, 9], [9, 9]])
    imported = import_scores([file], tmp_path, Wishes(source="sb3", values={**CHEETAH.values, "seed": "0"}))
    assert [row[3:] for row in rows(imported.path)] == [(1000, 1.5), (2000, 4.0)]


def test_tensorboard_events(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto

    for seed in (0, 1):
        writer = EventFileWriter(str(tmp_path / f"in/sac_{seed}"))
        for step in (1000, 2000):
            values = [
                Summary.Value(tag="eval/mean_reward", simple_value=step / 10 + seed),
                Summary.Value(tag="train/loss", simple_value=0.5),
                Summary.Value(tag="eval/tensor", tensor=make_tensor_proto(np.float32(step / 100))),
            ]
            writer.add_event(Event(step=step, summary=Summary(value=values)))
        writer.close()
    wishes = Wishes(source="tb", values={"env": "cheetah-run"}, names="{algo}_{seed}")
    imported = import_scores([tmp_path / "in"], tmp_path, wishes)
    assert [row[1:] for row in rows(imported.path)] == [
        ("sac", 0, 1000, 100), ("sac", 0, 2000, 200), ("sac", 1, 1000, 101), ("sac", 1, 2000, 201),
    ]  # fmt: skip
    assert "return = the metric eval/mean_reward, not train/loss, eval/tensor (2 files)" in "\n".join(
        imported.lines
    )
    other = Wishes(
        source="tensors", values={"env": "cheetah-run"}, names="{algo}_{seed}", metric="eval/tensor"
    )
    assert [row[4] for row in rows(import_scores([tmp_path / "in"], tmp_path, other).path)] == [
        10,
        20,
        10,
        20,
    ]


def test_without_the_package_that_reads_events(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.backend.event_processing", None)
    refused = refusal(tmp_path, f"{EVENTS}17.host.1.0", "", CHEETAH)
    assert "the package that reads it is missing: pip install tensorboard" in refused


# --- refusals ---------------------------------------------------------------------------------------------


def test_everything_that_is_missing_is_named_with_what_there_is(tmp_path):
    refused = refusal(tmp_path, "a.csv", "when,what,who\n1,2,3\n")
    assert "lacks env_step, return, env, algo, seed; it has the columns when, what, who" in refused
    assert 'COLUMNS="env_step=<its name there>"' in refused
    assert 'VALUES="env=cheetah-run"' in refused
    columns = {"env_step": "when", "return": "what", "seed": "who"}
    found, said = take(
        tmp_path, "a.csv", "when,what,who\n1,2,3\n", Wishes(columns=columns, values=CHEETAH.values)
    )
    assert found == [("cheetah-run", "ours", 3, 1, 2)]
    assert "env = cheetah-run, as given" in said


def test_a_column_that_is_not_there(tmp_path):
    refused = refusal(tmp_path, "a.csv", "step,rewrad\n1,2\n", Wishes(columns={"return": "reward"}))
    assert "has no column 'reward'; did you mean 'rewrad'?" in refused


def test_several_metrics_of_which_none_is_known(tmp_path):
    text = INDEXED.replace("avg_return", "fitness")
    assert "holds the metrics fitness, avg_success; none of them is known to be the return" in refusal(
        tmp_path, "a.csv", text
    )
    assert "METRIC=fitnes: not in" in refusal(tmp_path, "a.csv", text, Wishes(metric="fitnes"))


def test_tasks_that_are_not_ours(tmp_path):
    text = INDEXED.replace("cheetah_run", "h1_slide_v0")
    refused = refusal(tmp_path, "a.csv", text)
    assert "h1_slide_v0: no task of this suite" in refused
    assert 'RENAME="h1_slide_v0=<our name>" maps one; ENVS="finger-turn_hard" takes only these' in refused
    found, said = take(tmp_path, "a.csv", text, Wishes(envs=("finger-turn_hard",)))
    assert [row[0] for row in found] == ["finger-turn_hard"]
    assert "left out, not among ENVS: h1_slide_v0" in said
    close = refusal(tmp_path / "other", "a.csv", INDEXED.replace("cheetah_run", "chetah_run"))
    assert "did you mean 'cheetah-run'" in close


def test_a_task_of_a_study_of_the_user_is_known(tmp_path):
    from tests.analysis import helpers

    helpers.study(tmp_path, ["our-maze"])
    found, _ = take(tmp_path, "a.csv", INDEXED.replace("cheetah_run", "our_maze"))
    assert {row[0] for row in found} == {"finger-turn_hard", "our-maze"}


def test_a_seed_with_two_returns_at_one_step(tmp_path):
    text = "env,algo,seed,env_step,return\nwalker-run,a,0,10,1\nwalker-run,a,0,10,1\nwalker-run,a,0,20,1\n"
    found, said = take(tmp_path, "a.csv", text)
    assert len(found) == 2
    assert "1 rows that repeat others were left out" in said
    refused = refusal(tmp_path / "other", "a.csv", text + "walker-run,a,0,20,2\n")
    assert "line 5: seed 0 of a on walker-run has another return at step 20 already" in refused


def test_nothing_is_there_twice(tmp_path):
    lines = "".join(f"walker-run,a,{seed},{1000 * k},{seed + k}.5\n" for seed in (0, 1) for k in range(20))
    text = "env,algo,seed,env_step,return\n" + lines
    take(tmp_path, "first.csv", text)
    file = tmp_path / "in/second.csv"
    file.write_text(text)
    with pytest.raises(UserError, match="40 of these 40 evaluations are those of the source first"):
        import_scores([file], tmp_path)
    (tmp_path / "published").mkdir()
    (tmp_path / "external/first.csv").rename(tmp_path / "published/first.csv")
    with pytest.raises(UserError, match="the source first is among the published or imported scores already"):
        import_scores([tmp_path / "in/first.csv"], tmp_path)


def test_a_folder_without_scores(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/readme.md").write_text("x")
    with pytest.raises(UserError, match="has no file that can hold scores"):
        import_scores([tmp_path / "in"], tmp_path)


# --- names ------------------------------------------------------------------------------------------------


def test_our_names_for_tasks():
    asked = {
        "cheetah_run": "cheetah-run",
        "dmc_cheetah_run": "cheetah-run",
        "dm_control/walker-walk": "walker-walk",
        "finger-turn-hard": "finger-turn_hard",
        "cup-catch": "ball_in_cup-catch",
        "pointmass-easy": "point_mass-easy",
        "hopper-v5": "Hopper-v5",
        "humanoid_CMU-run": "humanoid_CMU-run",
    }
    assert our_names([*asked, "finger-turn", "acrobot", "mw-push"], every_task()) == asked


def test_patterns_of_names():
    def is_task(name: str) -> bool:
        return name in ("walker-run", "Hopper-v5")

    assert parts_of("a/b_7", pattern("{env}/{algo}_{seed}"), is_task) == {
        "env": "a",
        "algo": "b",
        "seed": "7",
    }
    assert parts_of("x/walker-run-sac-7", pattern("{env}-sac-{seed}"), is_task) == {
        "env": "walker-run",
        "seed": "7",
    }
    assert parts_of("Hopper-v5__ppo__1__17", None, is_task) == {
        "env": "Hopper-v5",
        "algo": "ppo",
        "seed": "1",
    }
    assert parts_of("calm-sea-1", None, is_task) == {}
    path = Path("/x/exp_sac_env_walker-run/3.txt")
    expected = {"algo": "sac", "env": "walker-run", "seed": "3"}
    assert parts_of_path(path, pattern("exp_{algo}_env_{env}/{seed}"), is_task) == expected
    assert parts_of_path(path, pattern("exp_{algo}_{}_{env}/{seed}.txt"), is_task) == expected
    assert parts_of_path(path, pattern("{env}.csv"), is_task) == {}
    assert parts_of_path(Path("/x/walker-run/3.txt"), None, is_task) == {"env": "walker-run", "seed": "3"}
    with pytest.raises(UserError, match=r"\{task\} is not one of"):
        pattern("{task}")
    with pytest.raises(UserError, match="a part is there twice"):
        pattern("{env}/{env}")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("return", "expected COLUMNS="),
        ('a="b', "a quote is not closed"),
        ("retrun=x", "did you mean 'return'"),
    ],
)
def test_pairs(text, complaint):
    assert pairs("COLUMNS", "return='my reward' env_step=T", ["return", "env_step"])["return"] == "my reward"
    with pytest.raises(UserError, match=complaint):
        pairs("COLUMNS", text, ["return", "env_step"])


def test_the_command(tmp_path, capsys):
    file = tmp_path / "net.csv"
    file.write_text(INDEXED)
    assert main(["import", str(file), f"RESULTS={tmp_path}", "SOURCE=lab", "RENAME=Net-A=net"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "algorithms under our names: net (Net-A)" in said
    assert said[-1].endswith("external/lab.csv")
    assert main(["import", f"FILES={file}", f"RESULTS={tmp_path}", "COLUMNS=x=y"]) == 2
    assert capsys.readouterr().err.startswith("bench: COLUMNS=x=y: no column of ours is named 'x'")
    assert main(["import", f"RESULTS={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith("bench: import needs FILES=")


def test_files_are_one_path_or_several(tmp_path, capsys):
    """What `make import` forwards."""
    for name, seed in (("my a.csv", 0), ("b.csv", 1), ("c.csv", 2)):
        (tmp_path / name).write_text(f"env,algo,seed,env_step,return\ncheetah-run,net,{seed},1000,5\n")
    one, two = f"FILES={tmp_path / 'my a.csv'}", f"FILES={tmp_path / 'b.csv'} {tmp_path / 'c.csv'}"
    assert main(["import", one, f"RESULTS={tmp_path}", "SOURCE=a"]) == 0
    assert main(["import", two, f"RESULTS={tmp_path}", "SOURCE=b"]) == 0
    seeds = [len((tmp_path / "external" / f"{name}.csv").read_text().splitlines()) - 1 for name in "ab"]
    assert seeds == [1, 2]
