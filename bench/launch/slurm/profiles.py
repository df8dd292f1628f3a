"""Cluster profiles: what a job of a study asks Slurm for. One TOML file each, in slurm/profiles/.

`slurm/profiles/example-cpu.toml` explains the keys; only `time` has no default. Whatever is wrong in a file
is said with the file, the key and the reason.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.disk import parse_toml
from bench.errors import UserError, suggest
from bench.paths import expand

FOLDER = Path(__file__).parents[3] / "slurm" / "profiles"

# Slurm looks at the clock every 30 s, so the signal comes up to 30 s early, and a job that has no handler yet
# dies of it: at least this much time must pass between the start and the signal.
START_S = 45

# Options of sbatch that the suite sets itself; a profile must not change them under it.
RESERVED = (
    *(
        "array",
        "chdir",
        "dependency",
        "error",
        "job-name",
        "kill-on-invalid-dep",
        "nodes",
        "no-requeue",
        "ntasks",
    ),
    *("ntasks-per-node", "open-mode", "output", "requeue", "signal", "wrap"),
)


@dataclass(frozen=True)
class Profile:
    """What one array task asks for, and how a study is cut into tasks."""

    file: Path
    time_min: int  # key `time`: minutes until Slurm ends the task, which then goes on in a new attempt
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    memory: str | None = None  # per task, in Slurm's notation: "900M", "4G"
    cpus: int = 1
    gpus: int = 0
    gpu_type: str | None = None
    array_parallelism: int = 256  # tasks of one array that run at once
    signal_delay: int = 120  # seconds between the warning and the end of the time
    setup: tuple[str, ...] = ()  # lines of shell before the job starts
    checkpoints: Path | None = None  # scratch folder that every node sees; None: inside the run directory
    jobs_per_task: int = 1  # packs that one task runs one after the other
    jobs_per_gpu: int = 1  # packs that share a GPU at the same time
    sbatch: Mapping[str, str | int | bool] = field(
        default_factory=dict
    )  # further options, as sbatch calls them

    @property
    def name(self) -> str:
        return self.file.stem

    @property
    def gres(self) -> str | None:
        """The GPUs in Slurm's notation: "gpu:a100:2"."""
        kind = f"{self.gpu_type}:" if self.gpu_type else ""
        return f"gpu:{kind}{self.gpus}" if self.gpus else None

    def setting(self, key: str) -> str:
        """Where a key stands, for a message: `slurm/profiles/local.toml: partition = "main"`."""
        raw = _read(self.file).get(key)
        return (
            f"{_short(self.file)}: {key} = {_toml(raw)}"
            if raw is not None
            else f"{_short(self.file)}: {key} is not set"
        )


def load_profile(name: str, folder: Path = FOLDER) -> Profile:
    """The profile `name` of `folder`, or the file that `name` is a path to.

    Raises UserError naming file, key and reason.
    """
    file = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    if not file.is_file():
        raise UserError(
            f"no cluster profile {name!r} (looked for {_short(file)})"
            + suggest(name, (path.stem for path in folder.glob("*.toml")))
        )
    raw = _read(file)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in KEYS:
            raise UserError(f"{_short(file)}: unknown key {key!r}{suggest(key, KEYS)}")
        try:
            values[key] = KEYS[key](value)
        except ValueError as error:
            raise UserError(f"{_short(file)}: {key} = {_toml(value)}: {error}") from None
    if "time" not in values:
        raise UserError(f'{_short(file)}: time is missing; how long may a task run? time = "02:00:00"')
    values["time_min"] = values.pop("time")
    profile = Profile(file=file, **values)
    longest = 60 * profile.time_min - START_S
    if profile.signal_delay > longest:
        raise UserError(
            f"{_short(file)}: signal_delay = {profile.signal_delay}: at most {longest} s with time = "
            f"{_toml(raw['time'])}, since a task needs {START_S} s before it can be told of its end"
        )
    return profile


def _read(file: Path) -> dict[str, Any]:
    try:
        return parse_toml(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{_short(file)}: not valid TOML: {error}") from None
    except OSError as error:
        raise UserError(f"{_short(file)}: cannot be read: {error}") from None


def _short(file: Path) -> str:
    return os.path.relpath(file) if file.absolute().is_relative_to(Path.cwd()) else str(file)


def _toml(value: object) -> str:
    """On one line, as the file could have it (JSON's strings, numbers and lists are TOML's)."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("must be text in quotes, on one line and not empty")
    return value


def _count(minimum: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if type(value) is not int or value < minimum:
            raise ValueError(f"must be a whole number, at least {minimum}")
        return value

    return check


def _time(value: object) -> int:
    """Minutes of "HH:MM:SS" or "D-HH:MM:SS", rounded up. Slurm's shorter forms are too easily misread."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d{1,3}):(\d\d):(\d\d)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('must be "hours:minutes:seconds" or "days-hours:minutes:seconds"')
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total < 60:
        raise ValueError("must be at least one minute")
    return -(-total // 60)


def _memory(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[1-9]\d*[MG]", value):
        raise ValueError('must be whole megabytes or gigabytes, like "900M" or "4G"')
    return value


def _lines(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise ValueError('must be a list of shell lines, like ["module load python/3.11"]')
    return tuple(value)


def _folder(value: object) -> Path:
    try:
        path = expand(_text(value))
    except UserError as error:
        raise ValueError(str(error)) from None
    if not os.path.isabs(path):
        raise ValueError("must be an absolute path that every node sees")
    return Path(path)


def _options(value: object) -> dict[str, str | int | bool]:
    if not isinstance(value, dict):
        raise ValueError('must be a table of sbatch\'s long options, like [sbatch] with exclude = "node7"')
    for key, option in value.items():
        if key.replace("_", "-") in RESERVED:
            raise ValueError(f"{key!r} is set by the suite itself")
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", key) or not isinstance(option, str | int | bool):
            raise ValueError(f"{key!r} must be a long option of sbatch with text, a number or true")
    return value


KEYS: dict[str, Callable[[object], Any]] = {
    "time": _time,
    "partition": _text,
    "account": _text,
    "qos": _text,
    "constraint": _text,
    "memory": _memory,
    "cpus": _count(1),
    "gpus": _count(0),
    "gpu_type": _text,
    "array_parallelism": _count(1),
    "signal_delay": _count(5),
    "setup": _lines,
    "checkpoints": _folder,
    "jobs_per_task": _count(1),
    "jobs_per_gpu": _count(1),
    "sbatch": _options,
}
