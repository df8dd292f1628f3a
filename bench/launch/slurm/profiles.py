"""Cluster profiles: what a job of a study asks Slurm for. One TOML file each, in slurm/profiles/.

`slurm/profiles/example-cpu.toml` explains the keys; only `time` has no default. `[algo.<name>]` and `[figures]` change
keys for one algorithm's runs and for the job that builds the figures. Whatever is wrong in a file is said with the
file, the key and the reason.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.disk import parse_toml
from bench.errors import UserError, suggest
from bench.paths import expand

FOLDER = Path(__file__).parents[3] / "slurm" / "profiles"

# Slurm looks at the clock every 30 s, so the signal comes up to 30 s early, and a job that has no handler yet
# dies of it: at least this much time must pass between the start and the signal.
START_S = 45

# Options of sbatch that the suite sets itself or that would change what it reads; a profile must not set them.
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
    python: str | None = None  # shell words that start Python; None: the Python of this process
    srun: tuple[str, ...] = ()  # further arguments of srun
    sbatch: Mapping[str, str | int | bool] = field(
        default_factory=dict
    )  # further options, as sbatch calls them
    table: str = ""  # the table of the file whose keys come before the others: "algo.sdac", "figures"
    inherited: Mapping[str, str] = field(default_factory=dict)  # key -> its value from the environment
    algos: Mapping[str, Profile] = field(default_factory=dict)  # those that ask for something of their own
    figures: Profile | None = None  # of the job that builds the figures, where the file has such a table

    def for_algo(self, algo: str) -> Profile:
        """The profile of the runs of one algorithm."""
        return self.algos.get(algo, self)

    def for_figures(self) -> Profile:
        """The profile of the job that builds the figures: one core, no GPU, and 4 GB where memory is asked for."""
        if self.figures is not None:
            return self.figures
        options = {key: value for key, value in self.sbatch.items() if "gpu" not in f"{key} {value}".lower()}
        return replace(self, cpus=1, gpus=0, gpu_type=None, memory=self.memory and "4G", sbatch=options)

    def each(self, change: Callable[[Profile], Profile]) -> Profile:
        """The profile with `change` made to it and to all that are in it."""
        parts = {algo: change(part) for algo, part in self.algos.items()}
        return replace(change(self), algos=parts, figures=self.figures and change(self.figures))

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
        raw = _read(self.file)
        inner: Any = raw
        for name in self.table.split("."):
            inner = inner.get(name, {}) if name else {}
        if key in inner:
            return f"{_short(self.file)}: [{self.table}] {key} = {_toml(inner[key])}"
        if key in raw:
            return f"{_short(self.file)}: {key} = {_toml(raw[key])}"
        if key in self.inherited:
            return f"{key} = {_toml(self.inherited[key])} from your environment"
        return f"{_short(self.file)}: {key} is not set"


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
    tables = {key: raw.pop(key, {}) for key in ("algo", "figures")}
    base = _values(file, raw)
    if "time" not in base:
        raise UserError(f'{_short(file)}: time is missing; how long may a task run? time = "02:00:00"')
    algos = {}
    for algo, table in _table(file, "algo", tables["algo"]).items():
        own = _values(file, _table(file, f"algo.{algo}", table), f"algo.{algo}")
        algos[algo] = _profile(file, base | own, f"algo.{algo}")
    figures = None
    if table := _table(file, "figures", tables["figures"]):
        lean = {key: value for key, value in base.items() if key not in ("gpus", "gpu_type", "cpus")}
        figures = _profile(file, lean | _values(file, table, "figures"), "figures")
    return replace(_profile(file, base), algos=algos, figures=figures)


def _table(file: Path, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{_short(file)}: {name} = {_toml(value)}: must be a table of keys: [{name}]")
    return value


def _values(file: Path, raw: Mapping[str, Any], table: str = "") -> dict[str, Any]:
    """The checked keys of the file, or of one of its tables. UserError naming file, key and reason."""
    where = f"{_short(file)}: [{table}]" if table else f"{_short(file)}:"
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in KEYS:
            raise UserError(f"{where} unknown key {key!r}{_hint(key)}")
        try:
            values["time_min" if key == "time" else key] = KEYS[key](value)
        except ValueError as error:
            raise UserError(f"{where} {key} = {_toml(value)}: {error}") from None
    if "time_min" in values:
        values["time"] = raw["time"]
    return values


def _hint(key: str) -> str:
    option = key.replace("_", "-")
    if option in RESERVED:
        return "; the suite sets it itself: a task is one process on one node, and `cpus` are runs at once"
    if option in OWN:
        return f"; here it is called {OWN[option]!r}"
    close = suggest(key, KEYS)
    return close or f"; an option of sbatch stands below [sbatch]: {option} = ..."


def _profile(file: Path, values: Mapping[str, Any], table: str = "") -> Profile:
    values = dict(values)
    time = values.pop("time")
    profile = Profile(file=file, table=table, **values)
    longest = 60 * profile.time_min - START_S
    if profile.signal_delay > longest:
        raise UserError(
            f"{_short(file)}: signal_delay = {profile.signal_delay}: at most {longest} s with time = "
            f"{_toml(time)}, since a task needs {START_S} s before it can be warned of its end"
        )
    return profile


def with_defaults(profile: Profile, defaults: Mapping[str, str]) -> Profile:
    """The profile with the environment's word (`client.meant`) for the keys on which it is silent."""

    def complete(part: Profile) -> Profile:
        plain = ("partition", "account", "qos", "constraint")
        own = {key: value for key, value in defaults.items() if key in plain and getattr(part, key) is None}
        options = {key: value for key, value in defaults.items() if key not in (*plain, *part.sbatch)}
        return replace(part, **own, sbatch={**options, **part.sbatch}, inherited=own | options)  # type: ignore[arg-type]

    return profile.each(complete)


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
        name = key.replace("_", "-")
        if name in RESERVED:
            raise ValueError(f"{key!r} is set by the suite itself")
        if name in OWN:
            raise ValueError(f"{key!r} has a key of its own, above [sbatch]: {OWN[name]} = ...")
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
    "python": _text,
    "srun": _lines,
    "sbatch": _options,
}
