"""What Slurm knows of a study: which array was submitted for which runs, and how those tasks stand.

results/<study>/slurm/ holds one JSON record per array, written before Slurm is asked, so that nothing which
was accepted is forgotten. An array is found again by its name, which carries a random token: job ids repeat.
The queue costs one `squeue`, however many jobs; `sacct` is asked once, only about what `squeue` no longer
knows, and may well have no answer.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.disk import DamagedFile, read_json, write_json
from bench.errors import UserError
from bench.runs.records import FORMAT, ArrayRecord, check
from bench.text import one_line

TIMEOUT_S = 60
ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "TIMEOUT",
        "REVOKED",
    ]
)
_FIELDS = "%F|%K|%T|%r|%N|%j"  # array's id (or the job's), index, state, reason, nodes, name


@dataclass(frozen=True)
class Array:
    """A job array (or, with one task, a plain job) as submitted."""

    token: str
    kind: str  # "runs" or "figures"
    name: str  # Slurm's job name: the study and the token
    tasks: list[list[str]]  # per task: paths of its runs below the root of all results
    submitted: float  # seconds since the epoch
    job: str | None = None  # Slurm's id; None: asked for, and not known to have been accepted
    cancelled: bool = False

    def job_id(self, index: int) -> str:
        """The id of one task, as scontrol and scancel take it."""
        return f"{self.job}_{index}" if len(self.tasks) > 1 else str(self.job)


@dataclass(frozen=True)
class Entry:
    """How the newest task that was submitted for a run stands."""

    job: str  # as scontrol and scancel take it: "123_4"
    state: str  # Slurm's: PENDING, RUNNING, TIMEOUT, …
    reason: str  # Slurm's word for why it waits or ended; may be empty
    node: str
    log: Path

    @property
    def active(self) -> bool:
        """Whether the task waits, runs or is about to."""
        return self.state not in ENDED

    def __str__(self) -> str:
        """For a status line: "queued (Resources)", "running on n1", "OUT_OF_MEMORY: … (job 123_4)"."""
        cancelled = self.state == "CANCELLED"  # which keeps the reason for which the task had waited
        reason = f" ({self.reason})" if self.reason and not cancelled else ""
        if self.state == "PENDING":
            return f"queued{reason}"
        if self.active:
            return f"{self.state.lower()} on {self.node}" if self.node else self.state.lower()
        last = _last_error(self.log)
        return f"{self.state}{reason}{f': {last}' if last else ''} (job {self.job})"


def folder(root: Path, study: str) -> Path:
    """Where the cluster's side of a study lies: records, and the tasks' logs below logs/. Never in git."""
    return root / study / "slurm"


def new_array(folder: Path, kind: str, tasks: list[list[str]]) -> Array:
    """The record of an array that is about to be submitted."""
    token = secrets.token_hex(4)
    name = f"{folder.parent.name}.{token}"
    return Array(token=token, kind=kind, name=name, tasks=tasks, submitted=time.time())


def write_array(folder: Path, array: Array) -> None:
    """Write or replace the array's record. Raises OSError."""
    write_json(_record(folder, array), {"format": FORMAT, **asdict(array)}, "queue")


def remove_array(folder: Path, array: Array) -> None:
    """Forget an array that Slurm has refused."""
    _record(folder, array).unlink(missing_ok=True)


def _record(folder: Path, array: Array) -> Path:
    return folder / f"array-{array.token}.json"


def _read_arrays(folder: Path) -> list[Array]:
    """Every array submitted for the study, oldest first. UserError for a damaged record."""
    arrays = []
    for path in folder.glob("array-*.json"):
        try:
            arrays.append(_checked_array(read_json(path), path))
        except (DamagedFile, OSError) as error:
            raise UserError(f"{path} is damaged: {one_line(error)}; delete it if its jobs are gone") from None
    return sorted(arrays, key=lambda array: array.submitted)


def _checked_array(record: dict[str, Any], path: Path) -> Array:
    """The array in a record, with every field checked: they name files, and become arguments of Slurm's commands."""
    check(record, path.name, ArrayRecord)
    fields = {key: value for key, value in record.items() if key != "format"}
    if f"array-{fields['token']}.json" != path.name or not fields["name"].endswith(f".{fields['token']}"):
        raise DamagedFile(f"{path.name}: 'token' and 'name' are not those of this file")
    return Array(**fields)


def queue_state(root: Path, study: str, ask: Ask | None = None) -> dict[str, Entry]:
    """Per run (its path below `root`) how its newest task stands; runs that Slurm does not know are left out.

    The job that builds the figures has the path "<study>/figures". Asks Slurm only where something was
    submitted, and nothing where there is no squeue. UserError where it does not answer. `ask`: instead of
    `squeue`, for who has asked already.
    """
    return by_run(*survey(folder(root, study), ask))


Entries = dict[tuple[str, int], Entry]  # (token of an array, index of its task) -> how it stands
Known = dict[tuple[str, int], tuple[str, str, str, str]]  # (job name, index) -> (job, state, reason, node)
Ask = Callable[[], Known]


def by_run(arrays: list[Array], entries: Entries) -> dict[str, Entry]:
    """The entries by the run that each task was submitted for; the newest counts."""
    newest = {path: (a.token, k) for a in arrays for k, paths in enumerate(a.tasks) for path in paths}
    return {path: entries[task] for path, task in newest.items() if task in entries}


def survey(folder: Path, ask: Ask | None = None) -> tuple[list[Array], Entries]:
    """Every array of the study, oldest first, and how the tasks stand that Slurm remembers."""
    arrays = _read_arrays(folder)
    if not arrays or shutil.which("squeue") is None:
        return arrays, {}
    known = (ask or squeue)()
    gone = {a.job for a in arrays if a.job and not any((a.name, k) in known for k in range(len(a.tasks)))}
    if gone:
        known = _sacct(gone) | known
    entries: Entries = {}
    for i, array in enumerate(arrays):
        for k in range(len(array.tasks)):
            if (array.name, k) in known:
                job, state, reason, node = known[array.name, k]
                if array.cancelled and state == "COMPLETING":  # else it may be on its way back into the queue
                    state = "CANCELLED"
                arrays[i] = replace(array, job=job)
                task = arrays[i].job_id(k)
                log = folder / "logs" / f"{task}_0_log.out"
                entries[array.token, k] = Entry(task, state, reason, node, log)
    return arrays, entries


def squeue() -> Known:
    """This user's tasks that slurmctld still remembers, those that ended lately included."""
    who = ["--user", str(os.getuid())]
    text = run_slurm(["squeue", "--noheader", "--array", "--states=all", *who, f"--format={_FIELDS}"])
    known: Known = {}
    for line in text.splitlines():
        job, index, state, reason, node, name = line.strip().split("|", 5)
        reason = "" if reason in ("None", "NonZeroExitCode") else reason
        known[name, int(index) if index.isdigit() else 0] = (job, state, reason, node)
    return known


def _sacct(jobs: Iterable[str]) -> Known:
    """What the accounting database says of tasks that have ended, where there is one: none is no error, nor is a
    slow one. What it takes to be alive and squeue does not know was lost by the database, and has ended too.
    """
    fields = "JobID,State,NodeList,JobName"
    command = ["sacct", "--allocations", "--noheader", "--parsable2", f"--format={fields}"]
    try:
        text = run_slurm([*command, f"--jobs={','.join(sorted(jobs))}"])
    except UserError:
        return {}
    known: Known = {}
    for line in text.splitlines():
        job, state, node, name = line.strip().split("|", 3)
        match = re.fullmatch(r"(\d+)(?:_(\d+))?", job)  # "123_[4-9]" still waits, and squeue knows it
        word = state.split()[0] if state else ""  # of "CANCELLED by 1000"
        if match and word in ENDED:
            node = "" if node == "None assigned" else node
            known[name, int(match[2] or 0)] = (match[1], word, "", node)
    return known


def run_slurm(command: list[str]) -> str:
    """What a command of Slurm prints. UserError, in one line, where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S)
    except FileNotFoundError:
        raise UserError(
            f"there is no {command[0]} here: is this the login node of a Slurm cluster?"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"Slurm does not answer: {command[0]} took longer than {TIMEOUT_S} s") from None
    if done.returncode:
        raise UserError(f"Slurm does not answer: {one_line(done.stderr or done.stdout)}")
    return done.stdout


def _last_error(log: Path) -> str:
    """The last thing that Slurm itself wrote into a task's log, such as "Exceeded job memory limit"."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            tail = file.read().decode(errors="replace")
    except OSError:
        return ""
    said = re.findall(r"^slurmstepd\S*: error: (.*)$", tail, re.MULTILINE)
    return one_line(said[-1].strip("* "), 120) if said else ""
