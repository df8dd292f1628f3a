"""The gates: does an algorithm of ours end where others' runs of it end, under the same protocol?"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats as distributions

from bench.analysis import stats
from bench.analysis.coverage import FEW_SEEDS_ONLY
from bench.analysis.external.scores import per_seed
from bench.analysis.scores.load import load
from bench.analysis.scores.results import Cell, Results
from bench.analysis.scores.tables import count
from bench.analysis.stats import Array
from bench.analysis.style import display_name
from bench.analysis.table import MISSING, Entry, Table, number, within
from bench.runs import studies

BANDS = Path("published/bands.toml")  # below results/
CURVES = Path("published/authors_curves.csv")
# early-100k: SAC on its tasks, in jobs that do not differ from those of gate-sac
PUBLISHED_GATES = ("gate-sac", "gate-td3", "early-100k")
AUTHORS_GATE = "gate-authors"
NOT_RUN = "not run yet"


def published(root: Path) -> Table:
    """The median of our seeds' final returns beside the band of published single runs.

    Raises OSError and ValueError where the bands cannot be read.
    """
    bands = tomllib.loads((root / BANDS).read_text(encoding="utf-8"))["band"]
    found = [results for results in (_if_there(root, study) for study in PUBLISHED_GATES) if results]
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for band in bands:
        cell = _cell(found, band["env"], band["algo"])
        at_end = None if cell is None or cell.env_steps[-1] != band["env_step"] else cell
        verdict = NOT_RUN if at_end is None else _inside(float(np.median(at_end.final)), band)
        rows.append(
            [
                band["env"],
                display_name(band["algo"], band["algo"]),
                number(band["env_step"]),
                _median(at_end.final) if at_end else MISSING,
                number(band["middle"], detail=within(band["low"], band["high"])),
                band["what"],
                verdict,
            ]
        )
        record = {key: band[key] for key in ("env", "algo", "env_step", "low", "middle", "high", "what")}
        ours = {"ours_median": float(np.median(at_end.final)), "ours_n": at_end.n} if at_end else {}
        records.append({**record, **ours, "verdict": verdict})
    notes = [
        "Ours: median over seeds of the final return (the mean of the last tenth of a run's evaluations), lowest and "
        "highest seed. Inside: the median lies within the published band.",
        *([FEW_SEEDS_ONLY] if found else []),
        *_unfinished(found),
    ]
    columns = ["Task", "Algorithm", "Env steps", "Ours", "Published (external)", "Band", "Verdict"]
    return Table("gate_published", "Against published scores", columns, rows, records, notes)


def authors(root: Path) -> Table:
    """Our seeds beside those of the authors' own code, at the last evaluation that both have.

    Raises OSError and UserError where the authors' curves cannot be read.
    """
    results = _if_there(root, AUTHORS_GATE)
    theirs = per_seed(root / CURVES)
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for (env, algo), curves in theirs.groupby(["env", "algo"], sort=False):
        cell = _cell([results] if results else [], env, algo)
        record: dict[str, object] = {"env": env, "algo": algo, "verdict": NOT_RUN}
        row: list[Entry] = [env, display_name(algo, algo)]
        both = np.intersect1d(cell.env_steps, curves["env_step"]) if cell else np.empty(0)
        if cell is None or not len(both) or cell.n < 2:
            rows.append([*row, *[MISSING] * 4, NOT_RUN])
            records.append(record)
            continue
        inside = 0
        for step in both:  # the last one is shown
            ours = cell.returns[:, np.flatnonzero(cell.env_steps == step)[0]]
            them = curves.loc[curves["env_step"] == step, "value"].to_numpy(np.float64)
            low, high = prediction_interval(ours, len(them))
            inside += bool(low <= them.mean() <= high)
        verdict = "inside" if low <= them.mean() <= high else "outside"
        row += [number(both[-1]), _median(ours)]
        row += [number(float(them.mean()), detail=f"n = {len(them)}"), within(low, high)]
        rows.append([*row, f"{verdict}; {inside} of {len(both)} evaluations"])
        record |= {"env_step": both[-1], "ours_median": float(np.median(ours)), "ours_n": cell.n}
        record |= {"authors_mean": float(them.mean()), "authors_n": len(them), "low": low, "high": high}
        records.append({**record, "verdict": verdict, "inside": inside, "evaluations": len(both)})
    notes = [
        "At the last evaluation that both have. Ours: median over seeds, lowest and highest seed. Expected: 95% "
        "prediction interval of the mean return of as many further seeds of ours as the authors' code was run with (t "
        "distribution). Inside: the authors' mean lies in it; counted over all evaluations too.",
        *([FEW_SEEDS_ONLY] if results else []),
        *_unfinished([results] if results else []),
    ]
    columns = ["Task", "Algorithm", "Env steps", "Ours", "Authors' code (external)", "Expected", "Verdict"]
    return Table("gate_authors", "Against the QSM authors' code", columns, rows, records, notes)


def prediction_interval(ours: Array, further: int, level: float = stats.LEVEL) -> tuple[float, float]:
    """Where the mean of so many further seeds lies if they are like these (n,): normal, unknown spread.

    mean ± t(n - 1) s sqrt(1/n + 1/further); n is at least 2.
    """
    n = len(ours)
    t = float(distributions.t.ppf(0.5 + level / 2, n - 1))
    half = t * float(ours.std(ddof=1)) * np.sqrt(1 / n + 1 / further)
    return float(ours.mean() - half), float(ours.mean() + half)


def _if_there(root: Path, study: str) -> Results | None:
    return load(root, study) if study in studies(root) else None


def _cell(found: Sequence[Results], env: str, algo: str) -> Cell | None:
    return next((results.cells[env, algo] for results in found if (env, algo) in results.cells), None)


def _median(values: Array) -> Entry:
    spread = within(float(values.min()), float(values.max()))
    return number(float(np.median(values)), detail=f"{spread} {count(len(values))}")


def _inside(value: float, band: dict[str, Any]) -> str:
    if band["low"] <= value <= band["high"]:
        return "inside"
    return "outside, below" if value < band["low"] else "outside, above"


def _unfinished(found: Sequence[Results]) -> list[str]:
    return [
        f"{results.study}: {len(results.unscored)} of {len(results.runs)} runs have no score yet."
        for results in found
        if results.unscored
    ]
