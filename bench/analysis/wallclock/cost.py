"""What an update costs: all algorithms at the settings of their authors, and at one size (bench/timing/cost.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.analysis.table import MISSING, Entry, Table, number
from bench.analysis.wallclock.timings import TIMING, TimingSet, read_table

BOUND = "bound.csv"
BOUND_NUMBERS = ("count", "size", "seconds")
SIZES = {"authors": "the authors' settings", "matched": "one size for all"}
MODES = {"eager": "Eager", "compile": "Compiled"}
PARTS = {"update": "update", "act_1": "action"}


def size(execution: TimingSet) -> str | None:
    """The member of SIZES that a timing study measured; None for another protocol."""
    return execution.sizes if execution.sizes in SIZES else None


def tables(root: Path, executions: Sequence[TimingSet]) -> list[Table]:
    """One per machine and size, of all execution modes that were timed there.

    Raises:
        OSError, ValueError: a bound.csv is missing or damaged.
    """
    groups: dict[tuple[str, str, str], dict[str, TimingSet]] = {}
    for execution in executions:
        if (found := size(execution)) is not None:
            machine = execution.study.removesuffix(f"-{found}-{execution.how['mode']}")
            groups.setdefault((machine, execution.hardware, found), {})[execution.how["mode"]] = execution
    order = sorted(groups, key=lambda key: (key[0], list(SIZES).index(key[2])))
    return [
        _table(root, machine, which, groups[machine, hardware, which]) for machine, hardware, which in order
    ]


def gflop_per_second(root: Path, execution: TimingSet) -> float:
    """The bound: of the plain matrix products timed in the same turns, the best rate of the medians of each shape."""
    frame = read_table(root / TIMING / execution.study / BOUND, (), BOUND_NUMBERS)
    rates = [
        2 * count * width**3 / 1e9 / float(group["seconds"].median())
        for (count, width), group in frame.groupby(["count", "size"])
    ]
    return max(rates, default=float("nan"))


def _table(root: Path, machine: str, which: str, modes: Mapping[str, TimingSet]) -> Table:
    shown = [mode for mode in MODES if mode in modes]
    bounds = {mode: gflop_per_second(root, modes[mode]) for mode in shown}
    first = modes[shown[0]]
    with_products = any("products" in set(modes[mode].samples["what"]) for mode in shown)
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    keys = dict.fromkeys(zip(*(first.facts[name] for name in ("algo", "hidden", "batch", "T", "candidates"))))
    for key in keys:
        where = dict(zip(("algo", "hidden", "batch", "T", "candidates"), key))
        size = {name: where[name] for name in ("hidden", "batch", "T")}
        title = first.shown(where["algo"])
        record: dict[str, object] = {**where, "title": title, "sizes": which, "machine": machine}
        gflop = {part: first.fact(f"{part}_gflop", **where) for part in ("update", "act")}
        record |= {f"{part}_gflop": value for part, value in gflop.items()}
        share = float("nan")
        for mode in shown:
            for part in PARTS:
                seconds = modes[mode].seconds(algo=where["algo"], what=part, pack="1", **size)
                median, p95 = np.percentile(seconds, [50, 95]) if len(seconds) else (float("nan"),) * 2
                record |= {
                    f"{part}_ms_{mode}": 1e3 * float(median),
                    f"{part}_ms_p95_{mode}": 1e3 * float(p95),
                }
                record[f"{part}_n_{mode}"] = len(seconds)
                if part == "update" and len(seconds):
                    share = np.fmax(share, gflop["update"] / float(median) / bounds[mode])
        record["share_of_bound"] = float(share)
        alone = [modes[mode].seconds(algo=where["algo"], what="products", pack="1", **size) for mode in shown]
        record["products_ms"] = 1e3 * min(
            (float(np.median(each)) for each in alone if len(each)), default=float("nan")
        )
        row: list[Entry] = [title, where["hidden"], where["batch"]]
        row += [number(float(where[column])) if where[column] else MISSING for column in ("T", "candidates")]
        row += [_few_digits(gflop["update"])]
        row += [_few_digits(float(str(record[f"update_ms_{mode}"]))) for mode in shown]
        row += [number(100 * float(share), 0, detail="%")]
        row += [_few_digits(float(str(record["products_ms"])))] * with_products
        row += [_few_digits(1e3 * gflop["act"])]
        row += [_few_digits(float(str(record[f"act_1_ms_{mode}"]))) for mode in shown]
        rows.append(row)
        records.append(record)
    columns = ["Algorithm", "Hidden", "Batch", "T", "Candidates", "GFLOP/update"]
    columns += [f"{MODES[mode]}, ms/update" for mode in shown]
    columns += ["Of the bound", *["Products alone, ms"] * with_products]
    columns += ["MFLOP/action", *(f"{MODES[mode]}, ms/action" for mode in shown)]
    least = min(
        (int(str(r[f"update_n_{mode}"])) for r in records for mode in shown if r[f"update_n_{mode}"]),
        default=0,
    )
    rates = " and ".join(f"{bounds[mode]:.0f} ({MODES[mode].lower()})" for mode in shown)
    faster = "of the faster mode " if len(shown) > 1 else ""
    notes = [
        "GFLOP and MFLOP: counted, of the matrix products that are executed. Milliseconds: medians of "
        f"{least} calls or more, one thread on one core of {first.hardware or machine}. T: denoising steps. "
        "Candidates: actions among which Q chooses the one that is taken. Action: one, for one observation, "
        "as when exploring.",
        f"Of the bound: the rate {faster}in these products, against that of plain ones timed in the same turns, "
        f"{rates} GFLOP/s. A dash under a mode: not timed in it.",
    ]
    if with_products:
        notes.append(
            "Products alone: the update's matrix products and nothing else, on operands of the same memory layout. "
            "From them to the bound it is shapes and caches; from the update to them, everything else."
        )
    return Table(
        f"cost-{which}-{machine}", f"What an update costs, at {SIZES[which]}", columns, rows, records, notes
    )


def _few_digits(value: float) -> Entry:
    """Three significant digits, whether the number is in thousands or in thousandths."""
    if np.isnan(value) or value <= 0:
        return number(value)
    return number(value, max(0, 2 - int(np.floor(np.log10(value)))))
