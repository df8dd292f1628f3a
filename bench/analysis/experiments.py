"""What the experiments measured, one CSV per experiment: results/experiments/<name>/scores.csv.

Columns measure, setting, algo, seed, value: one number per seed. claims.toml says which of them it judges.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis.stats import Array
from bench.files import one_line

COLUMNS = ("measure", "setting", "algo", "seed", "value")


def load_scores(folder: Path, measure: str, setting: str) -> tuple[dict[str, Array], str]:
    """{algorithm: values in the order of the seeds}, and what is wrong with the file, "" where nothing."""
    try:
        frame = pd.read_csv(folder / "scores.csv")
        missing = [column for column in COLUMNS if column not in frame]
        if missing:
            return {}, f"scores.csv lacks the column {missing[0]}"
        frame = frame[(frame["measure"] == measure) & (frame["setting"] == setting)].sort_values("seed")
        if frame.duplicated(["algo", "seed"]).any():
            return {}, "scores.csv has a seed twice"
        values = frame["value"].to_numpy(np.float64)
        if not np.isfinite(values).all():
            return {}, "scores.csv holds a value that is not finite"
        return {str(algo): values[(frame["algo"] == algo).to_numpy()] for algo in frame["algo"].unique()}, ""
    except FileNotFoundError:
        return {}, "not run yet"
    except (OSError, ValueError, TypeError) as error:
        return {}, f"scores.csv cannot be read: {one_line(error)}"
