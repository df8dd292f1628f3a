"""Tables of the experiments as they lie under results/experiments/<name>/: <table>/<part>.csv, and scores.csv.

scores.csv has one number per seed; the rules of the claims say which of them they judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis import stats
from bench.analysis.csvfile import read_text
from bench.analysis.resampling import RESAMPLES, Array
from bench.analysis.table import MISSING, Entry, number, within
from bench.errors import UserError
from bench.text import one_line

COLUMNS = ("measure", "setting", "algo", "seed", "value")  # of scores.csv
LABELS = ("part", "label", "measure", "setting", "algo")  # columns of text; all others hold numbers
TABLES = {  # besides scores: their columns
    "density": ("i", "j", "count"),
    "coverage": ("label", "seed", "env_step", "cells"),
    "actions": ("label", "seed", "env_step", "cell", "count"),
    "steps": ("seed", "number", "gain"),
}


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table that a part has written; none where it has not. Raises OSError or ValueError."""
    return read_text(path).to_dict("records") if path.is_file() else []


def read_table(folder: Path, table: str) -> pd.DataFrame:
    """All parts of a table below each other, with a column "part".

    Raises:
        UserError: there is none yet, or one cannot be read.
    """
    paths = sorted((folder / table).glob("*.csv"))
    if not paths:
        raise UserError(f"no {folder / table}/*.csv yet; `make experiments` makes them")
    try:
        frames = [_read(path, TABLES[table]).assign(part=path.stem) for path in paths]
    except ValueError as error:
        raise UserError(f"{folder / table}/{error}") from None
    return pd.concat(frames, ignore_index=True)


def read_scores(folder: Path) -> pd.DataFrame:
    """scores.csv: the columns measure, setting, algo, seed, value. Raises UserError as `read_table`."""
    if not (folder / "scores.csv").is_file():
        raise UserError(f"no {folder / 'scores.csv'} yet; `make experiments` makes it")
    try:
        return _read(folder / "scores.csv", COLUMNS)
    except ValueError as error:
        raise UserError(f"{folder}/{error}") from None


def load_scores(folder: Path, measure: str, setting: str) -> tuple[dict[str, Array], str]:
    """{algorithm: values in the order of the seeds}, and why they cannot be judged, "" where they can."""
    if not (folder / "scores.csv").is_file():
        return {}, "not run yet"
    try:
        frame = _read(folder / "scores.csv", COLUMNS)
    except ValueError as error:
        return {}, one_line(error)
    frame = frame[(frame["measure"] == measure) & (frame["setting"] == setting)]
    if frame.duplicated(["algo", "seed"]).any():
        return {}, "scores.csv has a seed twice"
    if not np.isfinite(frame[["seed", "value"]].to_numpy(np.float64)).all():
        return {}, "scores.csv holds a seed or value that is not a finite number"
    groups = frame.sort_values("seed").groupby("algo")["value"]
    return {str(algo): values.to_numpy(np.float64) for algo, values in groups}, ""


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a CSV; ValueError with the file's name where it has not got them."""
    try:
        frame = read_text(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read: {one_line(error)}") from None
    for column in columns:
        if column not in frame:
            raise ValueError(f"{path.name} lacks the column {column}")
    frame = frame[list(columns)]
    numbers = [column for column in columns if column not in LABELS]
    return frame.assign(**{column: pd.to_numeric(frame[column], errors="coerce") for column in numbers})


def values(scores: pd.DataFrame, measure: str, setting: str, algo: str) -> Array:
    """One value per seed, in the order of the seeds; empty where there is none."""
    rows = scores[(scores["measure"] == measure) & (scores["setting"] == setting) & (scores["algo"] == algo)]
    return rows.sort_values("seed")["value"].to_numpy(np.float64)


def interval(per_seed: Array, *key: str) -> tuple[float, float]:
    """The 95% interval of the mean over seeds; not a number below two seeds."""
    if len(per_seed) < 2:
        return float("nan"), float("nan")
    groups = [(len(per_seed), key)]
    low, high = stats.resampled(stats.mean, [per_seed], groups, RESAMPLES).interval()
    return float(low), float(high)


def mean_entry(per_seed: Array, *key: str, digits: int = 2) -> Entry:
    """The mean over seeds with its interval; a dash where there is nothing."""
    if not len(per_seed):
        return MISSING
    return number(float(per_seed.mean()), digits, detail=within(*interval(per_seed, *key), digits))


def n_of(groups: Sequence[Array]) -> str:
    """ "n = 5", or "n = 5–10" where groups differ."""
    sizes = sorted({len(group) for group in groups if len(group)})
    return f"n = {sizes[0]}" if len(sizes) == 1 else f"n = {sizes[0]}–{sizes[-1]}" if sizes else "n = 0"
