"""What a report shows, and how: the `[report]` table of a study file, or a figures file with the same keys.

docs/analysis.md explains the keys. Here only their form is checked; whether an algorithm or task of that name was run
is seen where results are drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from bench.disk import parse_toml
from bench.errors import UserError, suggest
from bench.text import one_line

Bound = float | str  # of a normalised return: a number, or an algorithm whose mean final return it is
EVERY_TASK = "*"


class Choice(Struct, frozen=True, kw_only=True):
    """Empty fields choose nothing: what they speak of is shown as the study has it."""

    title: str = ""
    studies: tuple[str, ...] = ()  # put side by side
    algos: tuple[str, ...] = ()  # which, in this order
    envs: tuple[str, ...] = ()
    subject: str = ""  # what the others are compared with: differences are subject - other
    baselines: tuple[str, ...] = ()  # what is compared with: differences are other - baseline
    names: dict[str, str] = {}  # algorithm -> what a reader sees
    colors: dict[str, str] = {}  # algorithm -> "#rrggbb", or a name that matplotlib knows
    steps: int = 0  # scores as of this environment step
    normalise: dict[str, tuple[Bound, Bound]] = {}  # task or "*" -> the returns that become 0 and 1
    metrics: tuple[str, ...] = ()  # logged in training: "q_gradient"
    sensitivity: tuple[
        str, ...
    ] = ()  # settings whose variants are drawn against their value: "M_q", "qsm:M_q"
    others: tuple[str, ...] = ()  # published curves: "dime", "sac@simba"
    width: Literal["", "column", "page"] = ""  # of figures


def read_choice(table: Any) -> Choice:
    """A `[report]` table as a Choice. Raises UserError naming the key that is unknown or has a wrong value."""
    if not isinstance(table, Mapping):
        raise UserError(f"expected a table, not {table!r}")
    for key in table:
        if key not in Choice.__struct_fields__:
            raise UserError(f"no such key as {key!r}{suggest(key, Choice.__struct_fields__)}")
    try:
        choice = msgspec.convert(dict(table), Choice)
    except msgspec.ValidationError as error:
        place = str(error).partition(" - at ")[2]
        key = re.split(r"[.\[]", place.strip("`").removeprefix("$.").removeprefix("key` in `$."))[0]
        raise UserError(f"{key}: {EXPECTED[key]}, not {one_line(repr(table.get(key)), 80)}") from None
    if choice.steps < 0:
        raise UserError(f"steps: {EXPECTED['steps']}, not {choice.steps}")
    return choice


_NAMES = 'expected a list of names such as ["qsm", "sac"]'
EXPECTED = {
    "title": "expected text in quotes",
    "studies": _NAMES,
    "algos": _NAMES,
    "envs": _NAMES,
    "subject": "expected an algorithm's name",
    "baselines": _NAMES,
    "names": 'expected a table such as { "sac-actor_q=min" = "SAC, min" }',
    "colors": 'expected a table such as { qsm = "#0173b2" }',
    "steps": "expected a whole number of environment steps",
    "normalise": 'expected a table of lowest, highest: { "Hopper-v5" = [20, 3200] } or { "*" = ["random", "sac"] }',
    "metrics": 'expected a list of names such as ["q_gradient"]',
    "sensitivity": 'expected a list of settings such as ["M_q", "qsm:T"]',
    "others": 'expected a list of names such as ["dime", "sac@simba"]',
    "width": 'expected "column" or "page"',
}


def read_figures_file(path: Path) -> Choice | None:
    """The Choice in a figures file, which names `studies`; None for a study file, which has the runs' `seeds`.

    Raises UserError where the file cannot be read or is neither.
    """
    record = read_toml(path)
    if "seeds" in record or "report" in record:
        return None
    if "studies" not in record:
        raise UserError(f"{path.name}: studies: missing; a figures file names the studies that it shows")
    try:
        return read_choice(record)
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file. Raises UserError, naming the file, where it cannot be read."""
    try:
        record: dict[str, Any] = parse_toml(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path.name}: not valid TOML: {error}") from None
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except OSError as error:
        raise UserError(f"{path.name}: cannot be read: {error.strerror}") from None
    return record
