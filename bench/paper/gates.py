"""The gates: does an algorithm of ours end where others' runs of it end, under the same protocol?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from msgspec import Meta, Struct
from scipy import special

from bench.analysis import stats
from bench.analysis.coverage import FEW_SEEDS_ONLY
from bench.analysis.external.scores import CURVES, at_step, per_seed
from bench.analysis.scores.load import load
from bench.analysis.scores.results import LARGEST_RETURN, Cell, Results
from bench.analysis.scores.tables import count
from bench.analysis.stats import Array
from bench.analysis.style import display_name
from bench.analysis.table import MISSING, Entry, Table, number, within
from bench.disk import parse_toml
from bench.errors import UserError
from bench.runs import studies
from bench.shape import fit

BANDS = Path("published/bands.toml")  # below results/
AUTHORS_CURVES = Path("published/authors_curves.csv")
PERCENTILES = (5, 50, 95)  # of single published runs
# early-100k: SAC and TD3 on its tasks, in jobs that do not differ from those of the gates; sac-choices: its variant
PUBLISHED_GATES = ("gate-sac", "gate-td3", "early-100k", "sac-choices")
AUTHORS_GATE = "gate-authors"
NOT_RUN, INSIDE, SAYS_NOTHING = "not run yet", "inside", "says nothing"
SPANS = 0.9  # of the scale of returns; an interval as wide as that rules hardly anything out


class Asked(Struct, forbid_unknown_fields=True):
    """A [[band]] of published/bands.toml: of which published runs, and why of these."""

    algo: str
    env: str
    env_step: int
    sources: Annotated[list[str], Meta(min_length=1)]
    why: str


class BandsFile(Struct, forbid_unknown_fields=True):
    """published/bands.toml."""

    band: list[Asked]


@dataclass(frozen=True)
class Band:
    """Where single published runs of an algorithm stand at a step: percentiles over the seeds of its sources.

    sources: how many seeds of each; interpolated: those of them that have no evaluation at the step itself.
    """

    env: str
    algo: str
    env_step: int
    low: float
    middle: float
    high: float
    sources: dict[str, int]
    interpolated: tuple[str, ...]
    why: str


def bands(root: Path) -> list[Band]:
    """The bands that published/bands.toml asks for, from the curves in published/curves.

    Raises OSError, UserError and ValueError where these cannot be read, or a source has no such runs.
    """
    asked = fit(parse_toml((root / BANDS).read_bytes()), BandsFile).band
    curves = {name: per_seed(root / CURVES / f"{name}.csv") for band in asked for name in band.sources}
    return [_band(band, curves) for band in asked]


def _band(asked: Asked, curves: dict[str, pd.DataFrame]) -> Band:
    env, algo, env_step = asked.env, asked.algo, asked.env_step
    found: dict[str, Array] = {}
    interpolated = []
    for source in asked.sources:
        of_source = curves[source]
        runs = of_source[(of_source["env"] == env) & (of_source["algo"] == algo)]
        found[source], between = at_step(runs, env_step)
        if not len(found[source]):
            raise UserError(
                f"{BANDS}: {source} has no run of {algo} on {env} that reaches {env_step:,} steps"
            )
        interpolated += [source] * between
    low, middle, high = np.percentile(np.concatenate(list(found.values())), PERCENTILES)
    seeds = {source: len(values) for source, values in found.items()}
    return Band(env, algo, env_step, low, middle, high, seeds, tuple(interpolated), asked.why)


def published(root: Path) -> Table:
    """The median of our seeds' returns at a step against the band of published single runs.

    Raises as `bands`.
    """
    found = [results for results in (_if_there(root, study) for study in PUBLISHED_GATES) if results]
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for band, label in [(each, label) for each in bands(root) for label in _labels(found, each)]:
        cell = _cell(found, band.env, label)
        ours = None if cell is None else _returns_at(cell, band.env_step)
        verdict = NOT_RUN if ours is None else _inside(float(np.median(ours)), band.low, band.high)
        rows.append(
            [
                band.env,
                display_name(label, band.algo),
                number(band.env_step),
                MISSING if ours is None else _median(ours),
                number(band.middle, detail=within(band.low, band.high)),
                _pooled(band),
                verdict,
            ]
        )
        record: dict[str, object] = {"env": band.env, "algo": band.algo, "label": label}
        record |= {"env_step": band.env_step}
        record |= {"low": band.low, "middle": band.middle, "high": band.high, "why": band.why}
        record |= {"sources": " ".join(band.sources), "n": sum(band.sources.values())}
        if ours is not None:
            record |= {"ours_median": float(np.median(ours)), "ours_n": len(ours)}
        records.append({**record, "verdict": verdict})
    notes = [
        "Ours: median over seeds of a single evaluation at the step, lowest and highest seed. Published: median and "
        "5th to 95th percentile of single evaluations of single seeds at the same step; which sources are pooled, and "
        "why, is in results/published/bands.toml. Inside: our median lies between these percentiles. A gate finds "
        "gross mistakes; it does not show that two algorithms are equal.",
        *([FEW_SEEDS_ONLY] if found else []),
        *_unfinished(found),
    ]
    columns = ["Task", "Algorithm", "Env steps", "Ours", "Published (external)", "Seeds of", "Verdict"]
    return Table("gate_published", "Against published runs", columns, rows, records, notes)


def _labels(found: Sequence[Results], band: Band) -> list[str]:
    """The algorithm with its defaults, run or not, and the variants of it that were run on the band's task."""
    variants = {
        cell.label for results in found for cell in results.cells.values() if cell.algo == band.algo
    } - {band.algo}
    return [band.algo, *(x for x in sorted(variants) if _cell(found, band.env, x) is not None)]


def _pooled(band: Band) -> str:
    seeds = ", ".join(
        f"{source} {n}" + ", interpolated" * (source in band.interpolated)
        for source, n in band.sources.items()
    )
    return f"{seeds} ({band.why})"


def authors(root: Path) -> Table:
    """Our seeds against those of the authors' own code, at the last evaluation that both have.

    Raises OSError and UserError where the authors' curves cannot be read.
    """
    results = _if_there(root, AUTHORS_GATE)
    theirs = per_seed(root / AUTHORS_CURVES)
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
        found = []
        for step in both:  # the last one is shown
            ours = cell.returns[:, np.flatnonzero(cell.env_steps == step)[0]]
            them = curves.loc[curves["env_step"] == step, "value"].to_numpy(np.float64)
            low, high = prediction_interval(ours, len(them))
            found.append(_inside(float(them.mean()), low, high))
        inside, silent = found.count(INSIDE), found.count(SAYS_NOTHING)
        over_all = f"inside at {inside} of {len(found) - silent} evaluations"
        if silent:
            over_all += f" ({silent} more say nothing)"
        row += [number(both[-1]), _median(ours)]
        row += [number(float(them.mean()), detail=f"n = {len(them)}"), within(low, high)]
        rows.append([*row, f"{found[-1]}; {over_all}"])
        record |= {"env_step": both[-1], "ours_median": float(np.median(ours)), "ours_n": cell.n}
        record |= {"authors_mean": float(them.mean()), "authors_n": len(them), "low": low, "high": high}
        record |= {"verdict": found[-1], "inside": inside, "says_nothing": silent, "evaluations": len(both)}
        records.append(record)
    notes = [
        "At the last evaluation that both have. Ours: median over seeds, lowest and highest seed. Expected: 95% "
        "prediction interval of the mean return of as many further seeds of ours as the authors' code was run with (t "
        "distribution). Inside: the authors' mean lies in it. Says nothing: the interval spans at least "
        f"{100 * SPANS:.0f}% of the scale from 0 to 1000, so that hardly any return could lie outside.",
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
    t = float(special.stdtrit(n - 1, 0.5 + level / 2))
    half = t * float(ours.std(ddof=1)) * np.sqrt(1 / n + 1 / further)
    return float(ours.mean() - half), float(ours.mean() + half)


def _if_there(root: Path, study: str) -> Results | None:
    return load(root, study) if study in studies(root) else None


def _cell(found: Sequence[Results], env: str, label: str) -> Cell | None:
    """That of the study with the most seeds of it."""
    cells = [results.cells[env, label] for results in found if (env, label) in results.cells]
    return max(cells, key=lambda cell: cell.n, default=None)


def _returns_at(cell: Cell, env_step: int) -> Array | None:
    """One evaluation of each seed (n,), None where there is none at that step."""
    at = np.flatnonzero(cell.env_steps == env_step)
    return cell.returns[:, at[0]] if len(at) else None


def _median(values: Array) -> Entry:
    spread = within(float(values.min()), float(values.max()))
    return number(float(np.median(values)), detail=f"{spread} {count(len(values))}")


def _inside(value: float, low: float, high: float) -> str:
    """Whether a return lies in an interval; one that spans the scale of DM Control's returns decides nothing."""
    if min(high, LARGEST_RETURN) - max(low, 0.0) >= SPANS * LARGEST_RETURN:
        return SAYS_NOTHING
    if low <= value <= high:
        return INSIDE
    return "outside, below" if value < low else "outside, above"


def _unfinished(found: Sequence[Results]) -> list[str]:
    return [
        f"{results.study}: {len(results.unscored)} of {len(results.runs)} runs have no score yet."
        for results in found
        if results.unscored
    ]
