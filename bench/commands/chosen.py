"""What `make figures` was asked to show: studies, a figures file, and the variables over it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench.commands.arguments import one_of, whole
from bench.errors import UserError
from bench.studies.lookup import KEYS
from bench.studies.report import EVERY_TASK, Bound, Choice, read_figures_file

# option -> the key of a figures file that it stands for
LISTS = {
    "algos": "algos",
    "envs": "envs",
    "baseline": "baselines",
    "metric": "metrics",
    "sensitivity": "sensitivity",
    "others": "others",
}
CHANGED_BY = LISTS | {name: name for name in ("subject", "steps", "normalise", "width")}


class Request(NamedTuple):
    """The arguments of `bench.analysis.load_chosen` after the root."""

    studies: list[str]
    choice: Choice
    again: str
    name: str
    required: frozenset[str]


def request(root: Path, options: Namespace) -> Request | None:
    """What was chosen; None for whole studies as their reports show them. Raises UserError for what means nothing."""
    given = {name: text for name in CHANGED_BY if (text := getattr(options, name))}
    asked = options.study or ""
    words = [asked] if Path(asked).is_file() else asked.split()
    # the file of a study that was run may be gone: its name is enough
    files = [Path(word) for word in words if word.endswith(".toml") and Path(word).is_file()]
    base = Choice()
    name = ""
    required = frozenset(CHANGED_BY[x] for x in given)  # what a study's own table asks for may not be run yet
    for file in files:
        if (found := read_figures_file(file)) is not None:
            if len(words) > 1:
                raise UserError(
                    f"STUDY={asked}: {file} is a figures file; expected it alone, or names of studies"
                )
            base, words, name, required = found, list(found.studies), file.stem, KEYS
    if not name and len(words) < 2 and not given:
        return None
    if not words:
        raise UserError(
            f"{next(iter(given)).upper()} needs STUDY=, the study or studies that it chooses from"
        )
    studies = [Path(word).stem if word.endswith(".toml") else word for word in words]
    if not name and len(studies) == 1:
        base = _own(root, studies[0], files)
    changes = {**{LISTS[x]: _words(given[x]) for x in LISTS if x in given}, **_others(given)}
    choice = msgspec.structs.replace(base, **changes)
    return Request(studies, choice, _command(asked, files, given), name, required)


def _own(root: Path, study: str, files: Sequence[Path]) -> Choice:
    from bench.analysis import own_choice

    return own_choice(root, study, files[0] if files else None)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _others(given: dict[str, str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if "subject" in given:
        changes["subject"] = given["subject"]
    if "steps" in given:
        changes["steps"] = whole("STEPS", given["steps"], 1)
    if "width" in given:
        changes["width"] = one_of("WIDTH", given["width"], ("column", "page"))
    if "normalise" in given:
        changes["normalise"] = {EVERY_TASK: _bounds(given["normalise"])}
    return changes


def _bounds(text: str) -> tuple[Bound, Bound]:
    """ "random sac" or "0 3000". Raises UserError."""
    words = text.split()
    if len(words) != 2:
        raise UserError(
            f'NORMALISE={text}: expected the lowest and the highest, as in "random sac" or "0 3000"'
        )
    low, high = (_number(word) for word in words)
    return low, high


def _number(word: str) -> Bound:
    try:
        return float(word)
    except ValueError:
        return word


def _command(study: str, files: Sequence[Path], given: dict[str, str]) -> str:
    """The `make figures` that was asked for, without folders of this machine."""
    for file in files:
        study = study.replace(str(file), file.name)
    words = {"study": study} | given
    return " ".join(["make figures", *(f"{name.upper()}={_quoted(text)}" for name, text in words.items())])


def _quoted(text: str) -> str:
    return f'"{text}"' if set(text) & set(" *?[]") else text
