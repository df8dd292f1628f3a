"""A bounded pool of processes on this machine: one thread each, pinned to a core, one pack of jobs at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from bench.disk import DamagedFile, check_inside
from bench.errors import UserError
from bench.launch.local.process import WorkerProcess
from bench.launch.plan import Plan, choose_execution
from bench.launch.stopping import stopping_signals
from bench.machine.hardware import available_cores
from bench.machine.provenance import provenance
from bench.runs import (
    FINISHED,
    NO_CHECKPOINT,
    Run,
    Superseded,
    read_run,
    record_failure,
    remove_leftovers,
)
from bench.studies.job import Job
from bench.text import one_line, strerror

POLL_S = 0.2
BUSY_RETRY_S = 2.0  # how often to look whether a run that another process writes is free


@dataclass(frozen=True)
class LocalOptions:
    """How a pool runs. workers: processes at once. device: "cpu" or "cuda"."""

    workers: int
    device: str = "cpu"
    execution: str = "auto"
    env_workers: int = 0  # processes that step the environments of a pack; 0: its own
    checkpoint_root: Path | None = None
    hang_after_s: float = 1800.0  # without a heartbeat
    job_memory_mb: int = 0  # 0: no limit
    stop_grace_s: float = 60.0  # for a worker to checkpoint before it is killed


@dataclass
class Outcome:
    """The outcome of a pool's packs."""

    done: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)
    stopped: list[Job] = field(default_factory=list)  # resumable


def default_workers(device: str, jobs_per_gpu: int) -> int:
    """One process per core of this process's affinity mask and cgroup, or so many per GPU."""
    if device == "cpu":
        return available_cores()
    import torch

    return max(1, torch.cuda.device_count()) * jobs_per_gpu


class Pool:
    """Runs the packs of a plan. `run` returns when all have ended or `stop` was asked for."""

    def __init__(self, root: Path, plan: Plan, options: LocalOptions, show: Callable[[Pool], None]):
        self.root, self.plan, self.options, self.show = root, plan, options, show
        self.queue: deque[list[Job]] = deque(plan.packs)
        self.busy: list[tuple[float, list[Job]]] = []  # written by another process; look again at this time
        self.workers: list[WorkerProcess] = []
        self.outcome = Outcome()
        self.stopping = self.impatient = False
        self.most = options.workers  # less where the system starts no more processes
        self.messages: list[str] = []
        self.announced: set[PurePath] = set()
        self.restarts: set[tuple[PurePath, int]] = set()  # attempts that began again, and were announced

    def run(self) -> Outcome:
        """Raises what `show` raises, and KeyboardInterrupt at the second ^C; either leaves all runs resumable."""
        handlers = {n: signal.signal(n, self._on_signal) for n in stopping_signals()}
        try:
            for job in self.plan.done:
                self._tidy(job)
            try:
                self._work()
            except BaseException:
                self.stopping = True
                raise
            finally:
                if not self.impatient:
                    self._shut_down()
            self.show(self)
        finally:
            for worker in self.workers:
                worker.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self.outcome

    def _work(self) -> None:
        while True:
            self._collect()
            if self.stopping:
                self.messages.append("stopping: checkpoints are being saved; ^C again ends at once")
                self.show(self)
                return
            self._wake_busy()
            self._dispatch()
            self.show(self)
            if not self.queue and not self.busy and not self.running():
                return
            time.sleep(POLL_S)

    def running(self) -> list[list[Job]]:
        return [worker.pack for worker in self.workers if worker.pack]

    # -- handing out -------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        while self.queue:
            worker = next((w for w in self.workers if not w.pack), None)
            if worker is None and len(self.workers) >= self.most:
                return
            pack = self.queue[0]
            try:
                log = self._log(pack[0])
                worker = worker or self._start_worker(log)
                worker.give(pack, self._spec(pack), log)
            except DamagedFile as error:
                for job in pack:
                    self._fail(job, str(error))
            except OSError as error:  # no memory or no place in the process table; a full disk
                if self.workers and worker is None:
                    self.most = len(self.workers)
                    self.messages.append(f"only {self.most} processes at once: {strerror(error)}")
                    return
                for job in pack:
                    self._fail(job, f"no worker could be started: {strerror(error)}")
            self.queue.popleft()

    def _start_worker(self, log: Path) -> WorkerProcess:
        core, gpu = None, None
        if self.options.device == "cpu":
            # A pool that leaves cores free may share them with another pool, which would also begin at the first.
            cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
            if self.options.workers == len(cores):
                core = next((c for c in cores if c not in {w.core for w in self.workers}), None)
        else:
            taken = Counter(w.gpu for w in self.workers)
            gpu = min(_gpus(), key=lambda gpu: taken[gpu])
        worker = WorkerProcess(core, gpu, self.options.job_memory_mb, log)
        self.workers.append(worker)
        return worker

    def _spec(self, pack: Sequence[Job]) -> dict[str, Any]:
        return {
            "root": str(self.root),
            "jobs": [job.to_dict() for job in pack],
            "execution": {
                "mode": choose_execution(pack[0], self.options.device, self.options.execution),
                "device": self.options.device,
                "threads": 1,
                "dtype": "float32",
                "env_workers": self.options.env_workers,
            },
            "checkpoint_root": None
            if self.options.checkpoint_root is None
            else str(self.options.checkpoint_root),
        }

    def _log(self, job: Job) -> Path:
        """The file for the job's output, outside of its run directory. DamagedFile for a link out of the results."""
        path = self.root / job.study / "logs" / ("-".join(job.path.parts[1:]) + ".log")
        check_inside(self.root, path)
        if path.is_symlink() or (path.exists() and not path.is_file()):  # a pipe would block for ever
            raise DamagedFile(f"{path} is a link, a folder or a pipe, not a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    # -- taking back -------------------------------------------------------------------------------

    def _collect(self) -> None:
        for worker in list(self.workers):
            ended = worker.process.poll() is not None  # before looking for an answer: it may be the last word
            answer = worker.answer() if worker.pack else None
            if ended or (answer is not None and answer["outcome"] == "failed"):
                self.workers.remove(worker)
                worker.close()
            if answer is not None:
                self._record(worker.pack, answer["outcome"], answer["reason"])
                worker.pack = []
            elif ended:
                self._reap(worker)
            elif worker.pack and self._hangs(worker):
                worker.killed_for = f"no progress for {self.options.hang_after_s / 60:.3g} minutes"
                worker.process.kill()

    def _record(self, pack: Sequence[Job], outcome: str, reason: str) -> None:
        """Sort the jobs of a returned pack by their run directories; `reason`, the worker's, is for unfinished ones."""
        busy = []
        for job in pack:
            run = read_run(self.root / job.path, job_hash=job.hash)
            if run.state in FINISHED:
                self.outcome.done.append(job)
                what = "done" if run.state == "done" else f"diverged: {run.reason}"
                self._announce_restart(job, run)
                self.messages.append(f"{job.path}: {what}")
            elif run.state == "running":
                busy.append(job)
            elif self.stopping and run.state in ("stale", "missing"):
                self.outcome.stopped.append(job)
            elif outcome == "busy" and run.state in ("stale", "missing"):  # its other writer has just ended
                busy.append(job)
            else:
                self._fail(job, run.reason if run.state == "failed" else one_line(reason) or run.reason)
        if busy:
            if busy[0].path not in self.announced:
                self.announced.add(busy[0].path)
                self.messages.append(f"{busy[0].path}: another process writes it; waiting")
            self.busy.append((time.monotonic() + BUSY_RETRY_S, busy))

    def _reap(self, worker: WorkerProcess) -> None:
        """A worker has died with its pack, or could not start."""
        code = worker.process.returncode
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        words = worker.last_words()
        for job in worker.pack:
            state = read_run(self.root / job.path, job_hash=job.hash).state
            if state in FINISHED:
                self._tidy(job)
                self.outcome.done.append(job)
            elif worker.killed_for:
                # recorded, so that it is not tried again unasked
                with suppress(UserError, Superseded, OSError):
                    record_failure(
                        self.root,
                        job,
                        worker.killed_for,
                        provenance=provenance(),
                        checkpoint_root=self.options.checkpoint_root,
                    )
                self._fail(job, worker.killed_for)
            elif self.stopping:
                self.outcome.stopped.append(job)
            else:
                last = f" ({words})" if words else ""
                self._fail(job, f"its worker ended by {cause}{last}; the same command goes on where it was")
        worker.pack = []

    def _tidy(self, job: Job) -> None:
        """After a process that was killed when its run was finished and the checkpoint not yet removed."""
        remove_leftovers(self.root, job, self.options.checkpoint_root)

    def _fail(self, job: Job, reason: str) -> None:
        self.outcome.failed.append((job, reason))
        self.messages.append(f"{job.path}: failed: {reason}")

    def _hangs(self, worker: WorkerProcess) -> bool:
        """Whether no job of the pack has reported another step for too long."""
        now = time.monotonic()
        if now < worker.next_look:
            return False
        worker.next_look = now + min(5.0, self.options.hang_after_s / 10)
        runs = [read_run(self.root / job.path, verify=False) for job in worker.pack]
        for job, run in zip(worker.pack, runs):
            self._announce_restart(job, run)
        progress = [run.progress for run in runs]
        if progress != worker.progress:
            worker.progress, worker.moved = progress, now
        return now - worker.moved > self.options.hang_after_s

    def _announce_restart(self, job: Job, run: Run) -> None:
        """Why the run's attempt began at step 0 though an earlier one had got further: once, while it runs."""
        attempts = run.meta.get("attempts", [])
        why = attempts[-1].get("restarted") if attempts else None
        if why and why != NO_CHECKPOINT and (job.path, len(attempts)) not in self.restarts:
            self.restarts.add((job.path, len(attempts)))
            self.messages.append(f"{job.path}: begun again at step 0: {one_line(why)}")

    def _wake_busy(self) -> None:
        now = time.monotonic()
        due = [pack for when, pack in self.busy if when <= now]
        self.busy = [(when, pack) for when, pack in self.busy if when > now]
        for pack in due:
            if any(read_run(self.root / job.path, verify=False).state == "running" for job in pack):
                self.busy.append((now + BUSY_RETRY_S, pack))
            else:
                self.queue.append(pack)

    # -- stopping ----------------------------------------------------------------------------------

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.stopping and number == signal.SIGINT:
            self.impatient = True
            raise KeyboardInterrupt
        self.stopping = True

    def _shut_down(self) -> None:
        """Ask every worker to checkpoint and end; wait; kill those that do not."""
        for worker in self.workers:
            with suppress(OSError):
                if worker.process.stdin is not None:
                    worker.process.stdin.close()
                if worker.pack:
                    worker.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.options.stop_grace_s
        for worker in self.workers:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.1, deadline - time.monotonic()))
            worker.process.kill()
            worker.process.wait()
        self._collect()
        for pack in [*self.queue, *(pack for _, pack in self.busy)]:
            self.outcome.stopped.extend(pack)


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        return visible.split(",")
    import torch

    return [str(i) for i in range(max(1, torch.cuda.device_count()))]
