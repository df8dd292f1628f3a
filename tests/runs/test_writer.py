"""Writing a run: whole writes, its seal, refusals, full disks, and kills at every write."""

from __future__ import annotations

import dataclasses
import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import disk as files
from bench.errors import UserError
from bench.runs import (
    TABLES,
    AlreadyFinished,
    BeingWritten,
    DamagedRun,
    Superseded,
    read_run,
    remove_leftovers,
    writer,
)
from tests.runs.writing import EXECUTION, JOB, eval_row, flip, in_child, open_writer, results, rows, train
from tests.synthetic import StubJob


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


def test_a_run_half_trained_on_a_gpu_is_not_lost_to_a_cpu(tmp_path: Path) -> None:
    gpu = {"execution": EXECUTION | {"device": "cuda"}}
    open_writer(tmp_path).release()  # of a run without a checkpoint nothing is lost
    run = open_writer(tmp_path, **gpu)
    run.append("eval.csv", [eval_row(2)])
    run.save_checkpoint(2, b"state", rows(0, 2), 0, keep_from_row=0)
    with pytest.raises(BeingWritten):  # as long as it lives, nobody is told to delete it
        open_writer(tmp_path)
    run.release()
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=r"trained on cuda up to step 2, .* cpu: finish it with DEVICE=cuda"):
        open_writer(tmp_path)
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before
    again = open_writer(tmp_path, **gpu)
    assert again.load_checkpoint() is not None
    again.release()


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


@pytest.mark.seconds
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


def test_a_table_damaged_while_it_ran_is_not_sealed(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    run.append("eval.csv", [eval_row(1)])
    flip(run.path / "eval.csv", 2)
    with pytest.raises(DamagedRun, match=r"eval\.csv begins with"):
        run.finish("done", 1, policy=b"")
    assert not (run.path / "done.json").exists()


def test_nothing_here_imports_torch() -> None:
    code = "import bench.runs, bench.machine.provenance, sys; sys.exit(bool({'torch', 'pandas'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
