"""The keys of a cluster profile: their declared shape, and hints for keys that it lacks."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from bench.errors import UserError, close_to
from bench.paths import expand

# Options of sbatch that the suite sets itself, or that would change the output it parses; not allowed in a profile.
RESERVED = frozenset(
    (
        *("array", "chdir", "cluster", "clusters", "dependency", "error", "export-file", "help", "job-name"),
        *("kill-on-invalid-dep", "nodes", "no-requeue", "ntasks", "ntasks-per-core", "ntasks-per-node"),
        *("open-mode", "output", "parsable", "quiet", "requeue", "signal", "test-only", "usage", "verbose"),
        *("version", "wait", "wrap"),
    )
)
# Options of sbatch that a key of the profile stands for.
OWN = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "time": "time",
    "mem": "memory",
    "cpus-per-task": "cpus",
    "gpus": "gpus",
    "gpus-per-node": "gpus",
    "gpus-per-task": "gpus",
    "gpus-per-socket": "gpus",
}


class Duration(int):
    """Minutes of "HH:MM:SS" or "D-HH:MM:SS", rounded up. Slurm's shorter forms are too easily misread."""

    text: str

    @classmethod
    def parse(cls, value: object) -> Duration:
        match = re.fullmatch(r"(?:(\d+)-)?(\d{1,3}):(\d\d):(\d\d)", value) if isinstance(value, str) else None
        if match is None:
            raise ValueError('must be "hours:minutes:seconds" or "days-hours:minutes:seconds"')
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        if total < 60:
            raise ValueError("must be at least one minute")
        made = cls(-(-total // 60))
        made.text = match[0]
        return made


class Text(str):
    """Text for one line of a job script."""

    @classmethod
    def parse(cls, value: object) -> Text:
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise ValueError("must be text in quotes, on one line and not empty")
        return cls(value)


class Folder(Text):
    """An absolute path; $VARIABLES and ~ are expanded when the profile is read."""

    @classmethod
    def parse(cls, value: object) -> Folder:
        try:
            path = expand(super().parse(value))
        except UserError as error:
            raise ValueError(f"cannot be used: {error}") from None
        if not os.path.isabs(path):
            raise ValueError("must be an absolute path that every node sees")
        return cls(path)


class Options(dict[str, str | int | bool]):
    """Options of sbatch that no key stands for."""

    @classmethod
    def parse(cls, value: object) -> Options:
        if not isinstance(value, dict):
            raise ValueError(
                'must be a table of sbatch\'s long options, like [sbatch] with exclude = "node7"'
            )
        for key, option in value.items():
            name = key.replace("_", "-")
            if name in RESERVED:
                raise ValueError(f"has {key!r}, which is set by the suite itself")
            if name in OWN:
                raise ValueError(
                    f"has {key!r}, which has a key of its own, above [sbatch]: {OWN[name]} = ..."
                )
            if not re.fullmatch(r"[a-z][a-z0-9_-]*", key) or not isinstance(option, str | int | bool):
                raise ValueError(
                    f"has {key!r}, which must be a long option of sbatch with text, a number or true"
                )
        return cls(value)


FromZero = Annotated[int, Meta(ge=0)]
FromOne = Annotated[int, Meta(ge=1)]
FromFive = Annotated[int, Meta(ge=5)]
Memory = Annotated[
    str,
    Meta(pattern=r"^[1-9]\d*[MG]\Z", description='whole megabytes or gigabytes, like "900M" or "4G"'),
]
Lines = Annotated[
    tuple[str, ...], Meta(description='a list of shell lines, like ["module load python/3.11"]')
]


class Keys(Struct, forbid_unknown_fields=True):
    """The keys of a profile, and of its tables for one algorithm and for the figures."""

    time: Duration | UnsetType = UNSET
    partition: Text | UnsetType = UNSET
    account: Text | UnsetType = UNSET
    qos: Text | UnsetType = UNSET
    constraint: Text | UnsetType = UNSET
    memory: Memory | UnsetType = UNSET
    cpus: FromOne | UnsetType = UNSET
    gpus: FromZero | UnsetType = UNSET
    gpu_type: Text | UnsetType = UNSET
    array_parallelism: FromOne | UnsetType = UNSET
    signal_delay: FromFive | UnsetType = UNSET
    setup: Lines | UnsetType = UNSET
    checkpoints: Folder | UnsetType = UNSET
    jobs_per_task: FromOne | UnsetType = UNSET
    jobs_per_gpu: FromOne | UnsetType = UNSET
    python: Text | UnsetType = UNSET
    srun: Lines | UnsetType = UNSET
    sbatch: Options | UnsetType = UNSET

    def values(self) -> dict[str, Any]:
        """Those that are set, as `Profile` has them."""
        found = {key: value for key in KEYS if (value := getattr(self, key)) is not UNSET}
        return found | {key: Path(value) for key, value in found.items() if isinstance(value, Folder)}


KEYS = Keys.__struct_fields__


class ProfileFile(Keys):
    """A profile."""

    algo: dict[str, Keys] = {}
    figures: Keys | None = None


def hint_for(key: str) -> str:
    """A hint for an unknown key that is not a misspelling of a known one."""
    if close_to(key, KEYS):
        return ""
    option = key.replace("_", "-")
    if option in RESERVED:
        return "; the suite sets it itself: a task is one process on one node, and `cpus` are runs at once"
    if option in OWN:
        return f"; here it is called {OWN[option]!r}"
    return f"; an option of sbatch stands below [sbatch]: {option} = ..."
