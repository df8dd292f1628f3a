"""The run directory: one writer, whole writes, resuming, taking over, and reading whatever is on disk."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench import disk as files
from bench.errors import UserError
from bench.runs import (
    STALE_AFTER_S,
    TABLES,
    AlreadyFinished,
    Checkpoint,
    DamagedRun,
    Superseded,
    Writer,
    checkpoint_step,
    checkpoints,
    ownership,
    places,
    read_run,
    remove_leftovers,
    writer,
)
from bench.runs.reader import SEALED, _study_clock_offset, seal
from tests.synthetic import StubJob, make_study

JOB = StubJob()
EXECUTION = {"mode": "eager", "device": "cpu", "threads": 1, "dtype": "float32", "pack": [0]}


def open_writer(root: Path, job: StubJob = JOB, **options: object) -> Writer:
    return Writer.open(root, job, **({"execution": EXECUTION, "provenance": {}} | options))  # type: ignore[arg-type]


def eval_row(step: int, value: float = 1.5) -> dict[str, float]:
    return {"env_step": step, "episode": 0, "return": value, "length": 5, "wall_s": 0.5 * step}


def rows(first: int, last: int) -> np.ndarray:
    return np.repeat(np.arange(first, last, dtype=np.float32)[:, None], 3, axis=1)


def train(root: Path, steps: int = 4, checkpoint_root: Path | None = None) -> None:
    """A stand-in for the trainer: deterministic, a checkpoint every second step, a ring of three rows."""
    run = open_writer(root, checkpoint_root=checkpoint_root)
    start = run.load_checkpoint() or Checkpoint(0, b"", rows(0, 0), 0)
    assert start.state == (b"state %d" % start.env_step if start.env_step else b"")
    if start.env_step:
        assert start.rows[:, 0].tolist() == list(range(start.first_row, start.env_step))
    stored = start.env_step
    for step in range(start.env_step + 1, steps + 1):
        run.append("eval.csv", [eval_row(step, step / 7), eval_row(step, -step / 7)])
        run.append(
            "train.csv", [{"env_step": step, "kind": "loss", "name": "critic_loss", "value": step / 3}]
        )
        run.heartbeat(env_step=step)
        if step % 2 == 0:
            run.save_checkpoint(step, b"state %d" % step, rows(stored, step), stored, keep_from_row=step - 3)
            stored = step
    run.finish("done", steps, policy=b"policy")


def in_child(work: Callable[[], object], **environment: str) -> int:
    """The exit status of `work` in a forked process: 0, 1 for an exception, minus the signal it died of."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.environ.update(environment)
            files._crossed.clear()
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def results(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in ("eval.csv", "train.csv", "policy.pt")}


def test_a_run_from_opening_to_its_seal(tmp_path: Path) -> None:
    assert read_run(tmp_path / JOB.path).state == "missing"
    run = open_writer(tmp_path)
    run.append("eval.csv", [eval_row(1), eval_row(2)])
    run.heartbeat(env_step=2, rate=10.5, last_return=float("nan"))
    found = read_run(run.path)
    assert (found.state, found.verified, found.env_step) == ("running", False, 2)
    assert found.progress == {"env_step": 2, "rate": 10.5, "last_return": None}
    assert len(found.table("eval.csv")) == 2
    assert len(found.table("final.csv")) == 0
    run.save_checkpoint(2, b"state", rows(0, 2), 0)
    run.finish("done", 2, policy=b"policy")

    found = read_run(run.path, job_hash=JOB.hash)
    assert (found.state, found.verified, found.env_step, found.reason) == ("done", True, 2, "")
    assert (found.study, found.env, found.algo, found.label, found.seed) == (
        "study",
        JOB.env,
        "qsm",
        "qsm",
        0,
    )
    assert found.meta["config"] == JOB.config
    assert found.meta["attempts"][0]["execution"] == EXECUTION
    table = found.table("eval.csv")
    assert list(table.columns) == list(TABLES["eval.csv"])
    assert [kind.kind for kind in table.dtypes] == ["i", "i", "f", "i", "f"]
    assert sorted(p.name for p in run.path.iterdir()) == ["done.json", "eval.csv", "policy.pt", "run.json"]
    assert set(found.sha256) == {"eval.csv", "policy.pt", "run.json"}
    with pytest.raises(Superseded):
        run.append("eval.csv", [eval_row(3)])
    with pytest.raises(AlreadyFinished):
        open_writer(tmp_path)
    assert sorted(p.name for p in run.path.iterdir()) == ["done.json", "eval.csv", "policy.pt", "run.json"]


def test_a_diverged_run_keeps_its_reason_and_needs_no_policy(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    run.finish("diverged", 7, policy=None, reason="critic_loss is nan\nat step 7\x1b[31m")
    found = read_run(run.path)
    assert (found.state, found.env_step, found.reason) == ("diverged", 7, "critic_loss is nan at step 7 [31m")
    with pytest.raises(ValueError, match="done or diverged"):
        open_writer(tmp_path, StubJob(seed=1)).finish("finished", 1, policy=None)


def test_a_failed_run_says_why_and_can_be_retried(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    run.append("eval.csv", [eval_row(1)])
    run.fail("Traceback …\n  File …\nValueError: no \x1b[31mgood\n")
    found = read_run(run.path)
    assert (found.state, found.reason) == ("failed", "ValueError: no [31mgood")
    with pytest.raises(UserError, match="failed: ValueError"):
        open_writer(tmp_path, retry_failed=False)
    again = open_writer(tmp_path)
    assert again.attempt == 2
    assert read_run(run.path).state == "running"
    assert len(read_run(run.path).columns("eval.csv")["return"]) == 0
    assert read_run(run.path).meta["attempts"][1]["restarted"] == "no checkpoint"
    again.release()
    assert read_run(run.path).state == "stale"


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


# Checkpoints


def test_a_checkpoint_writes_new_rows_only_and_forgets_overwritten_ones(tmp_path: Path) -> None:
    run = open_writer(tmp_path, checkpoint_root=tmp_path / "scratch")
    folder = places.checkpoint_folder(tmp_path, JOB.path, tmp_path / "scratch")
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


def flip(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


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


# Ownership


def test_a_living_owner_refuses_a_second_writer(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    with pytest.raises(UserError, match=rf"process {os.getpid()} on ") as caught:
        open_writer(tmp_path)
    assert not isinstance(caught.value, AlreadyFinished)
    run.append("eval.csv", [eval_row(1)])


def test_a_killed_owner_is_succeeded(tmp_path: Path) -> None:
    def die() -> None:
        open_writer(tmp_path)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(die) == -signal.SIGKILL
    found = read_run(tmp_path / JOB.path)
    assert (found.state, "has gone" in found.reason) == ("stale", True)
    assert open_writer(tmp_path).attempt == 2


def test_an_owner_that_is_a_zombie_is_gone(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            open_writer(tmp_path)
        finally:
            os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    assert read_run(tmp_path / JOB.path).state == "stale"
    assert open_writer(tmp_path).attempt == 2
    os.waitpid(pid, 0)


def test_a_run_finished_while_one_waits_for_the_lock_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = ownership.locked

    def after_another(folder: Path, **options: bool) -> object:
        monkeypatch.setattr(ownership, "locked", lock)
        open_writer(tmp_path).finish("done", 1, policy=b"theirs")
        return lock(folder, **options)

    monkeypatch.setattr(ownership, "locked", after_another)
    with pytest.raises(AlreadyFinished):
        open_writer(tmp_path)
    assert read_run(tmp_path / JOB.path).state == "done"
    assert not (tmp_path / JOB.path / ".lock").exists()


def rewrite_owner(path: Path, **changes: object) -> None:
    edit(path / "owner.json", lambda record: record.update(changes))


def test_another_process_with_the_same_number_is_not_the_owner(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    rewrite_owner(run.path, start_ticks=1)
    assert open_writer(tmp_path).attempt == 2
    rewrite_owner(run.path, boot_id="before the last restart of this host")
    assert open_writer(tmp_path).attempt == 3


def test_an_owner_on_another_host_lives_as_long_as_its_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_writer(tmp_path)
    rewrite_owner(run.path, host="elsewhere")
    really = time.time
    for skew in (0.0, 86_400.0, -86_400.0):  # this host's clock is wrong: only the file system's counts
        monkeypatch.setattr(time, "time", lambda skew=skew: really() + skew)
        with pytest.raises(UserError, match=r"on elsewhere.*gone 300 s after"):
            open_writer(tmp_path)
        _study_clock_offset.cache_clear()
        assert read_run(run.path).state == "running"
    old = really() - STALE_AFTER_S - 10
    os.utime(run.path / "heartbeat.json", (old, old))
    assert read_run(run.path).state == "stale"
    assert open_writer(tmp_path).attempt == 2
    with pytest.raises(Superseded, match="now belongs to process"):
        run.append("eval.csv", [eval_row(1)])
    assert not list(run.path.glob("*.tmp"))


def test_a_silent_owner_on_this_host_is_stale_but_still_owns(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    old = time.time() - 3600
    os.utime(run.path / "heartbeat.json", (old, old))
    found = read_run(run.path)
    assert (found.state, "no heartbeat for 60 minutes" in found.reason) == ("stale", True)
    with pytest.raises(UserError, match="being written by"):
        open_writer(tmp_path)


def test_the_schedulers_restart_takes_over_and_the_older_process_stops(tmp_path: Path) -> None:
    def scheduler(restarts: int, job: str = "77") -> dict[str, object]:
        return {"scheduler": {"name": "slurm", "job_id": job, "restart_count": restarts}}

    old = open_writer(tmp_path, provenance=scheduler(0))
    old.append("eval.csv", [eval_row(1)])
    for same_or_other in (scheduler(0), scheduler(1, "78"), {}):
        with pytest.raises(UserError, match="scheduler job 77"):
            open_writer(tmp_path, provenance=same_or_other)
    new = open_writer(tmp_path, provenance=scheduler(1))
    assert new.attempt == 2
    for write in (
        lambda: old.append("eval.csv", [eval_row(2)]),
        lambda: old.save_checkpoint(1, b"", rows(0, 1), 0),
        lambda: old.finish("done", 2, policy=b""),
        lambda: old.fail("no"),
        lambda: old.restart("no"),
        lambda: old.heartbeat(env_step=2),
    ):
        with pytest.raises(Superseded, match="now belongs to process"):
            write()
    old.release()
    new.append("eval.csv", [eval_row(1)])
    assert read_run(new.path).state == "running"


def test_a_run_whose_folder_was_removed_stops(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    for path in run.path.iterdir():
        path.unlink()
    run.path.rmdir()
    with pytest.raises(Superseded, match="removed"):
        run.append("eval.csv", [eval_row(1)])
    assert not run.path.exists()


def test_two_processes_at_once_are_one_owner(tmp_path: Path) -> None:
    """Eight processes want the run at the same moment: one gets it, the others are told who has it."""
    start = time.monotonic() + 0.3
    children = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            status = 3
            try:
                while time.monotonic() < start:
                    pass
                open_writer(tmp_path)
                status = 0
                time.sleep(3)  # alive until the slowest of the others has asked
            except UserError:
                status = 1
            finally:
                os._exit(status)
        children.append(pid)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert sorted(statuses) == [0] + [1] * 7
    assert len(read_run(tmp_path / JOB.path).meta["attempts"]) == 1


def test_a_lock_file_removed_while_one_waits_for_it_is_no_lock(tmp_path: Path) -> None:
    (read, write), order = os.pipe(), tmp_path / "order"

    def second() -> None:
        os.read(read, 1)
        with ownership.locked(tmp_path):
            order.write_text(order.read_text() + "second")

    pid = os.fork()
    if pid == 0:
        try:
            second()
        finally:
            os._exit(0)
    with ownership.locked(tmp_path):
        os.write(write, b"x")
        time.sleep(0.1)
        (tmp_path / ".lock").unlink()
        held = ownership.locked(tmp_path)  # a new lock: the waiting process must queue for this one
        held.__enter__()
    time.sleep(0.1)
    order.write_text("first ")
    held.__exit__(None, None, None)
    os.waitpid(pid, 0)
    assert order.read_text() == "first second"


# Bad input and full disks


def test_another_configuration_is_refused_with_each_difference(tmp_path: Path) -> None:
    open_writer(tmp_path).release()
    before = {p: p.read_bytes() for p in (tmp_path / JOB.path).iterdir()}
    other = dataclasses.replace(JOB, config={"M_q": 120.0, "critic": {"hidden": [512]}, "T": 5})
    with pytest.raises(UserError) as caught:
        open_writer(tmp_path, other)
    message = str(caught.value)
    for part in (
        "config.M_q is 50.0 there and 120.0 here",
        "config.critic.hidden is [256, 256] there and [512] here",
        "config.T is absent there and 5 here",
        "STUDY",
        "delete that folder",
    ):
        assert part in message
    assert "\n" not in message
    assert {p: p.read_bytes() for p in (tmp_path / JOB.path).iterdir()} == before
    assert read_run(tmp_path / JOB.path, job_hash=other.hash).state == "configuration changed"


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", Path("/proc/results")):
        with pytest.raises(UserError, match="cannot be") as caught:
            open_writer(root)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"format": 7}', b"\xff\xfe"])
def test_a_damaged_run_json_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    open_writer(tmp_path).release()
    (tmp_path / JOB.path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=r"damaged: run\.json.*delete that folder"):
        open_writer(tmp_path)
    assert (tmp_path / JOB.path / "run.json").read_bytes() == content


def test_data_without_run_json_is_not_overwritten(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    run.append("eval.csv", [eval_row(1)])
    run.release()
    (run.path / "run.json").unlink()
    assert read_run(run.path).state == "damaged"
    with pytest.raises(UserError, match=r"run\.json is missing, though eval\.csv is there"):
        open_writer(tmp_path)
    assert (run.path / "eval.csv").exists()


def test_a_full_disk_leaves_whole_lines_and_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_writer(tmp_path)
    run.append("eval.csv", [eval_row(1)])
    run.save_checkpoint(1, b"one", rows(0, 1), 0)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    really = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", full)
    for write in (
        lambda: run.append("eval.csv", [eval_row(2)]),
        lambda: run.append("time.csv", [dict.fromkeys(TABLES["time.csv"], 1)]),
        lambda: run.save_checkpoint(2, b"two" * 100, rows(1, 2), 1),
        lambda: run.finish("done", 2, policy=b"policy" * 100),
    ):
        with pytest.raises(OSError, match="No space left"):
            write()
    monkeypatch.undo()
    assert (run.path / "time.csv").read_bytes() == b""
    (run.path / "time.csv").unlink()
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        run.fail("OSError: full")
    monkeypatch.undo()
    assert open_writer(tmp_path).load_checkpoint() is not None  # given up, although it could not say why


def test_a_heartbeat_is_written_once_in_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_writer(tmp_path)
    clock = [1000.0]
    monkeypatch.setattr(writer.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(run, "_next_heartbeat", 0.0)
    seen = []
    for step in range(30):
        clock[0] += 0.5
        run.heartbeat(env_step=step)
        seen.append(read_run(run.path).env_step)
    assert sorted(set(seen)) == [0, 10, 20]


def test_a_file_is_replaced_not_overwritten(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "file", b"old", "test")
    os.link(tmp_path / "file", tmp_path / "old")
    files.write_atomic(tmp_path / "file", b"new", "test")
    assert ((tmp_path / "old").read_bytes(), (tmp_path / "file").read_bytes()) == (b"old", b"new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        files.write_atomic(tmp_path / "folder", b"new", "test")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "old"]


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    writers = [open_writer(tmp_path, StubJob(seed=seed)) for seed in range(20)]
    for run in writers:
        run.append("eval.csv", [eval_row(1)])
        run.save_checkpoint(1, b"one", rows(0, 1), 0)
        run.heartbeat(env_step=1)
    assert len(os.listdir("/proc/self/fd")) == before


# Kills

POINTS = [
    f"{what}.{moment}"
    for what, moments in {
        "append": ("before", "middle", "after"),
        "run": ("before", "middle", "written", "after"),
        "owner": ("before", "middle", "written", "after"),
        "heartbeat": ("middle", "written"),
        "shard": ("before", "middle", "written", "after"),
        "state": ("middle", "written", "after"),
        "manifest": ("before", "middle", "written", "after"),
        "policy": ("middle", "after"),
        "done": ("before", "middle", "written", "after"),
        "cleanup": ("before", "after"),
    }.items()
    for moment in moments
]
ONCE = ("run", "owner", "heartbeat", "policy", "done")  # crossed once in an attempt


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_write_changes_no_result(tmp_path: Path, point: str) -> None:
    train(tmp_path / "undisturbed")
    wanted = results(tmp_path / "undisturbed" / JOB.path)
    scratch = tmp_path / "scratch"
    for n in (1,) if point.startswith(ONCE) else (1, 2):
        root = tmp_path / f"killed-{n}"
        status = in_child(lambda root=root: train(root, checkpoint_root=scratch), BENCH_FAULT=f"{point}:{n}")
        assert status == -signal.SIGKILL
        before = read_run(root / JOB.path)
        assert before.state in ("missing", "stale", "done")
        if before.state == "done":
            remove_leftovers(root, JOB, scratch)
        else:
            assert in_child(lambda root=root: train(root, checkpoint_root=scratch)) == 0
        found = read_run(root / JOB.path)
        assert (found.state, found.verified) == ("done", True)
        assert results(found.path) == wanted
        assert {p.name for p in found.path.iterdir()} == {*results(found.path), "run.json", "done.json"}
        assert not scratch.exists() or not list(scratch.iterdir())


def test_a_run_that_is_killed_again_and_again_still_ends(tmp_path: Path) -> None:
    train(tmp_path / "undisturbed")
    dice = random.Random(0)
    for _ in range(40):
        fault = f"{dice.choice(POINTS)}:{dice.randint(1, 3)}"
        assert in_child(lambda: train(tmp_path / "killed"), BENCH_FAULT=fault) in (0, 1, -signal.SIGKILL)
        if read_run(tmp_path / "killed" / JOB.path).state == "done":
            break
    else:
        assert in_child(lambda: train(tmp_path / "killed")) == 0
    assert results(tmp_path / "killed" / JOB.path) == results(tmp_path / "undisturbed" / JOB.path)
    attempts = read_run(tmp_path / "killed" / JOB.path).meta["attempts"]
    numbers = [attempt["attempt"] for attempt in attempts]
    assert numbers == sorted(set(numbers))


# Reading


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    (job,) = make_study(tmp_path, "s", ["walker-run"], ["sac"], [3], 3, np.random.default_rng(0), origin={})
    assert read_run(tmp_path / job.path).verified
    return tmp_path / job.path


@pytest.mark.parametrize("name", SEALED)
def test_a_changed_byte_in_a_finished_run_is_caught(finished: Path, name: str) -> None:
    flip(finished / name, -3)
    found = read_run(finished)
    assert (found.state, found.verified) == ("damaged", False)
    assert name in found.reason
    with pytest.raises(DamagedRun, match=name):
        found.table("eval.csv")


def test_a_changed_end_in_the_seal_itself_is_caught(finished: Path) -> None:
    text = (finished / "done.json").read_text()
    for old, new in (("3000", "2000"), ("null", '"n"'), ('"done"', '"diverged"'), ('"sha256"', '"sha255"')):
        assert old in text
        (finished / "done.json").write_text(text.replace(old, new))
        found = read_run(finished)
        assert (found.state, "done.json" in found.reason) == ("damaged", True)
    (finished / "done.json").write_text(json.dumps(json.loads(text), indent=3))  # no change of content
    assert read_run(finished).state == "done"


def test_a_file_changed_after_verification_is_caught_too(finished: Path) -> None:
    found = read_run(finished)
    text = (finished / "eval.csv").read_text()
    (finished / "eval.csv").write_text(text.replace("1000,0,", "1001,0,"))
    with pytest.raises(DamagedRun, match=r"eval\.csv has changed"):
        found.columns("eval.csv")
    (finished / "eval.csv").unlink()
    with pytest.raises(DamagedRun, match=r"eval\.csv is missing"):
        found.columns("eval.csv")
    assert read_run(finished).reason == "eval.csv is missing"


def test_a_finished_run_may_be_kept_without_its_policy_but_not_with_another(finished: Path) -> None:
    (finished / "policy.pt").write_bytes(b"another")
    assert read_run(finished).reason == "policy.pt has changed since the run finished (SHA-256)"
    (finished / "policy.pt").unlink()
    found = read_run(finished)
    assert (found.state, found.verified) == ("done", True)
    assert len(found.table("eval.csv"))


DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
LOST = b'{"format": 1, "reason": "\\ud800"}'


@pytest.mark.parametrize("name", ["run.json", "done.json"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"[1]", "no JSON object"),
        (b"{", "is not JSON"),
        (b"\x00" * 50, "is not JSON"),
        (b'{"format": 1\xff}', "is not JSON"),
        (DEEP, "nested too deeply"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nested too deeply"),
        (LOST, "is not JSON"),
        (b'{"format": NaN}', "is not JSON"),
        (b'{"format": 2}', "has format 2; this code reads up to 1: update it"),
        (b'{"format": true}', "'format' must be a version number"),
        (b'{"format": "1"}', "'format' must be a version number"),
        (b'{"format": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> main\n", "unfinished git merge"),
    ],
)
def test_json_that_is_none_of_ours_is_damage(finished: Path, name: str, content: bytes, reason: str) -> None:
    (finished / name).write_bytes(content)
    found = read_run(finished)
    assert (found.state, found.verified) == ("damaged", False)
    assert name in found.reason
    assert reason in found.reason
    assert found.reason.isprintable()


CHANGES: list[tuple[str, dict[str, object]]] = [
    ("run.json", {"env": "../../x"}),
    ("run.json", {"env": "walker-walk"}),
    ("run.json", {"algo": "<script>"}),
    ("run.json", {"label": 7}),
    ("run.json", {"seed": True}),
    ("run.json", {"seed": 10**30}),
    ("run.json", {"seed": 4}),
    ("run.json", {"hash": "abc"}),
    ("run.json", {"config": []}),
    ("run.json", {"settings": {"steps": [1]}}),
    ("run.json", {"settings": {"steps": 1e400}}),
    ("run.json", {"attempts": []}),
    ("run.json", {"attempts": [1]}),
    ("run.json", {"attempts": [{"attempt": "1"}]}),
    ("done.json", {"outcome": "won"}),
    ("done.json", {"reason": 3}),
    ("done.json", {"env_step": -1}),
    ("done.json", {"files": {}}),
    ("done.json", {"files": {"run.json": "0" * 64, "../../etc/passwd": "0" * 64}}),
    ("done.json", {"files": {"run.json": 5}}),
]


@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_a_field_of_another_kind_is_damage(finished: Path, name: str, change: dict[str, object]) -> None:
    path = finished / name
    if name == "run.json":
        (finished / "done.json").unlink()  # whose SHA-256 would catch every change alike
    record = json.loads(path.read_text()) | change
    if name == "done.json":
        record["sha256"] = seal(record)
    path.write_text(json.dumps(record).replace("Infinity", "1e999"))
    found = read_run(finished)
    assert found.state == "damaged"
    assert name in found.reason


def test_what_stands_where_a_file_should_is_not_followed(finished: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    for name in ("eval.csv", "run.json", "done.json"):
        data = (finished / name).read_bytes()
        for put in (
            lambda path: path.symlink_to(secret),
            lambda path: path.mkdir(),
            lambda path: os.mkfifo(path),
        ):
            secret.write_bytes(data)
            (finished / name).unlink()
            put(finished / name)
            found = read_run(finished)
            assert (found.state, name in found.reason) == ("damaged", True)
            (finished / name).rmdir() if (finished / name).is_dir() else (finished / name).unlink()
            (finished / name).write_bytes(data)
    assert read_run(finished).state == "done"


def test_links_may_lead_to_the_results_but_not_out_of_them(finished: Path, tmp_path: Path) -> None:
    strange = tmp_path / "a folder ü with 'spaces'"
    strange.symlink_to(tmp_path)
    assert read_run(strange / finished.relative_to(tmp_path)).state == "done"
    elsewhere = tmp_path / "results" / "s"
    elsewhere.mkdir(parents=True)
    (elsewhere / "walker-run").symlink_to(finished.parents[1])
    found = read_run(elsewhere / "walker-run" / "sac" / "seed-3")
    assert (found.state, "leads out of" in found.reason) == ("damaged", True)
    job = StubJob(seed=3, study="s", env="walker-run", algo="sac", label="sac")
    with pytest.raises(UserError, match="leads out of"):
        open_writer(tmp_path / "results", job)


def test_an_added_table_is_damage(finished: Path) -> None:
    record = json.loads((finished / "done.json").read_text())
    del record["files"]["time.csv"]
    (finished / "done.json").write_text(json.dumps(record | {"sha256": seal(record)}))
    assert read_run(finished).reason == "time.csv was added after the run had finished"


def test_an_unfinished_run_is_unverified_and_its_tables_are_parsed(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    run.append("eval.csv", [eval_row(1)])
    run.release()
    assert (read_run(run.path).state, read_run(run.path).verified) == ("stale", False)
    with (run.path / "eval.csv").open("ab") as file:
        file.write(b"2,0,one,5,0.5\n")
    found = read_run(run.path)
    assert (found.state, found.reason) == ("damaged", "eval.csv, line 3: return cannot be 'one'")
    assert read_run(run.path, verify=False).state == "stale"


def test_a_table_damaged_while_it_ran_is_not_sealed(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    run.append("eval.csv", [eval_row(1)])
    flip(run.path / "eval.csv", 2)
    with pytest.raises(DamagedRun, match=r"eval\.csv begins with"):
        run.finish("done", 1, policy=b"")
    assert not (run.path / "done.json").exists()


HUGE = b'{"token": "a", "host": "h", "boot_id": "b", "attempt": %d, "pid": %d}' % (10**400, 10**400)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"token": []}', DEEP, HUGE, b'{"env_step": 1e999, "x": [1], "rate": "1"}']
)
def test_damaged_heartbeats_and_owners_count_for_nothing(tmp_path: Path, content: bytes) -> None:
    run = open_writer(tmp_path)
    (run.path / "heartbeat.json").write_bytes(content)
    assert (read_run(run.path).state, read_run(run.path).progress) == ("running", {})
    (run.path / "owner.json").write_bytes(content)
    assert (read_run(run.path).state, len(read_run(run.path).reason) < 100) == ("stale", True)
    assert open_writer(tmp_path).attempt == 2


def mutate(data: bytes, dice: random.Random) -> bytes:
    """One random change: bits, a cut, a copied piece, a number blown up, a line doubled."""
    position = dice.randrange(len(data))
    kind = dice.randrange(6)
    if kind == 0:
        return data[:position] + bytes([data[position] ^ (1 << dice.randrange(8))]) + data[position + 1 :]
    if kind == 1:
        return data[:position]
    if kind == 2:
        return data[:position] + data[dice.randrange(len(data)) :]
    if kind == 3:
        return (
            data[:position]
            + dice.choice([b"9" * 400, b"nan", b"1e999", b"-1", b"\x00", b"\xff"])
            + data[position:]
        )
    if kind == 4:
        lines = data.splitlines(keepends=True)
        return b"".join(lines[:1] + dice.sample(lines, len(lines)))
    return data[:position] + b"\n<<<<<<< HEAD\n" + data[position:]


def test_no_mutated_file_brings_the_reader_down(finished: Path, tmp_path: Path) -> None:
    """A small part of the fuzzing that the fault tests do: finished runs and unfinished ones."""
    dice = random.Random(1)
    names = [path.name for path in finished.iterdir()]
    whole = {name: (finished / name).read_bytes() for name in names}
    for i in range(300):
        name = dice.choice(names)
        changed = mutate(whole[name], dice)
        (finished / name).write_bytes(changed)
        if i % 2:  # the same damage in a run without a seal
            (finished / "done.json").unlink()
        found = read_run(finished)
        assert found.reason.isprintable()
        if changed != whole[name] and name != "done.json" and i % 2 == 0:
            assert found.state == "damaged"
            assert name in found.reason
        if found.state != "damaged":
            assert found.verified == (i % 2 == 0)
            for table in TABLES:
                found.columns(table)
        for restored in {name, "done.json"}:
            (finished / restored).write_bytes(whole[restored])


@pytest.mark.parametrize(
    "path", ["a/b/c/d", "a/b/c/seed-01", "a/b/../seed-1", "a/.b/c/seed-1", "a/b/c\n/seed-1"]
)
def test_a_path_that_is_no_runs_is_the_callers_mistake(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="is not <study>/<env>/<label>/seed-<k>"):
        read_run(tmp_path / path)


def test_nothing_here_imports_torch() -> None:
    code = "import bench.runs, bench.machine.provenance, sys; sys.exit(bool({'torch', 'pandas'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
