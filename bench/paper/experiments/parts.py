"""An experiment is a list of parts, each a function of plain settings that returns tables of rows.

    results/experiments/<experiment>/parts/<part>.json    settings, seconds, where it ran; written last
    results/experiments/<experiment>/<table>/<part>.csv   its measurements
    results/experiments/<experiment>/scores.csv           the numbers that the rules of the claims judge

A part whose record is there is not run again; one that was cut off begins anew. Parts run in processes of their own,
one thread each.
"""

from __future__ import annotations

import csv
import importlib
import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from bench.disk import DamagedFile, read_json, write_atomic, write_json
from bench.errors import UserError
from bench.paper.experiments.data import read_rows
from bench.runs.records import FORMAT, check
from bench.text import differences, strerror

SCORES = "scores"  # the table with the columns measure, setting, algo, seed, value

Row = Mapping[str, object]
Tables = dict[str, list[Row]]


@dataclass(frozen=True)
class Part:
    """function: "module:name" of a function (folder of the experiment, **settings) -> {table: rows}.

    experiment, name and settings (JSON-able) are the part's identity; the place of its function is not.
    """

    experiment: str
    name: str
    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def record(self, root: Path) -> Path:
        return root / self.experiment / "parts" / f"{self.name}.json"


class PartRecord(Struct):
    """parts/<part>.json."""

    format: int
    function: str
    settings: dict[str, Any]
    started: str
    seconds: float
    provenance: dict[str, Any]


def is_done(root: Path, part: Part) -> bool:
    """Whether the part's record is there. Raises UserError where it is damaged or of other settings."""
    path = part.record(root)
    try:
        record = check(read_json(path), path.name, PartRecord)
    except FileNotFoundError:
        return False
    except (DamagedFile, OSError) as error:
        raise UserError(f"{path}: {error}; delete it to run that part again") from None
    there, asked = record["settings"], dict(part.settings)
    if there != asked:
        differing = "; ".join(differences(there, asked))
        raise UserError(f"{path}: run with other settings: {differing}. Delete that file to run it anew")
    return True


def run(root: Path, parts: Sequence[Part], jobs: int, say: Callable[[str], None] = print) -> None:
    """Run the missing parts.

    Args:
        root: results/experiments.
        jobs: processes at once.
        say: takes a line when a part has ended.

    Raises:
        UserError: a folder cannot be written, a record is damaged, or a part failed.
        KeyboardInterrupt: ^C; parts that had ended are kept.
    """
    missing = [part for part in parts if not is_done(root, part)]
    total, done, failed = len(parts), len(parts) - len(missing), []
    say(f"experiments: {total} parts, {done} done, {len(missing)} to do, {jobs} at once")
    try:
        with closing(_carry_out(root, missing, jobs)) as ended:
            for part, seconds, error in ended:
                done += not error
                if error:
                    failed.append(part)
                name = f"{part.experiment}/{part.name}"
                say(f"experiments: {done} of {total}: {name} {error or f'took {seconds:.0f} s'}")
    except KeyboardInterrupt:
        say(f"stopped: {total - done} parts are left; the same command goes on with them")
        raise
    if failed:
        names = ", ".join(f"{part.experiment}/{part.name}" for part in failed[:5])
        raise UserError(f"{len(failed)} parts failed: {names}; the reasons are above")


def _carry_out(
    root: Path, parts: Sequence[Part], jobs: int
) -> Generator[tuple[Part, float, str], None, None]:
    """(part, seconds, why it failed or "") as they end. Closed early, it ends the processes."""
    if not parts:
        return
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(jobs, len(parts)), multiprocessing.get_context("spawn"), _prepare)
    try:
        futures = {pool.submit(carry_out, root, part): part for part in parts}
        for future in as_completed(futures):
            error = future.exception()
            reason = f"failed: {type(error).__name__}: {error}" if error else ""
            yield futures[future], 0.0 if error else future.result(), reason
    finally:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()  # nothing is half written: records come last
        pool.shutdown(wait=False, cancel_futures=True)


def _prepare() -> None:
    from bench.launch.pack import prepare_process

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is for the process that started this one, which ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare_process(threads=1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def carry_out(root: Path, part: Part) -> float:
    """Run one part in this process and write its tables; the seconds that it took."""
    from bench.machine.provenance import provenance

    started, start = datetime.now(UTC), time.perf_counter()
    module, _, name = part.function.partition(":")
    function = getattr(importlib.import_module(module), name)
    folder = root / part.experiment
    tables: Tables = function(folder, **part.settings)
    seconds = time.perf_counter() - start
    for table, rows in tables.items():
        write_rows(folder / table / f"{part.name}.csv", rows)
    record = {
        "format": FORMAT,
        "function": part.function,
        "settings": dict(part.settings),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "provenance": provenance(),
    }
    part.record(root).parent.mkdir(parents=True, exist_ok=True)
    write_json(part.record(root), record, "run")
    return seconds


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a table whole, or raise UserError."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, out.getvalue().encode(), "run")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {strerror(error)}") from None


def _cell(value: object) -> object:
    return f"{value:.9g}" if isinstance(value, float) else value


def all_scores(folder: Path, parts: Sequence[Part]) -> list[Row]:
    """The rows of the table "scores" of all parts of the experiment in `folder`."""
    return [row for part in parts for row in read_rows(folder / SCORES / f"{part.name}.csv")]
