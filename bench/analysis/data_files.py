"""A study's numbers in files for other programs, below `report/tables/`. The same results give the same bytes.

- curves.csv.gz, and curves.parquet where pyarrow is installed: a row per evaluation, columns CURVES
- score_matrices.json and score_matrices.npz: final returns (runs, tasks) of each label, as rliable takes them
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import json

import numpy as np
import pandas as pd

from bench.analysis.data import KEYS, Data
from bench.analysis.scores.results import Results
from bench.errors import UserError

CURVES = (*KEYS, "env_step", "return")
LEVEL = 4  # of compression: 6% larger than at 9, in a sixth of the time


def data_files(results: Results) -> dict[str, bytes]:
    """{path below the report's folder: content}."""
    studies = tuple(part.study for part in results.parts) or (results.study,)
    data = Data(results.runs, studies, results.problems)
    files = {"tables/curves.csv.gz": gzip.compress(_curves(data).encode(), LEVEL, mtime=0)}
    if importlib.util.find_spec("pyarrow"):
        files["tables/curves.parquet"] = _parquet(data.curves[list(CURVES)])
    try:
        matrices = data.score_matrices()
    except UserError:  # no label, or no seed, has a score on all tasks yet
        return files
    record = {
        "measure": "final return",
        "tasks": list(data.tasks),
        "scores": {label: matrix.tolist() for label, matrix in matrices.items()},
    }
    arrays = io.BytesIO()
    np.savez(arrays, **matrices)  # type: ignore[arg-type]
    files["tables/score_matrices.json"] = (json.dumps(record, indent=1) + "\n").encode()
    files["tables/score_matrices.npz"] = arrays.getvalue()
    return files


def _curves(data: Data) -> str:
    """The frame `data.curves` without its configuration as CSV; by hand, since pandas takes four times as long."""
    lines = [",".join(CURVES)]
    for score in data.runs:
        run = score.run
        keys = [run.study, run.env, run.algo, run.label, str(run.seed), score.state, str(score.scored)]
        start = ",".join(f'"{key}"' if "," in key else key for key in keys)
        pairs = zip(score.env_steps.tolist(), score.returns.tolist())
        lines += [f"{start},{step},{value!r}" for step, value in pairs]
    return "\n".join([*lines, ""])


def _parquet(frame: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    return out.getvalue()
