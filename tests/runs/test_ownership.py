"""One writer per run: who owns it, who may take it over, and who stops."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.runs import (
    STALE_AFTER_S,
    AlreadyFinished,
    Superseded,
    ownership,
    read_run,
)
from bench.runs.reader import _study_clock_offset
from tests.runs.writing import JOB, edit, eval_row, in_child, open_writer, rows


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


@pytest.mark.seconds
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
