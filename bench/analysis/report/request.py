"""The request for a report: one study as its `[report]` table describes it, or studies and choices of a command."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from bench.analysis.scores.choose import choose, shared_steps
from bench.analysis.scores.load import load
from bench.analysis.scores.results import Results, name_parts
from bench.errors import UserError
from bench.runs import read_study_file
from bench.runs import studies as studies_in
from bench.shape import Mismatch, read_toml
from bench.studies.file import STUDIES
from bench.studies.lookup import KEYS, look_up
from bench.studies.report import Choice, read_choice

LONGEST_NAME = 120  # of a report's folder


def load_report(root: Path, study: str, file: Path | None = None) -> Results:
    """A study as its own report shows it. What that asks for and is not there, or not yet, is named in `.left_out`.

    file: the study's file; else the one in bench/studies, else what study.json recorded when the study was run.
    Raises UserError where there is no such study, or the table has a mistake.
    """
    choice = own_choice(root, study, file)
    parts, left_out = _parts(root, [study], choice, required=())
    results = choose(parts, choice, required=(), again=f"make figures STUDY={study}", home=study)
    return replace(results, left_out=(*left_out, *results.left_out))


def load_chosen(
    root: Path,
    studies: Sequence[str],
    choice: Choice,
    again: str,
    name: str = "",
    required: Collection[str] = KEYS,
) -> Results:
    """Studies side by side and what `choice` shows of them, in a report named `name`, else after the studies.

    Raises UserError for what is not there and was asked for by `studies` or a required key of the choice; else it is
    named in `.left_out`.
    """
    parts, left_out = _parts(root, studies, choice, required)
    named = name or "+".join(part.study for part in parts)
    if len(named) > LONGEST_NAME:
        named = f"{parts[0].study}+{len(parts) - 1}-more"
    results = choose(parts, choice, required=required, report=named, again=again)
    return replace(results, left_out=(*left_out, *results.left_out))


def _parts(
    root: Path, studies: Sequence[str], choice: Choice, required: Collection[str]
) -> tuple[list[Results], list[str]]:
    """The studies, and those that the choice puts beside them; a line for each of these that cannot be."""
    parts = [load(root, name) for name in dict.fromkeys(studies)]

    def put_beside(name: str) -> None:
        if name not in studies_in(root):
            raise UserError(f"no study {name!r} is here; `make bench STUDY={name}` runs it")
        part = load(root, name)
        shared_steps([*parts, part])  # refuses it where it shares none with the others
        parts.append(part)

    further = [name for name in dict.fromkeys(choice.studies) if name not in studies]
    _, left_out = look_up(further, put_beside, "studies" in required)
    return parts, [f"[report]: left out: {line}" for line in left_out]


def own_choice(root: Path, study: str, file: Path | None = None) -> Choice:
    """The `[report]` table of a study. Raises UserError where it has a mistake."""
    recorded = read_study_file(root, study).get("report", {})
    file = file if file and file.is_file() else STUDIES / f"{name_parts(study)[0]}.toml"
    table = read_toml(file, file.name).get("report", {}) if file.is_file() else recorded
    try:
        return read_choice(table)
    except Mismatch as error:
        where = file.name if file.is_file() else f"{study}/study.json"
        raise UserError(f"{where}: report: {error}") from None
