"""The tables of a run: which columns each CSV has, how a row becomes text, and text becomes columns.

docs/results.md describes every column. Writer and reader both use `TABLES`, so that they cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from bench.files import DamagedFile, one_line

FORMAT = (
    1  # of every file in a run directory; raised when a reader of the old format would misread a new file
)

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

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,63}")  # nothing that a spreadsheet, HTML or LaTeX would act on
_DIGITS = re.compile(r"[0-9]+")
_FLOATS = re.compile(r"[0-9.einfa+-]+")  # what repr of a float can hold, "nan" and "-inf" included


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


def _render(value: object, kind: str, table: str, column: str) -> str:
    if kind == "name":
        if isinstance(value, str) and _NAME.fullmatch(value):
            return value
    elif kind == "count":
        number = _as(np.integer, int, value)
        if number is not None and 0 <= number < 2**63:
            return repr(int(number))
    else:
        number = _as(np.number, float, value)
        if number is not None and (kind == "real" or 0 <= number < np.inf):
            return repr(float(number))
    raise ValueError(f"{table}: {column} cannot be {value!r}")


def _as(numpy_kind: type, python_kind: type, value: object) -> float | None:
    """`value` where it is a plain or numpy number of that kind; an int is also a float, a bool is neither."""
    kinds = (python_kind, int, numpy_kind)
    return value if isinstance(value, kinds) and not isinstance(value, bool) else None  # type: ignore[return-value]


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
        found = one_line(data.split(b"\n", 1)[0].decode(errors="replace"), 100)
        raise DamagedFile(f"{table} begins with {found!r}, not with the columns {','.join(columns)}")
    if not data.endswith(b"\n"):
        raise DamagedFile(f"{table} ends in the middle of a line")
    try:
        text = data[len(first) :].decode("ascii")
    except UnicodeDecodeError as error:
        raise DamagedFile(f"{table} holds the byte {data[len(first) + error.start]:#04x}") from None
    commas = len(columns) - 1
    lines = text.split("\n")[:-1]
    for number, line in enumerate(lines, start=2):
        if line.count(",") != commas:
            if line.startswith(("<<<<<<<", "=======", ">>>>>>>")):
                raise DamagedFile(f"{table}, line {number}: the marker of an unfinished git merge")
            raise DamagedFile(f"{table}, line {number} has {line.count(',') + 1} cells, not {commas + 1}")
    cells = text.replace("\n", ",").split(",")
    return {
        name: _column(table, name, kind, cells[i : len(lines) * len(columns) : len(columns)])
        for i, (name, kind) in enumerate(columns.items())
    }


def _column(table: str, name: str, kind: str, cells: list[str]) -> np.ndarray:
    """Cells as an array. One look at the joined text stands for a look at each cell, which would be slow."""
    try:
        if kind == "name":
            for cell in set(cells):
                if not _NAME.fullmatch(cell):
                    raise ValueError(cell)
            return np.array(cells, dtype=object)
        joined = "".join(cells)
        if cells and not (_DIGITS if kind == "count" else _FLOATS).fullmatch(joined):
            raise ValueError(
                next(c for c in cells if not (_DIGITS if kind == "count" else _FLOATS).fullmatch(c))
            )
        if kind == "count":
            return np.array(list(map(int, cells)), dtype=np.int64)
        values = np.array(list(map(float, cells)), dtype=np.float64)
        if kind == "seconds" and not ((values >= 0) & (values < np.inf)).all():
            raise ValueError("not a time")
        return values
    except (ValueError, OverflowError) as error:
        raise DamagedFile(f"{table}: bad value in column {name}: {one_line(error, 80)}") from None
