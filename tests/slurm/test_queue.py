"""What is made of Slurm's answers. Its commands are stand-ins here that print what the real ones were seen to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import make_study, state_of_runs

from bench.__main__ import main
from bench.errors import UserError
from bench.launch.slurm import arrays
from bench.launch.slurm.queue import Entry
from bench.runs import FORMAT, write_study


def array(
    root: Path, tasks: list[list[str]], job: str | None = "77", study: str = "study", **more: object
) -> arrays.Array:
    folder = arrays.folder(root, study)
    folder.mkdir(parents=True, exist_ok=True)
    made = arrays.new_array(folder, "runs", tasks)
    made = arrays.Array(**{**vars(made), "job": job, **more})
    arrays.write_array(folder, made)
    return made


def states(root: Path) -> dict[str, str]:
    return {path: entry.state for path, entry in state_of_runs(root, "study").items()}


def test_nothing_submitted_asks_nobody(commands, tmp_path):
    assert state_of_runs(tmp_path, "study") == {}
    assert commands.calls("squeue") == []


def test_one_squeue_however_many_jobs(commands, tmp_path):
    made = [
        array(tmp_path, [[f"study/e/a/seed-{1000 * i + k}"] for k in range(1000)], str(i)) for i in range(3)
    ]
    commands.answer(
        "squeue", "".join(f"{a.job}|{k}|PENDING|Priority||{a.name}\n" for a in made for k in range(1000))
    )
    assert len(state_of_runs(tmp_path, "study")) == 3000
    assert len(commands.calls("squeue")) == 1
    assert commands.calls("sacct") == []


def test_states_and_words(commands, tmp_path):
    paths = [f"study/e/a/seed-{k}" for k in range(4)]
    made = array(tmp_path, [[paths[0], paths[1]], [paths[2]], [paths[3]]])
    commands.answer(
        "squeue",
        f"77|0|RUNNING|None|n1|{made.name}\n77|1|PENDING|Resources||{made.name}\n"
        f"77|2|OUT_OF_MEMORY|OutOfMemory|n2|{made.name}\n5|N/A|RUNNING|None|n1|some | other job\n",
    )
    found = state_of_runs(tmp_path, "study")
    assert [str(found[path]) for path in paths] == [
        "running on n1",
        "running on n1",
        "queued (Resources)",
        "OUT_OF_MEMORY (OutOfMemory)",
    ]
    assert [found[path].active for path in paths] == [True, True, True, False]


def test_what_slurm_wrote_into_the_log_is_quoted(tmp_path):
    log = tmp_path / "log.out"
    log.write_text("step 1\nslurmstepd-n2: error: Exceeded job memory limit\nsrun: Killed\n")
    told = str(Entry("77_2", "FAILED", "", "n2", log))
    assert told == "FAILED: Exceeded job memory limit"


def test_newest_submission_counts_and_names_decide_not_ids(commands, tmp_path):
    old = array(tmp_path, [["study/e/a/seed-0"]], "77", submitted=1.0)
    new = array(tmp_path, [["study/e/a/seed-0"]], "78", submitted=2.0)
    commands.answer("squeue", f"77|N/A|FAILED|None|n1|{old.name}\n78|N/A|PENDING|None||{new.name}\n")
    assert states(tmp_path) == {"study/e/a/seed-0": "PENDING"}
    commands.answer("squeue", "78|N/A|RUNNING|None|n1|a job of another study under an id that came again\n")
    assert states(tmp_path) == {}


def test_accepted_by_slurm_and_killed_before_the_id_was_written(commands, tmp_path):
    made = array(tmp_path, [["study/e/a/seed-0"], ["study/e/a/seed-1"]], job=None)
    commands.answer("squeue", f"91|0|PENDING|None||{made.name}\n91|1|PENDING|None||{made.name}\n")
    assert [entry.job for entry in state_of_runs(tmp_path, "study").values()] == ["91_0", "91_1"]


def test_accounting_says_what_squeue_no_longer_knows(commands, tmp_path):
    made = array(tmp_path, [[f"study/e/a/seed-{k}"] for k in range(3)])
    commands.answer(
        "sacct",
        f"77_0|NODE_FAIL|n1|{made.name}\n77_1|CANCELLED by 1000|n1|{made.name}\n77_2|COMPLETED|n2|{made.name}\n",
    )
    assert list(states(tmp_path).values()) == ["NODE_FAIL", "CANCELLED", "COMPLETED"]
    assert len(commands.calls("sacct")) == 1


def test_what_only_accounting_takes_to_be_alive_has_ended(commands, tmp_path):
    """Else it would count as queued for ever: the database lost its end, or calls a preempted task by that name."""
    made = array(tmp_path, [[f"study/e/a/seed-{k}"] for k in range(3)])
    commands.answer(
        "sacct", f"77_0|RUNNING|n1|{made.name}\n77_1|PREEMPTED|n1|{made.name}\n77_2|PENDING||{made.name}\n"
    )
    found = state_of_runs(tmp_path, "study")
    assert {path: (entry.state, entry.active) for path, entry in found.items()} == {
        "study/e/a/seed-1": ("PREEMPTED", False)
    }


def test_without_accounting_what_is_unknown_is_left_out(commands, tmp_path):
    array(tmp_path, [["study/e/a/seed-0"]])
    assert state_of_runs(tmp_path, "study") == {}


def test_completing_may_come_back_unless_it_was_cancelled(commands, tmp_path):
    made = array(tmp_path, [["study/e/a/seed-0"]])
    commands.answer("squeue", f"77|N/A|COMPLETING|None|n1|{made.name}\n")
    assert state_of_runs(tmp_path, "study")["study/e/a/seed-0"].active
    arrays.write_array(arrays.folder(tmp_path, "study"), arrays.Array(**{**vars(made), "cancelled": True}))
    assert states(tmp_path) == {"study/e/a/seed-0": "CANCELLED"}


def test_arrays_of_older_code_are_known(commands, tmp_path):
    """As it wrote their records, which said all that there was to say of an array."""
    folder = arrays.folder(tmp_path, "study")
    folder.mkdir(parents=True)
    record = {
        "format": 1,
        "token": "0a1b2c3d",
        "kind": "runs",
        "name": "study.0a1b2c3d",
        "tasks": [["study/e/a/seed-0"], ["study/e/a/seed-1"]],
        "submitted": 1790000000.0,
        "job": "77",
        "cancelled": False,
    }
    (folder / "array-0a1b2c3d.json").write_text(json.dumps(record, indent=1) + "\n")
    commands.answer("squeue", "77|0|RUNNING|None|n1|study.0a1b2c3d\n77|1|PENDING|Resources||study.0a1b2c3d\n")
    assert states(tmp_path) == {"study/e/a/seed-0": "RUNNING", "study/e/a/seed-1": "PENDING"}
    assert state_of_runs(tmp_path, "study")["study/e/a/seed-0"].log.name == "77_0_0_log.out"
    assert arrays.submitted_digest(folder, arrays.read_arrays(folder)[0][0]) is None


def test_slurm_that_does_not_answer_and_damaged_records(commands, tmp_path):
    array(tmp_path, [["study/e/a/seed-0"]])
    commands.answer("squeue", "slurm_load_jobs error: Unable to contact slurm controller\n", code=1)
    with pytest.raises(UserError, match="Slurm does not answer: slurm_load_jobs error: Unable to contact"):
        state_of_runs(tmp_path, "study")
    (record,) = arrays.folder(tmp_path, "study").glob("array-*.json")
    for text in ("{", "{}", json.dumps({**json.loads(record.read_text()), "tasks": 3}), '{"format": 9}'):
        record.write_text(text)
        with pytest.raises(UserError, match="is damaged"):
            state_of_runs(tmp_path, "study")


def submitted(root: Path, name: str) -> arrays.Array:
    """A study of two runs and the record of its array."""
    study = make_study(name, seeds=2)
    cells = [
        {key: getattr(job, key) for key in ("env", "algo", "label", "seed", "hash")} for job in study.jobs()
    ]
    write_study(root, {"format": FORMAT, "study": name, **study.to_dict(), "grid": cells})
    return array(root, [[str(job.path)] for job in study.jobs()], study=name)


def test_status_asks_once_however_many_studies(commands, tmp_path, capsys):
    names = [submitted(tmp_path, name).name for name in ("one", "other")]
    commands.answer("squeue", "".join(f"77|0|PENDING|Priority||{name}\n" for name in names))
    assert main(["status", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("seed-0: queued (Priority), job 77") == 2
    assert len(commands.calls("squeue")) == 1


def test_status_tells_the_runs_where_slurm_does_not_answer(commands, tmp_path, capsys):
    made = submitted(tmp_path, "study")
    commands.answer("squeue", f"77|0|PENDING|Priority||{made.name}\n77|1|PENDING|Dependency||{made.name}\n")
    status = ["status", "--study", "study", "--results", str(tmp_path)]
    assert main(status) == 0
    assert "seed-0: queued (Priority), job 77" in capsys.readouterr().out
    assert len(commands.calls("squeue")) == 1
    commands.answer("squeue", "slurm_load_jobs error: Unable to contact slurm controller\n", code=1)
    assert main(status) == 0
    out = capsys.readouterr().out
    assert "study: 2 runs: 2 missing" in out
    assert "Slurm does not answer: slurm_load_jobs error: Unable to contact slurm controller" in out
