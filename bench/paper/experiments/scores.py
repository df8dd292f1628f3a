"""What the experiments measured, one CSV per experiment: results/experiments/<name>/scores.csv.

Columns measure, setting, algo, seed, value: one number per seed. The rules of the claims say which of them they judge.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis.csvfile import read_text
from bench.analysis.stats import Array
from bench.text import one_line

COLUMNS = ("measure", "setting", "algo", "seed", "value")


def load_scores(folder: Path, measure: str, setting: str) -> tuple[dict[str, Array], str]:
    """{algorithm: values in the order of the seeds}, and what is wrong with the file, "" where nothing."""
    try:
        frame = read_text(folder / "scores.csv")
    except FileNotFoundError:
        return {}, "not run yet"
    except (OSError, ValueError) as error:
        return {}, f"scores.csv cannot be read: {one_line(error)}"
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        return {}, f"scores.csv lacks the column {missing[0]}"
    frame = frame[(frame["measure"] == measure) & (frame["setting"] == setting)]
    frame = frame.assign(**{key: pd.to_numeric(frame[key], errors="coerce") for key in ("seed", "value")})
    if frame.duplicated(["algo", "seed"]).any():
        return {}, "scores.csv has a seed twice"
    if not np.isfinite(frame[["seed", "value"]].to_numpy(np.float64)).all():
        return {}, "scores.csv holds a seed or value that is no finite number"
    groups = frame.sort_values("seed").groupby("algo")["value"]
    return {str(algo): values.to_numpy(np.float64) for algo, values in groups}, ""
