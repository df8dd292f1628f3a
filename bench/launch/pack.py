"""One pack of jobs in one process, for both launchers: drives a Trainer and stores its events."""

from __future__ import annotations

import ctypes
import math
import os
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from statistics import fmean
from typing import Any

from bench.errors import UserError
from bench.failures import reason
from bench.machine.mkl import use_avx512
from bench.runs import AlreadyFinished, BeingWritten, Checkpoint, Superseded, Writer, checkpoint_step
from bench.studies.job import Job

CHECKPOINT_EVERY_S = 120.0
Stop = Callable[[], str | None]


def prepare_process(threads: int) -> None:
    """Settings of this process that speed or memory depend on; call before torch is imported where that can be."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    use_avx512()
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # optimiser moments of dead units otherwise decay into numbers 100x slower
    with suppress(OSError, AttributeError):
        # glibc gives freed activations back to the kernel and faults them in again at the next update: 10-30% of it
        libc = ctypes.CDLL("libc.so.6")
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def run(
    spec: Mapping[str, Any],
    stop: Stop = lambda: None,
    say: Callable[[str], None] = print,
    follow: Callable[[str], None] = lambda line: None,
) -> str:
    """Train a pack until it ends or is stopped.

    Args:
        spec: {"root": folder of all results, "jobs": [Job.to_dict(), ...] of one cell of the grid, "execution":
            {"mode", "device", "threads", "dtype"}, "checkpoint_root": folder or None}.
        stop: asked between two steps; anything but None means checkpoint and return.
        say: takes lines for a log: tracebacks, and why a run could not go on.
        follow: takes a line for every evaluation, for readers that follow the log.

    Returns:
        "done" (also where a seed diverged), "stopped", "failed", or "busy": another process writes some of it.
    """
    jobs = [Job.from_dict(record) for record in spec["jobs"]]
    root, checkpoint_root = Path(spec["root"]), spec.get("checkpoint_root")
    checkpoints = None if checkpoint_root is None else Path(checkpoint_root)
    prepare_process(spec["execution"]["threads"])
    groups: dict[int, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[checkpoint_step(root, job, checkpoints)].append(job)
    outcomes = set()
    for group in groups.values():
        if stop() is not None:
            outcomes.add("stopped")
            break
        outcomes.add(_Pack(root, group, spec["execution"], checkpoints, stop, say, follow).run())
    return next((outcome for outcome in ("failed", "busy", "stopped") if outcome in outcomes), "done")


def _family(env: str) -> str | None:
    """The family of a task; None where there is no such task, which the run's failure will say."""
    from bench.envs import tasks as envs

    try:
        return envs.check_name(env)
    except UserError:
        return None


def _title(algo: str) -> str | None:
    """The algorithm's name in tables; None where its code cannot be read, which the run's failure will say."""
    import algos

    try:
        title = algos.agent_class(algo).title
    except Exception:  # of anybody's code
        return None
    return title if isinstance(title, str) else None


def _packages(env: str) -> list[dict[str, Any]]:
    """Where the task's code comes from; empty where it cannot be made, which the run's failure will say."""
    from bench.envs.packages import packages

    try:
        return packages(env)
    except UserError:
        return []


class _Pack:
    """Seeds that stand at the same step, with a writer each."""

    def __init__(
        self,
        root: Path,
        jobs: Sequence[Job],
        execution: Mapping[str, Any],
        checkpoints: Path | None,
        stop: Stop,
        say: Callable[[str], None],
        follow: Callable[[str], None],
    ):
        self.root, self.jobs, self.checkpoints = root, list(jobs), checkpoints
        self.stop, self.say, self.follow = stop, say, follow
        self.execution = {**execution, "pack": [job.seed for job in jobs]}
        self.writers: list[Writer | None] = []

    def run(self) -> str:
        from bench.machine.plugins import plugins
        from bench.machine.provenance import provenance

        origin = provenance(self.execution["device"])
        job = self.jobs[0]
        if outside := plugins(job.algo, job.config.get("critic", "mlp")) + _packages(job.env):
            origin["plugins"] = outside
        about = {"family": _family(job.env), "title": _title(job.algo)}
        opened: list[tuple[Job, Writer]] = []
        refused: list[UserError] = []
        for job in self.jobs:
            try:
                writer = Writer.open(
                    self.root,
                    job,
                    execution=self.execution,
                    provenance=origin,
                    about=about,
                    checkpoint_root=self.checkpoints,
                )
                opened.append((job, writer))
                if writer.restarted:
                    self.say(f"{job.path}: begins again at step 0: {writer.restarted}")
            except AlreadyFinished:
                continue
            except UserError as error:
                refused.append(error)
        for why in refused:
            self.say(str(why))
        refusal = "busy" if all(isinstance(why, BeingWritten) for why in refused) else "failed"
        if not opened:
            return refusal if refused else "done"
        self.jobs, self.writers = [job for job, _ in opened], [writer for _, writer in opened]
        self.pulse = _Pulse(self._living)
        try:
            with self.pulse:
                outcome = self._train()
        except Superseded as error:
            self.say(str(error))
            outcome = "stopped"
        except Exception as error:
            text = f"{traceback.format_exc()}\n{reason(error)}"
            self.say(text)
            for writer in self._living():
                with suppress(Superseded, OSError):
                    writer.fail(text)
            return "failed"
        finally:
            for writer in self._living():
                with suppress(OSError):
                    writer.release()
        return refusal if refused else outcome

    def _living(self) -> list[Writer]:
        return [writer for writer in self.writers if writer is not None]

    def _train(self) -> str:
        from bench.training.trainer import Trainer

        trainer = self._start(Trainer)
        try:
            return self._follow(trainer)
        finally:
            trainer.close()

    def _follow(self, trainer: Any) -> str:
        """Store the trainer's events, until its end or until a stop is requested."""
        from bench.training.events import Diverged, Evaluating, Rows

        self.saved_rows = trainer.replay.written
        pace = _Pace()
        next_checkpoint = time.monotonic() + CHECKPOINT_EVERY_S
        for event in trainer.events():
            if isinstance(event, Rows):
                self._append(event.k, event.table, event.rows)
            elif isinstance(event, Diverged):
                self._finish(event.k, "diverged", event.env_step, trainer.policy(event.k), event.reason)
            elif isinstance(event, Evaluating):
                self._beat(trainer, pace)
            elif event.env_step < trainer.settings.steps:
                self._beat(trainer, pace)
                wanted = self.stop()
                if wanted is not None or time.monotonic() >= next_checkpoint:
                    self._checkpoint(trainer)
                    next_checkpoint = time.monotonic() + CHECKPOINT_EVERY_S
                if wanted is not None:
                    return "stopped"
        for k in range(trainer.S):
            self._finish(k, "done", trainer.env_step, trainer.policy(k), None)
        return "done"

    def _beat(self, trainer: Any, pace: _Pace) -> None:
        """A sign of life for every run, and how far it is."""
        self.pulse.step()
        steps, rate = trainer.settings.steps, math.nan
        if trainer.env_step > trainer.settings.random_steps:  # those before take next to no time
            rate = pace.rate(trainer.env_step, time.monotonic() - trainer.prepared_s)
        for k, writer in enumerate(self.writers):
            if writer is not None:
                writer.heartbeat(
                    env_step=trainer.env_step,
                    steps=steps,
                    rate=rate,
                    last_return=trainer.last_return[k],
                    eta_s=(steps - trainer.env_step) / rate if rate else math.nan,
                )

    def _start(self, Trainer: Any) -> Any:
        """The trainer, at the checkpoint that all writers resume from, or at step 0."""
        from bench.training.trainer import read_snapshot

        found = [writer.load_checkpoint() for writer in self._living()]
        checkpoints: list[Checkpoint] = [c for c in found if c is not None]
        reason = "a seed of its pack has no sound checkpoint at the same step"
        if len(checkpoints) == len(found) and len({c.env_step for c in checkpoints}) == 1:
            try:
                snapshots = [read_snapshot(c.state) for c in checkpoints]
                return Trainer(self.jobs, self.execution, snapshots, [c.rows for c in checkpoints])
            except UnpicklingError:  # torch's message proposes to load it all the same
                reason = "damaged checkpoint: a state holds other things than tensors and numbers"
        for writer, checkpoint in zip(self._living(), found):
            if checkpoint is not None:
                writer.restart(reason)
                self.say(f"{writer.path}: begins again at step 0: {reason}")
        return Trainer(self.jobs, self.execution)

    def _append(self, k: int, table: str, rows: list[dict[str, object]]) -> None:
        writer = self.writers[k]
        if writer is not None:
            if table == "time.csv":
                rows = [{**row, "attempt": writer.attempt} for row in rows]
            writer.append(table, rows)
            if table == "eval.csv":
                mean = fmean(row["return"] for row in rows)  # type: ignore[misc]
                job = self.jobs[k]
                step = f"step {rows[0]['env_step']:,} of {job.settings.steps:,}"
                self.follow(f"seed {job.seed}: {step}: mean return {mean:,.1f}")

    def _finish(self, k: int, outcome: str, env_step: int, policy: bytes, reason: str | None) -> None:
        writer = self.writers[k]
        if writer is not None:
            writer.finish(outcome, env_step, policy=policy, reason=reason)
            self.writers[k] = None

    def _checkpoint(self, trainer: Any) -> None:
        replay = trainer.replay
        oldest = max(0, replay.written - replay.capacity)
        first = max(self.saved_rows, oldest)
        for k, writer in enumerate(self.writers):
            if writer is not None:
                rows = replay.rows_between(first, replay.written, k)
                writer.save_checkpoint(
                    trainer.env_step, trainer.snapshot(k), rows, first, keep_from_row=oldest
                )
        self.saved_rows = replay.written


class _Pulse:
    """Heartbeats from a thread of its own during a long step, such as compilation.

    They end `SILENT_AFTER_S` after the last step, so that another host may take over the runs of a process that hangs.
    """

    EVERY_S = 60.0  # well below `bench.runs.STALE_AFTER_S`
    SILENT_AFTER_S = 1800.0

    def __init__(self, living: Callable[[], Sequence[Writer]]):
        self._living = living
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self.step()

    def step(self) -> None:
        self._last = time.monotonic()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(self.EVERY_S):
            silent = time.monotonic() - self._last
            if self.EVERY_S < silent < self.SILENT_AFTER_S:
                for writer in self._living():
                    with suppress(Superseded, OSError):  # the next step finds out by itself
                        writer.touch()


class _Pace:
    """Environment steps per second over about the last minute."""

    WINDOW_S = 60.0

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def rate(self, env_step: int, now: float) -> float:
        """now: in seconds, of time that counts: without compiling. nan as long as nothing can be said."""
        if not self.marks or now - self.marks[-1][0] >= 1.0:
            self.marks.append((now, env_step))
            while now - self.marks[0][0] > self.WINDOW_S:
                self.marks.pop(0)
        start, first = self.marks[0]
        return (env_step - first) / (now - start) if now > start else math.nan
