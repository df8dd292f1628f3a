"""One task of a job array, on its compute node: a local pool for its packs, and the handling of Slurm's signals.

    SIGUSR2  the time is nearly over: checkpoint between two steps, then back into the queue
    SIGTERM  Slurm is about to end the task (scancel, requeue, preemption): checkpoint, then wait for
             the end, since a task that exits by itself counts as finished and is not requeued

Every attempt reads the remaining work from the run directories. Before that it tests the node (folders, GPU); if the
node fails the test, the runs stay as they were.
"""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.disk import DamagedFile, read_json, write_json
from bench.errors import UserError
from bench.launch.local.pool import LocalOptions, Pool
from bench.launch.plan import Plan
from bench.launch.slurm.sbatch import REQUEUE
from bench.machine.provenance import code_digest, provenance, scheduler_ids
from bench.names import TEMPORARY
from bench.runs import FINISHED, Run, Superseded, checkpoint_step, ownership, read_run, record_failure
from bench.runs.records import FORMAT, TaskMemory, check
from bench.studies.job import Job
from bench.text import one_line, strerror

ATTEMPTS = 3  # in one Slurm job that brought no new checkpoint: then a run is given up
LOOK_EVERY_S = 5.0  # for another attempt of this task that has taken over
# For a node to answer whether it can compute on its GPU; loading torch can take a minute
DEVICE_TIMEOUT_S = 300.0


def work_of(root: Path, tasks: Sequence[Sequence[Sequence[Job]]], options: LocalOptions) -> dict[str, Any]:
    """The work of an array's tasks, as `Task.from_work` reads it. tasks: the packs of each."""
    place = options.checkpoint_root
    return {
        "kind": "runs",
        "root": str(root),
        "options": {**asdict(options), "checkpoint_root": None if place is None else str(place)},
        "tasks": [[[job.to_dict() for job in pack] for pack in packs] for packs in tasks],
    }


class Task:
    """packs: of job records, as `Job.to_dict` gives them. memory: file for the state kept between attempts, or None."""

    def __init__(
        self,
        root: Path,
        packs: Sequence[Sequence[Mapping[str, Any]]],
        options: LocalOptions,
        *,
        memory: Path | None = None,
        digest: str | None = None,
    ):
        self.root, self.options, self.memory, self.digest = root, options, memory, digest
        self.packs = [[dict(record) for record in pack] for pack in packs]
        self.before: list[tuple[str, int]] | None = None  # what `_reached` gave when this attempt began
        self.fruitless = 0  # attempts of the whole task, one after the other, that changed nothing of that
        if memory is not None:
            with suppress(OSError, DamagedFile):
                self.fruitless = check(read_json(memory), memory.name, TaskMemory)["fruitless"]

    @classmethod
    def from_work(cls, work: Mapping[str, Any], index: int, memory: Path | None = None) -> Task:
        """Task `index` of an array. Raises KeyError, IndexError or TypeError where this is no work of ours."""
        options = dict(work["options"])
        if options["checkpoint_root"] is not None:
            options["checkpoint_root"] = Path(options["checkpoint_root"])
        packs = work["tasks"][index]
        return cls(
            Path(work["root"]), packs, LocalOptions(**options), memory=memory, digest=work.get("code_digest")
        )

    def __call__(self, watch: Watch) -> int:
        """The exit code: 0, 1 if runs are unfinished at the end, or REQUEUE: put this task back into the queue."""
        self._say_which_code()
        if problem := unfit(self.root, self.packs, self.options):
            _say(f"{socket.gethostname()} cannot carry these runs: {problem}; nothing was begun")
            return 1
        self.before = self._reached()
        again = bool((scheduler_ids() or {}).get("restart_count"))
        pool = Pool(self.root, Plan(packs=self._worth_an_attempt(again)), self.options, watch)
        watch.begin(self.root, pool)
        pool.run()
        watch(pool)
        left = [(job, run) for job in self._jobs() if (run := self._run(job)).state not in FINISHED]
        watch.superseded |= any(watch.has_successor(job) for job, _ in left)
        if left and pool.stopping and not watch.superseded:
            watch.wait_for_the_reason()
            if self.goes_on():
                return REQUEUE
        for job, run in left:
            _say(f"{job.path}: {run.state}{run.reason and ': '}{run.reason}")
        if watch.superseded:
            _say("another attempt of this task has taken over: this one ends")
        elif left:
            _say(f"{len(left)} of {len(self._jobs())} runs are not finished")
        return 1 if left or watch.superseded else 0

    def goes_on(self) -> bool:
        """Whether another attempt gains anything. Runs that came no further in three are given up."""
        worth = self._worth_an_attempt(again=True)
        self.fruitless = self.fruitless + 1 if self.before in (None, self._reached()) else 0
        if self.fruitless == ATTEMPTS:
            # the time was always over before a run had even begun, which leaves no trace in it
            self.fruitless = 0
            for job in (job for pack in worth[: self.options.workers] for job in pack):
                self._give_up(job)
            worth = worth[self.options.workers :]
        if self.memory is not None:
            with suppress(OSError):  # on a full disk it is counted from 0 again
                write_json(self.memory, {"format": FORMAT, "fruitless": self.fruitless}, "memory")
        return bool(worth)

    def _say_which_code(self) -> None:
        """A task runs the code that the checkout holds when it starts, with the settings of its submission."""
        now = code_digest()
        if self.digest is not None and self.digest != now:
            _say(
                f"the code has changed since submission: {self.digest[:12]} then, {now[:12]} now, which runs; "
                "the settings are those of the submission"
            )

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

        again: runs that failed earlier in this Slurm job are not tried again either.
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
            place = self.options.checkpoint_root
            record_failure(self.root, job, reason, provenance=provenance(), checkpoint_root=place)
        except (UserError, Superseded, OSError) as error:
            _say(one_line(error))


def unfit(root: Path, packs: Sequence[Sequence[Mapping[str, Any]]], options: LocalOptions) -> str:
    """One line with what this node lacks for the runs; "" if it lacks nothing. Touches no run."""
    for folder in dict.fromkeys([root, options.checkpoint_root or root]):
        probe = folder / f".try-{secrets.token_hex(4)}{TEMPORARY}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with probe.open("xb") as file:
                file.write(b"x")
            probe.unlink()
        except OSError as error:
            with suppress(OSError):
                probe.unlink()
            return f"{folder} cannot be written: {strerror(error)}"
    if not options.device.startswith("cuda"):
        return ""
    code = "import torch; torch.zeros(1, device='cuda').item()"  # in a process of its own: a context holds memory
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEVICE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"its GPU does not answer: {one_line(error, 160)}"
    lines = done.stderr.strip().splitlines()
    return (
        f"torch cannot use its GPU: {one_line(lines[-1], 160) if lines else 'it crashed'}"
        if done.returncode
        else ""
    )


class Watch:
    """Handles Slurm's signals, prints the pool's messages, and stops it on a signal or when it has a successor."""

    def __init__(self) -> None:
        """Take the signals, before anything that takes time: without a handler they would end the process."""
        self.superseded = False
        self._time_is_over = self._ending = False
        self._next_look = 0.0
        self._pool: Pool | None = None
        signal.signal(signal.SIGUSR2, self._hear)
        signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, number: int, frame: Any) -> None:
        self._time_is_over |= number == signal.SIGUSR2
        self._ending |= number == signal.SIGTERM
        if self._pool is not None:
            self._pool.stopping = True

    def begin(self, root: Path, pool: Pool) -> None:
        self._root, self._pool = root, pool
        pool.stopping |= self._time_is_over or self._ending

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
        owner = ownership.read_owner(self._root / job.path) or {}
        return ownership.restarts({"scheduler": scheduler_ids()}, owner.get("scheduler"))

    def wait_for_the_reason(self) -> None:
        """Return once the time is over. After SIGTERM Slurm ends the task here, and requeues it if that is the idea."""
        while not self._time_is_over:
            time.sleep(0.2)


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
