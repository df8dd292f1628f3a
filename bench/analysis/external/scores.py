"""Scores from outside this suite, laid under ours and marked as external.

Two kinds of CSV, told apart by their columns, in results/published/ and results/published/curves/ (part of the
repository, with their sources in the README there) and results/external/ (what a user imported):
- per seed:   env, algo, seed, env_step, return; and source, where one file holds several
- summarised: env, algo, source, step, mean, std, min, median, max, n; step in environment steps, n "unstated"
  or a whole number; std and median may be empty, min and max both
Further columns are kept and ignored. Where a per-seed file has no source, its name is the source. No source is
shown twice: of two files that name the same one, that with its single seeds counts, else the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis.csvfile import read_text
from bench.disk import DamagedFile, check_inside
from bench.errors import UserError
from bench.names import ENV_NAME, is_safe_name
from bench.text import one_line

CURVES = "published/curves"  # per seed, a file for each source
IMPORTED = "external"
FOLDERS = ("published", CURVES, IMPORTED)
PER_SEED = ("env", "algo", "seed", "env_step", "return")
SUMMARISED = ("env", "algo", "source", "step", "mean", "std", "min", "median", "max", "n")
COLUMNS = ("env", "algo", "source", "env_step", "mean", "low", "high", "n")
EACH_SEED = ("env", "algo", "source", "seed", "env_step", "value")


def load_external(root: Path) -> tuple[pd.DataFrame, list[str]]:
    """All external scores as one row per (env, algo, source, env_step), and one line per file or source left out.

    Columns: COLUMNS; low and high are the lowest and the highest seed (nan where not published), n is the
    number of seeds (nan where not stated). algo is lower case, as our names are.
    """
    found, problems = read_all(root)
    return summarised(found), problems


def load_per_seed(root: Path) -> tuple[pd.DataFrame, list[str]]:
    """All external scores whose single seeds are known, one row each, and the lines of `load_external`.

    Columns: EACH_SEED.
    """
    found, problems = read_all(root)
    return single_seeds(found), problems


def summarised(found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The scores of `load_external` in the frames of `read_all`."""
    return _joined([_over_seeds(frame) if "seed" in frame else frame for frame in found], COLUMNS)


def single_seeds(found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The scores of `load_per_seed` in the frames of `read_all`."""
    return _joined([frame for frame in found if "seed" in frame], EACH_SEED)


def read_all(root: Path) -> tuple[list[pd.DataFrame], list[str]]:
    """Every file's scores, with EACH_SEED or COLUMNS as its columns, no source twice; one line per thing left out."""
    files: list[tuple[str, pd.DataFrame]] = []
    problems: list[str] = []
    for folder in FOLDERS:
        try:
            check_inside(root, root / folder)
        except DamagedFile as error:
            problems.append(str(error))
            continue
        for path in sorted((root / folder).glob("*.csv")):
            try:
                files.append((f"{folder}/{path.name}", _read(path)))
            except UserError as error:
                problems.append(f"{folder}/{one_line(str(error).removeprefix(f'{path.parent}/'))}")
    files.sort(key=lambda file: "seed" not in file[1])  # the seeds say more than their summary; stable
    home: dict[str, str] = {}
    kept = []
    for name, frame in files:
        again = sorted(set(frame["source"]) & home.keys())
        problems += [
            f"{name}: the source {source} is in {home[source]} already and is not shown twice; "
            "import it under another SOURCE, or remove one of them"
            for source in again
        ]
        home |= dict.fromkeys(set(frame["source"]) - home.keys(), name)
        kept.append(frame[~frame["source"].isin(again)] if again else frame)
    return kept, problems


def _joined(frames: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """The frames as one with these columns, sorted by them."""
    kept = [frame for frame in frames if len(frame)] or [pd.DataFrame(columns=list(columns))]
    frame = pd.concat(kept, ignore_index=True)[list(columns)]
    return frame.sort_values(list(columns[:5]), kind="stable", ignore_index=True)


def per_seed(file: Path) -> pd.DataFrame:
    """The columns EACH_SEED of a CSV of scores per seed. Raises UserError."""
    return _read(file, _each_seed)


def is_summary(file: Path) -> bool:
    """Whether a file has the columns of a summary over seeds."""
    try:
        return set(SUMMARISED) <= set(read_text(file).columns)
    except (OSError, ValueError):
        return False


def summaries(file: Path) -> pd.DataFrame:
    """The columns COLUMNS of a CSV of summaries over seeds. Raises UserError."""
    return _read(file, _summarised)


def at_step(curves: pd.DataFrame, env_step: float) -> tuple[np.ndarray, bool]:
    """One value per seed at a step, (n,), and whether any of them was interpolated.

    The evaluation at that step where a seed has one, else on the straight line between the seed's own evaluations
    before and after it. A seed whose evaluations begin later or end earlier has no value.

    Args:
        curves: one algorithm of one source on one task, columns as of `per_seed`.
    """
    values, interpolated = [], False
    for _, seed in curves.sort_values("env_step").groupby("seed", sort=True):
        steps = seed["env_step"].to_numpy(np.float64)
        if steps[0] <= env_step <= steps[-1]:
            values.append(float(np.interp(env_step, steps, seed["value"].to_numpy(np.float64))))
            interpolated |= not bool((steps == env_step).any())
    return np.array(values), interpolated


def _read(file: Path, tidy: Callable[[pd.DataFrame, Path], pd.DataFrame] | None = None) -> pd.DataFrame:
    try:
        return (tidy or _tidy)(read_text(file), file)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{file}: {one_line(error)}") from None


def _tidy(frame: pd.DataFrame, file: Path) -> pd.DataFrame:
    """EACH_SEED or COLUMNS, as the file's columns say. UserError naming what is missing, or the first wrong line."""
    return _summarised(frame, file) if "mean" in frame.columns else _each_seed(frame, file)


def _over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """EACH_SEED -> COLUMNS."""
    grouped = frame.groupby(list(COLUMNS[:4]))["value"]
    return grouped.agg(["mean", "min", "max", "size"]).reset_index().set_axis(list(COLUMNS), axis=1)


def _checked(frame: pd.DataFrame, file: Path, wanted: Sequence[str]) -> pd.DataFrame:
    """The frame with a source. UserError naming every column that is missing, or the first invalid name."""
    missing = [column for column in wanted if column not in frame.columns]
    if missing:
        there = ", ".join(one_line(column, 30) or "one without a name" for column in frame.columns)
        raise UserError(
            f"{file} lacks {', '.join(missing)} of the columns {', '.join(wanted)}; there are {there}"
        )
    if "source" not in frame.columns:
        frame = frame.assign(source=file.stem)
    for column in ("env", "algo", "source"):
        safe = {name: _is_name(name, column) for name in frame[column].unique()}
        bad = np.flatnonzero(~frame[column].map(safe).to_numpy(bool))
        if len(bad):
            raise UserError(
                f"{file}, line {bad[0] + 2}: {column} cannot be {one_line(frame[column][bad[0]], 60)!r}"
            )
    return frame


def _is_name(name: str, column: str) -> bool:
    """Whether a cell can be what its column says; the name of a task can have slashes."""
    return re.fullmatch(ENV_NAME, name) is not None if column == "env" else is_safe_name(name)


def _each_seed(frame: pd.DataFrame, file: Path) -> pd.DataFrame:
    frame = _checked(frame, file, PER_SEED)
    frame = frame[["env", "algo", "source", "seed"]].assign(
        algo=frame["algo"].str.lower(),
        seed=_numbers(frame, "seed", file, lowest=0, whole=True),
        env_step=_numbers(frame, "env_step", file, lowest=0, whole=True),
        value=_numbers(frame, "return", file),
    )
    _once(frame, [*COLUMNS[:4], "seed"], file, "this seed and step were given before")
    return frame


def _once(frame: pd.DataFrame, columns: Sequence[str], file: Path, complaint: str) -> None:
    _refuse(frame.duplicated(list(columns)).to_numpy(), file, complaint)


def _refuse(wrong: np.ndarray, file: Path, complaint: str) -> None:
    """UserError naming the first line of which `wrong` is true."""
    lines = np.flatnonzero(wrong)
    if len(lines):
        raise UserError(f"{file}, line {lines[0] + 2}: {complaint}")


def _summarised(frame: pd.DataFrame, file: Path) -> pd.DataFrame:
    frame = _checked(frame, file, SUMMARISED)
    stated = frame.assign(n=frame["n"].replace("unstated", ""))
    found = pd.DataFrame(
        {
            "env": frame["env"],
            "algo": frame["algo"].str.lower(),
            "source": frame["source"],
            "env_step": _numbers(frame, "step", file, lowest=0, whole=True),
            "mean": _numbers(frame, "mean", file),
            "low": _numbers(frame, "min", file, optional=True),
            "high": _numbers(frame, "max", file, optional=True),
            "n": _numbers(stated, "n", file, lowest=1, optional=True, whole=True),
        }
    )
    _numbers(frame, "std", file, lowest=0, optional=True)
    median = _numbers(frame, "median", file, optional=True)
    _once(found, COLUMNS[:4], file, "this step of this source was given before")
    low, high = found["low"].to_numpy(), found["high"].to_numpy()
    _refuse(np.isnan(low) != np.isnan(high), file, "min and max belong together: expected both, or neither")
    for name, value in (("mean", found["mean"].to_numpy()), ("median", median)):
        _refuse((value < low) | (value > high), file, f"the {name} is not between min and max")
    return found


def _numbers(
    frame: pd.DataFrame,
    column: str,
    file: Path,
    *,
    lowest: float = -np.inf,
    optional: bool = False,
    whole: bool = False,
) -> np.ndarray:
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64)
    wrong = ~(np.isfinite(values) & (values >= lowest))
    if whole:
        wrong |= values != np.floor(values)
    if optional:
        wrong &= (frame[column] != "").to_numpy()
    bad = np.flatnonzero(wrong)
    if len(bad):
        value = one_line(frame[column][bad[0]], 60)
        raise UserError(f"{file}, line {bad[0] + 2}: {column} cannot be {value!r}")
    return values
