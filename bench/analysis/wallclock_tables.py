"""The tables of the timing studies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.analysis.style import display_name
from bench.analysis.tables import Entry, Table, number
from bench.analysis.wallclock import EXECUTION, FACT_NUMBERS, SIZE, Execution

PARTS = {  # what -> heading
    "update": "Update",
    "actor_update": "Actor update",
    "critic_update": "Critic update",
    "act_1": "Act, 1",
    "act_10": "Act, 10",
    "env_step": "Env step",
    "end_to_end": "End to end",
}
FACT_HEADINGS = ("Actor par.", "Critic par.", "GFLOP/update", "Calls/update", "Calls/act", "Peak memory, MB")
FACT_KEYS = ("algo", "hidden", "batch", "T")
ROW = ("algo", "hidden", "batch", "T", "pack", "candidates")


def all_tables(executions: Sequence[Execution]) -> list[Table]:
    """One table per execution at its reference size, and a second with all sizes where there are more."""
    tables = []
    for execution in executions:
        size = execution.reference_size()
        main = execution.at(**size)
        tables.append(_table(execution, main, f"wall_clock-{execution.name}", _size_title(size)))
        if any(execution.samples[key].nunique() > 1 for key in SIZE):
            name = f"wall_clock_sizes-{execution.name}"
            tables.append(_table(execution, execution.samples, name, "all sizes"))
    return tables


def _size_title(size: dict[str, str]) -> str:
    return f"widths {size['hidden']}, batch {size['batch']}, pack {size['pack']}"


def _table(execution: Execution, samples: pd.DataFrame, name: str, which: str) -> Table:
    setup = {"compile": "Compile, s", "warmup": "Warm-up, s"}
    shown_setup = [what for what in setup if (samples["what"] == what).any()]
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    varying = [key for key in SIZE if samples[key].nunique() > 1]
    for key in sorted(_row_keys(samples), key=_natural):
        where = dict(zip(ROW, key))
        of_row = execution.at(**where)
        row: list[Entry] = [display_name(where["algo"], where["algo"])]
        row += [number(float(where["T"])) if where["T"] else "–"]
        row += [where[column] for column in varying]
        row += [number(float(where["candidates"] or "nan"))]
        record: dict[str, object] = {**execution.how, **where}
        for what in PARTS:
            milliseconds = 1e3 * of_row.loc[of_row["what"] == what, "seconds"].to_numpy(float)
            row.append(_median_and_p95(milliseconds))
            record |= _part_record(what, milliseconds)
        for what in shown_setup:
            seconds = of_row.loc[of_row["what"] == what, "seconds"].to_numpy(float)
            row.append(number(float(np.median(seconds)) if len(seconds) else float("nan"), 1))
            record[f"{what}_s"] = float(np.median(seconds)) if len(seconds) else None
        for fact in FACT_NUMBERS:
            value = execution.fact(fact, **{column: where[column] for column in FACT_KEYS})
            row.append(number(value, 2 if fact == "update_gflop" else 0))
            record[fact] = value
        rows.append(row)
        records.append(record)
    columns = ["Algorithm", "T", *(column.capitalize() for column in varying), "Candidates"]
    columns += [*PARTS.values(), *(setup[what] for what in shown_setup)]
    notes = [
        f"Median of the timed repeats (95th percentile), milliseconds per call; {which}. "
        f"{', '.join(f'{key} {execution.how[key]}' for key in EXECUTION)}. {execution.hardware}".strip(),
        "Act, 1 and 10: for a batch of 1 and of 10. T: denoising steps. "
        "Candidates: actions drawn for each one taken. "
        "Calls: evaluations of a network on a batch, forward. "
        "End to end: one environment step of training with its update.",
    ]
    title = f"Wall-clock, {execution.title} ({which})"
    return Table(name, title, [*columns, *FACT_HEADINGS], rows, records, notes)


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
