"""A CSV from outside as text, checked for its shape before anything in it is believed."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from bench.disk import read_bytes

LARGEST = 256 * 2**20  # bytes


def read_text(path: Path) -> pd.DataFrame:
    """All cells as text, one column per name in the header; row i is line i + 2. A byte order mark, which
    spreadsheets write, is skipped.

    Raises OSError, and ValueError, in one line and without the folder, where lines differ in length, two
    columns share a name, cells are separated by semicolons, or the file is too large, a link or no text.
    """
    data = read_bytes(path, LARGEST)
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"no CSV: {error}") from None
    if not rows:
        raise ValueError("no CSV: empty")
    header, *body = rows
    if len(header) == 1 and ";" in header[0]:
        raise ValueError("cells are separated by ';', expected ','")
    if len(set(header)) < len(header):
        raise ValueError("two columns have the same name")
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise ValueError(f"line {number} has {len(row)} cells, the header {len(header)}")
    return pd.DataFrame(body, columns=header, dtype=str)
