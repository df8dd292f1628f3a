"""Cluster profiles: the resources that a study's jobs request from Slurm. One TOML file each, in slurm/profiles/.

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
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from bench.errors import UserError, suggest
from bench.paths import expand
from bench.shape import Mismatch, fit, read_toml

FOLDER = Path(__file__).parents[3] / "slurm" / "profiles"

# Slurm looks at the clock every 30 s, so the signal comes up to 30 s early, and a job that has no handler yet
# dies of it: at least this much time must pass between the start and the signal.
START_S = 45

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


@dataclass(frozen=True)
class Profile:
    """The request of one array task, and how a study is divided into tasks."""

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
        """The line of the file that sets a key, for a message: `slurm/profiles/local.toml: partition = "main"`."""
        raw = read_toml(self.file, _short(self.file))
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
    try:
        read = fit(read_toml(file, _short(file)), ProfileFile)
    except Mismatch as mismatch:
        hint = _hint(str(mismatch.place[-1])) if mismatch.unknown else ""
        raise UserError(f"{_short(file)}: {mismatch}{hint}") from None
    if read.time is UNSET:
        raise UserError(f'{_short(file)}: time is missing; how long may a task run? time = "02:00:00"')
    base = read.values()
    algos = {algo: _profile(file, base | own.values(), f"algo.{algo}") for algo, own in read.algo.items()}
    figures = None
    if read.figures is not None:
        lean = {key: value for key, value in base.items() if key not in ("gpus", "gpu_type", "cpus")}
        figures = _profile(file, lean | read.figures.values(), "figures")
    return replace(_profile(file, base), algos=algos, figures=figures)


def _hint(key: str) -> str:
    """A hint for an unknown key that is not a misspelling of a known one."""
    if suggest(key, KEYS):
        return ""
    option = key.replace("_", "-")
    if option in RESERVED:
        return "; the suite sets it itself: a task is one process on one node, and `cpus` are runs at once"
    if option in OWN:
        return f"; here it is called {OWN[option]!r}"
    return f"; an option of sbatch stands below [sbatch]: {option} = ..."


def _profile(file: Path, values: Mapping[str, Any], table: str = "") -> Profile:
    values = dict(values)
    time: Duration = values.pop("time")
    profile = Profile(file=file, table=table, time_min=time, **values)
    longest = 60 * profile.time_min - START_S
    if profile.signal_delay > longest:
        raise UserError(
            f"{_short(file)}: signal_delay = {profile.signal_delay}: at most {longest} s with time = "
            f"{_toml(time.text)}, since a task needs {START_S} s before it can be warned of its end"
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


def _short(file: Path) -> str:
    return os.path.relpath(file) if file.absolute().is_relative_to(Path.cwd()) else str(file)


def _toml(value: object) -> str:
    """On one line, as the file could have it (JSON's strings, numbers and lists are TOML's)."""
    return json.dumps(value, ensure_ascii=False, default=str)
