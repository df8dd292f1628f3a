"""The shape of every JSON file of a run, a study, a checkpoint and a job array, declared once.

`check` holds a record to its shape and hands it back as it was read, unknown fields included: newer code may add some.
docs/results.md explains the fields; a test holds its lists to these declarations.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, Struct

from bench.disk import DamagedFile, check_format
from bench.names import ENV_NAME, SAFE_NAME
from bench.shape import Mismatch, fit

FORMAT = 1  # of every file in a run directory; raised when old readers would misread what new writers write

LARGEST = 2**63 - 1
HEX = "[0-9a-f]{64}"
STATE = r"state-\d{1,18}(?:-\d{1,9})?\.pt"
SHARD = r"replay-(\d{1,18})-(\d{1,18})\.npy"

Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Number = (
    Annotated[float, Meta(gt=-(2.0**63), lt=2.0**63)]
    | Annotated[int, Meta(ge=-LARGEST, le=LARGEST, description="a number")]
)
Name = Annotated[str, Meta(pattern=rf"^{SAFE_NAME}\Z", description="a valid name")]
EnvName = Annotated[
    str, Meta(pattern=rf"^{ENV_NAME}\Z", max_length=200, description="a valid name of a task")
]
Digest = Annotated[str, Meta(pattern=rf"^{HEX}\Z", description="a SHA-256")]
StateFile = Annotated[str, Meta(pattern=rf"^{STATE}\Z", description="the name of a state file")]
Shard = Annotated[str, Meta(pattern=rf"^{SHARD}\Z", description="the name of a shard")]
RootId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z", description="16 hexadecimal digits")]
SlurmId = Annotated[str, Meta(pattern=r"^[0-9]+\Z", description="an id of Slurm's")]
Settings = dict[Name, bool | Number | str]


class Attempt(Struct):
    """One process that worked on a run, in run.json."""

    attempt: Count
    started: str
    resumed_at_step: Count
    execution: dict[str, Any]
    provenance: dict[str, Any]
    restarted: str | None = None


class RunRecord(Struct):
    """run.json."""

    format: int
    study: Name
    env: EnvName
    algo: Name
    label: Name
    seed: Count
    hash: Digest
    config: dict[str, Any]
    settings: Settings
    attempts: Annotated[list[Attempt], Meta(min_length=1)]
    family: Literal["dm_control", "gymnasium"] | None = None  # of the task; older runs have none
    title: str | None = None  # of the algorithm in tables; older runs have none


class Done(Struct, forbid_unknown_fields=True):
    """done.json: a seal covers it, so that it holds nothing else."""

    format: int
    outcome: Literal["done", "diverged"]
    env_step: Count
    files: dict[str, Digest]
    reason: str | None = None
    sha256: str | None = None  # the first runs of format 1 have none


class Failure(Struct):
    """failure.json."""

    format: int
    reason: str  # the traceback's last line
    attempt: Count | None = None
    time: str | None = None
    traceback: str | None = None


class Cell(Struct):
    """One run of the grid in study.json."""

    env: EnvName
    algo: Name
    label: Name
    seed: Count
    hash: Digest


class StudyRecord(Struct):
    """study.json."""

    format: int
    study: Name
    title: str
    settings: Settings
    grid: list[Cell]
    report: dict[str, Any] = {}  # the study file's table, of the shape studies/report.py's Choice


class Manifest(Struct):
    """checkpoint.json."""

    format: int
    hash: str
    env_step: Count
    state: StateFile
    shards: list[Shard]
    sha256: dict[str, Digest]
    csv_bytes: dict[str, Count]
    csv_sha256: dict[str, str]


class Owner(Struct):
    """owner.json: the process that may write the run directory."""

    token: str
    attempt: Count
    host: str
    boot_id: str
    pid: Count
    pid_namespace: str = ""
    start_ticks: Count | None = None
    scheduler: dict[str, Any] | None = None
    time: str = ""


class Heartbeat(Struct):
    """heartbeat.json: how far the owner is. A field is null where its number is unknown or not finite."""

    format: int
    env_step: Number | None = None
    steps: Number | None = None
    rate: Number | None = None
    last_return: Number | None = None
    eta_s: Number | None = None


class RootRecord(Struct):
    """.checkpoints.json of a results folder: its identity under a checkpoint root (checkpoint_places.py)."""

    format: int
    id: RootId
    earlier: list[RootId]
    path: str
    inode: Count


class RootMark(Struct):
    """results-folder.json of a folder under a checkpoint root: the results folder whose checkpoints lie there."""

    format: int
    results: str


class ArrayRecord(Struct, forbid_unknown_fields=True):
    """array-<token>.json: a job array as it was submitted."""

    format: int
    token: Name
    kind: Literal["runs", "figures"]
    name: Name
    tasks: list[list[str]]
    submitted: float
    job: SlurmId | None
    cancelled: bool


class Work(Struct):
    """work-<token>.json: what the tasks of a job array do."""

    format: int
    kind: Literal["runs", "figures"]
    root: str
    code_digest: str | None = None  # at submission
    options: dict[str, Any] = {}  # of LocalOptions, for kind "runs"
    tasks: list[list[list[dict[str, Any]]]] = []  # per task its packs of jobs, for kind "runs"
    study: str = ""  # for kind "figures"


class TaskMemory(Struct):
    """work-<token>-<index>.memory.json: what a task keeps from one attempt to the next."""

    format: int
    fruitless: Count


FILES: dict[str, type[Struct]] = {
    "run.json": RunRecord,
    "done.json": Done,
    "failure.json": Failure,
    "study.json": StudyRecord,
    "checkpoint.json": Manifest,
    "owner.json": Owner,
    "heartbeat.json": Heartbeat,
}

Record = TypeVar("Record", bound=dict[str, Any])


def check(record: Record, name: str, shape: type[Struct] | None = None) -> Record:
    """`record` as it is, if it has the shape of the file `name` (or `shape`) and a format that this code reads.

    Raises:
        DamagedFile: one line with the file, the field and what is wrong with it.
    """
    shape = shape or FILES[name]
    if "format" in shape.__struct_fields__:
        check_format(record, FORMAT, name)
    try:
        fit(record, shape, table="an object")
    except Mismatch as mismatch:
        raise DamagedFile(f"{name}: {mismatch}") from None
    return record
