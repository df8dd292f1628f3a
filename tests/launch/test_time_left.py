"""The time that a running grid still takes: each pack counts with the pace of its own algorithm."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.launch.estimate import last_end
from bench.launch.local.pool import LocalOptions, Pool
from bench.launch.local.progress import Progress, TimeLeft
from bench.launch.plan import make_plan
from bench.runs import Writer
from bench.studies.job import Job
from tests.launching import stub_study

pytestmark = pytest.mark.usefixtures("stubs")

STEPS = 1000
FAST, SLOW = "stub", "stub:delay=0.5"


def jobs(algo: str, seeds: int) -> list[Job]:
    return stub_study(algo=algo, seeds=seeds, steps=STEPS).jobs()


def finish(root: Path, job: Job, seconds: float) -> None:
    writer = Writer.open(root, job, execution={}, provenance={})
    spent = dict.fromkeys(("env_s", "act_s", "eval_s", "compile_s", "other_s"), 0.0) | {"update_s": seconds}
    writer.append("time.csv", [{"env_step": STEPS, "attempt": 1, **spent, "seeds": 1}])
    writer.finish("done", STEPS, policy=b"")


def started(root: Path, grid: list[Job], running: int) -> Pool:
    """A pool of two processes that has given out the first of its jobs."""
    pool = Pool(root, make_plan(root, grid), LocalOptions(workers=2), lambda pool: None)
    for _ in range(running):
        pool.queue.popleft()
    return pool


def told(job: Job, step: float = 0, rate: float | None = None) -> Progress:
    return Progress(job, step, rate, None, (STEPS - step) / rate if rate else None)


def test_nothing_is_said_before_a_pace_is_known(tmp_path: Path) -> None:
    grid = jobs(FAST, 2)
    assert TimeLeft()(started(tmp_path, grid, 1), [told(grid[0], 20)]) is None


def test_a_job_whose_pace_is_not_known_yet_changes_nothing(tmp_path: Path) -> None:
    """While a run takes random steps or compiles, its heartbeat gives no rate."""
    grid = jobs(FAST, 4)
    pool, left = started(tmp_path, grid, 2), TimeLeft()
    assert left(pool, [told(grid[0], 0, 10), told(grid[1], 0, 10)]) == 200  # two rounds of 100 s
    assert left(pool, [told(grid[0], 500, 10), told(grid[1], 500)]) == 150


def test_what_waits_has_the_pace_of_its_own_algorithm(tmp_path: Path) -> None:
    fast, slow = jobs(FAST, 2), jobs(SLOW, 4)
    pool, left = started(tmp_path, [*fast, *slow], 2), TimeLeft()
    assert left(pool, [told(job, 500, 10) for job in fast]) == 250  # 50 s, and two rounds like those that run
    finish(tmp_path, slow[0], 1000.0)
    pool.queue.popleft()
    pool.outcome.done.append(slow[0])
    assert left(pool, [told(job, 500, 10) for job in fast]) == 50 + 2 * 1000  # three on two processes
    pool.queue.popleft()
    # a run has its own 500 s, those that wait as long as the one that ended
    now = [told(fast[0], 500, 10), told(slow[1], 0, 2)]
    assert left(pool, now) == 500 + 1000  # the other process: 50 + 1000


def test_runs_that_were_there_before_tell_until_others_do(tmp_path: Path) -> None:
    fast, slow = jobs(FAST, 1), jobs(SLOW, 3)
    finish(tmp_path, slow[0], 1000.0)
    pool, left = started(tmp_path, [*fast, *slow], 1), TimeLeft()
    assert left(pool, [told(fast[0], 500, 10)]) == 1050
    pool.queue.popleft()
    # of the two that ran before and now, what runs now counts
    assert left(pool, [told(fast[0], 500, 10), told(slow[1], 0, 2)]) == 50 + 500


def test_one_process_after_another(tmp_path: Path) -> None:
    assert last_end([0.0, 0.0], []) == 0
    assert last_end([5.0, 1.0], [1.0, 1.0, 4.0]) == 7
    assert last_end([0.0, 30.0], [10.0, 10.0]) == 30
