"""Submit a study's packs to Slurm as job arrays, and cancel them. Nothing heavy runs here.

Submitting is idempotent: under a lock, runs that are finished, queued or running are left out. What a task
asks for is in profiles.py, how it reaches Slurm in sbatch.py, what it does on its node in task.py, and how it
stands in queue.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from bench.errors import UserError, suggest
from bench.launch.local.pool import LocalOptions
from bench.launch.slurm import queue, sbatch
from bench.launch.slurm.profiles import Profile
from bench.launch.slurm.queue import Array, Entries, Entry
from bench.launch.slurm.task import Task
from bench.runs import FINISHED, check_configuration, read_run
from bench.runs.ownership import locked
from bench.studies.job import Job
from bench.text import strerror

REQUEUE_S = 10.0  # what of the warning time is kept for going back into the queue

Rates = Callable[[Job], float | None]  # seconds that a run takes, or its whole pack; None: not known


class StudyLike(Protocol):
    @property
    def name(self) -> str: ...


@dataclass
class Submission:
    """What was submitted, or with DRY=1 would be."""

    study: str
    profile: Profile
    device: str  # of the runs: "cpu" or "cuda"
    tasks: list[list[list[Job]]] = field(default_factory=list)  # packs of each task
    finished: int = 0  # runs left out: done or diverged,
    queued: int = 0  # in the queue or running,
    busy: int = 0  # written by a process that is not in the queue,
    failed: int = 0  # or failed, and not to be tried again
    arrays: list[Array] = field(default_factory=list)
    figures: str | None = None  # id of the job that builds them
    script: str = ""  # with DRY=1: the batch script of the first array
    hours: float | None = None  # core- or GPU-hours of the runs with a known rate; None: there are none
    unrated: int = 0  # runs without one

    @property
    def runs(self) -> int:
        return sum(len(pack) for packs in self.tasks for pack in packs)

    @property
    def ids(self) -> str:
        return ", ".join(str(array.job) for array in self.arrays)

    def lines(self) -> Iterator[str]:
        """The report for the terminal."""
        if self.script:
            yield from self.script.rstrip().splitlines()
            yield ""
            for k, packs in enumerate(self.tasks):
                for pack in packs:
                    seeds = ",".join(str(job.seed) for job in pack)
                    yield f"task {k}: {pack[0].path.parent} seed{'s' * (len(pack) > 1)} {seeds}"
            yield self._hours()
        verb = "would submit" if self.script else "submitted"
        what = f"{_count(self.runs, 'run')} in {_count(len(self.tasks), 'task')}"
        ids = f": job {self.ids}" if self.arrays else ""
        yield f"{self.study}: {verb} {what} with profile {self.profile.name}{ids}"
        if self.tasks and self.profile.gpus and self.device == "cpu":
            yield f"DEVICE=cpu leaves the GPUs idle; DEVICE=cuda uses them [{self.profile.setting('gpus')}]"
        for number, why in (
            (self.finished, "finished already"),
            (self.queued, "in the queue already"),
            (self.busy, "being written by a process that is not in the queue; repeat the command later"),
            (self.failed, "failed earlier (see `make status`); RETRY=1 runs them again"),
        ):
            if number:
                yield f"{_count(number, 'run')} {why}"
        if self.figures:
            yield f"figures: job {self.figures}, when they have ended"

    def _hours(self) -> str:
        unit = "GPU-hours" if self.profile.gpus else "core-hours"
        if self.hours is None:
            return f"estimate: none, since no rate has been measured ({unit})"
        rest = f", without {_count(self.unrated, 'run')} of unknown rate" if self.unrated else ""
        return f"estimate: {self.hours:.1f} {unit}{rest}"


def submit(
    root: Path,
    study: StudyLike,
    packs: Sequence[Sequence[Job]],
    profile: Profile,
    *,
    execution: Mapping[str, Any],
    jobs_per_task: int | None = None,
    dry: bool = False,
    figures: bool = False,
    retry_failed: bool = False,
    rates: Rates = lambda job: None,
) -> Submission:
    """Submit what is missing of `packs` and not in the queue; with `dry` only say what that would be.

    execution: "mode" ("auto", "eager", "compile", "graph") and "device" of the runs.
    jobs_per_task: packs in a task, in place of the profile's.
    figures: also submit a job that builds the study's figures when all its tasks have ended.
    retry_failed: whether runs that failed by themselves (not by Slurm's doing) count as missing.
    Raises UserError: no Slurm here, a refusal (with the profile's key), a run that cannot be carried on.
    """
    if execution["device"].startswith("cuda") and not profile.gpus:
        raise UserError(f"DEVICE=cuda needs a profile with GPUs; {profile.setting('gpus')}")
    root = root.absolute()
    folder = queue.folder(root, study.name)
    if not dry:
        sbatch.need_slurm()
    with nullcontext() if dry else _alone(folder):
        arrays, entries = queue.survey(folder)
        submission = Submission(study.name, profile, execution["device"])
        wanted = _missing(root, packs, queue.by_run(arrays, entries), retry_failed, submission)
        options = _options(profile, execution)
        size = max(jobs_per_task or profile.jobs_per_task, options.workers)
        submission.tasks = [wanted[k : k + size] for k in range(0, len(wanted), size)]
        largest = sbatch.largest_array()
        parts = [submission.tasks[k : k + largest] for k in range(0, len(submission.tasks), largest)]
        if dry:
            submission.script = sbatch.script(folder, profile, len(parts[0])) if parts else ""
            _estimate(submission, options.workers, rates)
            return submission
        try:
            for part in parts:
                paths = [[str(job.path) for pack in task for job in pack] for task in part]
                array = queue.new_array(folder, "runs", paths)
                work = [Task(root, task, options) for task in part]
                submission.arrays.append(sbatch.send(folder, profile, array, work))
            if figures:
                submission.figures = _figures(folder, profile, arrays, entries, submission.arrays)
        except UserError as error:
            if not submission.arrays:
                raise
            rest = f"job {submission.ids} was submitted before that; the same command submits the rest"
            raise UserError(f"{error}; {rest}") from None
        return submission


def cancel(root: Path, study: str) -> int:
    """Cancel the study's queued and running tasks, and no others; how many there were.

    Raises UserError: nothing was ever submitted for it, no Slurm here, or one that does not answer.
    """
    folder = queue.folder(root.absolute(), study)
    if not folder.is_dir():
        others = (path.parent.name for path in root.glob("*/slurm"))
        raise UserError(f"no jobs of a study {study!r} were submitted from {root}{suggest(study, others)}")
    sbatch.need_slurm()
    with _alone(folder):
        arrays, entries = queue.survey(folder)
        _scancel(folder, [array for array in arrays if _is_active(array, entries)])
        return sum(entry.active for entry in entries.values())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of the study's records: two terminals submit one after the other."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            yield
    except OSError as error:
        raise UserError(f"{folder} cannot be used: {strerror(error)}") from error


def _missing(
    root: Path,
    packs: Sequence[Sequence[Job]],
    entries: Mapping[str, Entry],
    retry_failed: bool,
    submission: Submission,
) -> list[list[Job]]:
    """The packs without the runs that need no submitting, which are counted. UserError for unusable ones."""
    wanted = []
    for pack in packs:
        kept = []
        for job in pack:
            run = read_run(root / job.path, job_hash=job.hash, verify=False)
            entry = entries.get(str(job.path))
            if run.state in FINISHED:
                submission.finished += 1
            elif entry is not None and entry.active:
                submission.queued += 1
            elif run.state == "running" and entry is None:
                submission.busy += 1
            elif run.state == "failed" and not retry_failed:
                submission.failed += 1
            elif run.state in ("damaged", "configuration changed"):
                check_configuration(root, job)  # says it best, where that is what is wrong
                raise UserError(
                    f"{run.path} is {run.state}: {run.reason}; delete that folder to run it again"
                )
            else:
                kept.append(job)
        if kept:
            wanted.append(kept)
    return wanted


def _options(profile: Profile, execution: Mapping[str, Any]) -> LocalOptions:
    """The pool of one task: as many packs at once as the profile has room for."""
    workers = profile.gpus * profile.jobs_per_gpu if profile.gpus else profile.cpus
    device = execution["device"]
    return LocalOptions(
        workers=workers,
        device=device,
        execution=execution["mode"],
        env_workers=profile.cpus // workers if device == "cuda" else 0,
        checkpoint_root=profile.checkpoints,
        # a task that is late is killed at the end of its time, and not requeued
        stop_grace_s=max(profile.signal_delay - REQUEUE_S, profile.signal_delay * 2 / 3),
    )


def _is_active(array: Array, entries: Entries) -> bool:
    return any(entry.active for (token, _), entry in entries.items() if token == array.token)


def _scancel(folder: Path, arrays: Sequence[Array]) -> None:
    for array in arrays:
        queue.write_array(folder, replace(array, cancelled=True))
    if arrays:
        queue.run_slurm(["scancel", *(str(array.job) for array in arrays)])


class Figures:
    """What the job that builds the figures runs."""

    def __init__(self, root: Path, study: str):
        self.command = [sys.executable, "-m", "bench", "figures", "--study", study, "--results", str(root)]

    def __call__(self) -> None:
        subprocess.run(self.command, check=True)


def _figures(
    folder: Path, profile: Profile, before: Sequence[Array], entries: Entries, new: Sequence[Array]
) -> str:
    """Submit the job that builds the figures once every queued task has ended, well or not; its id.

    One that waits already does, unless there is something new to wait for: then it is replaced.
    """
    active = [array for array in before if _is_active(array, entries)]
    waiting = [array for array in active if array.kind == "figures"]
    if waiting and not new:
        return str(waiting[-1].job)
    _scancel(folder, waiting)
    study = folder.parent
    array = queue.new_array(folder, "figures", [[f"{study.name}/figures"]])
    ids = [str(array.job) for array in (*active, *new) if array.kind == "runs"]
    after = {"dependency": f"afterany:{':'.join(ids)}", "kill-on-invalid-dep": "yes"} if ids else {}
    return str(sbatch.send(folder, profile, array, [Figures(study.parent, study.name)], **after).job)


def _estimate(submission: Submission, workers: int, rates: Rates) -> None:
    """Hours that the allocations would be held: packs of a task share its cores or GPUs."""
    seconds = []
    for pack in (pack for packs in submission.tasks for pack in packs):
        known = [rate for job in pack if (rate := rates(job)) is not None]
        submission.unrated += len(pack) - len(known)
        if known:
            seconds.append(max(known))  # the seeds of a pack run in lock-step
    if seconds:
        width = submission.profile.gpus or submission.profile.cpus
        submission.hours = sum(seconds) * width / workers / 3600


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
