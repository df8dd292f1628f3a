"""The tables of a run: which columns each CSV has, how a row becomes text, and text becomes columns.

docs/results.md describes every column. Writer and reader both use `TABLES`, so that they cannot disagree.
"""

from __future__ import annotations

import math
import numbers
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from bench.disk import DamagedFile
from bench.text import one_line

# Kinds of a column: "count" an integer >= 0, "real" any float, "seconds" a finite float >= 0, "name" a word.
TABLES: dict[str, dict[str, str]] = {
    "eval.csv": {
        "env_step": "count",
        "episode": "count",
        "return": "real",
        "length": "count",
        "wall_s": "seconds",
    },
    "train.csv": {"env_step": "count", "kind": "name", "name": "name", "value": "real"},
    "time.csv": {
        "env_step": "count",
        "attempt": "count",
        "env_s": "seconds",
        "act_s": "seconds",
        "update_s": "seconds",
        "eval_s": "seconds",
        "compile_s": "seconds",
        "other_s": "seconds",
        "seeds": "count",
    },
    "final.csv": {
        "mode": "name",
        "candidates": "count",
        "episode": "count",
        "return": "real",
        "length": "count",
    },
}

FAST_FROM = 2048  # bytes of a table from which on the fast parser, with its overhead, is faster


@dataclass(frozen=True)
class _Kind:
    pattern: str  # of a cell
    read: Callable[[str], Any]
    dtype: type
    json: type = float


def _finite(cell: str) -> float:
    value = float(cell)
    if math.isinf(value):
        raise OverflowError(cell)
    return value


_DECIMAL = r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?"
_KINDS = {
    "count": _Kind(r"[0-9]+", int, np.int64, int),
    "real": _Kind(rf"nan|-?inf|-?{_DECIMAL}", float, np.float64),
    "seconds": _Kind(_DECIMAL, _finite, np.float64),
    "name": _Kind(r"[A-Za-z][A-Za-z0-9_./-]{0,63}", str, object),  # a spreadsheet, HTML or LaTeX acts on none
}
_LINES = {  # the lines of a table
    table: re.compile(
        "^" + ",".join(f"({_KINDS[kind].pattern})" for kind in columns.values()) + "\n", re.M | re.A
    )
    for table, columns in TABLES.items()
}


def header(table: str) -> bytes:
    """The first line of the CSV `table`, newline included."""
    return (",".join(TABLES[table]) + "\n").encode()


def render_rows(table: str, rows: Sequence[Mapping[str, object]]) -> bytes:
    """`rows` as CSV lines, newlines included. ValueError for missing or unknown columns and wrong values."""
    columns = TABLES[table]
    lines = []
    for row in rows:
        if row.keys() != columns.keys():
            raise ValueError(f"{table} has columns {list(columns)}, not {list(row)}")
        lines.append(",".join(_render(row[name], kind, table, name) for name, kind in columns.items()) + "\n")
    return "".join(lines).encode()


def _render(value: Any, kind: str, table: str, column: str) -> str:
    if kind == "name" and isinstance(value, str) and re.fullmatch(_KINDS["name"].pattern, value):
        return value
    if kind == "count" and isinstance(value, numbers.Integral) and 0 <= int(value) < 2**63:
        return repr(int(value))
    if kind == "real" and isinstance(value, numbers.Real):
        return repr(float(value))
    if kind == "seconds" and isinstance(value, numbers.Real) and 0 <= float(value) < math.inf:
        return repr(float(value))
    raise ValueError(f"{table}: {column} cannot be {value!r}")


def parse_table(table: str, data: bytes, *, torn: bool = False) -> dict[str, np.ndarray]:
    """The columns of a CSV: name -> array (rows,), int64 (counts), float64 (numbers) or object (names, str).

    `torn` accepts a last line without its newline, which a writer at work or a killed one leaves, and drops
    it. Raises DamagedFile with the line number where it is known.
    """
    columns = TABLES[table]
    first = header(table)
    if torn:
        data = data[: data.rfind(b"\n") + 1] or first  # the header itself may be torn
    if not data.startswith(first):
        if data.startswith(first[:-1] + b"\r"):
            raise DamagedFile(f"{table} has Windows line ends; git's autocrlf, perhaps, changed it")
        line = one_line(data.split(b"\n", 1)[0].decode(errors="replace"), 100)
        raise DamagedFile(f"{table} begins with {line!r}, not with the columns {','.join(columns)}")
    if not data.endswith(b"\n"):
        raise DamagedFile(f"{table} ends in the middle of a line")
    body = data[len(first) :]
    found = _parse_fast(columns, body) if len(body) >= FAST_FROM else None
    return _parse(table, columns, body) if found is None else found


def _parse(table: str, columns: Mapping[str, str], body: bytes) -> dict[str, np.ndarray]:
    """The lines after the header, matched against the pattern of a line."""
    text = body.decode(errors="backslashreplace")
    rows = _LINES[table].findall(text)
    if len(rows) != text.count("\n"):
        raise DamagedFile(f"{table}, {_first_fault(columns, text)}")
    cells: Sequence[Sequence[str]] = list(zip(*rows)) if rows else [[] for _ in columns]
    try:
        return {
            name: np.array(list(map(_KINDS[kind].read, column)), _KINDS[kind].dtype)
            for (name, kind), column in zip(columns.items(), cells)
        }
    except (ValueError, OverflowError):
        raise DamagedFile(f"{table} holds a number that is too large") from None


def _first_fault(columns: Mapping[str, str], text: str) -> str:
    """In words, where and how `text` departs from the columns."""
    for number, line in enumerate(text.split("\n"), start=2):
        cells = line.split(",")
        if line.startswith(("<<<<<<<", "=======", ">>>>>>>")):
            return f"line {number}: the marker of an unfinished git merge"
        if len(cells) != len(columns):
            return f"line {number} has {len(cells)} cells, not {len(columns)}"
        for cell, (name, kind) in zip(cells, columns.items()):
            if not re.fullmatch(_KINDS[kind].pattern, cell, re.ASCII):
                return f"line {number}: {name} cannot be {one_line(cell, 60)!r}"
    raise AssertionError("no fault, though the lines do not match")


def _parse_fast(columns: Mapping[str, str], body: bytes) -> dict[str, np.ndarray] | None:
    """The same for many lines of numbers, read as JSON, which is four times as fast. None where `_parse` shall decide.

    Less strict in one thing, which changes no value: a count may be written as -0.
    """
    if "name" in columns.values():
        return None
    width = len(columns)
    ends = np.frombuffer(body.translate(None, b"0123456789.e+-"), np.uint8)  # and what no number can hold
    if len(ends) % width or (ends.reshape(-1, width) != [*b"," * (width - 1), *b"\n"]).any():
        return None
    line = types.GenericAlias(tuple, tuple(_KINDS[kind].json for kind in columns.values()))
    try:
        rows = msgspec.json.decode(
            b"[[" + body[:-1].replace(b"\n", b"],[") + b"]]", type=types.GenericAlias(list, line)
        )
        table = np.array(rows, [(name, _KINDS[kind].dtype) for name, kind in columns.items()])
    except (msgspec.DecodeError, OverflowError):
        return None
    found = {name: np.ascontiguousarray(table[name]) for name in columns}
    regular = all(kind == "real" or (found[name] >= 0).all() for name, kind in columns.items())
    return found if regular else None
