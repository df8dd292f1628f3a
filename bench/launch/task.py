"""One task of a job array, on its compute node: its packs in child processes, and what signals mean.

    SIGUSR2  the time is nearly over: checkpoint between two steps, then back into the queue
    SIGTERM  Slurm is about to end the task (scancel, requeue, preemption): checkpoint, then wait for
             the end, since what exits by itself counts as finished and is not requeued

Every attempt reads from the run directories what is left to do. Each pack has a process of its own, so that
its memory is given back and its crash harms no other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import ownership
from bench.errors import UserError
from bench.provenance import provenance, scheduler_ids
from bench.runs import FINISHED, STALE_AFTER_S, Run, Writer, checkpoint_step, read_run
from bench.study import Job

ATTEMPTS = 3  # in one Slurm job that brought no new checkpoint: then a run is given up
TOLD = {signal.SIGUSR2, signal.SIGTERM}
EXIT = {"done": 0, "failed": 1, "stopped": 75}  # of a child
Spec = dict[str, Any]  # what bench.launch.worker.run takes


class Task:
    """What submitit pickles and calls. `specs`: one per pack; `at_once`: how many of them run at a time."""

    def __init__(self, specs: list[Spec], at_once: int):
        self.specs = specs
        self.at_once = at_once

    def __call__(self) -> None:
        """Raises RuntimeError if runs are unfinished at the end, so that Slurm shows the task as failed."""
        told = _Told()
        superseded = self._run(deque(filter(_worth_an_attempt, self.specs)), told)
        left = [run for spec in self.specs for run in _runs(spec) if run.state not in FINISHED]
        if left and told.requeue_wanted():
            told.requeue()  # by way of `checkpoint`; does not return
        if superseded:
            raise RuntimeError("a run was stopped, or taken over by another attempt: this one ends")
        for run in left:
            _say(f"{run.study}/{run.env}/{run.label}/seed-{run.seed}: {run.state}: {run.reason}")
        if left:
            raise RuntimeError(
                f"{len(left)} of {sum(map(len, map(_jobs, self.specs)))} runs are not finished"
            )

    def checkpoint(self) -> Any:
        """Submitit's question before it requeues: with what? None, and so no requeue, if it gains nothing."""
        from submitit.helpers import DelayedSubmission

        worth = [spec for spec in self.specs if _worth_an_attempt(spec, again=True)]
        return DelayedSubmission(self) if worth else None

    def _run(self, waiting: deque[Spec], told: _Told) -> bool:
        """Run the packs; whether another attempt of this task has taken one of them over."""
        devices = _devices(self.at_once)
        running: dict[int, tuple[Spec, subprocess.Popen[bytes]]] = {}
        superseded = False
        while running or (waiting and not told.signals and not superseded):
            for slot in range(self.at_once):
                if slot not in running and waiting and not told.signals and not superseded:
                    spec = waiting.popleft()
                    if _wait_for_owners(spec, told):
                        running[slot] = spec, _start(spec, devices[slot])
            time.sleep(0.2)
            for slot, (spec, child) in list(running.items()):
                if child.poll() is None:
                    if told.signals:
                        child.terminate()
                else:
                    del running[slot]
                    _say(f"{_name(spec)}: {_outcome(child.returncode)}")
                    superseded |= child.returncode == EXIT["stopped"] and not told.signals
        return superseded


class _Told:
    """The signals that have come. Slurm sends them to the children too, which stop by themselves."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self._submitit = signal.getsignal(signal.SIGUSR2)  # asks `checkpoint`, requeues, ends the process
        for number in TOLD:
            signal.signal(number, lambda number, frame: self.signals.append(number))

    def requeue_wanted(self) -> bool:
        """Whether this task must requeue itself. After SIGTERM alone: wait for Slurm to end us."""
        while self.signals and signal.SIGUSR2 not in self.signals:
            time.sleep(0.2)
        return bool(self.signals)

    def requeue(self) -> None:
        if not callable(self._submitit):
            raise RuntimeError("not started by submitit: nothing requeues this task")
        self._submitit(signal.SIGUSR2, None)


def _name(spec: Spec) -> str:
    jobs = _jobs(spec)
    return f"{jobs[0].path.parent} seeds {','.join(str(job.seed) for job in jobs)}"


def _outcome(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + (", out of memory?" if code == -9 else "")
    return next((outcome for outcome, known in EXIT.items() if known == code), f"exit code {code}")


def _jobs(spec: Spec) -> list[Job]:
    return [Job.from_dict(record) for record in spec["jobs"]]


def _runs(spec: Spec) -> list[Run]:
    return [read_run(Path(spec["root"]) / job.path, job_hash=job.hash, verify=False) for job in _jobs(spec)]


def _worth_an_attempt(spec: Spec, again: bool | None = None) -> bool:
    """Whether a pack has runs to carry on; gives up those that came no further in three attempts.

    again: what failed earlier in this Slurm job is not tried again; None: as Slurm's restart count says.
    """
    if again is None:
        scheduler = scheduler_ids()
        again = bool(scheduler and scheduler["restart_count"])
    worth = False
    for job, run in zip(_jobs(spec), _runs(spec)):
        if run.state in FINISHED or (again and run.state == "failed"):
            continue
        if _stuck(run, checkpoint_step(Path(spec["root"]), job, _checkpoints(spec))):
            _give_up(spec, job)
        else:
            worth = True
    return worth


def _checkpoints(spec: Spec) -> Path | None:
    return Path(spec["checkpoint_root"]) if spec["checkpoint_root"] else None


def _stuck(run: Run, step: int) -> bool:
    """Whether the last three attempts of this Slurm job all began where the run, at `step`, still stands."""
    scheduler = scheduler_ids()
    mine = [
        attempt["resumed_at_step"]
        for attempt in run.meta.get("attempts", [])
        if scheduler and (attempt["provenance"].get("scheduler") or {}).get("job_id") == scheduler["job_id"]
    ]
    return len(mine) >= ATTEMPTS and set(mine[-ATTEMPTS:]) == {step}


def _give_up(spec: Spec, job: Job) -> None:
    reason = f"given up: {ATTEMPTS} attempts brought no new checkpoint; does the profile give it enough time?"
    _say(f"{job.path}: {reason}")
    try:
        writer = Writer.open(
            Path(spec["root"]),
            job,
            execution=spec["execution"],
            provenance=provenance(),
            checkpoint_root=_checkpoints(spec),
        )
        writer.fail(reason)
    except UserError as error:
        _say(str(error))


def _wait_for_owners(spec: Spec, told: _Told) -> bool:
    """Wait for other processes that still own these runs; False if they stay, or this task must stop.

    An earlier job's process on a node that was lost counts as gone a few minutes after its last heartbeat.
    That of an earlier attempt of this very job need not be waited for: this one takes over.
    """
    deadline = time.monotonic() + 2 * STALE_AFTER_S
    while owned := [run for run in _runs(spec) if run.state == "running" and not _is_ours(run)]:
        if told.signals:
            return False
        if time.monotonic() > deadline:
            _say(f"{owned[0].path} is being written by another process; left to it")
            return False
        time.sleep(2.0)
    return not told.signals


def _is_ours(run: Run) -> bool:
    owner = ownership.read_owner(run.path)
    return owner is None or ownership.restarts(owner, scheduler_ids())


def _devices(at_once: int) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES for each slot: the task's GPUs in turn. None: nothing to share out."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices: list[str | None] = [*visible.split(",")] if visible else [None]
    return [devices[k % len(devices)] for k in range(at_once)]


def _start(spec: Spec, device: str | None) -> subprocess.Popen[bytes]:
    _say(f"{_name(spec)}: starting")
    environment = os.environ | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
    with _held_back():
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.launch.task", str(os.getpid())],
            stdin=subprocess.PIPE,
            env=environment,
        )
    assert child.stdin is not None
    with child.stdin as pipe:
        pipe.write(json.dumps(spec).encode())
    return child


@contextmanager
def _held_back() -> Iterator[None]:
    """Children begin with these signals blocked: before they have handlers, one would kill them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _say(line: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), line, flush=True)


def main() -> int:
    """The child: one pack, described as JSON on standard input. The argument is the parent's process id."""
    from bench.launch.worker import StopFlag, run

    stop = StopFlag(parent=int(sys.argv[1])).install()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD)
    return EXIT[run(json.load(sys.stdin), stop)]


if __name__ == "__main__":
    sys.exit(main())
