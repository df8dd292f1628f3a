"""A bounded pool of processes on this machine: one thread each, pinned to a core, one pack of jobs at a time."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from bench.errors import UserError
from bench.hardware import available_cores
from bench.launch.plan import Plan, execution_mode
from bench.provenance import provenance
from bench.runs import FINISHED, AlreadyFinished, Superseded, Writer, read_run
from bench.study import Job

POLL_S = 0.2
BUSY_RETRY_S = 2.0  # how often to look whether a run that another process writes is free
STOP_GRACE_S = 60.0  # for a worker to checkpoint before it is killed


@dataclass(frozen=True)
class LocalOptions:
    """How a pool runs. workers: processes at once. device: "cpu" or "cuda"."""

    workers: int
    device: str = "cpu"
    execution: str = "auto"
    checkpoint_root: Path | None = None
    hang_after_s: float = 1800.0  # without a heartbeat
    job_memory_mb: int = 0  # 0: no limit


@dataclass
class Outcome:
    """What became of the packs that a pool was given."""

    done: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)
    stopped: list[Job] = field(default_factory=list)  # resumable


def default_workers(device: str, jobs_per_gpu: int) -> int:
    """One process per core of this process's affinity mask and cgroup, or so many per GPU."""
    if device == "cpu":
        return available_cores()
    import torch

    return max(1, torch.cuda.device_count()) * jobs_per_gpu


class _Worker:
    """One process of the pool and the pack that it carries."""

    def __init__(self, core: int | None, gpu: int | None, memory_mb: int):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "BENCH_JOB_MEMORY_MB": str(memory_mb),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH")))),
        }
        environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_ROOT / ".cache" / "torchinductor"))
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.launch.pool_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self.core, self.gpu = core, gpu
        if core is not None:
            with suppress(OSError):
                os.sched_setaffinity(self.process.pid, {core})
        self.pack: list[Job] = []
        self.progress: list[Any] = []  # as last reported by its jobs, and when that changed
        self.moved = self.next_look = 0.0
        self.killed_for: str | None = None
        self._received = b""

    def give(self, pack: list[Job], request: Mapping[str, Any]) -> None:
        self.pack, self.progress, self.moved = pack, [], time.monotonic()
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write((json.dumps(request) + "\n").encode())
            self.process.stdin.flush()

    def answer(self) -> str | None:
        """The outcome of the pack, once it has come."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        while select.select([descriptor], [], [], 0)[0]:
            data = os.read(descriptor, 65536)
            if not data:
                break
            self._received += data
        line, newline, rest = self._received.partition(b"\n")
        if not newline:
            return None
        self._received = rest
        return str(json.loads(line)["outcome"])

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


_ROOT = Path(__file__).resolve().parent.parent.parent


class Pool:
    """Runs the packs of a plan. `run` returns when all have ended or `stop` was asked for."""

    def __init__(self, root: Path, plan: Plan, options: LocalOptions, show: Callable[[Pool], None]):
        self.root, self.plan, self.options, self.show = root, plan, options, show
        self.queue: deque[list[Job]] = deque(plan.packs)
        self.busy: list[tuple[float, list[Job]]] = []  # written by another process; look again at this time
        self.workers: list[_Worker] = []
        self.outcome = Outcome()
        self.stopping = False
        self.messages: list[str] = []
        self.announced: set[PurePath] = set()

    def run(self) -> Outcome:
        handlers = {
            n: signal.signal(n, self._on_signal) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            while True:
                self._collect()
                if self.stopping:
                    break
                self._wake_busy()
                self._dispatch()
                self.show(self)
                if not self.queue and not self.busy and not any(w.pack for w in self.workers):
                    break
                time.sleep(POLL_S)
            self._shut_down()
            self.show(self)
        finally:
            for worker in self.workers:
                with suppress(OSError):
                    worker.process.kill()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self.outcome

    def running(self) -> list[list[Job]]:
        return [worker.pack for worker in self.workers if worker.pack]

    # -- handing out -------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        while self.queue:
            worker = next((w for w in self.workers if not w.pack), None)
            if worker is None and len(self.workers) < self.options.workers:
                worker = self._hire()
            if worker is None:
                return
            pack = self.queue.popleft()
            worker.give(pack, {"spec": self._spec(pack), "log": str(self._log(pack[0]))})

    def _hire(self) -> _Worker:
        taken = [w.core for w in self.workers]
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        core, gpu = None, None
        if self.options.device == "cpu":
            core = next((c for c in cores if c not in taken), None)
        else:
            import torch

            gpu = len(self.workers) % max(1, torch.cuda.device_count())
        worker = _Worker(core, gpu, self.options.job_memory_mb)
        self.workers.append(worker)
        return worker

    def _spec(self, pack: Sequence[Job]) -> dict[str, Any]:
        return {
            "root": str(self.root),
            "jobs": [job.to_dict() for job in pack],
            "execution": {
                "mode": execution_mode(pack[0], self.options.device, self.options.execution),
                "device": self.options.device,
                "threads": 1,
                "dtype": "float32",
            },
            "checkpoint_root": None
            if self.options.checkpoint_root is None
            else str(self.options.checkpoint_root),
        }

    def _log(self, job: Job) -> Path:
        """What the job prints; beside the runs, not among what counts."""
        folder = self.root / job.study / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / ("-".join(job.path.parts[1:]) + ".log")

    # -- taking back -------------------------------------------------------------------------------

    def _collect(self) -> None:
        for worker in list(self.workers):
            outcome = worker.answer() if worker.pack else None
            if outcome is not None:
                self._settle(worker.pack)
                worker.pack = []
            elif worker.process.poll() is not None:
                self.workers.remove(worker)
                worker.close()
                self._bury(worker)
            elif worker.pack and self._hangs(worker):
                worker.killed_for = f"no heartbeat for {self.options.hang_after_s / 60:.0f} minutes"
                worker.process.kill()

    def _settle(self, pack: Sequence[Job]) -> None:
        """Sort the jobs of a pack that came back by what their run directories say."""
        busy = []
        for job in pack:
            run = read_run(self.root / job.path, job_hash=job.hash)
            if run.state in FINISHED:
                self.outcome.done.append(job)
                what = "done" if run.state == "done" else f"diverged: {run.reason}"
                self.messages.append(f"{job.path}: {what}")
            elif run.state == "running":
                busy.append(job)
            elif self.stopping and run.state in ("stale", "missing"):
                self.outcome.stopped.append(job)
            else:
                self._fail(job, run.reason or "the worker gave it up; see its log")
        if busy:
            if busy[0].path not in self.announced:
                self.announced.add(busy[0].path)
                self.messages.append(f"{busy[0].path}: another process writes it; waiting")
            self.busy.append((time.monotonic() + BUSY_RETRY_S, busy))

    def _bury(self, worker: _Worker) -> None:
        """A worker has died with its pack, or could not start."""
        code = worker.process.returncode
        cause = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        for job in worker.pack:
            state = read_run(self.root / job.path, job_hash=job.hash).state
            if state in FINISHED:
                self.outcome.done.append(job)
            elif worker.killed_for:
                self._record_failure(job, worker.killed_for)
                self._fail(job, worker.killed_for)
            elif self.stopping:
                self.outcome.stopped.append(job)
            else:
                self._fail(job, f"its worker ended by {cause}; the same command goes on where it was")
        worker.pack = []

    def _record_failure(self, job: Job, reason: str) -> None:
        """In the run's own directory, so that it is not tried again unasked."""
        with suppress(UserError, AlreadyFinished, Superseded, OSError):
            Writer.open(self.root, job, execution={}, provenance=provenance()).fail(reason)

    def _fail(self, job: Job, reason: str) -> None:
        self.outcome.failed.append((job, reason))
        self.messages.append(f"{job.path}: failed: {reason}")

    def _hangs(self, worker: _Worker) -> bool:
        """Whether no job of the pack has reported another step for too long."""
        now = time.monotonic()
        if now < worker.next_look:
            return False
        worker.next_look = now + min(5.0, self.options.hang_after_s / 10)
        progress = [read_run(self.root / job.path, verify=False).progress for job in worker.pack]
        if progress != worker.progress:
            worker.progress, worker.moved = progress, now
        return now - worker.moved > self.options.hang_after_s

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
            for worker in self.workers:
                worker.process.kill()
            os._exit(130)
        self.stopping = True

    def _shut_down(self) -> None:
        """Ask every worker to checkpoint and end; wait; kill what does not."""
        for worker in self.workers:
            with suppress(OSError):
                if worker.process.stdin is not None:
                    worker.process.stdin.close()
                if worker.pack:
                    worker.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_GRACE_S
        for worker in self.workers:
            try:
                worker.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        for worker in self.workers:
            if worker.pack:
                if worker.answer() is not None:
                    self._settle(worker.pack)
                    worker.pack = []
                else:
                    self._bury(worker)
        for _, pack in self.busy:
            self.outcome.stopped.extend(pack)
        for pack in self.queue:
            self.outcome.stopped.extend(pack)
