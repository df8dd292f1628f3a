"""A CSV from outside as text, checked for its shape before anything in it is believed."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from bench.disk import read_bytes

LARGEST = 256 * 2**20  # bytes


def read_text(path: Path) -> pd.DataFrame:
    """All cells as text without the spaces around them, one column per name in the header; row i is line i + 2.

    Not part of it are a byte order mark, which spreadsheets write, and empty lines at the end. Raises OSError, and
    ValueError, in one line and without the folder, where lines differ in length, two columns share a name, cells are
    separated by semicolons or tabs, or the file is too large, a link or no text.
    """
    header, *body = rows_of(path)
    for mark, name in ((";", "';'"), ("\t", "tabs")):
        if len(header) == 1 and mark in header[0]:
            raise ValueError(f"cells are separated by {name}, expected ','")
    return as_columns(header, body)


def rows_of(path: Path, *, any_separator: bool = False) -> list[list[str]]:
    """The cells of every line, at least one line; raises as `read_text`.

    any_separator: those of the first line decide, tabs before semicolons before commas before other white space.
    """
    data = read_bytes(path, LARGEST)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"no CSV in UTF-8: {error}") from None
    first = text.partition("\n")[0].strip()
    if any_separator and not any(mark in first for mark in "\t;,"):
        rows = [line.split() for line in text.splitlines()]
    else:
        mark = next((mark for mark in "\t;" if mark in first), ",") if any_separator else ","
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True))
        except csv.Error as error:
            raise ValueError(f"no CSV in UTF-8: {error}") from None
    rows = [[cell.strip() for cell in row] for row in rows]
    while rows and not any(rows[-1]):
        rows.pop()  # empty lines, and lines of empty cells, that editors and spreadsheets leave at the end
    if not rows:
        raise ValueError("no CSV: empty")
    return rows


def as_columns(header: list[str], body: list[list[str]]) -> pd.DataFrame:
    """A frame of text; ValueError where two columns share a name or a line has another length."""
    if len(set(header)) < len(header):
        raise ValueError("two columns have the same name")
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise ValueError(f"line {number} has {len(row)} cells, the header {len(header)}")
    return pd.DataFrame(body, columns=header, dtype=str)
