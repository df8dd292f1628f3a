"""How large is the target of QSM's loss on tasks? M_q |dQ/da|, from train.csv of the QSM runs at the authors' M_q."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from algos.qsm import QSMConfig
from bench.analysis.scores.load import load
from bench.analysis.scores.results import RunScore
from bench.analysis.stats import Array
from bench.analysis.table import Entry, Table, number, within
from bench.runs import studies

METRIC = "q_gradient"  # mean over batch and coordinates of |dQ/da| at the noised action


def table(root: Path) -> Table:
    """One row per study, task and label of QSM. Raises UserError as `load`."""
    groups: dict[tuple[str, str, str], list[Array]] = {}
    for study in studies(root):
        for score in load(root, study).runs:
            found = targets(score)
            if len(found):
                groups.setdefault((study, score.run.env, score.run.label), []).append(found)
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for (study, env, label), runs in groups.items():
        medians = [float(np.median(run)) for run in runs]
        every = np.concatenate(runs)
        middle, low, high = float(np.median(medians)), float(every.min()), float(every.max())
        rows.append([study, env, label, number(middle, 1, detail=within(low, high, 1)), str(len(runs))])
        record = {"study": study, "env": env, "label": label, "median": middle, "low": low, "high": high}
        records.append({**record, "n": len(runs)})
    notes = [
        "The size of the target of QSM's loss, mean over batch and coordinates of the absolute value. Median over "
        "runs of the median over training, in brackets the smallest and the largest value that was logged."
    ]
    columns = ["Study", "Task", "Label", "M_q |dQ/da|", "Runs"]
    title = f"The target of QSM's loss on tasks, at M_q = {QSMConfig.M_q:g}"
    return Table("qsm_targets", title, columns, rows, records, notes)


def targets(score: RunScore) -> Array:
    """M_q |dQ/da| at every logged step of a finished run of QSM with the authors' M_q (K,); none for any other run."""
    if not score.scored or score.run.algo != "qsm" or score.run.meta is None:
        return np.empty(0)
    config = score.run.meta["config"]
    # a normalised gradient has the size of M_q by definition
    if config["M_q"] != QSMConfig.M_q or config.get("normalise_gradient"):
        return np.empty(0)
    logged = score.run.columns("train.csv")
    return config["M_q"] * logged["value"][logged["name"] == METRIC].astype(np.float64)
