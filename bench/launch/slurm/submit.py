"""Submit a study's packs to Slurm as job arrays, and cancel them. Nothing heavy runs here.

Submitting is idempotent: under a lock, runs that are finished, queued or running are left out. What a task
asks for is in profiles.py, how it reaches Slurm in sbatch.py, what it does on its node in task.py, and how it
stands in queue.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from bench.errors import UserError, suggest
from bench.launch.local.pool import LocalOptions
from bench.launch.slurm import arrays as records
from bench.launch.slurm import client, queue, sbatch
from bench.launch.slurm.arrays import Array
from bench.launch.slurm.profiles import Profile, with_defaults
from bench.launch.slurm.queue import Entries, Entry
from bench.launch.slurm.refusals import Refusal
from bench.launch.slurm.task import work_of
from bench.runs import FINISHED, check_configuration, read_run
from bench.runs.ownership import locked
from bench.studies.job import Job
from bench.text import strerror

_GONE = r"already complet|Invalid job id"  # of a job that ended between the question and the request
REQUEUE_S = 10.0  # part of the warning time reserved for requeueing
SHORT_TASK_S = 600.0  # below this schedulers spend more on a task than it is worth

Rates = Callable[[Job, str], float | None]  # (job, device) -> seconds of its whole pack; None: not known


class StudyLike(Protocol):
    @property
    def name(self) -> str: ...


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
        """What DRY=1 shows of it; `first`: the number of its first task."""
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
    """What was submitted, or with DRY=1 would be."""

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


def submit(
    root: Path,
    study: StudyLike,
    packs: Sequence[Sequence[Job]],
    profile: Profile,
    *,
    execution: Mapping[str, str],
    jobs_per_task: int | None = None,
    dry: bool = False,
    figures: bool = False,
    retry_failed: bool = False,
    rates: Rates = lambda job, device: None,
) -> Submission:
    """Submit what is missing of `packs` and not in the queue; with `dry` only say what that would be.

    execution: "mode" ("auto", "eager", "compile", "graph") and "device" of the runs; the device "" is a GPU where
    the profile of their algorithm has one.
    jobs_per_task: packs in a task, in place of the profile's.
    figures: also submit a job that builds the study's figures when all its tasks have ended.
    retry_failed: whether runs that failed by themselves (not by Slurm's doing) count as missing.

    Where Slurm takes only some of the tasks for now, the others are counted in `left`.
    Raises UserError: no Slurm here, a refusal (with the profile's key), a run that cannot be carried on.
    """
    root = root.absolute()
    folder = records.folder(root, study.name)
    profile = with_defaults(profile, client.meant())
    if not dry:
        sbatch.need_slurm()
    with nullcontext() if dry else _alone(folder):
        arrays, entries = queue.survey(folder)
        submission = Submission(study.name, profile, dry=dry, notes=_notes(profile))
        wanted = _missing(root, packs, queue.by_run(arrays, entries), retry_failed, submission)
        submission.parts = _parts(wanted, profile, execution, jobs_per_task)
        largest = sbatch.largest_array()
        if dry:
            for part in submission.parts:
                shown = records.new_array(folder, "runs", [])
                part.script = sbatch.script(folder, part.profile, shown, min(len(part.tasks), largest))
                _estimate(part, rates)
            return submission
        try:
            _send(root, folder, submission, largest)
            if figures and not submission.left:
                submission.figures = _figures(
                    folder, profile.for_figures(), arrays, entries, submission.arrays
                )
        except UserError as error:
            if not submission.arrays:
                raise
            rest = f"job {submission.ids} was submitted before that; the same command submits the rest"
            raise UserError(f"{error}; {rest}") from None
        if figures and submission.left:
            submission.notes.append(
                "no figures yet: FIGURES=1 with the command that submits the last of the tasks"
            )
        return submission


def _notes(profile: Profile) -> list[str]:
    inherited = {
        key: value for part in (profile, *profile.algos.values()) for key, value in part.inherited.items()
    }
    said = [
        f"{key} = {value}, from your environment: the profile does not say"
        for key, value in inherited.items()
    ]
    return [*said, *filter(None, [client.dropped()])]


def _parts(
    packs: Sequence[Sequence[Job]], profile: Profile, execution: Mapping[str, str], jobs_per_task: int | None
) -> list[Part]:
    """The packs by the profile that their algorithm has, dealt out to tasks."""
    groups: dict[str, list[list[Job]]] = {}
    for pack in packs:
        groups.setdefault(profile.for_algo(pack[0].algo).table, []).append(list(pack))
    parts = []
    for group in groups.values():
        own = profile.for_algo(group[0][0].algo)
        device = execution["device"] or ("cuda" if own.gpus else "cpu")
        if device.startswith("cuda") and not own.gpus:
            raise UserError(f"DEVICE=cuda needs a profile with GPUs; {own.setting('gpus')}")
        options = _options(own, execution["mode"], device)
        size = max(jobs_per_task or own.jobs_per_task, options.workers)
        tasks = [group[k : k + size] for k in range(0, len(group), size)]
        parts.append(Part(own, device, options, tasks))
    return parts


def _send(root: Path, folder: Path, submission: Submission, largest: int) -> None:
    """Submit every part as arrays of at most `largest` tasks, and smaller ones where a limit refuses those."""
    for i, part in enumerate(submission.parts):
        waiting = [part.tasks[k : k + largest] for k in range(0, len(part.tasks), largest)]
        while waiting:
            tasks = waiting.pop(0)
            paths = [[str(job.path) for pack in task for job in pack] for task in tasks]
            array = records.new_array(folder, "runs", paths)
            try:
                work = work_of(root, tasks, part.options)
                submission.arrays.append(sbatch.send(folder, part.profile, array, work))
            except Refusal as refusal:
                if refusal.limit and len(tasks) > 1:
                    half = len(tasks) // 2
                    waiting[:0] = [tasks[:half], tasks[half:]]
                elif (refusal.limit or refusal.full) and (submission.arrays or submission.queued):
                    later = sum(len(part.tasks) for part in submission.parts[i + 1 :])
                    submission.left = len(tasks) + sum(map(len, waiting)) + later
                    submission.limit = str(refusal)
                    return
                else:
                    raise


def cancel(root: Path, study: str) -> int:
    """Cancel the study's queued and running tasks, and no others; how many there were.

    Nothing needs to be written for it: what cannot be is said on standard error.
    Raises UserError: nothing was ever submitted for it, no Slurm here, or one that does not answer.
    """
    folder = records.folder(root.absolute(), study)
    if not folder.is_dir():
        others = (path.parent.name for path in root.glob("*/slurm"))
        raise UserError(f"no jobs of a study {study!r} were submitted from {root}{suggest(study, others)}")
    sbatch.need_slurm()
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except OSError as error:
            _warn(f"{folder}: {strerror(error)}: cancelling without the lock")
        arrays, problems = records.read_arrays(folder)
        for line in filter(None, [*problems, client.dropped()]):
            _warn(line)
        answer = queue.ask_slurm(arrays, unfinished=frozenset())
        if answer.problem:
            raise UserError(answer.problem)
        arrays, entries = queue.entries_of(folder, arrays, answer)
        _scancel(folder, [array for array in arrays if _is_active(array, entries)])
        return sum(entry.active for entry in entries.values())


def _warn(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr)


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


def _options(profile: Profile, mode: str, device: str) -> LocalOptions:
    """The pool of one task: as many packs at once as the profile has room for."""
    workers = profile.gpus * profile.jobs_per_gpu if profile.gpus else profile.cpus
    return LocalOptions(
        workers=workers,
        device=device,
        execution=mode,
        env_workers=profile.cpus // workers if device == "cuda" else 0,
        checkpoint_root=profile.checkpoints,
        # a task that is late is killed at the end of its time, and not requeued
        stop_grace_s=max(profile.signal_delay - REQUEUE_S, profile.signal_delay * 2 / 3),
    )


def _is_active(array: Array, entries: Entries) -> bool:
    return any(entry.active for (token, _), entry in entries.items() if token == array.token)


def _scancel(folder: Path, arrays: Sequence[Array]) -> None:
    """Cancel first, then write it down: a full disk must not keep jobs alive."""
    if not arrays:
        return
    try:
        client.ask(["scancel", *(str(array.job) for array in arrays)])
    except client.Refused as error:
        lines = [line for line in error.said.splitlines() if line.strip()]
        if not lines or not all(re.search(_GONE, line) for line in lines):
            raise
    for array in arrays:
        with suppress(
            OSError
        ):  # it is only needed to tell a cancelled task from one that is requeued, for seconds
            records.write_array(folder, replace(array, cancelled=True))


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
    array = records.new_array(folder, "figures", [[f"{study.name}/figures"]])
    ids = [str(array.job) for array in (*active, *new) if array.kind == "runs"]
    after = {"dependency": f"afterany:{':'.join(ids)}", "kill-on-invalid-dep": "yes"} if ids else {}
    work = {"kind": "figures", "root": str(study.parent), "study": study.name}
    return str(sbatch.send(folder, profile, array, work, **after).job)


def _estimate(part: Part, rates: Rates) -> None:
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
