"""Submit a study's packs to Slurm as job arrays, through submitit; cancel them. Nothing heavy runs here.

What a task does on its node is in task.py, how the queue stands in queue.py, what a task asks for in profiles.py.
Submitting is idempotent: under a lock, runs that are finished, queued or running are left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import submitit
from submitit.core.utils import FailedJobError

from bench.errors import UserError
from bench.files import one_line, strerror
from bench.launch import queue
from bench.launch.profiles import Profile
from bench.launch.queue import Array, Entry
from bench.launch.task import Task
from bench.ownership import locked
from bench.runs import FINISHED, check_configuration, read_run
from bench.study import Job

DEFAULT_MAX_ARRAY = 1001  # Slurm's own
# Slurm's refusals, and the key of the profile that each is about; the first that matches counts.
REFUSALS = (
    (r"account", ["account"]),
    (r"\bqos\b", ["qos"]),
    (r"partition", ["partition"]),
    (r"memory|--mem", ["memory"]),
    (r"time limit|--time", ["time"]),
    (r"feature", ["constraint"]),
    (r"gres|generic resource", ["gpus"]),
    (r"cpu count|processors", ["cpus"]),
    (r"node configuration", ["cpus", "gpus", "memory", "constraint"]),
    (r"node name|reservation|licen[sc]e|unrecognized option|--[a-z]", ["sbatch"]),
)

Rates = Callable[
    [Job], float | None
]  # seconds that a run takes, alone in its process or pack; None: not known


class StudyLike(Protocol):
    @property
    def name(self) -> str: ...


@dataclass
class Submission:
    """What was submitted, or with DRY=1 would be."""

    profile: Profile
    tasks: list[list[list[Job]]]  # packs of each task
    finished: int = 0  # runs left out: done or diverged,
    queued: int = 0  # in the queue or running,
    busy: int = 0  # or written by a process that is not in the queue
    arrays: list[Array] = field(default_factory=list)
    figures: str | None = None  # id of the job that builds them
    script: str = ""  # with DRY=1: the batch script of the first array
    hours: float | None = None  # core- or GPU-hours of the runs with a known rate; None: there are none
    unrated: int = 0  # runs without one

    @property
    def runs(self) -> int:
        return sum(len(pack) for packs in self.tasks for pack in packs)

    def lines(self) -> Iterator[str]:
        """The report for the terminal."""
        if self.script:
            yield from self.script.rstrip().splitlines()
            yield ""
            for k, packs in enumerate(self.tasks):
                for pack in packs:
                    seeds = ",".join(str(job.seed) for job in pack)
                    yield f"task {k}: {pack[0].path.parent} seed{'s' * (len(pack) > 1)} {seeds}"
            yield self._estimate()
        verb = "would submit" if self.script else "submitted"
        what = f"{_count(self.runs, 'run')} in {_count(len(self.tasks), 'task')}"
        ids = ", ".join(str(array.job) for array in self.arrays)
        yield f"{verb} {what} with profile {self.profile.name}" + (f": job {ids}" if ids else "")
        for number, why in (
            (self.finished, "finished already"),
            (self.queued, "in the queue already"),
            (self.busy, "being written by a process that is not in the queue; repeat the command later"),
        ):
            if number:
                yield f"{_count(number, 'run')} {why}"
        if self.figures:
            yield f"figures: job {self.figures}, when they have ended"

    def _estimate(self) -> str:
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
    rates: Rates = lambda job: None,
) -> Submission:
    """Submit what is missing of `packs` and not in the queue; with `dry` only say what that would be.

    execution: {"mode", "device", "threads", "dtype"}, as bench.launch.worker.run takes it.
    jobs_per_task: packs in a task, in place of the profile's.
    figures: also submit a job that builds the study's figures when all its tasks have ended.
    Raises UserError: no Slurm here, a refusal (with the profile's key), a run that cannot be carried on.
    """
    if execution["device"].startswith("cuda") and not profile.gpus:
        raise UserError(f"DEVICE=cuda needs a profile with GPUs; {profile.setting('gpus')}")
    root, name = root.absolute(), study.name
    if not dry:
        _need_slurm()
    with nullcontext() if dry else _alone(root, name):
        arrays = queue.read_arrays(root, name)
        states = queue.tasks(root, name, arrays)
        submission = Submission(profile, [])
        wanted = _missing(root, packs, queue.by_run(arrays, states), submission)
        at_once = _at_once(profile, execution)
        size = max(jobs_per_task or profile.jobs_per_task, at_once)
        submission.tasks = [wanted[k : k + size] for k in range(0, len(wanted), size)]
        parts = _parts(submission.tasks)
        if dry:
            submission.script = _script(root, name, profile, len(parts[0])) if parts else ""
            _estimate(submission, at_once, rates)
            return submission
        for part in parts:
            work = [Task([_spec(root, pack, profile, execution) for pack in task], at_once) for task in part]
            paths = [[str(job.path) for pack in task for job in pack] for task in part]
            array = queue.new_array(name, "runs", paths)
            submission.arrays.append(_send(root, name, profile, array, work))
        if figures:
            submission.figures = _figures(root, name, profile, arrays, states, submission.arrays)
        return submission


def cancel(root: Path, study: str) -> int:
    """Cancel the study's queued and running tasks, and no others; how many there were. Raises UserError."""
    root = root.absolute()
    if not queue.folder(root, study).is_dir():
        return 0
    _need_slurm()
    with _alone(root, study):
        arrays = queue.read_arrays(root, study)
        states = queue.tasks(root, study, arrays)
        active = [array for array in arrays if _is_active(array, states)]
        _scancel(root, study, active, states)
        return sum(entry.active for entry in states.values())


def _need_slurm() -> None:
    for command in ("sbatch", "squeue", "scancel", "scontrol"):
        if shutil.which(command) is None:
            raise UserError(f"there is no {command} here: is this the login node of a Slurm cluster?")


@contextmanager
def _alone(root: Path, study: str) -> Iterator[None]:
    """Hold the lock of the study's records: two terminals submit one after the other."""
    folder = queue.folder(root, study)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            yield
    except OSError as error:
        raise UserError(f"{folder} cannot be used: {strerror(error)}") from error


def _missing(
    root: Path, packs: Sequence[Sequence[Job]], entries: Mapping[str, Entry], submission: Submission
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
            elif run.state == "running":
                submission.busy += 1
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


def _at_once(profile: Profile, execution: Mapping[str, Any]) -> int:
    """Packs that one task runs at the same time."""
    if profile.gpus:
        return profile.gpus * profile.jobs_per_gpu
    return max(1, profile.cpus // execution["threads"])


def _parts(tasks: list[list[list[Job]]]) -> list[list[list[list[Job]]]]:
    """The tasks of each array: no more than Slurm takes in one."""
    largest = DEFAULT_MAX_ARRAY
    if shutil.which("scontrol"):
        match = re.search(r"^MaxArraySize\s*=\s*(\d+)", queue.run_slurm(["scontrol", "show", "config"]), re.M)
        if match:
            largest = int(match[1])
    return [tasks[k : k + largest] for k in range(0, len(tasks), largest)]


def _spec(root: Path, pack: Sequence[Job], profile: Profile, execution: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "root": str(root),
        "jobs": [job.to_dict() for job in pack],
        "execution": dict(execution),
        "checkpoint_root": str(profile.checkpoints) if profile.checkpoints else None,
    }


class _Executor(submitit.SlurmExecutor):
    """Submitit's, that also shows its script where there is no Slurm."""

    @classmethod
    def affinity(cls) -> int:
        return 2

    def script(self, tasks: int) -> str:
        if tasks > 1:
            self.parameters["map_count"] = tasks
        return self._make_submission_file_text(self._submitit_command_str, "")


def _executor(root: Path, study: str, profile: Profile, name: str, **more: Any) -> _Executor:
    # How often a task may be requeued is decided by Task.checkpoint, from what its runs have achieved.
    executor = _Executor(queue.folder(root, study) / "logs", max_num_timeout=1_000_000)
    asked = {
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "mem": profile.memory,
        "gres": profile.gres,
        "setup": list(profile.setup) or None,
    }
    executor.update_parameters(
        job_name=name,
        time=profile.time_min,
        cpus_per_task=profile.cpus,
        signal_delay_s=profile.signal_delay,
        array_parallelism=profile.array_parallelism,
        stderr_to_stdout=True,
        additional_parameters={"requeue": True, **profile.sbatch, **more},
        **{key: value for key, value in asked.items() if value is not None},
    )
    return executor


def _script(root: Path, study: str, profile: Profile, tasks: int) -> str:
    return _executor(root, study, profile, queue.new_array(study, "runs", []).name).script(tasks)


def _send(
    root: Path, study: str, profile: Profile, array: Array, work: Sequence[Callable[[], Any]], **more: Any
) -> Array:
    """Submit an array; its record is there before, so that nothing that Slurm accepted is ever forgotten."""
    executor = _executor(root, study, profile, array.name, **more)
    queue.write_array(root, study, array)
    try:
        with _outside_any_job(), executor.batch():
            jobs = [executor.submit(function) for function in work]
    except FailedJobError as error:
        queue.remove_array(root, study, array)
        raise _refusal(str(error), profile) from None
    array = replace(array, job=jobs[0].job_id.split("_")[0])
    queue.write_array(root, study, array)
    return array


@contextmanager
def _outside_any_job() -> Iterator[None]:
    """Without the variables of a Slurm job that this command may run in; but the cluster stays the same."""
    cluster = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env():
        if cluster is not None:
            os.environ["SLURM_CONF"] = cluster
        yield


def _refusal(said: str, profile: Profile) -> UserError:
    """Slurm's words on one line, with the line of the profile that they are about."""
    lines = [re.sub(r"^sbatch: (error: )?(Batch job submission failed: )?", "", x) for x in said.splitlines()]
    text = "; ".join(line for line in lines if line and not line.startswith("Try "))
    keys = next((keys for pattern, keys in REFUSALS if re.search(pattern, text, re.IGNORECASE)), [])
    settings = [profile.setting(key) for key in keys]
    about = [setting for setting in settings if "is not set" not in setting] or settings[:1]
    return UserError(f"Slurm refuses: {one_line(text)} [{', '.join(about) or profile.file.name}]")


def _is_active(array: Array, states: Mapping[tuple[str, int], Entry]) -> bool:
    return any(states[array.token, k].active for k in range(len(array.tasks)) if (array.token, k) in states)


def _scancel(
    root: Path, study: str, arrays: Sequence[Array], states: Mapping[tuple[str, int], Entry]
) -> None:
    """Cancel whole arrays. Their ids are Slurm's own answer to their names: a recorded id may be out of use."""
    for array in arrays:
        queue.write_array(root, study, replace(array, cancelled=True))
    ids = [
        entry.job.split("_")[0] for (token, _), entry in states.items() if token in {a.token for a in arrays}
    ]
    if ids:
        queue.run_slurm(["scancel", *sorted(set(ids))])


class Figures:
    """What the job that builds the figures runs."""

    def __init__(self, root: Path, study: str):
        self.command = [sys.executable, "-m", "bench", "figures", f"STUDY={study}", f"RESULTS={root}"]

    def __call__(self) -> None:
        subprocess.run(self.command, check=True)


def _figures(
    root: Path,
    study: str,
    profile: Profile,
    before: Sequence[Array],
    states: Mapping[tuple[str, int], Entry],
    new: Sequence[Array],
) -> str:
    """Submit the job that builds the figures once every queued task has ended, well or not; its id.

    One that waits already does, unless there is something new to wait for: then it is replaced.
    """
    active = [array for array in before if _is_active(array, states)]
    waiting = [array for array in active if array.kind == "figures"]
    if waiting and not new:
        return str(waiting[-1].job)
    _scancel(root, study, waiting, states)
    array = queue.new_array(study, "figures", [[f"{study}/figures"]])
    ids = [array.job for array in (*active, *new) if array.kind == "runs" and array.job]
    after = {"dependency": f"afterany:{':'.join(ids)}", "kill-on-invalid-dep": "yes"} if ids else {}
    return str(_send(root, study, profile, array, [Figures(root, study)], **after).job)


def _estimate(submission: Submission, at_once: int, rates: Rates) -> None:
    """Hours that the allocations would be held: packs of a task share its cores or GPUs."""
    seconds = []
    for pack in (pack for packs in submission.tasks for pack in packs):
        known = [rate for job in pack if (rate := rates(job)) is not None]
        submission.unrated += len(pack) - len(known)
        if known:
            seconds.append(max(known))  # the seeds of a pack run in lock-step
    if seconds:
        width = submission.profile.gpus or submission.profile.cpus
        submission.hours = sum(seconds) * width / at_once / 3600


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
