"""Our scores beside those measured by others, which are always marked as external."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.analysis.coverage import FEW_SEEDS_ONLY, mark
from bench.analysis.scores.results import Results
from bench.analysis.scores.tables import count
from bench.analysis.style import named
from bench.analysis.table import Entry, Table, number, within


def beside_ours(results: Results, external: pd.DataFrame) -> pd.DataFrame:
    """The external scores of this study's tasks, up to its last step, of algorithms that it has too."""
    last = max((float(cell.env_steps[-1]) for cell in results.cells.values()), default=0.0)
    ours = set(results.algos.values())
    keep = external["env"].isin(results.envs) & external["algo"].isin(ours) & (external["env_step"] <= last)
    return external[keep]


def other_algorithms(results: Results, external: pd.DataFrame) -> list[str]:
    """Algorithms with external scores on this study's tasks that the study itself does not have: not shown."""
    names = set(external.loc[external["env"].isin(results.envs), "algo"])
    return sorted(names - set(results.algos.values()))


def table(results: Results, external: pd.DataFrame) -> Table:
    """External scores beside our mean over seeds at the same environment step."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for item in beside_ours(results, external).to_dict("records"):
        labels = [
            x
            for x in results.labels
            if results.algos[x] == item["algo"] and (item["env"], x) in results.cells
        ]
        for label in labels:
            cell = results.cells[item["env"], label]
            at = np.flatnonzero(cell.env_steps == item["env_step"])
            if not len(at):
                continue
            ours = cell.returns[:, at[0]]
            seeds = "n not stated" if np.isnan(item["n"]) else f"n = {item['n']:.0f}"
            spread = "" if np.isnan(item["low"]) else within(item["low"], item["high"]) + " "
            rows.append(
                [
                    item["env"],
                    named(results, label),
                    number(item["env_step"]),
                    item["source"],
                    number(item["mean"], detail=spread + seeds),
                    number(ours.mean(), detail=f"{within(ours.min(), ours.max())} {count(cell.n)}"),
                ]
            )
            record = {
                "label": label,
                **{f"external_{key}": item[key] for key in ("mean", "low", "high", "n")},
            }
            record |= {
                "ours_mean": ours.mean(),
                "ours_low": ours.min(),
                "ours_high": ours.max(),
                "ours_n": cell.n,
            }
            records.append({**{key: item[key] for key in ("env", "algo", "source", "env_step")}, **record})
    notes = [
        "External: measured by others, under protocols that differ from ours in widths, learning rate, batch "
        "or action repeat; see results/published/README.md. Brackets: lowest and highest seed.",
        *([FEW_SEEDS_ONLY] if any(mark(cell.n) for cell in results.cells.values()) else []),
    ]
    columns = ["Task", "Algorithm", "Env steps", "Source (external)", "External", "Ours at this step"]
    return Table("external", "Beside external scores", columns, rows, records, notes)
