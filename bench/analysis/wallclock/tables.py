"""The tables of the timing studies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.analysis.style import order
from bench.analysis.table import MISSING, Entry, Table, number, within
from bench.analysis.wallclock.timings import (
    CHAINS,
    EXECUTION,
    FACT_NUMBERS,
    FACTS,
    GROWING,
    SIZE,
    TimingSet,
    slope_over_T,
)

PARTS = {  # what -> heading
    "update": "Update",
    "actor_update": "Actor update",
    "critic_update": "Critic update",
    "act_1": "Act, 1",
    "act_10": "Act, 10",
    "env_step": "Env step",
    "end_to_end": "End to end",
}
FACT_HEADINGS = ("Actor par.", "Critic par.", "GFLOP/update", "Calls/update", "Calls/act", "Peak memory, MiB")
ROW = ("algo", "hidden", "batch", "T", "pack", "candidates")


def all_tables(timing_sets: Sequence[TimingSet]) -> list[Table]:
    """For each set of timings a table at its reference size, one of all sizes and one over T; then the counts."""
    tables = []
    for timings in timing_sets:
        size = timings.reference_size()
        main = timings.at(**size)
        tables.append(_table(timings, main, f"wall_clock-{timings.name}", _size_title(size)))
        if any(timings.samples[key].nunique() > 1 for key in SIZE):
            name = f"wall_clock_sizes-{timings.name}"
            tables.append(_table(timings, timings.samples, name, "all sizes"))
        tables.append(over_T(timings))
    # counts of a machine do not depend on the mode
    studies = {(timings.hardware, timings.facts.to_csv()): timings for timings in timing_sets}
    return tables + [facts(timings) for timings in studies.values()]


def compact(timings: TimingSet) -> Table:
    """The medians at the reference size, in a table that fits a terminal."""
    size = timings.reference_size()
    parts = {"Update": "update", "Actor": "actor_update", "Critic": "critic_update", "Act": "act_1"}
    rows: list[list[Entry]] = []
    for key in sorted(_row_keys(timings.at(**size)), key=lambda key: (order(key[0]), _natural(key[1:]))):
        where = dict(zip(ROW, key))
        medians = timings.at(**where).groupby("what", observed=True)["seconds"].median()
        row: list[Entry] = [timings.shown(where["algo"])]
        row += [number(float(where["T"])) if where["T"] else MISSING, number(_repeats(timings.at(**where)))]
        row += [number(1e3 * float(medians.get(what, "nan")), 2) for what in parts.values()]
        rows.append([*row, number(1 / float(medians.get("end_to_end", "nan")))])
    title = f"{timings.title}; {_size_title(size)}; medians, milliseconds"
    return Table(f"timing-{timings.name}", title, ["Algorithm", "T", "n", *parts, "Steps/s"], rows, ())


def over_T(timings: TimingSet) -> Table:
    """Median update time at each T and the slope of the line through them."""
    size = timings.reference_size()
    found = {
        (algo, what): slope
        for algo in CHAINS
        for what in GROWING
        if (slope := slope_over_T(timings, algo=algo, what=what, **size))
    }
    chains = sorted({T for slope in found.values() for T in slope.T})
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for (algo, what), slope in found.items():
        at = {T: 1e3 * seconds for T, seconds in zip(slope.T, slope.seconds)}
        row: list[Entry] = [timings.shown(algo), PARTS[what], number(slope.rounds)]
        row += [number(at.get(T, float("nan")), 2) for T in chains]
        low, high = 1e3 * slope.low, 1e3 * slope.high
        row.append(number(1e3 * slope.slope, 3, detail=within(low, high, 3)))
        rows.append([*row, number(1e3 * slope.intercept, 2)])
        record: dict[str, object] = {
            **timings.how,
            **size,
            "algo": algo,
            "what": what,
            "rounds": slope.rounds,
        }
        record |= {f"T{T:g}_ms": milliseconds for T, milliseconds in at.items()}
        record |= {"slope_ms": 1e3 * slope.slope, "slope_low": low, "slope_high": high}
        records.append({**record, "intercept_ms": 1e3 * slope.intercept})
    columns = ["Algorithm", "Part", "Rounds", *(f"T = {T:g}" for T in chains), "Slope", "Intercept"]
    notes = [
        f"Median milliseconds at T denoising steps; {_size_title(size)}. Slope: milliseconds per denoising step, least "
        "squares, with a 95% bootstrap interval over rounds. Intercept: of the same line.",
    ]
    title = f"Update time over T, {timings.title}"
    return Table(f"update_time-{timings.name}", title, columns, rows, records, notes)


def _size_title(size: dict[str, str]) -> str:
    return f"widths {size['hidden']}, batch {size['batch']}, pack {size['pack']}"


def _table(timings: TimingSet, samples: pd.DataFrame, name: str, which: str) -> Table:
    setup = {"compile": "Compile, s", "warmup": "Warm-up, s"}
    shown_setup = [what for what in setup if (samples["what"] == what).any()]
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    varying = [key for key in SIZE if samples[key].nunique() > 1]
    for key in sorted(_row_keys(samples), key=lambda key: (order(key[0]), _natural(key[1:]))):
        where = dict(zip(ROW, key))
        of_row = timings.at(**where)
        row: list[Entry] = [timings.shown(where["algo"])]
        row += [number(float(where["T"])) if where["T"] else "–"]
        row += [where[column] for column in varying]
        row += [number(float(where["candidates"] or "nan")), number(_repeats(of_row))]
        record: dict[str, object] = {**timings.how, **where}
        for what in PARTS:
            milliseconds = 1e3 * of_row.loc[of_row["what"] == what, "seconds"].to_numpy(float)
            row.append(_median_and_p95(milliseconds))
            record |= _part_record(what, milliseconds)
        for what in shown_setup:
            seconds = of_row.loc[of_row["what"] == what, "seconds"].to_numpy(float)
            row.append(number(float(np.median(seconds)) if len(seconds) else float("nan"), 1))
            record[f"{what}_s"] = float(np.median(seconds)) if len(seconds) else None
        rows.append(row)
        records.append(record)
    columns = ["Algorithm", "T", *(column.capitalize() for column in varying), "Candidates", "n"]
    columns += [*PARTS.values(), *(setup[what] for what in shown_setup)]
    notes = [
        f"Median of n timed calls (95th percentile), milliseconds per call; {which}. "
        f"{', '.join(f'{key} {timings.how[key]}' for key in EXECUTION)}."
        + (f" {timings.hardware}." if timings.hardware else ""),
        "Act, 1 and 10: for a batch of 1 and of 10. T: denoising steps. "
        "Candidates: actions drawn for each one taken. n: calls of the part that was timed least often. "
        "End to end: one environment step of training with its update.",
    ]
    title = f"Wall-clock, {timings.title} ({which})"
    return Table(name, title, columns, rows, records, notes)


def facts(timings: TimingSet) -> Table:
    """The counts, which no clock enters, of a single seed: one row per algorithm and size."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    sizes = set(zip(*(timings.facts[column] for column in FACTS)))
    for key in sorted(sizes, key=lambda key: (order(key[0]), _natural(key[1:]))):
        where = dict(zip(FACTS, key))
        row: list[Entry] = [timings.shown(where["algo"]), where["hidden"], where["batch"]]
        row += [number(float(where[column])) if where[column] else MISSING for column in ("T", "candidates")]
        record: dict[str, object] = dict(where)
        for fact in FACT_NUMBERS:
            record[fact] = timings.fact(fact, **where)
            row.append(number(timings.fact(fact, **where), 2 if fact == "update_gflop" else 0))
        rows.append(row)
        records.append(record)
    columns = ["Algorithm", "Hidden", "Batch", "T", "Candidates", *FACT_HEADINGS]
    notes = [
        "Candidates: actions drawn for each one taken. Par.: parameters, of both critics together. Calls: evaluations "
        "of a network on a batch, forward; where updates differ, their mean. Peak memory: of the process that trains "
        "one seed, its replay buffer included."
    ]
    name, title = f"wall_clock_facts-{timings.study}", f"Parameters, calls and memory, {timings.study}"
    return Table(name, title, columns, rows, records, notes)


def _repeats(samples: pd.DataFrame) -> float:
    """Timed calls of the part that has the fewest, nan where none was timed."""
    return float(samples.loc[samples["what"].isin(PARTS), "what"].value_counts().min())


def _row_keys(samples: pd.DataFrame) -> set[tuple[str, ...]]:
    return set(zip(*(samples[column] for column in ROW)))


def _natural(key: tuple[str, ...]) -> tuple[tuple[bool, float, str], ...]:
    """Numbers in order of size, before text."""
    return tuple((not part.isdigit(), float(part) if part.isdigit() else 0.0, part) for part in key)


def _median_and_p95(milliseconds: np.ndarray) -> Entry:
    if not len(milliseconds):
        return number(float("nan"))
    median, p95 = np.percentile(milliseconds, [50, 95])
    digits = 2 if median < 10 else 1
    return number(float(median), digits, detail=f"({p95:.{digits}f})")


def _part_record(what: str, milliseconds: np.ndarray) -> dict[str, object]:
    if not len(milliseconds):
        return {f"{what}_ms": None, f"{what}_ms_p95": None, f"{what}_n": 0}
    median, p95 = np.percentile(milliseconds, [50, 95])
    return {f"{what}_ms": float(median), f"{what}_ms_p95": float(p95), f"{what}_n": len(milliseconds)}
