"""The tables of speed: updates and steps per second beside other libraries and the machine's bound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.analysis.style import display_name
from bench.analysis.table import MISSING, Entry, Table, number, within
from bench.analysis.wallclock.perf import KEY, MEMORY, NAN, OURS, PAPER, PEERS, TUNED, Comparison, Key
from bench.analysis.wallclock.timings import hardware_line
from bench.text import one_line

SHORT = {"sb3": "SB3", "sbx": "SBX"}  # in headings
WHATS = {"update": "Update", "products": "Its matrix products alone", "end_to_end": "Environment step"}
BOUND = "bound"

#: The least ratios that our code promises, in the faster of its modes: (algorithm, part, compared with, at least).
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


def all_tables(found: Sequence[Comparison]) -> list[Table]:
    """Per machine: the overview, every timing, the promised ratios, and the costs of the runner and of a long run."""
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
    """The promised ratios and the measured ones."""
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
    """The cost of carrying out a grid, apart from its runs."""
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
