"""Where measurements of time and memory go: results/<kind>/<machine>/, or <kind>-draft if they are not evidence."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from bench.machine.hardware import available_cores
from bench.timing.stopwatch import Quiet, machine_name

Row = dict[str, Any]
Table = tuple[Sequence[str], Iterable[Row]]  # columns and rows
Result = TypeVar("Result")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def save(
    root: Path,
    kind: str,
    tables: Mapping[str, Table],
    origin: Mapping[str, Any],
    quiet: Quiet,
    quick: bool,
    part: str = "",
) -> Path:
    """Writes a folder of CSV files and provenance.json in place of an older one, says where, and returns it.

    A quick run, or one disturbed by other processes, is not evidence: it goes to `<kind>-draft`, which git ignores and
    no table reads. Machines never share a folder (see `machine_name`), and a folder holds one measurement, never two.

    Args:
        tables: name of a file without its suffix -> columns and rows.
        origin: provenance, hardware included.
        part: of a measurement that is taken in several, each of which has a folder of its own.
    """
    problem = "a quick run" if quick else quiet.problem
    name = "-".join(filter(None, (machine_name(origin["hardware"]), part)))
    folder = root / (kind if problem is None else f"{kind}-draft") / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    new.mkdir()
    for name, (columns, rows) in tables.items():
        with (new / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    record = {
        **origin,
        "finished": now(),
        "quiet": quiet.to_dict(),
        "evidence": problem is None,
        "problem": problem,
    }
    (new / "provenance.json").write_text(json.dumps(record, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    print(f"\nin {shown}" + (f"; not evidence: {problem}" if problem else ""), flush=True)
    return folder


def in_fresh_processes(function: Callable[..., Result], arguments: Sequence[tuple]) -> Iterator[Result]:
    """function(*arguments) for each of them, in order, each in a new process; as many at once as there are cores."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(available_cores(), mp_context=context, max_tasks_per_child=1) as pool:
        yield from pool.map(function, *zip(*arguments))


def memory_mb() -> tuple[float, float]:
    """Memory that this process holds, and the most it ever held, in 2^20 bytes; nan where the system does not say."""
    try:  # not getrusage's maximum: a new process's begins with that of the parent it was once a copy of
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan"), float("nan")
    held, most = (int(status.partition(f"{key}:")[2].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
    return held, most


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
