"""When a task goes back into the queue, and when it gives up. No cluster: its variables are set by hand."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import make_study

from bench.launch.local.pool import LocalOptions, Pool
from bench.launch.plan import Plan
from bench.launch.slurm import start
from bench.launch.slurm import task as task_module
from bench.launch.slurm.task import Task, Watch, unfit, work_of
from bench.machine.provenance import provenance
from bench.runs import Writer, read_run
from bench.studies.job import Job


@pytest.fixture
def slurm_job(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def attempt(root: Path, job: Job, *, step: int | None = None) -> None:
    """One attempt at the run, with a checkpoint at `step` or without one."""
    writer = Writer.open(root, job, execution={}, provenance=provenance())
    if step is not None:
        writer.save_checkpoint(step, b"state", np.zeros((0, 3), np.float32), 0)
    writer.release()


def task_of(root: Path, packs: list[list[Job]], memory: Path | None = None, **options: object) -> Task:
    """The only task of an array, as its node finds it in the work file."""
    work = json.loads(json.dumps(work_of(root, [packs], LocalOptions(workers=1, **options))))  # type: ignore[arg-type]
    return Task.from_work(work, 0, memory)


@pytest.fixture
def jobs() -> list[Job]:
    return make_study("study", seeds=2).jobs()


@pytest.mark.seconds
def test_given_up_after_three_attempts_without_a_new_checkpoint(slurm_job, tmp_path, jobs, monkeypatch):
    task = task_of(tmp_path, [[jobs[0]]])
    attempt(tmp_path, jobs[0], step=100)
    attempt(tmp_path, jobs[0])
    attempt(tmp_path, jobs[0])
    assert task.goes_on()  # the first of these brought one
    attempt(tmp_path, jobs[0])
    assert not task.goes_on()
    run = read_run(tmp_path / jobs[0].path)
    assert (run.state, "3 attempts brought no new checkpoint" in run.reason) == ("failed", True)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "4")
    assert task(Watch()) == 1  # starts nothing
    assert len(read_run(tmp_path / jobs[0].path).meta["attempts"]) == 5


@pytest.mark.seconds
def test_a_checkpoint_starts_the_count_again(slurm_job, tmp_path, jobs):
    task = task_of(tmp_path, [[jobs[0]]])
    for step in (None, None, 100, None, None):
        attempt(tmp_path, jobs[0], step=step)
    assert task.goes_on()


def test_attempts_of_another_slurm_job_do_not_count(slurm_job, tmp_path, jobs, monkeypatch):
    for _ in range(3):
        attempt(tmp_path, jobs[0])
    task = task_of(tmp_path, [[jobs[0]]])
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    assert task.goes_on()


def test_one_stuck_run_does_not_take_the_others_with_it(slurm_job, tmp_path, jobs):
    for _ in range(3):
        attempt(tmp_path, jobs[0])
    assert task_of(tmp_path, [[jobs[0]], [jobs[1]]]).goes_on()
    assert read_run(tmp_path / jobs[0].path).state == "failed"
    assert read_run(tmp_path / jobs[1].path).state == "missing"


def test_a_task_whose_time_is_over_before_its_runs_begin_is_given_up(slurm_job, tmp_path, jobs):
    """Such attempts leave no trace in the runs, and would go on for ever."""
    task = task_of(tmp_path, [[jobs[0]], [jobs[1]]])
    assert [task.goes_on() for _ in range(2)] == [True, True]
    task.before = [("", 0), ("", 0)]
    assert task.goes_on()  # for the second run, which nobody has tried yet
    assert [read_run(tmp_path / job.path).state for job in jobs] == ["failed", "missing"]
    assert "3 attempts brought no new checkpoint" in read_run(tmp_path / jobs[0].path).reason
    task.before = [("failed", 0), ("", 0)]
    assert [task.goes_on() for _ in range(2)] == [True, True]
    attempt(tmp_path, jobs[1], step=100)
    assert task.goes_on()
    assert task.fruitless == 0


def test_fruitless_attempts_are_counted_across_them(slurm_job, tmp_path, jobs):
    """A requeued task is another process: the count lies beside the work file."""
    memory = tmp_path / "work-1-0.memory.json"
    for expected in (1, 2, 0):
        task = task_of(tmp_path, [[jobs[0]], [jobs[1]]], memory)
        task.before = [("", 0), ("", 0)]
        assert task.goes_on()
        assert task.fruitless == expected
    assert read_run(tmp_path / jobs[0].path).state == "failed"
    memory.write_text('{"fruitless": "x"}')
    assert task_of(tmp_path, [[jobs[1]]], memory).fruitless == 0


# What a node must have


@pytest.mark.parametrize("place", ["a file stands there", "below a file"])
def test_a_node_that_cannot_write_checkpoints_leaves_its_runs_missing(
    slurm_job, tmp_path, jobs, capsys, monkeypatch, place: str
):
    (tmp_path / "scratch").write_text("")
    folder = tmp_path / "scratch" if place == "a file stands there" else tmp_path / "scratch" / "me"
    monkeypatch.setattr(task_module, "Pool", None)  # is never made
    task = task_of(tmp_path / "results", [[jobs[0]]], checkpoint_root=folder)
    assert task(Watch()) == 1
    assert f"cannot carry these runs: {folder} cannot be written: " in capsys.readouterr().out
    run = read_run(tmp_path / "results" / jobs[0].path)
    assert (run.state, run.path.exists()) == ("missing", False)


def test_a_full_disk_is_found_before_the_first_run(slurm_job, tmp_path, jobs, monkeypatch):
    def full(self: Path, mode: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    options = LocalOptions(workers=1, checkpoint_root=tmp_path / "c")
    assert unfit(tmp_path, [], options) == f"{tmp_path} cannot be written: No space left on device"


@pytest.mark.parametrize(
    ("python", "said"),
    [
        (
            "echo 'RuntimeError: No CUDA GPUs are available' >&2; exit 1",
            "torch cannot use its GPU: RuntimeError: No CUDA",
        ),
        ("kill -SEGV $$", "torch cannot use its GPU: it crashed"),
        ("sleep 60", "its GPU does not answer"),
        ("exit 0", ""),
    ],
)
def test_a_node_whose_gpu_cannot_be_used_is_found(tmp_path, monkeypatch, python: str, said: str):
    (tmp_path / "python").write_text(f"#!/bin/sh\n{python.replace('sleep', 'exec sleep')}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(task_module.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(task_module, "DEVICE_TIMEOUT_S", 2.0 if "sleep" in python else 60.0)
    problem = unfit(tmp_path, [], LocalOptions(workers=1, device="cuda"))
    assert problem.startswith(said)
    assert bool(problem) == bool(said)
    assert not list(tmp_path.glob(".try-*"))


def test_a_task_says_that_the_code_has_changed_since_submission(slurm_job, tmp_path, jobs, capsys):
    Writer.open(tmp_path, jobs[0], execution={}, provenance=provenance()).finish("done", 600, policy=b"")
    task = task_of(tmp_path, [[jobs[0]]])
    for digest, said in (("0" * 64, True), (provenance()["code_digest"], False), (None, False)):
        task.digest = digest
        assert task(Watch()) == 0
        assert ("the code has changed since submission: 000000000000 then" in capsys.readouterr().out) == said


# The start on a node


def work_file(folder: Path, jobs: list[Job], **more: object) -> Path:
    file = folder / "work-1.json"
    file.write_text(
        json.dumps({"format": 1, **work_of(folder, [[[job]] for job in jobs], LocalOptions(1)), **more})
    )
    return file


def test_a_start_carries_the_task_of_its_index(slurm_job, tmp_path, jobs, monkeypatch):
    seen: list[list[int]] = []
    monkeypatch.setattr(
        Task, "__call__", lambda self, watch: seen.append([job.seed for job in self._jobs()]) or 0
    )
    for index in ("0", "1"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", index)
        assert start.main(work_file(tmp_path, jobs)) == 0
    assert seen == [[0], [1]]


@pytest.mark.parametrize(
    "change", [{"format": 9}, {"tasks": []}, {"options": {"workers": 1}}, {"kind": None, "root": 3}]
)
def test_a_work_file_that_is_none_begins_nothing(
    slurm_job, tmp_path, jobs, capsys, change: dict[str, object]
):
    assert start.main(work_file(tmp_path, jobs, **change)) == 1
    assert "work-1.json cannot be used" in capsys.readouterr().out
    assert start.main(tmp_path / "none.json") == 1


def test_a_signal_before_the_pool_is_kept_for_it(slurm_job, tmp_path):
    watch = Watch()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGUSR2)
    pool = Pool(tmp_path, Plan(), LocalOptions(1), watch)
    watch.begin(tmp_path, pool)
    assert pool.stopping
    watch.wait_for_the_reason()  # returns, since the time is over
