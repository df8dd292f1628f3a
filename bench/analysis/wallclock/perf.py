"""`make perf` as tables, from results/perf/<machine>/ alone: ours beside other libraries and the machine's bound.

Everything in a folder took turns on one core. A ratio is one of medians, with an interval over the rounds of turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.resampling import RESAMPLES, Array
from bench.analysis.style import display_name, order
from bench.analysis.table import MISSING, Entry, Table, number, within
from bench.analysis.wallclock.timings import hardware_line, ratio_over_rounds, read_table
from bench.disk import check_inside, read_json
from bench.names import is_safe_name
from bench.text import one_line

PERF = "perf"  # the folder under results/
OURS = "ours"
PEERS = {"sb3": "Stable-Baselines3", "sbx": "SBX"}
SHORT = {"sb3": "SB3", "sbx": "SBX"}  # in headings
TUNED = "-tuned"  # a peer with our settings of the memory allocator and of MKL
WHATS = {"update": "Update", "products": "Its matrix products alone", "end_to_end": "Environment step"}
PAPER = "-paper"  # an algorithm with its paper's settings in place of the QSM authors'
KEY = ("who", "algo", "what", "mode")
NUMBERS = ("round", "seconds")
RUNNER = ("jobs", "at_once", "seconds", "seconds_nothing_to_do")
MEMORY = ("steps", "replay_mb", "held_mb", "peak_mb")
LEVEL = 0.95
BOUND = "bound"

#: What our code is held to, in the faster of its modes: (algorithm, what, compared with, at least).
PROMISES = (
    ("sac", "update", "sb3", 1.6),
    ("sac", "update", "sbx", 1.0),
    ("td3-paper", "update", "sb3", 1.3),  # the same work: one critic in the actor's loss
    ("td3", "update", "sbx", 1.1),  # both
    ("qsm", "update", BOUND, 0.58),
    ("dql", "update", BOUND, 0.58),
    ("sac", "end_to_end", "sb3", 1.6),
    ("sac", "end_to_end", "sbx", 1.1),
    ("qsm", "end_to_end", "sac", 0.7),
)

Key = tuple[str, str, str, str]  # who, algo, what, mode
NAN = float("nan")


@dataclass(frozen=True)
class Comparison:
    """One folder of results/perf.

    times: per key the seconds of one update, step or product, a row per timed call with its round; keys in the order of
    the file. gflop: of the matrix products of an update of ours.
    """

    machine: str
    times: Mapping[Key, pd.DataFrame] = field(repr=False)
    gflop: Mapping[str, float]
    provenance: Mapping[str, Any] = field(repr=False)
    runner: pd.DataFrame = field(repr=False)
    memory: pd.DataFrame = field(repr=False)

    @property
    def algos(self) -> list[str]:
        """Of ours that learn."""
        found = {algo for who, algo, what, _ in self.times if (who, what) == (OURS, "update")}
        return sorted(found, key=lambda algo: (*order(algo.removesuffix(PAPER)), algo))

    def seconds(self, key: Key) -> Array:
        return self.times[key]["seconds"].to_numpy(float)

    def rate(self, key: Key, percentile: float = 50) -> float:
        """Per second: at the median of the time taken, or at another percentile of it."""
        return 1 / float(np.percentile(self.seconds(key), percentile))

    def fastest(self, algo: str, what: str) -> Key | None:
        """Ours in the faster of its execution modes; None where it was not timed."""
        ours = [key for key in self.times if key[:3] == (OURS, algo, what)]
        return max(ours, key=self.rate, default=None)

    def products(self) -> dict[str, float]:
        """GFLOP/s of plain matrix products: "2x256" are two of 256 x 256 at once."""
        found = {}
        for key in self.times:
            if key[2] == "sgemm":
                count, _, size = key[1].partition("x")
                found[key[1]] = 2 * int(count) * int(size) ** 3 * self.rate(key) / 1e9
        return found

    @property
    def bound(self) -> float:
        """GFLOP/s of the best of these; nan where none was timed."""
        return max(self.products().values(), default=NAN)

    def share_of_bound(self, key: Key) -> float:
        """The rate of an update in its matrix products / the bound."""
        return self.gflop.get(key[1], NAN) * self.rate(key) / self.bound

    def ratio(self, ours: Key | None, theirs: Key | None) -> tuple[float, float, float]:
        """How many times as fast ours is, with its 95% interval: value, low, high; nan where one was not timed."""
        if ours is None or theirs is None or ours not in self.times or theirs not in self.times:
            return NAN, NAN, NAN
        return ratio_over_rounds(self._rounds(theirs), self._rounds(ours), RESAMPLES, LEVEL)[:3]

    def _rounds(self, key: Key) -> dict[int, float]:
        """{round: median seconds}: calls of one round follow each other, so that the round is the unit."""
        medians = self.times[key].groupby("round")["seconds"].median()
        return {int(number): float(seconds) for number, seconds in medians.items()}


def load(root: Path) -> tuple[list[Comparison], list[str]]:
    """Every folder of results/perf, in order of name; one line for each that is left out."""
    folder = root / PERF
    found: list[Comparison] = []
    problems = []
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for name in filter(is_safe_name, names):
        if (folder / name / "samples.csv").is_file():
            try:
                check_inside(root, folder / name)
                found.append(read(folder / name))
            except (OSError, ValueError) as error:
                problems.append(f"{PERF}/{name}: left out: {one_line(error)}")
    return found, problems


def read(folder: Path) -> Comparison:
    """What one `make perf` wrote. Raises OSError, or ValueError where it is not what that writes."""
    samples = read_table(folder / "samples.csv", KEY, NUMBERS)
    if not (np.isfinite(samples["seconds"]) & (samples["seconds"] > 0) & np.isfinite(samples["round"])).all():
        raise ValueError("samples.csv: seconds that are not positive numbers, or a round that is no number")
    times: dict[Key, pd.DataFrame] = {}
    for (who, algo, what, mode), rows in samples.groupby(list(KEY), sort=False):
        if what == "sgemm" and not all(part.isdecimal() for part in algo.split("x", 1)):
            raise ValueError(f"samples.csv: products are named as 2x256, not {one_line(algo, 60)!r}")
        times[str(who), str(algo), str(what), str(mode)] = rows[list(NUMBERS)]
    record = read_json(folder / "provenance.json")
    counted = record.get("update_gflop")
    gflop = {str(algo): float(value) for algo, value in counted.items()} if isinstance(counted, dict) else {}
    runner = _further(folder / "runner.csv", (), RUNNER)
    memory = _further(folder / "memory.csv", ("env", "algo"), MEMORY)
    return Comparison(folder.name, times, gflop, record, runner, memory)


def _further(path: Path, texts: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    return read_table(path, texts, numbers) if path.is_file() else pd.DataFrame(columns=[*texts, *numbers])


# -- tables ----------------------------------------------------------------------------------------------------


def all_tables(found: Sequence[Comparison]) -> list[Table]:
    """Per machine: the overview, all that was timed, what was promised, what the runner and a long run cost."""
    makers = (overview, details, promises, runner, memory)
    return [table for each in found for make in makers if (table := make(each)).rows]


def overview(found: Comparison) -> Table:
    """One row per algorithm of ours, in the faster of its modes."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for algo in found.algos:
        row: list[Entry] = [_name(algo)]
        record: dict[str, object] = {"machine": found.machine, "algo": algo}
        for what in ("update", "end_to_end"):
            key = found.fastest(algo, what)
            row.append(number(found.rate(key) if key else NAN, detail=key[3] if key else ""))
            record |= {f"{what}_per_second": found.rate(key) if key else None, f"{what}_mode": key and key[3]}
            for peer in PEERS:
                value, low, high = found.ratio(key, _of_peer(peer, algo, what))
                row.append(number(value, 2, detail=within(low, high, 2)))
                record |= {
                    f"{what}_x_{peer}{end}": x for end, x in zip(("", "_low", "_high"), (value, low, high))
                }
            if what == "update":
                share = found.share_of_bound(key) if key else NAN
                row.append(number(100 * share))
                record["share_of_bound"] = share
        rows.append(row)
        records.append(record)
    times = [f"× {SHORT[peer]}" for peer in PEERS]
    columns = ["Algorithm", "Updates/s", *times, "Of the bound, %", "Steps/s", *times]
    notes = [
        "Gradient updates, and environment steps of training, per second: medians of ours in the faster execution "
        "mode. ×: how many times as fast as Stable-Baselines3 (SB3) and SBX, with a 95% bootstrap interval over "
        "rounds; a dash: it has no such algorithm.",
        "Of the bound: the rate in an update's matrix products, in per cent of the best of plain ones, "
        f"{found.bound:.0f} GFLOP/s.",
        _where(found),
    ]
    return Table(f"perf-{found.machine}", f"Speed, {found.machine}", columns, rows, records, notes)


def details(found: Comparison) -> Table:
    """One row per algorithm, part, library and execution mode."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    algos = [*found.algos, *(key[1] for key in found.times)]
    shown = [key for key in found.times if key[2] in WHATS]
    for key in sorted(
        shown,
        key=lambda key: (algos.index(key[1]), list(WHATS).index(key[2]), key[0] != OURS, key[0], key[3]),
    ):
        who, algo, what, mode = key
        of_ours = who == OURS and what != "end_to_end"
        rate = found.gflop.get(algo, NAN) * found.rate(key) if of_ours else NAN
        record: dict[str, object] = dict(zip(KEY, key)) | {"n": len(found.seconds(key))}
        record |= {
            "per_second": found.rate(key),
            "per_second_p95": found.rate(key, 95),
            "gflop_per_second": rate,
        }
        row: list[Entry] = [
            _name(algo),
            WHATS[what],
            _who(who),
            mode or MISSING,
            number(len(found.seconds(key))),
        ]
        row += [number(found.rate(key), 1), number(found.rate(key, 95), 1)]
        for peer in PEERS:
            theirs = _of_peer(peer, algo, what)
            value, low, high = found.ratio(key, theirs) if theirs != key else (NAN,) * 3
            row.append(number(value, 2, detail=within(low, high, 2)))
            record |= {f"x_{peer}{end}": x for end, x in zip(("", "_low", "_high"), (value, low, high))}
        row += [number(rate, 1), number(100 * rate / found.bound)]
        rows.append(row)
        records.append(record)
    columns = [
        "Algorithm",
        "Part",
        "Library",
        "Mode",
        "n",
        "Per second",
        "At p95",
        *(f"× {SHORT[x]}" for x in PEERS),
    ]
    products = ", ".join(f"{name} {rate:.0f}" for name, rate in found.products().items())
    notes = [
        "Per second: at the median of n timed calls, and at the 95th percentile of their time. ×: how many times as "
        "fast as the library as it comes, with a 95% bootstrap interval over rounds. With our settings: of the memory "
        "allocator and of MKL. GFLOP/s: of the matrix products of an update.",
        f"Plain matrix products, GFLOP/s (how many at once x their size): {products or 'not timed'}. The best is the "
        "bound.",
        _where(found),
    ]
    title = f"Speed in detail, {found.machine}"
    return Table(
        f"perf_details-{found.machine}", title, [*columns, "GFLOP/s", "Of the bound, %"], rows, records, notes
    )


def promises(found: Comparison) -> Table:
    """What our code is held to, and what was measured here."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for algo, what, against, least in PROMISES:
        key = found.fastest(algo, what)
        if against == BOUND:
            value, name = found.share_of_bound(key) if key else NAN, "the bound"
            low = high = NAN
        else:
            theirs = _of_peer(against, algo, what) if against in PEERS else found.fastest(against, what)
            value, low, high = found.ratio(key, theirs)
            name = PEERS.get(against) or f"our {_name(against)}"
        if np.isnan(value):
            continue
        kept = "kept" if value >= least else "missed"
        row: list[Entry] = [_name(algo), WHATS[what], name, number(least, 2)]
        rows.append([*row, number(value, 2, detail=within(low, high, 2)), kept])
        record: dict[str, object] = {"algo": algo, "what": what, "against": against, "at_least": least}
        records.append({**record, "value": value, "low": low, "high": high, "verdict": kept})
    columns = ["Algorithm", "Part", "Times as fast as", "At least", "Measured", "Verdict"]
    notes = [
        "Ours in the faster execution mode; brackets: 95% bootstrap interval over rounds.",
        _where(found),
    ]
    return Table(
        f"perf_promises-{found.machine}", f"Promised, {found.machine}", columns, rows, records, notes
    )


def runner(found: Comparison) -> Table:
    """What carrying out a grid costs besides its runs."""
    rows: list[list[Entry]] = [
        [
            number(row["jobs"]),
            number(row["at_once"]),
            number(row["seconds"], 1),
            number(row["seconds"] / row["jobs"], 2),
            number(row["seconds_nothing_to_do"], 1),
        ]
        for row in found.runner.to_dict("records")
    ]
    columns = ["Jobs", "At once", "Seconds", "Per job", "Again, nothing to do"]
    notes = ["Grids of trivial jobs, from the command to its figures.", _where(found)]
    title = f"What the runner costs, {found.machine}"
    return Table(f"perf_runner-{found.machine}", title, columns, rows, found.runner.to_dict("records"), notes)


def memory(found: Comparison) -> Table:
    """Memory of one run at its end."""
    rows: list[list[Entry]] = [
        [_name(row["algo"]), row["env"], *(number(row[column]) for column in MEMORY)]
        for row in found.memory.to_dict("records")
    ]
    columns = ["Algorithm", "Task", "Steps", "Replay buffer, MiB", "Held, MiB", "Peak, MiB"]
    notes = ["Of the process of one run at its end, its replay buffer included.", _where(found)]
    title = f"Memory of a run, {found.machine}"
    return Table(f"perf_memory-{found.machine}", title, columns, rows, found.memory.to_dict("records"), notes)


def _of_peer(peer: str, algo: str, what: str) -> Key:
    """The peer's own algorithm of that name; ours with its paper's settings is compared with the same."""
    return peer, algo.removesuffix(PAPER), what, ""


def _name(algo: str) -> str:
    first = algo.removesuffix(PAPER)
    return display_name(first, first) + " as published" * algo.endswith(PAPER)


def _who(who: str) -> str:
    peer = who.removesuffix(TUNED)
    return "ours" if who == OURS else PEERS.get(peer, peer) + " with our settings" * who.endswith(TUNED)


def _where(found: Comparison) -> str:
    """Machine, versions and day, as a note."""
    peers = found.provenance.get("peers")
    versions = [
        f"{package} {version}"
        for packages in (peers.values() if isinstance(peers, dict) else ())
        for package, version in packages.items()
        if package in ("stable-baselines3", "sbx-rl", "jax")
    ]
    ours = found.provenance.get("versions")
    torch = ours.get("torch") if isinstance(ours, dict) else None
    day = str(found.provenance.get("started", ""))[:10]
    parts = [hardware_line(found.provenance), torch and f"torch {torch}", *versions, day]
    return one_line("One thread on one core. " + "; ".join(str(part) for part in parts if part) + ".", 400)
