"""A study file: bench/studies/*.toml, or a path of your own. docs/studies.md explains the keys of `SCHEMA`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bench.disk import parse_toml
from bench.errors import UserError, suggest
from bench.studies.job import RunSettings
from bench.studies.overrides import algorithm_config, parse_overrides, settable
from bench.studies.report import read_choice
from bench.studies.study import SAFE, Study

STUDIES = Path(__file__).parent
SCHEMA = ("title", "algos", "envs", "seeds", "run", "config", "algo", "env", "report")
MAX_SEEDS = 10_000

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
        record = parse_toml(path.read_bytes())
    except ValueError as error:
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
        seeds=_at("seeds", seed_list, record["seeds"]),
        settings=_at("run", run_settings, RunSettings(), record.get("run", {})),
        config=record.get("config", {}),
        algo=record.get("algo", {}),
        env=record.get("env", {}),
        report=record.get("report", {}),
    )
    _at("report", read_choice, study.report)
    _check_tables(study)
    return study


def _table(key: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise _Mistake(key, f"expected a table, not {value!r}")


def _check_tables(study: Study) -> None:
    """Everything in the lists, [config], [algo.*] and [env.*.*] must mean something to somebody."""
    from bench.envs import tasks as envs

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


def run_settings(base: RunSettings, changes: Mapping[str, Any]) -> RunSettings:
    """`base` with `changes`. Raises UserError for an unknown field or a value that no run can have."""
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


def seed_list(value: Any) -> tuple[int, ...]:
    """The seeds that are meant by a number of them (0, 1, ...) or by a list. Raises UserError."""
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
