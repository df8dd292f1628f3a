"""A Study is a grid of algorithms, environments and seeds; it expands to immutable Jobs with stable identities.

A study file (bench/studies/*.toml, or a path of your own) has the keys of `SCHEMA`; docs/studies.md explains them. What
measures something else (steps, evaluation, action repeat) belongs to the study and shows in its folder's name; what
changes an algorithm belongs to a variant and shows in its label.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from bench.config import (
    Overrides,
    algorithm_config,
    canonical,
    parse_overrides,
    recorded,
    settable,
    whole_number,
)
from bench.errors import UserError, suggest

STUDIES = Path(__file__).parent / "studies"
SCHEMA = ("title", "algos", "envs", "seeds", "run", "config", "algo", "env")
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=+-]*")
LONGEST_LABEL = (
    150  # the name of a job's log holds more than its label, and a file's name has 255 bytes at most
)
MAX_SEEDS = 10_000
MAX_COUNT = 10**15  # of steps, transitions or episodes: a typing mistake rather than a plan


@dataclass(frozen=True)
class RunSettings:
    """How a run is carried out and evaluated. Steps are environment steps (frames): agent steps x action repeat."""

    steps: int = 1_000_000  # random ones included
    random_steps: int = 10_000  # uniform actions first; updates start after them
    eval_every: int = 10_000
    eval_episodes: int = 10
    eval_mode: str = (
        "authors"  # each algorithm by its own authors' convention; or "sample" or "greedy" for all
    )
    action_repeat: int = 1
    replay_size: int = 1_000_000  # transitions
    final_episodes: int = 10  # with the final policy, under each mode; 0: none

    def __post_init__(self) -> None:
        """Raises ValueError for a value that no run can have."""
        for name in ("steps", "eval_every", "eval_episodes", "action_repeat", "replay_size"):
            self._require(name, 1)
        for name in ("random_steps", "final_episodes"):
            self._require(name, 0)
        if self.eval_mode not in ("authors", "sample", "greedy"):
            raise ValueError(f"eval_mode = {self.eval_mode!r}: expected authors, sample or greedy")
        for name in ("steps", "random_steps", "eval_every"):
            if getattr(self, name) % self.action_repeat:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: not a multiple of action_repeat = {self.action_repeat}"
                )

    def _require(self, name: str, least: int) -> None:
        if not least <= getattr(self, name) <= MAX_COUNT:
            raise ValueError(f"{name} = {getattr(self, name)}: expected a whole number from {least} on")


@dataclass(frozen=True)
class Job:
    """One seed of one cell of a study's grid."""

    study: str
    env: str
    algo: str
    label: str
    seed: int
    config: Mapping[str, Any]
    settings: RunSettings

    @property
    def path(self) -> PurePosixPath:
        """Of the run directory, below the root of all results."""
        return PurePosixPath(self.study, self.env.replace("/", "_"), self.label, f"seed-{self.seed}")

    @property
    def cell(self) -> tuple[str, str, str]:
        return self.study, self.env, self.label

    def identity(self) -> dict[str, Any]:
        """What is measured: not the device, the execution or the pack."""
        return {
            "env": self.env,
            "algo": self.algo,
            "config": dict(self.config),
            "settings": dataclasses.asdict(self.settings),
            "seed": self.seed,
        }

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON of `identity()`."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {**self.identity(), "study": self.study, "label": self.label}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Job:
        return cls(**{**record, "settings": RunSettings(**record["settings"])})


@dataclass(frozen=True)
class Study:
    """A grid, read from a file and changed by the command line. `name` is its folder below the results."""

    name: str
    title: str
    algos: tuple[str, ...]  # as the user writes them: "qsm", "qsm:M_q=120,T=20"
    envs: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: RunSettings
    config: Overrides = field(default_factory=dict)  # for every algorithm that has the field
    algo: Mapping[str, Overrides] = field(default_factory=dict)
    env: Mapping[str, Mapping[str, Overrides]] = field(default_factory=dict)

    def jobs(self) -> list[Job]:
        """Every job, seed by seed across environments and algorithms, so that an unfinished grid is balanced.

        Raises:
            UserError: an unknown algorithm or task, or an override that the algorithm does not take.
        """
        from bench import envs

        for name in self.envs:
            envs.spec(name)
        cells = list(dict.fromkeys(self._cells()))
        folders = Counter((env.replace("/", "_"), label) for env, _, label, _ in cells)
        for (env, label), count in folders.items():
            if count > 1:
                raise UserError(f"{count} different runs would share the folder {env}/{label}")
        return [
            Job(self.name, env, algo, label, seed, json.loads(config), self.settings)
            for seed in self.seeds
            for env, algo, label, config in cells
        ]

    def _cells(self) -> Iterator[tuple[str, str, str, str]]:
        """(environment, algorithm, label, full configuration as canonical JSON)."""
        for env in self.envs:
            for spec in self.algos:
                algo, own = parse_overrides(spec)
                config = self.base_config(algo, env, own)
                yield env, algo, self._label(algo, own), json.dumps(recorded(algo, config), sort_keys=True)

    def base_config(self, algo: str, env: str, own: Overrides | None = None) -> dict[str, Any]:
        """An algorithm's full configuration on a task (or "") in this study, the special over the general.

        own: a variant's overrides. The critic among them brings its own defaults, over which the study's settings go.
        """
        special = {**self.algo.get(algo, {}), **self.env.get(env, {}).get(algo, {}), **(own or {})}
        fields = settable(algo, {**self.config, **special}.get("critic"))
        common = {key: value for key, value in self.config.items() if key in fields}
        return algorithm_config(algo, {**common, **special})

    def _label(self, algo: str, own: Overrides) -> str:
        """The algorithm and its overrides, sorted; one that changes nothing anywhere in the study is dropped.

        It does not depend on the environments that were asked for: they may be asked for one by one.
        """
        full = self.base_config(algo, "", own)

        def changes(key: str) -> bool:
            chosen = {} if key == "critic" else {k: v for k, v in own.items() if k == "critic"}
            return any(self.base_config(algo, env, chosen)[key] != full[key] for env in ("", *self.env))

        kept = {key: full[key] for key in own if changes(key)}
        label = "-".join([algo, *(f"{key}={canonical(kept[key])}" for key in sorted(kept))])
        if not SAFE.fullmatch(label) or len(label) > LONGEST_LABEL:
            allowed = f"use letters, digits and _ . = + - only, at most {LONGEST_LABEL}"
            raise UserError(f"{label!r} cannot name a folder: {allowed}")
        return label

    def to_dict(self) -> dict[str, Any]:
        """What study.json records beside the grid."""
        return {"title": self.title, "settings": dataclasses.asdict(self.settings)}


T = TypeVar("T")


def study_names() -> list[str]:
    return sorted(path.stem for path in STUDIES.glob("*.toml"))


def load_study(name: str) -> Study:
    """The study of that name, or in the file of that path.

    Raises:
        UserError: there is none, or the file has a mistake (file, key and reason).
    """
    path = Path(name) if name.endswith(".toml") else STUDIES / f"{name}.toml"
    if not path.is_file():
        if path.suffix == ".toml" and path.parent != STUDIES:
            raise UserError(f"no study file {name}")
        raise UserError(f"no study {name!r}{suggest(name, study_names())}")
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name}: not valid TOML: {error}") from None
    except OSError as error:
        raise UserError(f"{path.name}: cannot be read: {error.strerror}") from None
    if not SAFE.fullmatch(path.stem):
        raise UserError(f"{path.name}: a study's name may have letters, digits and _ . = + - only")
    return _read(record, path)


class _Mistake(Exception):
    """In a study file: at which key, and why."""


def _read(record: dict[str, Any], path: Path) -> Study:
    try:
        return _checked(record, path.stem)
    except _Mistake as mistake:
        key, reason = mistake.args
        raise UserError(f"{path.name}: {key}: {reason}") from None


def _at(key: str, function: Callable[..., T], *arguments: Any) -> T:
    """What `function` returns; its UserError becomes a `_Mistake` at `key`."""
    try:
        return function(*arguments)
    except UserError as error:
        raise _Mistake(key, error) from None


def _checked(record: dict[str, Any], name: str) -> Study:
    for key in record:
        if key not in SCHEMA:
            raise _Mistake(key, f"no such key{suggest(key, SCHEMA)}")
    for key in ("algos", "envs", "seeds"):
        if key not in record:
            raise _Mistake(key, "missing")
    for key in ("algos", "envs"):
        value = record[key]
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise _Mistake(key, f"expected a list of names, not {value!r}")
    for key in ("run", "config", "algo", "env"):
        _table(key, record.get(key, {}))
    if not isinstance(record.get("title", ""), str):
        raise _Mistake("title", "expected text in quotes")
    study = Study(
        name=name,
        title=record.get("title", name),
        algos=tuple(record["algos"]),
        envs=tuple(record["envs"]),
        seeds=_at("seeds", _seeds, record["seeds"]),
        settings=_at("run", _settings, RunSettings(), record.get("run", {})),
        config=record.get("config", {}),
        algo=record.get("algo", {}),
        env=record.get("env", {}),
    )
    _check_tables(study)
    return study


def _table(key: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise _Mistake(key, f"expected a table, not {value!r}")


def _check_tables(study: Study) -> None:
    """Everything in the lists, [config], [algo.*] and [env.*.*] must mean something to somebody."""
    from bench import envs

    for env in study.envs:
        _at("envs", envs.check_name, env)
    fields = {algo: settable(algo) for algo, _ in (_at("algos", parse_overrides, s) for s in study.algos)}
    for key in study.config:
        if not any(key in known for known in fields.values()):
            close = suggest(key, set().union(*fields.values()))
            raise _Mistake(f"config.{key}", f"no algorithm here has it{close}")
    for algo, known in fields.items():
        _at("config", algorithm_config, algo, {k: v for k, v in study.config.items() if k in known})
    for algo, table in study.algo.items():
        _table(f"algo.{algo}", table)
        _at(f"algo.{algo}", study.base_config, algo, "")
    for env, tables in study.env.items():
        _at(f"env.{env}", envs.check_name, env)
        _table(f"env.{env}", tables)
        for algo, table in tables.items():
            _table(f"env.{env}.{algo}", table)
            _at(f"env.{env}.{algo}", study.base_config, algo, env)


def override(
    study: Study,
    *,
    algos: str = "",
    envs: str = "",
    seeds: str = "",
    steps: str = "",
    settings: str = "",
) -> Study:
    """A study changed by what the command line says; the empty string changes nothing.

    settings: "eval_every=5000 eval_episodes=3", any field of `RunSettings`. Where the settings differ from the study's
    own, its name says so ("quick-steps=5000"), since other numbers come out.
    """
    changes = dict(_pair(word) for word in settings.replace(",", " ").split())
    if steps:
        changes["steps"] = steps
    new = _settings(study.settings, {key: _number(key, value) for key, value in changes.items()})
    before, after = dataclasses.asdict(study.settings), dataclasses.asdict(new)
    suffix = [f"{key}={canonical(after[key])}" for key in sorted(after) if after[key] != before[key]]
    return dataclasses.replace(
        study,
        name="-".join([study.name, *suffix]),
        algos=tuple(algos.split()) or study.algos,
        envs=tuple(envs.replace(",", " ").split()) or study.envs,
        seeds=_seeds(_seed_words(seeds)) if seeds else study.seeds,
        settings=new,
    )


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise UserError(f"{word!r}: expected name=value, for instance eval_every=5000")
    return key, value


def _number(key: str, value: Any) -> Any:
    if not isinstance(value, str) or key == "eval_mode":
        return value
    try:
        return whole_number(value)
    except (ValueError, OverflowError):
        name = "STEPS" if key == "steps" else key
        raise UserError(f"{name}={value}: expected a whole number such as 100000 or 1e5") from None


def _settings(base: RunSettings, changes: Mapping[str, Any]) -> RunSettings:
    fields = {f.name: f for f in dataclasses.fields(RunSettings)}
    values = dict(changes)
    for key, value in changes.items():
        if key not in fields:
            raise UserError(f"no setting {key!r} of a run{suggest(key, fields)}")
        expected = type(fields[key].default)
        if expected is int and type(value) is float and value.is_integer():
            value = values[key] = int(value)  # 1e5
        if type(value) is not expected:
            kind = "whole number" if expected is int else "name"
            raise UserError(f"{key} = {value!r}: expected a {kind}")
    try:
        return dataclasses.replace(base, **values)
    except ValueError as error:
        raise UserError(str(error)) from None


def _seed_words(text: str) -> Any:
    words = text.replace(",", " ").split()
    try:
        numbers = [int(word) for word in words]
    except ValueError:
        raise UserError(f"SEEDS={text}: expected how many (SEEDS=5) or which (SEEDS=0,3,7)") from None
    return numbers[0] if len(numbers) == 1 and "," not in text else numbers


def _seeds(value: Any) -> tuple[int, ...]:
    """How many seeds (0, 1, ...), or a list of them."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MAX_SEEDS:
            raise UserError(f"seeds = {value}: expected a number from 1 to {MAX_SEEDS}")
        return tuple(range(value))
    if (
        not isinstance(value, Sequence)
        or not value
        or not all(type(v) is int and 0 <= v < 2**32 for v in value)
    ):
        raise UserError(f"seeds = {value!r}: expected how many, or a list of whole numbers from 0 on")
    return tuple(dict.fromkeys(value))
