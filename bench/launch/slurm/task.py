"""One task of a job array, on its compute node: a local pool for its packs, and what Slurm's signals mean.

    SIGUSR2  the time is nearly over: checkpoint between two steps, then back into the queue
    SIGTERM  Slurm is about to end the task (scancel, requeue, preemption): checkpoint, then wait for
             the end, since what exits by itself counts as finished and is not requeued

Every attempt reads from the run directories what is left to do.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.launch.local.pool import LocalOptions, Pool
from bench.launch.plan import Plan
from bench.machine.provenance import provenance, scheduler_ids
from bench.runs import FINISHED, Run, Writer, checkpoint_step, ownership, read_run
from bench.studies.job import Job

ATTEMPTS = 3  # in one Slurm job that brought no new checkpoint: then a run is given up
LOOK_EVERY_S = 5.0  # for another attempt of this task that has taken over


class Task:
    """What submitit pickles and calls. packs: of job records, as `Job.to_dict` gives them."""

    before: list[tuple[str, int]] | None = None  # what `_reached` gave when this attempt began
    fruitless = 0  # attempts of the whole task, one after the other, that changed nothing of that

    def __init__(self, root: Path, packs: Sequence[Sequence[Job]], options: LocalOptions):
        self.root = root
        self.packs = [[job.to_dict() for job in pack] for pack in packs]
        self.options = options

    def __call__(self) -> None:
        """Raises RuntimeError if runs are unfinished at the end, so that Slurm shows the task as failed."""
        watch = _Watch(self.root)
        self.before = self._reached()
        again = bool((scheduler_ids() or {}).get("restart_count"))
        pool = Pool(self.root, Plan(packs=self._worth_an_attempt(again)), self.options, watch)
        watch.begin(pool)
        pool.run()
        watch(pool)
        left = [(job, run) for job in self._jobs() if (run := self._run(job)).state not in FINISHED]
        watch.superseded |= any(watch.has_successor(job) for job, _ in left)
        if left and pool.stopping and not watch.superseded:
            watch.requeue()  # by way of `checkpoint`; does not return
        for job, run in left:
            _say(f"{job.path}: {run.state}{run.reason and ': '}{run.reason}")
        if watch.superseded:
            raise RuntimeError("another attempt of this task has taken over: this one ends")
        if left:
            raise RuntimeError(f"{len(left)} of {len(self._jobs())} runs are not finished")

    def checkpoint(self) -> Any:
        """Submitit's question before it requeues: with what? None, and so no requeue, if it gains nothing."""
        from submitit.helpers import DelayedSubmission

        worth = self._worth_an_attempt(again=True)
        self.fruitless = self.fruitless + 1 if self.before in (None, self._reached()) else 0
        if self.fruitless == ATTEMPTS:
            # the time was always over before a run had even begun, which leaves no trace in it
            self.fruitless = 0
            for job in (job for pack in worth[: self.options.workers] for job in pack):
                self._give_up(job)
            worth = worth[self.options.workers :]
        return DelayedSubmission(self) if worth else None

    def _jobs(self) -> list[Job]:
        return [Job.from_dict(record) for pack in self.packs for record in pack]

    def _run(self, job: Job) -> Run:
        return read_run(self.root / job.path, job_hash=job.hash, verify=False)

    def _reached(self) -> list[tuple[str, int]]:
        """Per run whether it has ended, and the step that it would resume from."""
        reached = []
        for job in self._jobs():
            state = self._run(job).state
            ended = state if state in (*FINISHED, "failed") else ""
            reached.append((ended, checkpoint_step(self.root, job, self.options.checkpoint_root)))
        return reached

    def _worth_an_attempt(self, again: bool) -> list[list[Job]]:
        """The packs that are left to carry on, without runs that came no further in three attempts.

        again: what failed earlier in this Slurm job is not tried again either.
        """
        worth = []
        for pack in self.packs:
            kept = []
            for job in map(Job.from_dict, pack):
                run = self._run(job)
                if run.state in FINISHED or (again and run.state == "failed"):
                    continue
                if _is_stuck(run, checkpoint_step(self.root, job, self.options.checkpoint_root)):
                    self._give_up(job)
                else:
                    kept.append(job)
            if kept:
                worth.append(kept)
        return worth

    def _give_up(self, job: Job) -> None:
        reason = f"given up: {ATTEMPTS} attempts brought no new checkpoint; is the profile's time too short?"
        _say(f"{job.path}: {reason}")
        try:
            writer = Writer.open(
                self.root,
                job,
                execution={},
                provenance=provenance(),
                checkpoint_root=self.options.checkpoint_root,
            )
            writer.fail(reason)
        except UserError as error:
            _say(str(error))


class _Watch:
    """Looks after the pool: prints what it says, stops it when Slurm wants so, or when it has a successor."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.superseded = False
        self._time_is_over = False
        self._next_look = 0.0
        self._submitit = signal.getsignal(signal.SIGUSR2)  # asks `checkpoint`, requeues, ends the process

    def begin(self, pool: Pool) -> None:
        """Take SIGUSR2 over from submitit, which would checkpoint in the middle of a step."""

        def stop(number: int, frame: Any) -> None:
            self._time_is_over = True
            pool.stopping = True

        signal.signal(signal.SIGUSR2, stop)

    def __call__(self, pool: Pool) -> None:
        while pool.messages:
            _say(pool.messages.pop(0))
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_EVERY_S
            packs = [*pool.running(), *(pack for _, pack in pool.busy)]
            if any(self.has_successor(job) for pack in packs for job in pack):
                self.superseded = pool.stopping = True

    def has_successor(self, job: Job) -> bool:
        """Whether a later start of this same Slurm job owns the run: we are on a node that Slurm has lost."""
        owner = ownership.read_owner(self.root / job.path) or {}
        return ownership.restarts({"scheduler": scheduler_ids()}, owner.get("scheduler"))

    def requeue(self) -> None:
        """Back into the queue, once it is clear that this is what Slurm's signal asked for."""
        while not self._time_is_over:
            time.sleep(0.2)  # after SIGTERM: Slurm ends the task, and requeues it if that is the idea
        if not callable(self._submitit):
            raise RuntimeError("not started by submitit: nothing requeues this task")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # for scontrol, whom Slurm's answer would kill with us
        self._submitit(signal.SIGUSR2, None)


def _is_stuck(run: Run, step: int) -> bool:
    """Whether the last three attempts of this Slurm job all began where the run, at `step`, still stands."""
    job = (scheduler_ids() or {}).get("job_id")
    mine = [
        attempt["resumed_at_step"]
        for attempt in run.meta.get("attempts", [])
        if job and (attempt["provenance"].get("scheduler") or {}).get("job_id") == job
    ]
    return len(mine) >= ATTEMPTS and set(mine[-ATTEMPTS:]) == {step}


def _say(line: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), line, flush=True)
