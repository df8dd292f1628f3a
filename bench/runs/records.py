"""The shape of every JSON file of a run, a study, a checkpoint and a job array, declared once.

`check` holds a record to its shape and hands it back as it was read, unknown fields included: newer code may add some.
docs/results.md explains the fields; a test holds its lists to these declarations.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from bench.disk import DamagedFile, check_format
from bench.names import ENV_NAME, SAFE_NAME
from bench.text import one_line

FORMAT = 1  # of every file in a run directory; raised when old readers would misread what new writers write

LARGEST = 2**63 - 1
HEX = "[0-9a-f]{64}"
JOB = "[0-9]+"
STATE = r"state-\d{1,18}(?:-\d{1,9})?\.pt"
SHARD = r"replay-(\d{1,18})-(\d{1,18})\.npy"

Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Number = Annotated[float, Meta(gt=-(2.0**63), lt=2.0**63)] | Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]
Name = Annotated[str, Meta(pattern=rf"^{SAFE_NAME}\Z")]
EnvName = Annotated[str, Meta(pattern=rf"^{ENV_NAME}\Z", max_length=200)]
Digest = Annotated[str, Meta(pattern=rf"^{HEX}\Z")]
Settings = dict[Name, bool | Number | str]

# What the pattern of a text means, for messages.
MEANINGS = {
    rf"^{SAFE_NAME}\Z": "a valid name",
    rf"^{ENV_NAME}\Z": "a valid name of a task",
    rf"^{HEX}\Z": "a SHA-256",
    rf"^{STATE}\Z": "the name of a state file",
    rf"^{SHARD}\Z": "the name of a shard",
    rf"^{JOB}\Z": "an id of Slurm's",
}


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
    family: Literal["dm_control", "gymnasium"] | None = (
        None  # of the task; runs from before 2026-11-26 have none
    )


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
    reason: str


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


class Manifest(Struct):
    """checkpoint.json."""

    format: int
    hash: str
    env_step: Count
    state: Annotated[str, Meta(pattern=rf"^{STATE}\Z")]
    shards: list[Annotated[str, Meta(pattern=rf"^{SHARD}\Z")]]
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


class RootRecord(Struct):
    """.checkpoints.json of a results folder: its identity under a checkpoint root (places.py)."""

    format: int
    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
    earlier: list[Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]]
    path: str
    inode: Count


class ArrayRecord(Struct, forbid_unknown_fields=True):
    """array-<token>.json: a job array as it was submitted."""

    format: int
    token: Name
    kind: Literal["runs", "figures"]
    name: Name
    tasks: list[list[str]]
    submitted: float
    job: Annotated[str, Meta(pattern=rf"^{JOB}\Z")] | None
    cancelled: bool


FILES: dict[str, type[Struct]] = {
    "run.json": RunRecord,
    "done.json": Done,
    "failure.json": Failure,
    "study.json": StudyRecord,
    "checkpoint.json": Manifest,
    "owner.json": Owner,
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
        msgspec.convert(record, shape)
    except msgspec.ValidationError as error:
        raise DamagedFile(f"{name}: {_reason(str(error), record)}") from None
    return record


def _reason(message: str, record: object) -> str:
    """msgspec's message in our words: `'attempts[0].attempt' must be a non-negative integer, not -1`."""
    text, _, place = message.partition(" - at ")
    in_key = place.startswith("`key` in ")
    place = place.removeprefix("`key` in ").strip("`").removeprefix("$").removeprefix(".")
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", text):
        return f"{'.'.join(filter(None, (place, missing[1])))!r} is missing"
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", text):
        return f"{one_line(unknown[1], 60)!r} is an unknown field"
    if in_key:
        return f"{place!r} has a key that is not {_expected(text)}"
    if place.endswith("[...]"):  # of a dictionary whose keys are free: msgspec does not say which
        return f"{place.removesuffix('[...]')!r} has a value that is not {_expected(text)}"
    if "length >= 1" in text:
        return f"{place!r} must not be empty"
    return f"{place!r} must be {_expected(text)}, not {one_line(repr(_value(record, place)), 60)}"


def _expected(text: str) -> str:
    """What a message of msgspec's asks for."""
    if pattern := re.search(r"matching regex (.*)", text):
        return next(
            (meaning for regex, meaning in MEANINGS.items() if repr(regex) == pattern[1]), "a valid text"
        )
    if re.match(r"Expected `int`( >= 0| <=|, got|$)", text):
        return "a non-negative integer"
    if text.startswith("Invalid enum value"):
        return "one of the known words"
    if "length <=" in text:
        return "shorter"
    kinds = {"str": "text", "object": "an object", "array": "a list", "null": "null"}
    wanted = re.match(r"Expected `([^`]*)`", text)
    words = [kinds.get(kind, "a number") for kind in wanted[1].split(" | ")] if wanted else ["something else"]
    return " or ".join(dict.fromkeys(words))


def _value(record: object, place: str) -> object:
    """What stands at `place`, such as `attempts[0].attempt`; keys of free dictionaries are written [...]."""
    found = record
    for step in re.findall(r"\w+|\[\.\.\.\]", place):
        if isinstance(found, dict) and step in found:
            found = found[step]
        elif isinstance(found, list) and step.isdigit():
            found = found[int(step)]
        else:
            return found
    return found
