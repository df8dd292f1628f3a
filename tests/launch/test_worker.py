"""One pack in one process: what it writes while it runs, how it stops, and how it fails."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.launch import pack as worker
from bench.launch.pack import _Pace
from bench.launch.stopping import StopFlag
from bench.runs import Writer, checkpoint_places, read_run
from bench.studies.job import Job
from tests.launching import environment, spec, stub_study, substance, wait_for

pytestmark = pytest.mark.usefixtures("stubs", "here")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """`worker.run` in this process leaves its settings alone."""
    monkeypatch.setattr(worker, "prepare_process", torch.set_num_threads)


def jobs(seeds: int = 1, **given: Any) -> list[Job]:
    return stub_study(seeds=seeds, **given).jobs()


def after(asks: int) -> Any:
    """A `stop` that says so after so many questions."""
    count = itertools.count()
    return lambda: "stop" if next(count) >= asks else None


def states(root: Path, pack: list[Job]) -> list[str]:
    return [read_run(root / job.path, job_hash=job.hash).state for job in pack]


@pytest.mark.seconds
def test_a_finished_run_tells_how_it_was_made(tmp_path: Path) -> None:
    pack = jobs(2)
    assert worker.run(spec(tmp_path, pack)) == "done"
    assert states(tmp_path, pack) == ["done", "done"]
    meta = read_run(tmp_path / pack[1].path).meta
    assert meta["config"] == pack[1].config
    (attempt,) = meta["attempts"]
    assert attempt["execution"] == {
        "mode": "eager",
        "device": "cpu",
        "threads": 1,
        "dtype": "float32",
        "pack": [0, 1],
    }
    assert attempt["provenance"]["versions"]["torch"] == torch.__version__
    assert attempt["provenance"]["code_digest"]
    assert meta["family"] == "gymnasium"
    left = {path.name for path in (tmp_path / pack[0].path).iterdir()}
    assert left == {
        "run.json",
        "eval.csv",
        "train.csv",
        "time.csv",
        "final.csv",
        "policy.pt",
        "done.json",
    } - (set() if (tmp_path / pack[0].path / "train.csv").exists() else {"train.csv"})
    assert worker.run(spec(tmp_path, pack)) == "done"  # again: nothing to do, and nothing done
    assert read_run(tmp_path / pack[1].path).meta == meta


@pytest.mark.seconds
def test_it_stops_between_two_steps_and_goes_on(tmp_path: Path) -> None:
    pack = jobs(2)
    assert worker.run(spec(tmp_path / "r", pack), after(60)) == "stopped"
    assert states(tmp_path / "r", pack) == ["stale", "stale"]
    assert worker.run(spec(tmp_path / "r", pack), after(0)) == "stopped"  # before it has begun
    assert len(read_run(tmp_path / "r" / pack[0].path).meta["attempts"]) == 1
    assert worker.run(spec(tmp_path / "r", pack)) == "done"
    worker.run(spec(tmp_path / "whole", pack))
    for job in pack:
        assert substance(tmp_path / "r" / job.path) == substance(tmp_path / "whole" / job.path)


@pytest.mark.seconds
def test_checkpoints_can_lie_elsewhere(tmp_path: Path) -> None:
    (job,) = pack = jobs()
    given = spec(tmp_path / "r", pack) | {"checkpoint_root": str(tmp_path / "c")}
    assert worker.run(given, after(60)) == "stopped"
    assert checkpoint_places.checkpoint_folder(tmp_path / "r", job.path, tmp_path / "c").is_dir()
    assert not (tmp_path / "r" / job.path / "checkpoint").exists()
    assert worker.run(given) == "done"
    assert not list((tmp_path / "c").iterdir())


@pytest.mark.seconds
def test_a_periodic_checkpoint_is_what_a_kill_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CHECKPOINT_EVERY_S", 0.0)
    (job,) = pack = jobs(fault="raise", fault_at=50)
    assert worker.run(spec(tmp_path, pack), say=lambda line: None) == "failed"
    folder = tmp_path / job.path / "checkpoint"
    assert json.loads((folder / "checkpoint.json").read_text())["env_step"] == 70  # in the 71st step
    assert len(list(folder.glob("state-*"))) == 1


def test_an_exception_is_kept_with_its_traceback(tmp_path: Path) -> None:
    pack = jobs(2, fault="raise", fault_seed=1)
    said: list[str] = []
    assert worker.run(spec(tmp_path, pack), say=said.append) == "failed"
    for job in pack:  # a pack is one computation: all of its seeds fail
        failure = json.loads((tmp_path / job.path / "failure.json").read_text())
        assert failure["reason"] == "ArithmeticError: the stub was told to fail (stub_agents.py:77, _fail)"
        assert "stub_agents.py" in failure["traceback"]
        assert not (tmp_path / job.path / "owner.json").exists()
    assert "Traceback" in said[-1]
    assert states(tmp_path, pack) == ["failed", "failed"]


def test_an_algorithm_that_does_not_load(tmp_path: Path) -> None:
    (job,) = jobs()
    broken = Job("s", job.env, "broken", "broken", 0, {}, job.settings)
    assert worker.run(spec(tmp_path, [broken]), say=lambda line: None) == "failed"
    assert "flux_capacitor" in read_run(tmp_path / broken.path).reason


def test_a_run_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    pack = jobs(2)
    writer = Writer.open(tmp_path, pack[0], execution={}, provenance={})
    before = {path: path.read_bytes() for path in writer.path.iterdir()}
    said: list[str] = []
    assert worker.run(spec(tmp_path, pack), say=said.append) == "busy"
    assert {path: path.read_bytes() for path in writer.path.iterdir()} == before
    assert "is being written by process" in said[0]
    assert states(tmp_path, pack) == ["running", "done"]


def test_a_run_that_is_taken_away_stops_the_pack(tmp_path: Path) -> None:
    pack = jobs(2)
    (folder := tmp_path / pack[0].path).mkdir(parents=True)
    count = itertools.count()

    def stop() -> None:
        if next(count) == 50:  # somebody deletes the run, or the scheduler has started it elsewhere
            owner = folder / "owner.json"
            owner.write_text(owner.read_text().replace('"token": "', '"token": "0'))

    said: list[str] = []
    assert worker.run(spec(tmp_path, pack), stop, said.append) == "stopped"
    assert "now belongs to" in said[0]


@pytest.mark.seconds
def test_heartbeats_tell_how_far_it_is(tmp_path: Path) -> None:
    (job,) = pack = jobs(steps=400, eval_every=100, delay=0.001)
    told: list[dict[str, Any]] = []

    def stop() -> None:
        told.append(read_run(tmp_path / job.path, verify=False).progress)

    monkey = pytest.MonkeyPatch()
    monkey.setattr("bench.runs.writer.HEARTBEAT_EVERY_S", 0.0)
    worker.run(spec(tmp_path, pack), stop)
    monkey.undo()
    last = told[-1]
    assert last["env_step"] == 399
    assert last["steps"] == 400
    assert last["rate"] is not None
    assert last["rate"] >= 0
    assert any(progress.get("last_return") is not None for progress in told)
    # random steps are much faster than those that follow, of which the first compiles
    assert {progress["rate"] for progress in told if progress.get("env_step", 21) <= 20} == {None}


def test_the_pace_is_that_of_the_last_minute() -> None:
    pace = _Pace()
    assert math.isnan(pace.rate(1000, 0.0))  # of no time nothing can be said
    for step in range(1, 101):
        rate = pace.rate(1000 + 5 * step, float(step))
    assert rate == pytest.approx(5)
    for step in range(1, 101):
        rate = pace.rate(1500 + 50 * step, 100.0 + step)
    assert rate == pytest.approx(50)


def test_signals_set_the_flag() -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)}
    try:
        for number in before:
            flag = StopFlag().install()
            assert flag() is None
            os.kill(os.getpid(), number)
            assert flag() == number.name
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_hangup_that_nohup_made_ignored_sets_no_flag() -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        flag = StopFlag().install()
        os.kill(os.getpid(), signal.SIGHUP)
        assert flag() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag() == "SIGTERM"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_flag_is_set_when_the_launcher_is_gone() -> None:
    assert StopFlag(parent=os.getppid())() is None
    assert StopFlag(parent=2**22 + 1)() == "the launcher is gone"


# -- the process of the pool -------------------------------------------------------------------------


def start(tmp_path: Path, memory_mb: int = 0) -> tuple[subprocess.Popen[bytes], int]:
    """A worker as the pool starts it, and where its answers come."""
    answers, theirs = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.launch.local.child", str(theirs), str(memory_mb)],
        stdin=subprocess.PIPE,
        stderr=(tmp_path / "stderr").open("wb"),
        pass_fds=[theirs],
        env=environment(),
    )
    os.close(theirs)
    return process, answers


def give(process: subprocess.Popen[bytes], root: Path, pack: list[Job]) -> None:
    assert process.stdin is not None
    request = {"spec": spec(root, pack), "log": str(root / "log")}
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()


@pytest.mark.slow
def test_a_worker_serves_jobs_until_one_fails(tmp_path: Path) -> None:
    process, answers = start(tmp_path)
    good, bad = jobs(name="good"), jobs(name="bad", fault="raise")
    give(process, tmp_path, good)
    assert json.loads(os.read(answers, 4096)) == {"outcome": "done", "reason": ""}
    give(process, tmp_path, bad)
    assert json.loads(os.read(answers, 4096)) == {
        "outcome": "failed",
        "reason": "ArithmeticError: the stub was told to fail (stub_agents.py:77, _fail)",
    }
    assert process.wait(30) == 0  # what has failed once may be of no use to the next job
    os.close(answers)
    assert "Traceback" in (tmp_path / "log").read_text()
    assert (tmp_path / "stderr").read_text() == ""


LAUNCHER = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-m", "bench.launch.local.child", "1", "0"], stdin=subprocess.PIPE)
worker.stdin.write(sys.argv[1].encode() + b"\\n")
worker.stdin.flush()
print(worker.pid, flush=True)
time.sleep(1000)
"""


def test_a_worker_stops_when_its_launcher_dies(tmp_path: Path) -> None:
    (job,) = pack = jobs(steps=1_000_000, eval_every=1_000_000)
    request = json.dumps({"spec": spec(tmp_path, pack), "log": str(tmp_path / "log")})
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, request], stdout=subprocess.PIPE, env=environment()
    )
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    wait_for(lambda: states(tmp_path, pack) == ["running"], what="training")
    launcher.kill()
    launcher.wait()
    wait_for(lambda: not process_lives(pid), what="the worker's end")
    assert states(tmp_path, pack) == ["stale"]
    assert (tmp_path / job.path / "checkpoint" / "checkpoint.json").exists()


def process_lives(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_memory_limit_fails_the_job_that_needs_more(tmp_path: Path) -> None:
    process, answers = start(tmp_path, 8000)
    (job,) = pack = jobs(fault="memory")
    give(process, tmp_path, pack)
    assert json.loads(os.read(answers, 4096))["outcome"] == "failed"
    process.wait(30)
    os.close(answers)
    assert "allocate" in read_run(tmp_path / job.path).reason


# -- signs of life -----------------------------------------------------------------------------------


def test_a_step_that_takes_long_gives_signs_of_life_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a long compilation does: the heartbeat stays young, what it says does not change, and it ends in time."""
    monkeypatch.setattr(worker._Pulse, "EVERY_S", 0.05)
    monkeypatch.setattr(worker._Pulse, "SILENT_AFTER_S", 0.6)
    (job,) = pack = jobs(steps=40, random_steps=20)
    heartbeat = tmp_path / job.path / "heartbeat.json"
    seen: list[tuple[int, bytes]] = []

    def slow(self: Any, batch: Any) -> dict[str, Any]:
        if not seen:
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                seen.append((heartbeat.stat().st_mtime_ns, heartbeat.read_bytes()))
                time.sleep(0.02)
        return {}

    monkeypatch.setattr(_stub().Stub, "update", slow)
    assert worker.run(spec(tmp_path, pack)) == "done"
    times = [when for when, _ in seen]
    assert len(set(times[: len(times) // 3])) >= 3
    assert len(set(times[-len(times) // 3 :])) == 1  # it hangs, as far as anybody can tell
    assert len({content for _, content in seen}) == 1
    assert not [thread for thread in threading.enumerate() if "_beat" in thread.name]


def _stub() -> Any:
    import stub_agents

    return stub_agents
