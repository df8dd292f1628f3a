"""The table of the experiment `cqsm`: does our reading of continuous Q-score matching find a known optimum?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.analysis.report.sections import Picture
from bench.analysis.table import Entry, Table, number, within
from bench.paper.experiments.cqsm.run import ITERATIONS, PATHS, settings
from bench.paper.experiments.data import read_scores, values

TITLE = "A reading of CQSM"
ASKS = (
    "Does our reading of continuous Q-score matching find the optimum of linear-quadratic problems, where it is known? "
    "It is no reproduction: no code of its authors is public."
)


def pictures(folder: Path) -> list[Picture]:
    """There is none."""
    return []


def tables(folder: Path) -> list[Table]:
    """How far the learned drift and its value are from the optimum's, at every setting."""
    scores = read_scores(folder)
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for cell in settings():
        setting = f"cost={cell['cost']:g},dt={cell['dt']:g}"
        distance, regret, finite = (
            values(scores, measure, setting, "cqsm-reading") for measure in ("distance", "regret", "finite")
        )
        row: list[Entry] = [
            f"{cell['cost']:g}",
            f"{cell['dt']:g}",
            number(len(distance)),
            number(finite.sum()),
        ]
        record: dict[str, object] = {**cell, "n": len(distance), "finite": finite.sum()}
        for name, found in (("distance", distance), ("regret", regret)):
            middle, low, high = (float(of(found)) for of in (np.median, np.min, np.max))
            row.append(number(middle, 3, detail=within(low, high, 3)))
            record |= {name: middle, f"{name}_least": low, f"{name}_most": high}
        rows.append(row)
        records.append(record)
    notes = [
        f"After {ITERATIONS} iterations with {PATHS} sampled paths each; a seed is a problem of its own. Median over "
        "seeds, in brackets the least and the most. Distance: of the learned drift's coefficients from the optimum's, "
        "relative to these. Excess loss: that of the learned drift over the optimum's, relative to the first drift's. "
        "Finite: seeds whose learned drift has a finite value."
    ]
    columns = ["λ", "Step of a path", "n", "Finite", "Distance", "Excess loss"]
    return [Table("cqsm", "A reading of CQSM on linear-quadratic problems", columns, rows, records, notes)]
