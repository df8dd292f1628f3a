"""How the tasks of the submitted arrays stand, in Slurm's words.

The queue costs one `squeue`, however many studies, jobs and users: it is asked by the arrays' names. `sacct` is asked
once, only about what `squeue` no longer knows, and may well have no answer. A line that does not parse is skipped.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, replace
from pathlib import Path

from bench.errors import UserError
from bench.launch.slurm import client
from bench.launch.slurm.arrays import Array, log_file, read_arrays
from bench.text import one_line

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
_SQUEUE = re.compile(r"(\d+)\|(\d+|N/A)\|([A-Z_]+)\|([^|]*)\|([^|]*)\|(.+)")
_SACCT = re.compile(
    r"(\d+)(?:_(\d+))?\|([A-Z_]+)[^|]*\|([^|]*)\|(.+)"
)  # "123_[4-9]" still waits: squeue knows it
_PLAIN = re.compile(r"[\w.=+@-]+")  # a comma parts the names that squeue is given
_LONGEST = 60_000  # characters of one argument; the system takes 128 KiB


@dataclass(frozen=True)
class Entry:
    """The state of one task."""

    job: str  # as scontrol and scancel take it: "123_4"
    state: str  # Slurm's: PENDING, RUNNING, TIMEOUT, …; "" where Slurm no longer knows it
    reason: str  # Slurm's word for why it waits or ended; may be empty
    node: str
    log: Path

    @property
    def active(self) -> bool:
        """Whether the task waits, runs or is about to."""
        return bool(self.state) and self.state not in ENDED

    @property
    def waits(self) -> bool:
        """Whether the task waits in the queue."""
        return self.state in (
            "PENDING",
            "REQUEUED",
            "REQUEUE_HOLD",
            "SUSPENDED",
            "RESV_DEL_HOLD",
            "SPECIAL_EXIT",
        )

    def __str__(self) -> str:
        """ "queued (Resources)", "running on n1", or of a task that has ended "OUT_OF_MEMORY: <its last words>"."""
        cancelled = self.state == "CANCELLED"  # which keeps the reason for which the task had waited
        reason = f" ({self.reason})" if self.reason and not cancelled else ""
        if self.state == "PENDING":
            return f"queued{reason}"
        if self.active:
            return f"{self.state.lower()} on {self.node}" if self.node else self.state.lower()
        last = last_words(self.log).removeprefix(self.state)  # "CANCELLED DUE TO TIME LIMIT"
        state = self.state or "no longer known to Slurm"
        return f"{state}{reason}{f': {last.strip()}' if last.strip() else ''}"


Entries = dict[tuple[str, int], Entry]  # (token of an array, index of its task) -> its state
Known = dict[tuple[str, int], tuple[str, str, str, str]]  # (job name, index) -> (job, state, reason, node)


@dataclass(frozen=True)
class Answer:
    """What Slurm knows of some arrays. problem: one line saying why that may be incomplete, else ""."""

    known: Known
    problem: str = ""


Ask = Callable[[list[Array]], Answer]


def ask_slurm(arrays: list[Array], unfinished: Set[str] | None = None) -> Answer:
    """What Slurm knows of these arrays, of all studies at once. Never raises, and asks nothing without need.

    unfinished: paths of the runs that an answer matters for; only about them the accounting database is asked.
    """
    if not arrays or shutil.which("squeue") is None:
        return Answer({})
    try:
        known = _squeue(arrays)
    except UserError as error:
        return Answer({}, str(error))
    gone = {
        array.job
        for array in arrays
        for k, paths in enumerate(array.tasks)
        if array.job
        and (array.name, k) not in known
        and (unfinished is None or not unfinished.isdisjoint(paths))
    }
    return Answer(_sacct(gone) | known if gone else known)


def survey(folder: Path) -> tuple[list[Array], Entries]:
    """Every array of the study, oldest first, and how the tasks stand that Slurm remembers.

    Raises UserError if Slurm does not answer or a record is damaged, since the queue is then unknown.
    """
    arrays, problems = read_arrays(folder)
    answer = ask_slurm(arrays)
    for problem in (*problems, answer.problem):
        if problem:
            raise UserError(problem)
    return entries_of(folder, arrays, answer)


def entries_of(folder: Path, arrays: list[Array], answer: Answer) -> tuple[list[Array], Entries]:
    """The arrays, with the ids that Slurm gave them, and how those of their tasks stand that it knows."""
    entries: Entries = {}
    arrays = list(arrays)
    for i, array in enumerate(arrays):
        for k in range(len(array.tasks)):
            if (array.name, k) in answer.known:
                job, state, reason, node = answer.known[array.name, k]
                if array.cancelled and state == "COMPLETING":  # otherwise it may be being requeued
                    state = "CANCELLED"
                arrays[i] = replace(array, job=job)
                task = arrays[i].job_id(k)
                entries[array.token, k] = Entry(task, state, reason, node, log_file(folder, task))
    return arrays, entries


def by_run(arrays: list[Array], entries: Entries) -> dict[str, Entry]:
    """Per run (its path below the results) the state of its task: an active one, else the newest.

    Runs that Slurm does not know are left out. The job that builds the figures has the path "<study>/figures".
    """
    found: dict[str, Entry] = {}
    for array in arrays:
        for k, paths in enumerate(array.tasks):
            entry = entries.get((array.token, k))
            for path in paths:
                if path in found and found[path].active and not (entry and entry.active):
                    continue
                found.pop(path, None)
                if entry is not None:
                    found[path] = entry
    return found


def forgotten(folder: Path, arrays: list[Array], entries: Entries) -> dict[str, Entry]:
    """Per run its newest task with an id, where Slurm does not know that task (any more): its log is still there."""
    found: dict[str, Entry] = {}
    for array in arrays:
        for k, paths in enumerate(array.tasks):
            for path in paths:
                found.pop(path, None)
                if array.job and (array.token, k) not in entries:
                    task = array.job_id(k)
                    found[path] = Entry(task, "", "", "", log_file(folder, task))
    return found


def _squeue(arrays: list[Array]) -> Known:
    """The tasks of these arrays that slurmctld remembers, of any user, including those that ended lately."""
    names = ",".join(array.name for array in arrays)
    plain = len(names) < _LONGEST and all(_PLAIN.fullmatch(array.name) for array in arrays)
    which = [f"--name={names}"] if plain else []  # else everybody's jobs
    text = client.ask(["squeue", "--noheader", "--array", "--states=all", *which, f"--format={_FIELDS}"])
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("CLUSTER:")]
    matches = [match for line in lines if (match := _SQUEUE.fullmatch(line))]
    if lines and not matches:
        raise client.NoAnswer(f"Slurm does not answer: squeue printed {one_line(' '.join(lines), 200)!r}")
    known: Known = {}
    for job, index, state, reason, node, name in (match.groups() for match in matches):
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
        text = client.ask([*command, f"--jobs={','.join(sorted(jobs))}"])
    except UserError:
        return {}
    known: Known = {}
    for line in text.splitlines():
        if match := _SACCT.fullmatch(line.strip()):
            job, index, word, node, name = match.groups()  # the word of "CANCELLED by 1000"
            if word in ENDED:
                node = "" if node == "None assigned" else node
                known[name, int(index or 0)] = (job, word, "", node)
    return known


# Lines of srun and Python that follow the informative ones.
_NOISE = re.compile(
    r"srun: (error: .*(Exited with exit code|: task \d+: )|Terminating|Job step|launch/slurm|Force Term)|\s*$|\^+$|=+$"
)


# Parts that differ between tasks and times; with them, a thousand tasks would make a thousand different lines.
_OWN = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d |(?:JOB|STEP) [\d.]+ ON \S+ | AT \d{4}-\d\d-\d\dT\S+")


def last_words(log: Path) -> str:
    """The last line in a task's log that says something: Slurm's own error, if there is one, else the task's."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            tail = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [_OWN.sub("", line) for line in tail.splitlines() if not _NOISE.match(line)][-8:]
    said = [
        match[1].strip("* ") for line in lines if (match := re.match(r"slurmstepd\S*: error: (.*)", line))
    ]
    causes = [words for words in said if not words.startswith("CANCELLED")]  # of which that is the effect
    plain = [words for words in causes if "StepId=" not in words]
    return one_line((plain or causes or said or lines or [""])[-1], 160)
