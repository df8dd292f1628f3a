"""The local pool: bounded, unharmed by what its jobs do, stopped and resumed, and shown."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench.errors import UserError
from bench.launch.local import pool as local
from bench.launch.local.display import Display, duration, number
from bench.launch.local.pool import LocalOptions, Outcome, Pool, default_workers
from bench.launch.plan import Plan, choose_execution, make_plan
from bench.runs import Writer, checkpoint_places, read_run
from bench.studies.job import Job
from tests.launching import stub_study, substance

pytestmark = pytest.mark.usefixtures("stubs")

DATE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def jobs(*specs: str, seeds: int = 1, **given: Any) -> list[Job]:
    return [job for spec in specs or ("stub",) for job in stub_study(algo=spec, seeds=seeds, **given).jobs()]


def run(
    root: Path,
    grid: list[Job],
    show: Callable[[Pool], None] = lambda pool: None,
    *,
    retry: bool = False,
    **how: Any,
) -> Outcome:
    plan = make_plan(root, grid, retry_failed=retry, checkpoint_root=how.get("checkpoint_root"))
    return Pool(root, plan, LocalOptions(**({"workers": 2} | how)), show).run()


def states(root: Path, grid: list[Job]) -> list[str]:
    return [read_run(root / job.path, job_hash=job.hash).state for job in grid]


def names(found: list[Job]) -> list[str]:
    return sorted(f"{job.label}/{job.seed}" for job in found)


def processes() -> set[int]:
    """This process's children that are workers of a pool."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
                if parent == os.getpid() and b"launch.local.child" in (folder / "cmdline").read_bytes():
                    found.add(int(folder.name))
            except OSError:
                continue
    return found


# -- the plan ----------------------------------------------------------------------------------------


def test_packs_hold_the_seeds_of_one_cell_that_stand_together(tmp_path: Path) -> None:
    grid = sorted(jobs("stub", "td3", seeds=5), key=lambda job: job.seed)

    def packs(size: int) -> list[tuple[str, list[int]]]:
        plan = make_plan(tmp_path, grid, pack_size=size)
        return [(pack[0].algo, [job.seed for job in pack]) for pack in plan.packs]

    assert packs(1)[:3] == [("stub", [0]), ("td3", [0]), ("stub", [1])]
    assert packs(3) == [("stub", [0, 1, 2]), ("td3", [0, 1, 2]), ("stub", [3, 4]), ("td3", [3, 4])]
    assert packs(99) == [("stub", [0, 1, 2, 3, 4]), ("td3", [0, 1, 2, 3, 4])]


def test_a_plan_writes_nothing(tmp_path: Path) -> None:
    make_plan(tmp_path / "results", jobs(seeds=3))
    assert not (tmp_path / "results").exists()


def test_a_plan_for_a_gpu_refuses_what_a_cpu_has_half_trained(tmp_path: Path) -> None:
    (job,) = jobs()
    run = Writer.open(tmp_path, job, execution={"device": "cpu"}, provenance={})
    run.save_checkpoint(50, b"state", np.zeros((50, 3), np.float32), 0, keep_from_row=0)
    # waits, as long as the other process lives
    assert make_plan(tmp_path, [job], device="cuda").packs == [[job]]
    run.release()
    assert make_plan(tmp_path, [job]).packs == [[job]]
    with pytest.raises(UserError, match=r"trained on cpu up to step 50, .* DEVICE=cpu"):
        make_plan(tmp_path, [job], device="cuda")


def test_a_plan_refuses_other_configurations_and_damaged_runs(tmp_path: Path) -> None:
    (job,) = jobs()
    other = dataclasses.replace(job, config={**job.config, "delay": 1.0})
    Writer.open(tmp_path, other, execution={}, provenance={}).release()
    with pytest.raises(UserError, match=r"config.delay is 1.0 there and 0.0 here.*delete that folder"):
        make_plan(tmp_path, [job])
    (tmp_path / job.path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run.json is not JSON.*delete that folder"):
        make_plan(tmp_path, [job])


@pytest.mark.parametrize(
    ("algo", "steps", "repeat", "reason"),
    [
        ("stub", 40, 1, "steps = 40 with random_steps = 40 never updates the policy; 41 steps would"),
        ("stub", 20, 4, "steps = 20 with random_steps = 40 never updates the policy; 44 steps would"),
        ("td3", 41, 1, "random_steps = 40 and actor_delay = 2 never updates the policy; 42 steps would"),
        ("td3", 42, 1, ""),
        ("stub", 44, 4, ""),
        ("random", 40, 1, ""),
    ],
)
def test_a_plan_refuses_runs_that_would_never_learn(
    tmp_path: Path, algo: str, steps: int, repeat: int, reason: str
) -> None:
    study = stub_study(algo=algo, steps=steps, random_steps=40, eval_every=4, action_repeat=repeat)
    if not reason:
        assert make_plan(tmp_path, study.jobs()).packs == [study.jobs()]
        return
    with pytest.raises(UserError, match="raise STEPS or lower random_steps") as error:
        make_plan(tmp_path, study.jobs())
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_plan_tells_how_many_runs_are_damaged(tmp_path: Path) -> None:
    grid = jobs(seeds=3)
    for job in grid:
        Writer.open(tmp_path, job, execution={}, provenance={}).finish("done", 120, policy=None)
    assert make_plan(tmp_path, grid).done == grid
    for job in grid[1:]:
        (tmp_path / job.path / "policy.pt").write_text("added")
    with pytest.raises(UserError) as error:
        make_plan(tmp_path, grid)
    assert "seed-1: policy.pt was added after the run had finished; restore that folder" in str(error.value)
    assert str(error.value).endswith("; damaged runs: 2, listed by make figures")


def test_how_updates_are_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    (long,), (short,) = jobs(steps=100_000), jobs(steps=1000)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/" + name)
    assert (choose_execution(long, "cpu"), choose_execution(short, "cpu")) == ("compile", "eager")
    assert (choose_execution(short, "cuda"), choose_execution(short, "cpu", "compile")) == (
        "graph",
        "compile",
    )
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert choose_execution(long, "cpu") == "eager"


# -- crashes -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_crashes_leave_the_others_unharmed(tmp_path: Path) -> None:
    grid = jobs("stub", "stub:fault=raise", "stub:fault=exit", "stub:fault=kill", "stub:tau=0.1")
    most = 0

    def show(pool: Pool) -> None:
        nonlocal most
        most = max(most, len(processes()))

    outcome = run(tmp_path, grid, show)
    assert most == 2
    assert not processes()
    assert names(outcome.done) == ["stub-tau=0.1/0", "stub/0"]
    reasons = {job.label: reason for job, reason in outcome.failed}
    assert reasons == {
        "stub-fault=raise": "ArithmeticError: the stub was told to fail (stub_agents.py:77, _fail)",
        "stub-fault=exit": "its worker ended by exit code 1; the same command goes on where it was",
        "stub-fault=kill": "its worker ended by SIGKILL; the same command goes on where it was",
    }
    failure = json.loads((tmp_path / grid[1].path / "failure.json").read_text())
    assert "stub_agents.py" in failure["traceback"]
    assert "Traceback" in (tmp_path / "s" / "logs" / "stubs_Toy-v0-stub-fault=raise-seed-0.log").read_text()

    again = make_plan(tmp_path, grid)
    assert names(again.done) == names(outcome.done)
    assert [(job.label, reason) for job, reason in again.failed] == [
        ("stub-fault=raise", "ArithmeticError: the stub was told to fail (stub_agents.py:77, _fail)")
    ]
    assert names([job for pack in again.packs for job in pack]) == ["stub-fault=exit/0", "stub-fault=kill/0"]
    retried = make_plan(tmp_path, grid, retry_failed=True)
    assert len(retried.packs) == 3


@pytest.mark.slow
def test_what_crashed_once_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    (job,) = jobs()

    def crashing(fault: str) -> Job:
        config = {**job.config, "fault": fault, "fault_at": 60, "once": str(tmp_path / fault)}
        return dataclasses.replace(job, label=f"stub-{fault}", config=config)

    grid = [crashing(fault) for fault in ("exit", "kill", "raise", "memory")]
    failed = run(tmp_path / "r", grid).failed
    assert len(failed) == 4
    log = tmp_path / "r/s/logs/stubs_Toy-v0-stub-kill-seed-0.log"
    before, inode = log.read_text(), log.stat().st_ino
    assert re.fullmatch(rf"({DATE}seed 0: step [48]0 of 120: mean return -?[\d.]+\n)+", before)
    # what a run says of its progress is not why it ended
    assert {j.label: r for j, r in failed}["stub-kill"].startswith("its worker ended by SIGKILL; ")
    assert len(run(tmp_path / "r", grid, retry=True).done) == 4
    assert log.stat().st_ino == inode  # one file, at whose end every attempt writes: `tail -F` follows it
    assert log.read_text().startswith(before)
    assert re.search(
        rf"^{DATE}seed 0: step 120 of 120: mean return -?[\d.]+\Z", log.read_text().rstrip("\n"), re.M
    )
    run(tmp_path / "whole", [job])
    expected = substance(tmp_path / "whole" / job.path)
    assert all(substance(tmp_path / "r" / job.path) == expected for job in grid)


def test_a_worker_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = jobs(seeds=3)
    broken = tmp_path / "python"
    broken.write_text('#!/bin/sh\necho "ImportError: libmujoco.so is missing" >&2\nexit 3\n')
    broken.chmod(0o755)
    for executable, reason in (
        (broken, "its worker ended by exit code 3 (ImportError: libmujoco.so is missing); the same command"),
        (tmp_path / "nothing", "no worker could be started: No such file or directory"),
    ):
        monkeypatch.setattr(sys, "executable", str(executable))
        outcome = run(tmp_path / "results", grid)
        assert len(outcome.failed) == 3
        assert all(told.startswith(reason) for _, told in outcome.failed)
    assert states(tmp_path / "results", grid) == ["missing"] * 3


@pytest.mark.slow
def test_a_machine_that_starts_no_more_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = jobs(seeds=3)
    count = 0
    popen = local.subprocess.Popen

    def limited(*given: Any, **how: Any) -> Any:
        nonlocal count
        count += 1
        if count > 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return popen(*given, **how)

    monkeypatch.setattr(local.subprocess, "Popen", limited)
    told: list[str] = []
    outcome = run(tmp_path, grid, lambda pool: told.extend(pool.messages[len(told) :]), workers=3)
    assert len(outcome.done) == 3
    assert "only 1 processes at once: Resource temporarily unavailable" in told


@pytest.mark.slow
def test_a_job_that_hangs_is_ended_and_keeps_what_it_has(tmp_path: Path) -> None:
    (hanging,), (other,) = jobs("stub:fault=hang,fault_at=200,delay=0.02", steps=400), jobs("stub")

    def stop_early(pool: Pool) -> None:  # at a checkpoint, so that there is something to lose
        pool.stopping = pool.stopping or training(pool, [hanging])

    run(tmp_path / "r", [hanging], stop_early, checkpoint_root=tmp_path / "c")
    outcome = run(tmp_path / "r", [hanging, other], hang_after_s=15.0, checkpoint_root=tmp_path / "c")
    assert names(outcome.done) == ["stub/0"]
    assert outcome.failed == [(hanging, "no progress for 0.25 minutes")]
    found = read_run(tmp_path / "r" / hanging.path)
    assert (found.state, found.reason) == ("failed", "no progress for 0.25 minutes")
    assert found.meta["attempts"][-1]["resumed_at_step"] > 0  # opened at its checkpoint, not at step 0
    folder = checkpoint_places.checkpoint_folder(tmp_path / "r", hanging.path, tmp_path / "c")
    assert (folder / "checkpoint.json").exists()


# -- several writers ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_another_process_writes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "BUSY_RETRY_S", 0.2)
    grid = jobs(seeds=2)
    writer = Writer.open(tmp_path, grid[0], execution={}, provenance={})
    told: list[str] = []

    def show(pool: Pool) -> None:
        told.extend(pool.messages[len(told) :])
        if any(message.endswith("another process writes it; waiting") for message in told) and pool.busy:
            writer.release()

    outcome = run(tmp_path, grid, show, workers=1)
    assert len(outcome.done) == 2
    assert not outcome.failed
    assert len([m for m in told if "waiting" in m]) == 1


# -- stopping ----------------------------------------------------------------------------------------


def training(pool: Pool, grid: list[Job]) -> bool:
    return all((read_run(pool.root / job.path).state == "running") for job in grid)


slow = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["SIGTERM", "show fails", pytest.param("SIGINT", marks=slow), pytest.param("SIGHUP", marks=slow)]
)
def test_a_stop_leaves_checkpoints(how: str, tmp_path: Path) -> None:
    grid = jobs(steps=500_000, eval_every=500_000)
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    messages: list[str] = []

    def show(pool: Pool) -> None:
        messages[:] = pool.messages
        if training(pool, grid) and not pool.stopping:
            if how == "show fails":
                raise BrokenPipeError
            os.kill(os.getpid(), getattr(signal, how))

    if how == "show fails":
        with pytest.raises(BrokenPipeError):
            run(tmp_path, grid, show)
    else:
        outcome = run(tmp_path, grid, show)
        assert (outcome.done, outcome.failed, names(outcome.stopped)) == ([], [], ["stub/0"])
        assert messages[-1].startswith("stopping: checkpoints are being saved")
    assert not processes()
    assert states(tmp_path, grid) == ["stale"]
    assert (tmp_path / grid[0].path / "checkpoint" / "checkpoint.json").exists()
    assert {n: signal.getsignal(n) for n in before} == before


@pytest.mark.seconds
def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    grid = jobs("stub:fault=hang,fault_at=0")

    interrupted: list[float] = []  # from then on, since a busy machine may take long to come to it

    def show(pool: Pool) -> None:
        if pool.stopping or training(pool, grid):
            interrupted.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, grid, show)
    assert time.monotonic() - interrupted[0] < LocalOptions(1).stop_grace_s
    assert not processes()
    assert states(tmp_path, grid) == ["stale"]


@pytest.mark.seconds
def test_a_worker_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    grid = jobs("stub:fault=hang,fault_at=0")

    def show(pool: Pool) -> None:
        pool.stopping = pool.stopping or training(pool, grid)

    outcome = run(tmp_path, grid, show, stop_grace_s=1.0)
    assert names(outcome.stopped) == ["stub-fault=hang-fault_at=0/0"]
    assert not processes()


# -- where it runs -----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity masks here")
def test_a_full_pool_has_a_worker_on_each_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    cores = sorted(os.sched_getaffinity(0))
    given: list[Any] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, mask: given.append(mask))
    run(tmp_path, jobs(seeds=len(cores)), workers=len(cores))
    assert given[: len(cores)] == [{core} for core in cores]
    given.clear()
    run(tmp_path, jobs(seeds=2), workers=len(cores) + 1)
    assert not given


def test_gpus_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert default_workers("cuda", 2) == 4
    chosen: list[str | None] = []

    class Idle:
        pack: list[Job] = []  # noqa: RUF012

        def __init__(self, core: int | None, gpu: str | None, memory_mb: int, log: Path):
            self.core, self.gpu = core, gpu
            chosen.append(gpu)

    monkeypatch.setattr(local, "WorkerProcess", Idle)
    pool = Pool(tmp_path, Plan(), LocalOptions(workers=4, device="cuda"), lambda pool: None)
    for _ in range(3):
        pool._start_worker(tmp_path / "log")
    pool.workers.pop(0)
    pool._start_worker(tmp_path / "log")
    assert chosen == ["3", "5", "3", "5"] or chosen == ["3", "5", "3", "3"]
    assert sorted(w.gpu or "" for w in pool.workers).count("3") <= 2


# -- what is shown -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_log_has_plain_lines_and_a_terminal_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.launch.local.display.LINE_EVERY_S", 0.0)
    monkeypatch.setattr("bench.launch.local.display.TABLE_EVERY_S", 0.0)
    monkeypatch.setattr(local, "POLL_S", 0.05)
    grid = jobs("stub", "stub:fault=raise", steps=1000, delay=0.002)
    log, terminal = io.StringIO(), io.StringIO()
    with (
        Display(len(grid), Console(file=log)) as write,
        Display(len(grid), Console(file=terminal, force_terminal=True, width=80)) as draw,
    ):

        def show(pool: Pool) -> None:
            write(pool)
            draw(pool)

        run(tmp_path, grid, show)
    lines = log.getvalue().splitlines()
    assert "\x1b" not in log.getvalue()
    assert any("0 of 2 runs done, 2 running" in line for line in lines)
    assert any(line.endswith("s/stubs_Toy-v0/stub/seed-0: done") for line in lines)
    assert any("failed: ArithmeticError: the stub was told to fail" in line for line in lines)
    assert lines[-1].startswith("1 of 2 runs done, 1 failed after 0:00:")
    for word in ("run", "steps/s", "return", "left", "stubs_Toy-v0/stub/seed-0", "of 1,000"):
        assert word in terminal.getvalue()
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is back


def test_numbers_and_times() -> None:
    assert [duration(s) for s in (None, float("inf"), 0, 59.6, 3600, 100_000)] == [
        "-", "-", "0:00:00", "0:01:00", "1:00:00", "27:46:40",
    ]  # fmt: skip
    assert [number(x) for x in (None, float("nan"), 1.25, -3.0)] == ["-", "-", "1.2", "-3.0"]
