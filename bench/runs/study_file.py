"""A study on disk: results/<study>/study.json with its settings and its grid, and the runs of that grid.

Import these names from bench.runs. The grid is the union of everything ever requested into the folder, so
that "missing" has a meaning.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.disk import DamagedFile, check_inside, read_json, write_json
from bench.errors import UserError, suggest
from bench.names import ALLOWED, env_folder, is_safe_name
from bench.runs import ownership
from bench.runs.reader import RUN, Run, is_what_it_says, read_run
from bench.runs.records import check
from bench.text import differences, one_line, strerror

STUDY = "study.json"


@dataclass(frozen=True)
class StudyResults:
    """A study as found on disk."""

    root: Path
    study: str
    meta: dict[str, Any]  # study.json
    runs: list[Run]  # one per cell of the grid, in its order
    problems: list[str]  # one line each: runs left out or not asked for, and why


def read_study_file(root: Path, study: str) -> dict[str, Any]:
    """study.json of `study`, checked. UserError if there is none, or a damaged one."""
    try:
        if not is_safe_name(study):
            raise FileNotFoundError
        check_inside(root, root / study)
        return check_study(read_json(root / study / STUDY))
    except FileNotFoundError:
        raise UserError(f"no study {study!r} in {root}{suggest(study, studies(root))}") from None
    except DamagedFile as error:
        raise UserError(f"{root / study}: {error}") from None
    except OSError as error:
        raise UserError(f"{root / study} cannot be read: {strerror(error)}") from None


def studies(root: Path) -> list[str]:
    """The names of the studies under the results folder `root`, sorted."""
    try:
        return sorted(
            path.name for path in root.iterdir() if is_safe_name(path.name) and (path / STUDY).is_file()
        )
    except OSError:
        return []


def check_study(record: dict[str, Any]) -> dict[str, Any]:
    """`record` if it is a valid study.json; DamagedFile otherwise."""
    seen = set()
    for cell in check(record, STUDY)["grid"]:
        if cell_key(cell) in seen:
            raise DamagedFile(f"{STUDY}: the grid names {'/'.join(map(str, cell_key(cell)))} twice")
        seen.add(cell_key(cell))
    return record


def cell_key(cell: dict[str, Any]) -> tuple[str, str, int]:
    """The key of a run within a grid: folder of the environment, label and seed."""
    return env_folder(cell["env"]), cell["label"], cell["seed"]


def _cell_path(folder: Path, cell: dict[str, Any]) -> Path:
    return folder / env_folder(cell["env"]) / cell["label"] / f"seed-{cell['seed']}"


def read_study(root: Path, study: str, *, verify: bool = True) -> StudyResults:
    """Every cell of the study's grid with the run on disk, missing ones included (see `read_run`).

    Problems are the damaged runs, those whose configuration changed, those on disk that the grid does not
    name, and settings of the study that its runs do not have: theirs are returned, since a hash vouches for
    them. UserError as `read_study_file`.
    """
    meta = read_study_file(root, study)
    folder = root / study
    runs, problems, asked = [], [], set()
    for cell in meta["grid"]:
        path = _cell_path(folder, cell)
        asked.add(path)
        run = read_run(path, job_hash=cell["hash"], verify=verify)
        runs.append(run if run.meta else replace(run, env=cell["env"], algo=cell["algo"]))
        if run.state in ("damaged", "configuration changed"):
            problems.append(f"{path.relative_to(root)}: left out: {run.reason}")
    for path in _on_disk(folder):
        if path not in asked:
            name = one_line(path.relative_to(root))
            problems.append(f"{name}: left out: on disk, but not in the grid of {STUDY}")
    true = _settings_of(runs, meta["settings"])
    if true is not None:
        differing = one_line("; ".join(differences(meta["settings"], true)))
        problems.append(f"{study}/{STUDY} is damaged: its runs have other settings: {differing}")
        meta = meta | {"settings": true}
    return StudyResults(root=root, study=study, meta=meta, runs=runs, problems=problems)


def _settings_of(runs: list[Run], said: dict[str, Any]) -> dict[str, Any] | None:
    """The settings of the study's runs where they are others than `said`, as no sound study.json has it."""
    for run in runs:
        known = run.meta and run.state not in ("damaged", "configuration changed")
        if known and run.meta["settings"] != said and is_what_it_says(run.meta):
            return dict(run.meta["settings"])
    return None


def _on_disk(folder: Path) -> list[Path]:
    """The folders of runs under a study's folder, sorted; links are not followed."""
    level = [folder]
    for _ in range(3):
        level = [path for parent in level for path in _folders(parent)]
    return sorted(path for path in level if os.path.lexists(path / RUN))


def _folders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return [parent / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def write_study(root: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Add a requested grid to results/<study>/study.json and return its new content.

    request: {"format", "study", "title", "settings", "grid"} (docs/results.md). Its grid is the union of all
    that was ever requested there. UserError if the folder cannot be written, the file is damaged, its
    settings are others, or a cell with results was requested with another configuration; nothing is written
    then.
    """
    record: dict[str, Any] = json.loads(json.dumps(dict(request), allow_nan=False))
    study = record.get("study")
    if not is_safe_name(study):
        raise UserError(
            f"a study cannot be named {one_line(study, 60)!r}: use {ALLOWED}, a letter or digit first"
        )
    try:
        check_study(record)
        check_inside(root, root / record["study"])
    except DamagedFile as error:
        raise UserError(str(error)) from None
    folder = root / record["study"]
    try:
        if os.path.lexists(folder / STUDY):
            _merge(folder, record)  # refuses before anything is written
        folder.mkdir(parents=True, exist_ok=True)
        with ownership.locked(folder):
            merged = _merge(folder, record)
            if not os.path.lexists(folder / STUDY) or merged != read_json(folder / STUDY):
                write_json(folder / STUDY, merged, "study")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {strerror(error)}") from error
    return merged


def _merge(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """`record` with the grid that is already in the folder's study.json before its own."""
    try:
        there = check_study(read_json(folder / STUDY))
    except FileNotFoundError:
        return record
    except DamagedFile as error:
        raise UserError(f"{folder}: {error}; restore it, or delete it to write it anew") from None
    grid = {cell_key(cell): cell for cell in there["grid"]}
    if there["settings"] != record["settings"]:
        differing = one_line("; ".join(differences(there["settings"], record["settings"])), 2000)
        if any(grid.get(cell_key(cell), {}).get("hash") == cell["hash"] for cell in record["grid"]):
            raise UserError(  # for a hash is of the settings too
                f"{folder / STUDY} is damaged: {differing}; restore it, or delete this file to write it anew"
            )
        raise UserError(
            f"{folder} holds a study with other settings: {differing}. "
            "Choose another STUDY name, or delete that folder"
        )
    for cell in record["grid"]:
        known = grid.get(cell_key(cell))
        path = _cell_path(folder, cell)
        if known is not None and known["hash"] != cell["hash"] and os.path.lexists(path / RUN):
            raise UserError(
                f"{path} was run with another configuration of {cell['algo']} than the one requested now. "
                "Choose another STUDY name, or delete that folder to run it anew"
            )
        grid[cell_key(cell)] = cell
    return {**record, "grid": list(grid.values())}
