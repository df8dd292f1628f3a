"""When a task goes back into the queue, and when it gives up. No cluster: its variables are set by hand."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import make_study

from bench.launch.local.pool import LocalOptions
from bench.launch.slurm.task import Task, Watch, work_of
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
