"""Which array was submitted for which runs: one JSON record per array in results/<study>/slurm/.

It is written before Slurm is asked, so that nothing which was accepted is forgotten. An array is found again by its
name, which carries a random token: job ids repeat.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.disk import DamagedFile, read_json, write_json
from bench.runs.records import FORMAT, ArrayRecord, Work, check
from bench.text import one_line


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


def folder(root: Path, study: str) -> Path:
    """The folder for a study's records of Slurm jobs, with the tasks' logs below logs/. Never in git."""
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
    for path in (_record(folder, array), work_file(folder, array.token), script_file(folder, array.token)):
        path.unlink(missing_ok=True)


def _record(folder: Path, array: Array) -> Path:
    return folder / f"array-{array.token}.json"


def work_file(folder: Path, token: str) -> Path:
    """The file with the work of an array's tasks: JSON, read by `bench.launch.slurm.start` on the nodes."""
    return folder / f"work-{token}.json"


def script_file(folder: Path, token: str) -> Path:
    """The batch script as it was submitted."""
    return folder / f"submit-{token}.sh"


def log_file(folder: Path, task: str) -> Path:
    """The output of the task with this id, all attempts one after the other."""
    return folder / "logs" / f"{task}_0_log.out"


def submitted_digest(folder: Path, array: Array) -> str | None:
    """The digest of the code at submission; None for arrays of older code."""
    with suppress(OSError, DamagedFile):
        file = work_file(folder, array.token)
        digest: str | None = check(read_json(file), file.name, Work).get("code_digest")
        return digest
    return None


def read_arrays(folder: Path) -> tuple[list[Array], list[str]]:
    """Every array submitted for the study, oldest first; and a line for each record that cannot be read."""
    arrays, problems = [], []
    for path in sorted(folder.glob("array-*.json")):
        try:
            arrays.append(_checked(read_json(path), path))
        except (DamagedFile, OSError) as error:
            problems.append(f"{path} is damaged: {one_line(error)}; delete it if its jobs are gone")
    return sorted(arrays, key=lambda array: array.submitted), problems


def _checked(record: dict[str, Any], path: Path) -> Array:
    """The array in a record, with every field checked: they name files, and become arguments of Slurm's commands."""
    check(record, path.name, ArrayRecord)
    fields = {key: value for key, value in record.items() if key != "format"}
    if f"array-{fields['token']}.json" != path.name or not fields["name"].endswith(f".{fields['token']}"):
        raise DamagedFile(f"{path.name}: 'token' and 'name' are not those of this file")
    return Array(**fields)
