"""A submission, real or with DRY=1: its tasks by their requests, their duration, and the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.launch.local.pool import LocalOptions
from bench.launch.rates import Rate
from bench.launch.slurm.arrays import Array
from bench.launch.slurm.profiles import Profile
from bench.studies.job import Job

SHORT_TASK_S = 600.0  # below this schedulers spend more on a task than it is worth


@dataclass
class Part:
    """Tasks that ask Slurm for the same."""

    profile: Profile
    device: str  # of the runs: "cpu" or "cuda"
    options: LocalOptions  # of each task's pool
    tasks: list[list[list[Job]]]  # packs of each task
    script: str = ""  # with DRY=1: the batch script of its first array
    hours: float | None = None  # core- or GPU-hours of the runs with a known rate; None: there are none
    unrated: int = 0  # runs without one
    longest_s: float = 0.0  # of the tasks, as far as rates are known

    def lines(self, first: int) -> Iterator[str]:
        """The lines that DRY=1 shows; `first`: the number of its first task."""
        yield from self.script.rstrip().splitlines()
        yield ""
        for k, packs in enumerate(self.tasks, first):
            for pack in packs:
                seeds = ",".join(str(job.seed) for job in pack)
                yield f"task {k}: {pack[0].path.parent} seed{'s' * (len(pack) > 1)} {seeds}"
        unit = "GPU-hours" if self.profile.gpus else "core-hours"
        if self.hours is None:
            yield f"estimate: none, since no rate has been measured on {self.device} ({unit})"
            return
        rest = f", without {_count(self.unrated, 'run')} of unknown rate" if self.unrated else ""
        yield f"estimate: {self.hours:.1f} {unit}{rest}; a task takes up to {_duration(self.longest_s)}"
        limit = 60.0 * self.profile.time_min - self.profile.signal_delay
        if self.longest_s > limit:
            yield (
                f"that is longer than the profile's time: such a task is requeued {int(self.longest_s // limit)} "
                f"times and goes on [{self.profile.setting('time')}]"
            )
        elif self.longest_s < SHORT_TASK_S and len(self.tasks) > 1:
            per_task = max(map(len, self.tasks)) * 3600 / max(self.longest_s, 1.0)
            fewer = f"JOBS_PER_TASK={max(2, round(per_task))}"
            yield f"such short tasks burden the scheduler: {fewer} makes one last an hour"


@dataclass
class Submission:
    """The tasks submitted, or with DRY=1 those that would be."""

    study: str
    profile: Profile
    parts: list[Part] = field(default_factory=list)
    finished: int = 0  # runs left out: done or diverged,
    queued: int = 0  # in the queue or running,
    busy: int = 0  # written by a process that is not in the queue,
    failed: int = 0  # or failed, and not to be tried again
    arrays: list[Array] = field(default_factory=list)
    figures: str | None = None  # id of the job that builds them
    dry: bool = False
    left: int = 0  # tasks that Slurm did not take for now
    limit: str = ""  # why: Slurm's words
    notes: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> list[list[list[Job]]]:
        return [task for part in self.parts for task in part.tasks]

    @property
    def runs(self) -> int:
        return sum(len(pack) for packs in self.tasks for pack in packs)

    @property
    def script(self) -> str:
        return self.parts[0].script if self.parts else ""

    @property
    def hours(self) -> float | None:
        known = [part.hours for part in self.parts if part.hours is not None]
        return sum(known) if known else None

    @property
    def unrated(self) -> int:
        return sum(part.unrated for part in self.parts)

    @property
    def ids(self) -> str:
        return ", ".join(str(array.job) for array in self.arrays)

    def lines(self) -> Iterator[str]:
        """The report for the terminal."""
        first = 0
        for part in self.parts if self.dry else ():
            yield from part.lines(first)
            first += len(part.tasks)
        yield from self.notes
        if self.left:
            took = sum(len(array.tasks) for array in self.arrays)
            what = f"{took} of {_count(len(self.tasks), 'task')}"
        else:
            what = f"{_count(self.runs, 'run')} in {_count(len(self.tasks), 'task')}"
        verb = "would submit" if self.dry else "submitted"
        ids = f": job {self.ids}" if self.arrays else ""
        yield f"{self.study}: {verb} {what} with profile {self.profile.name}{ids}"
        for part in self.parts:
            if part.profile.gpus and part.device == "cpu":
                yield f"DEVICE=cpu leaves the GPUs idle; DEVICE=cuda uses them [{part.profile.setting('gpus')}]"
        for number, why in (
            (self.finished, "finished already"),
            (self.queued, "in the queue already"),
            (self.busy, "being written by a process that is not in the queue; repeat the command later"),
            (self.failed, "failed earlier (see `make status`); RETRY=1 runs them again"),
        ):
            if number:
                yield f"{_count(number, 'run')} {why}"
        if self.left:
            yield f"{_count(self.left, 'task')} left: {self.limit}"
            yield "the same command submits the rest: repeat it when `make status` shows fewer runs queued"
        if self.figures:
            yield f"figures: job {self.figures}, when they have ended"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def estimate(part: Part, rates: Rate) -> None:
    """Hours that the allocations would be held: packs of a task share its cores or GPUs."""
    total = 0.0
    for task in part.tasks:
        known = []
        for pack in task:
            seconds = [rate for job in pack if (rate := rates(job, part.device)) is not None]
            part.unrated += len(pack) - len(seconds)
            known += [max(seconds)] if seconds else []  # the seeds of a pack run in lock-step
        if known:
            part.longest_s = max(part.longest_s, max(max(known), sum(known) / part.options.workers))
            part.hours = 0.0
            total += sum(known)
    if part.hours is not None:
        part.hours = total * (part.profile.gpus or part.profile.cpus) / part.options.workers / 3600


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
