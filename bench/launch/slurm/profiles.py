"""Cluster profiles: the resources that a study's jobs request from Slurm. One TOML file each, in slurm/profiles/.

`slurm/profiles/example-cpu.toml` explains the keys; only `time` has no default. `[algo.<name>]` and `[figures]` change
keys for one algorithm's runs and for the job that builds the figures. Mistakes are reported with file, key and reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msgspec import UNSET

from bench.errors import UserError, suggest
from bench.launch.slurm.profile_keys import Duration, ProfileFile, hint_for
from bench.shape import Mismatch, fit, read_toml

FOLDER = Path(__file__).parents[3] / "slurm" / "profiles"

# Slurm looks at the clock every 30 s, so the signal comes up to 30 s early, and a job that has no handler yet
# dies of it: at least this much time must pass between the start and the signal.
START_S = 45


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
    # further options, as sbatch calls them
    sbatch: Mapping[str, str | int | bool] = field(default_factory=dict)
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
        hint = hint_for(str(mismatch.place[-1])) if mismatch.unknown else ""
        raise UserError(f"{_short(file)}: {mismatch}{hint}") from None
    if read.time is UNSET:
        raise UserError(f'{_short(file)}: time is missing; how long may a task run? time = "02:00:00"')
    base = read.values()
    algos = {algo: _profile(file, base | own.values(), f"algo.{algo}") for algo, own in read.algo.items()}
    figures = None
    if read.figures is not None and read.figures.values():
        lean = {key: value for key, value in base.items() if key not in ("gpus", "gpu_type", "cpus")}
        figures = _profile(file, lean | read.figures.values(), "figures")
    return replace(_profile(file, base), algos=algos, figures=figures)


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
