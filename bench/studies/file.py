"""A study file: bench/studies/*.toml, or a path of your own. docs/studies.md explains its keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct

from bench.errors import UserError, suggest
from bench.names import ALLOWED, is_safe_name
from bench.shape import Mismatch, fit, read_toml
from bench.studies.job import RunSettings
from bench.studies.lookup import resolve
from bench.studies.overrides import Overrides, algorithm_config, parse_overrides, settable
from bench.studies.report import read_choice
from bench.studies.study import Study

STUDIES = Path(__file__).parent
MAX_SEEDS = 10_000

T = TypeVar("T")
Names = Annotated[list[str], Meta(min_length=1, description="a list of names")]
Seeds = Annotated[int | list[int], Meta(description="how many, or a list of whole numbers from 0 on")]


class StudyFile(Struct, forbid_unknown_fields=True):
    """The keys of a study file. Settings are checked against the algorithms' fields afterwards."""

    algos: Names
    envs: Names
    seeds: Seeds
    title: str = ""
    run: dict[str, Any] = {}  # fields of RunSettings
    config: Overrides = {}
    algo: dict[str, Overrides] = {}
    env: dict[str, dict[str, Overrides]] = {}
    report: dict[str, Any] = {}  # of the shape Choice


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
    record = read_toml(path, path.name)
    if not is_safe_name(path.stem):
        raise UserError(f"{path.name}: cannot name a study: use {ALLOWED}, a letter or digit first")
    try:
        return _study(fit(record, StudyFile), path.stem)
    except (Mismatch, UserError) as error:
        raise UserError(f"{path.name}: {error}") from None


def _at(key: str, function: Callable[..., T], *arguments: Any) -> T:
    """The result of `function`; its UserError gets the key in front."""
    try:
        return function(*arguments)
    except (Mismatch, UserError) as error:
        raise UserError(f"{key}: {error}") from None


def _study(read: StudyFile, name: str) -> Study:
    study = Study(
        name=name,
        title=read.title or name,
        algos=tuple(read.algos),
        envs=tuple(read.envs),
        seeds=_at("seeds", seed_list, read.seeds),
        settings=_at("run", run_settings, RunSettings(), read.run),
        config=read.config,
        algo=read.algo,
        env=read.env,
        report=read.report,
    )
    choice = _at("report", read_choice, study.report)
    _check_tables(study)
    if not choice.studies:  # else a name may be of a study that is not run yet
        _at("report", resolve, choice, study.labels(), study.envs, study.name)
    return study


def _check_tables(study: Study) -> None:
    """Everything in the lists, [config], [algo.*] and [env.*.*] must apply to one of its algorithms or tasks."""
    from bench.envs import tasks as envs

    for env in study.envs:
        _at("envs", envs.check_name, env)
    fields = {algo: settable(algo) for algo, _ in (_at("algos", parse_overrides, s) for s in study.algos)}
    for key in study.config:
        if not any(key in known for known in fields.values()):
            close = suggest(key, set().union(*fields.values()))
            raise UserError(f"config.{key}: no algorithm here has it{close}")
    for algo, known in fields.items():
        _at("config", algorithm_config, algo, {k: v for k, v in study.config.items() if k in known})
    for algo in study.algo:
        _at(f"algo.{algo}", study.base_config, algo, "")
    for env, tables in study.env.items():
        _at(f"env.{env}", envs.check_name, env)
        for algo in tables:
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
