"""Checkpoints: resuming, starting again where one is damaged, and what is kept of the replay buffer."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.runs import checkpoint_places, checkpoint_step, checkpoints, read_run
from tests.runs.writing import JOB, edit, eval_row, flip, open_writer, rows


def test_a_stopped_run_resumes_where_its_checkpoint_was(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    run.append("eval.csv", [eval_row(1)])
    run.save_checkpoint(1, b"one", rows(0, 1), 0)
    run.append("eval.csv", [eval_row(2)])
    run.append("train.csv", [{"env_step": 2, "kind": "loss", "name": "critic_loss", "value": 0.5}])
    run.release()
    run.release()
    assert read_run(run.path).state == "stale"
    assert checkpoint_step(tmp_path, JOB) == 1
    with (run.path / "eval.csv").open("ab") as file:
        file.write(b"3,0,1.")  # torn by a crash
    assert read_run(run.path).columns("eval.csv")["env_step"].tolist() == [1, 2]

    again = open_writer(tmp_path)
    found = again.load_checkpoint()
    assert found is not None
    assert (found.env_step, found.state, found.first_row) == (1, b"one", 0)
    np.testing.assert_array_equal(found.rows, rows(0, 1))
    assert found.rows.dtype == np.float32
    assert read_run(run.path).columns("eval.csv")["env_step"].tolist() == [1]
    assert not (run.path / "train.csv").exists()
    attempts = read_run(run.path).meta["attempts"]
    assert [attempt["resumed_at_step"] for attempt in attempts] == [0, 1]
    assert "restarted" not in attempts[1]


def test_restart_gives_the_checkpoint_up(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    run.append("eval.csv", [eval_row(1)])
    run.save_checkpoint(1, b"one", rows(0, 1), 0)
    run.release()
    again = open_writer(tmp_path)
    again.restart("the state is of another version")
    assert again.load_checkpoint() is None
    assert checkpoint_step(tmp_path, JOB) == 0
    found = read_run(run.path)
    assert len(found.columns("eval.csv")["return"]) == 0
    assert found.meta["attempts"][1]["restarted"] == "the state is of another version"


def test_a_checkpoint_writes_new_rows_only_and_forgets_overwritten_ones(tmp_path: Path) -> None:
    run = open_writer(tmp_path, checkpoint_root=tmp_path / "scratch")
    folder = checkpoint_places.checkpoint_folder(tmp_path, JOB.path, tmp_path / "scratch")
    run.save_checkpoint(1, b"a", rows(0, 10), 0)
    first = (folder / "replay-0-9.npy").stat()
    run.save_checkpoint(2, b"b", rows(10, 20), 10)
    assert (folder / "replay-0-9.npy").stat().st_ino == first.st_ino
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoint.json",
        "replay-0-9.npy",
        "replay-10-19.npy",
        "state-2.pt",
    ]
    run.save_checkpoint(3, b"c", rows(20, 25), 20, keep_from_row=10)
    assert not (folder / "replay-0-9.npy").exists()
    run.save_checkpoint(3, b"c again", rows(25, 25), 25, keep_from_row=12)  # twice at one step, nothing new
    run.release()
    found = open_writer(tmp_path, checkpoint_root=tmp_path / "scratch").load_checkpoint()
    assert found is not None
    assert (found.first_row, found.state) == (10, b"c again")
    np.testing.assert_array_equal(found.rows, rows(10, 25))


def test_rows_with_a_gap_or_of_another_type_are_refused(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    run.save_checkpoint(1, b"a", rows(0, 10), 0)
    for bad, first in (
        (rows(11, 12), 11),
        (rows(9, 12), 9),
        (rows(10, 12).astype(np.float64), 10),
        (rows(10, 12)[0], 10),
    ):
        with pytest.raises(ValueError, match="rows"):
            run.save_checkpoint(2, b"b", bad, first)
    run.save_checkpoint(2, b"b", rows(50, 60), 50, keep_from_row=50)  # the ring has overwritten all before
    found = run.load_checkpoint()
    assert found is not None
    assert (found.first_row, len(found.rows)) == (50, 10)


def test_a_checkpoint_that_fails_at_the_step_of_the_last_one_leaves_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_writer(tmp_path)
    run.save_checkpoint(1, b"first", rows(0, 1), 0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_json", full)
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            run.save_checkpoint(1, b"second", rows(1, 1), 1)
    run.release()
    found = open_writer(tmp_path).load_checkpoint()
    assert found is not None
    assert found.state == b"first"


DAMAGED_CHECKPOINTS: dict[str, Callable[[Path], object]] = {
    r"state-2\.pt has changed": lambda run: flip(run / "checkpoint/state-2.pt"),
    r"state-2\.pt is missing": lambda run: (run / "checkpoint/state-2.pt").unlink(),
    r"replay-0-9\.npy has changed": lambda run: flip(run / "checkpoint/replay-0-9.npy", 200),
    r"replay-0-9\.npy is missing": lambda run: (run / "checkpoint/replay-0-9.npy").unlink(),
    r"checkpoint\.json is not JSON": lambda run: os.truncate(run / "checkpoint/checkpoint.json", 90),
    r"checkpoint\.json has format 9": lambda run: edit(
        run / "checkpoint/checkpoint.json", lambda record: record.update(format=9)
    ),
    r"another configuration": lambda run: edit(
        run / "checkpoint/checkpoint.json", lambda record: record.update(hash="0" * 64)
    ),
    r"must be the name of a state file": lambda run: edit(
        run / "checkpoint/checkpoint.json", lambda record: record.update(state="../../run.json")
    ),
    r"must be the name of a shard": lambda run: edit(
        run / "checkpoint/checkpoint.json", lambda record: record.update(shards=["/etc/passwd"])
    ),
    r"eval\.csv is shorter than": lambda run: os.truncate(run / "eval.csv", 40),
    r"eval\.csv has changed": lambda run: flip(run / "eval.csv", 50),
    r"no checkpoint": lambda run: (run / "checkpoint/checkpoint.json").unlink(),
}


@pytest.mark.parametrize("reason", DAMAGED_CHECKPOINTS)
def test_a_damaged_checkpoint_means_starting_again_and_saying_so(tmp_path: Path, reason: str) -> None:
    run = open_writer(tmp_path)
    run.append("eval.csv", [eval_row(1)])
    run.save_checkpoint(2, b"two", rows(0, 10), 0)
    run.release()
    DAMAGED_CHECKPOINTS[reason](run.path)
    again = open_writer(tmp_path)
    assert again.load_checkpoint() is None
    assert not (run.path / "eval.csv").exists()
    attempt = read_run(run.path).meta["attempts"][1]
    assert attempt["resumed_at_step"] == 0
    assert re.search(reason, attempt["restarted"])
    again.append("eval.csv", [eval_row(1)])
    again.save_checkpoint(2, b"two", rows(0, 10), 0)
    assert again.load_checkpoint() is not None


def test_the_checkpoint_of_a_deleted_run_is_not_taken_up(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    run = open_writer(tmp_path / "results", checkpoint_root=scratch)
    run.save_checkpoint(2, b"two", rows(0, 10), 0)
    for path in run.path.iterdir():
        path.unlink()
    for _ in range(2):  # nor later
        anew = open_writer(tmp_path / "results", checkpoint_root=scratch)
        assert anew.load_checkpoint() is None
        anew.release()
