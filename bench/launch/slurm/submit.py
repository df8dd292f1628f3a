"""Submit a study's packs to Slurm as job arrays, and cancel them. Nothing heavy runs here.

Submitting is idempotent: under a lock, runs that are finished, queued or running are left out. A task's
request is in profiles.py, its submission in sbatch.py, its work on a node in task.py, and its state in queue.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from bench.errors import UserError, suggest
from bench.launch.local.pool import LocalOptions
from bench.launch.rates import Rate
from bench.launch.slurm import arrays as records
from bench.launch.slurm import client, queue, sbatch
from bench.launch.slurm.arrays import Array
from bench.launch.slurm.profiles import Profile, with_defaults
from bench.launch.slurm.queue import Entries, Entry
from bench.launch.slurm.refusals import Refusal
from bench.launch.slurm.submission import Part, Submission, estimate
from bench.launch.slurm.task import work_of
from bench.runs import FINISHED, check_configuration, check_resumable, read_run
from bench.runs.ownership import locked
from bench.studies.job import Job
from bench.text import strerror

_GONE = r"already complet|Invalid job id"  # of a job that ended between the question and the request
REQUEUE_S = 10.0  # part of the warning time reserved for requeueing


class StudyLike(Protocol):
    @property
    def name(self) -> str: ...


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
    rates: Rate = lambda job, device: None,
) -> Submission:
    """Submit the runs of `packs` that are missing and not queued; with `dry` only report them.

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
        check_possible(root)
    with nullcontext() if dry else _alone(folder):
        arrays, entries = queue.survey(folder)
        submission = Submission(study.name, profile, dry=dry, notes=_notes(profile))
        wanted = _missing(root, packs, queue.by_run(arrays, entries), retry_failed, submission, execution)
        submission.parts = _parts(wanted, profile, execution, jobs_per_task)
        largest = sbatch.largest_array()
        if dry:
            for part in submission.parts:
                shown = records.new_array(folder, "runs", [])
                part.script = sbatch.script(folder, part.profile, shown, min(len(part.tasks), largest))
                estimate(part, rates)
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


def check_possible(root: Path) -> None:
    """UserError where nothing can be submitted from here, or not with results below `root`."""
    sbatch.need_slurm()
    if "%" in str(root.absolute()):  # a task whose log cannot be opened ends without a word
        raise UserError(
            f"RESULTS={root}: in the path of a log Slurm takes % for a pattern: name another folder"
        )


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
        device = _device(own, execution)
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
    execution: Mapping[str, str],
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
                own = submission.profile.for_algo(job.algo)
                check_resumable(root, job, run, _device(own, execution), own.checkpoints)
                kept.append(job)
        if kept:
            wanted.append(kept)
    return wanted


def _device(profile: Profile, execution: Mapping[str, str]) -> str:
    return execution["device"] or ("cuda" if profile.gpus else "cpu")


def _options(profile: Profile, execution: str, device: str) -> LocalOptions:
    """The pool of one task: as many packs at once as the profile has cores or GPUs for."""
    workers = profile.gpus * profile.jobs_per_gpu if profile.gpus else profile.cpus
    return LocalOptions(
        workers=workers,
        device=device,
        execution=execution,
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
        # it is only needed to tell a cancelled task from one that is requeued, for seconds
        with suppress(OSError):
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
