"""The request for a report: one study as its `[report]` table describes it, or studies and choices of a command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.analysis.scores.choose import choose
from bench.analysis.scores.load import load
from bench.analysis.scores.results import Results, name_parts
from bench.errors import UserError
from bench.runs import read_study_file
from bench.shape import Mismatch, read_toml
from bench.studies.file import STUDIES
from bench.studies.report import Choice, read_choice

LONGEST_NAME = 120  # of a report's folder


def load_report(root: Path, study: str, file: Path | None = None) -> Results:
    """A study as its own report shows it.

    file: the study's file; else the one in bench/studies, else what study.json recorded when the study was run.
    Raises UserError where there is no such study, or the table asks for what is not there.
    """
    choice = own_choice(root, study, file)
    again = f"make figures STUDY={study}"
    return choose(
        [load(root, name) for name in dict.fromkeys([study, *choice.studies])],
        choice,
        again=again,
        home=study,
    )


def load_chosen(root: Path, studies: Sequence[str], choice: Choice, again: str, name: str = "") -> Results:
    """Studies side by side and what `choice` shows of them, in a report named `name`, else after the studies."""
    named = name or "+".join(studies)
    if len(named) > LONGEST_NAME:
        named = f"{studies[0]}+{len(studies) - 1}-more"
    return choose([load(root, study) for study in dict.fromkeys(studies)], choice, report=named, again=again)


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
