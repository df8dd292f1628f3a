"""The tables of a run: which columns each CSV has, how a row becomes text, and text becomes columns.

docs/results.md describes every column. Writer and reader both use `TABLES`, so that they cannot disagree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import numpy as np

from bench.files import DamagedFile, one_line

FORMAT = 1  # of every file in a run directory; raised when old readers would misread what new writers write

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
_PRINTABLE = bytes(range(32, 127)) + b"\n"
_DTYPES = {"count": np.int64, "real": np.float64, "seconds": np.float64}
_NUMERIC = dict.fromkeys(
    map(ord, "0123456789.einfa+-,")
)  # what repr of a float can hold, "nan" and "-inf" too


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
    body = data[len(first) :]
    _check_cells(table, body, len(columns))
    text = body.decode().replace("\n", ",")[:-1]
    rows, width = body.count(b"\n"), len(columns)
    if "name" not in columns.values():
        numbers = _numbers(table, text) if rows else []
        return {
            name: _array(table, name, kind, numbers[i::width])
            for i, (name, kind) in enumerate(columns.items())
        }
    cells = text.split(",") if rows else []
    parsed = {}
    for i, (name, kind) in enumerate(columns.items()):
        column = cells[i::width]
        numbers = _numbers(table, ",".join(column)) if rows and kind != "name" else []
        parsed[name] = _names(table, name, column) if kind == "name" else _array(table, name, kind, numbers)
    return parsed


def _check_cells(table: str, body: bytes, width: int) -> None:
    """DamagedFile unless `body` is printable ASCII in lines of `width` cells, none of them empty."""
    strange = body.translate(None, _PRINTABLE)
    if strange:
        number = body[: body.index(strange[:1])].count(b"\n") + 2
        raise DamagedFile(f"{table}, line {number} holds the byte {strange[0]:#04x}")
    code = np.frombuffer(body, np.uint8)
    ends = code[(code == ord(",")) | (code == ord("\n"))]
    regular = len(ends) % width == 0 and (
        (ends.reshape(-1, width) == [ord(",")] * (width - 1) + [ord("\n")]).all()
    )
    if regular:
        return
    for number, line in enumerate(body.decode().split("\n"), start=2):
        if line.startswith(("<<<<<<<", "=======", ">>>>>>>")):
            raise DamagedFile(f"{table}, line {number}: the marker of an unfinished git merge")
        if line.count(",") != width - 1:
            raise DamagedFile(f"{table}, line {number} has {line.count(',') + 1} cells, not {width}")


def _names(table: str, column: str, cells: list[str]) -> np.ndarray:
    for cell in set(cells):
        if not _NAME.fullmatch(cell):
            raise DamagedFile(f"{table}: {column} cannot be {one_line(cell, 60)!r}")
    return np.array(cells, dtype=object)


def _numbers(table: str, text: str) -> list[float]:
    """Numbers separated by commas. The JSON parser is the fastest strict one at hand: an int stays an int."""
    if text.translate(_NUMERIC):
        raise DamagedFile(f"{table}: a number cannot hold {one_line(text.translate(_NUMERIC), 20)!r}")
    if "n" in text:
        text = text.replace("nan", "NaN").replace("inf", "Infinity")
    try:
        return json.loads(f"[{text}]")
    except ValueError as error:
        raise DamagedFile(f"{table} holds what is no number: {one_line(error, 80)}") from None


def _array(table: str, column: str, kind: str, values: list[float]) -> np.ndarray:
    """A column of numbers, if they are of its kind: int64 for counts, else float64."""
    try:
        array = np.array(values, dtype=None if kind == "count" and values else _DTYPES[kind])
    except OverflowError:
        array = np.array([np.nan])
    if kind == "real":
        return array
    good = (array >= 0) & (array < np.inf)
    if array.dtype != _DTYPES[kind] or not good.all():
        raise DamagedFile(f"{table}: column {column} holds what is no {kind}")
    return array
