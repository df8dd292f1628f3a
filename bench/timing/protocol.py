"""`make timing`: how long each part of our algorithms takes on this machine, by one protocol (docs/timing.md).

One process, one thread, one core. Each part of each algorithm, size and execution is called at least 20 times to
warm up, and then timed in rounds: in every round all of them take their turn, in random order, for a few consecutive
calls each. Writes results/timing/<machine>-<execution>/: samples.csv (every timed call), facts.csv (counts and memory),
provenance.json. A quick run, or one that had to share its machine, is not evidence: it goes to results/timing-draft/.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench.launch.pack import prepare_process
from bench.machine.provenance import provenance
from bench.studies.overrides import default_config
from bench.timing import flops
from bench.timing.case import PARTS, THREADS, Case, CaseTimer, fresh_cache
from bench.timing.measurement import Row, in_fresh_processes, memory_mb, minutes, now, save
from bench.timing.stopwatch import Quiet, Watch, chunks, pin, timed

ALGOS = ("qsm", "dql", "dql-bc", "sac", "td3")
CHAINS = (1, 2, 5, 10, 20, 50)  # T
LONGEST_COMPILED = 10  # T; a chain is unrolled, and compiling longer ones would take most of the time
SWEPT = ("qsm", "dql")  # the algorithms that are timed at each of them
WIDTH, WIDER = (256, 256), (512, 512)
BATCH, OTHER_BATCHES = 256, (64, 1024)
PACKS = (2, 4, 8)
TRAINING = ("update", "act_1", "env_step", "end_to_end")  # timed at other widths and packs

SAMPLE_COLUMNS = [
    *("algo", "what", "mode", "device", "threads", "dtype", "hidden", "batch", "T", "pack", "candidates"),
    *("round", "seconds"),
]
FACT_COLUMNS = [
    *("algo", "hidden", "batch", "T", "actor_parameters", "critic_parameters", "update_gflop"),
    *("network_calls_update", "network_calls_act", "candidates", "peak_memory_mb"),
]


@dataclass(frozen=True)
class Protocol:
    """How much is measured.

    A part of the reference table is timed `rounds * calls` times. Of the other sizes a part gets as many calls as
    `seconds` allow, between `rounds * fewest_calls` and the same.
    """

    warm_up: int = 20
    rounds: int = 20
    calls: int = 10
    fewest_calls: int = 3
    seconds: float = 6.0
    order_seed: int = 0

    def calls_per_round(self, reference: bool, seconds: float) -> int:
        """For a part that takes `seconds`."""
        if reference:
            return self.calls
        return max(self.fewest_calls, min(self.calls, int(self.seconds / (self.rounds * seconds))))


QUICK = Protocol(warm_up=2, rounds=2, calls=2, fewest_calls=1, seconds=0.1)


def cases(algos: Sequence[str], quick: bool = False) -> list[Case]:
    """The reference table (2x256, batch 256; QSM and DQL over T), then other widths, batches and packs."""
    found: dict[tuple, Case] = {}

    def add(
        algo: str,
        parts: tuple[str, ...],
        hidden: Sequence[int] = WIDTH,
        batch: int = BATCH,
        T: int | None = None,
        pack: int = 1,
        reference: bool = False,
    ) -> None:
        T = default_config(algo).get("T") if T is None else T
        case = Case(algo, tuple(hidden), batch, T, pack, parts, reference)
        found.setdefault((algo, case.hidden, batch, T, pack), case)

    for algo in algos:
        add(algo, PARTS, reference=True)
    for algo in algos:
        for T in (CHAINS if algo in SWEPT else ()) if not quick else ():
            add(algo, PARTS[:5], T=T, reference=True)
    for algo in algos:
        if algo == "dql-bc":  # the published variant, as published
            add(algo, TRAINING, hidden=default_config(algo)["hidden"])
            continue
        if not quick:
            add(algo, TRAINING, hidden=WIDER)
            for batch in OTHER_BATCHES:
                add(algo, ("update",), batch=batch)
        for pack in PACKS[:1] if quick else PACKS:
            add(algo, TRAINING, pack=pack)
    return list(found.values())


def run(root: Path, algos: Sequence[str], executions: Sequence[str], quick: bool) -> list[Path]:
    """Measure, print, write one execution after the other; the folders written.

    Raises:
        UserError: an algorithm that diverges on random transitions.
    """
    protocol = QUICK if quick else Protocol()
    prepare_process(THREADS)
    origin = provenance()  # before pinning, which hides the other cores
    planned = cases(algos, quick)
    facts = all_facts(planned, protocol)
    core = pin()
    folders = []
    for execution in executions:
        started = now()
        with fresh_cache() if execution == "compile" else nullcontext():
            timers = prepared(planned, execution, protocol)
        samples, quiet = measure(timers, protocol)
        print("\n".join(table(samples)))
        tables = {"samples": (SAMPLE_COLUMNS, samples), "facts": (FACT_COLUMNS, facts)}
        own = origin | {"started": started, "protocol": {**asdict(protocol), "core": core}}
        folders.append(save(root, "timing", tables, own, quiet, quick, execution))
    return folders


# -- preparation -----------------------------------------------------------------------------------


def all_facts(planned: Sequence[Case], protocol: Protocol) -> list[Row]:
    """Facts that do not depend on execution, pack or clock, each case in a fresh process."""
    single = [(case, protocol.warm_up) for case in planned if case.pack == 1]
    rows = []
    for row in in_fresh_processes(case_facts, single):
        rows.append(row)
        print(f"counted {len(rows)} of {len(single)} sizes", flush=True)
    return rows


def case_facts(case: Case, updates: int) -> Row:
    """A row of facts.csv. Call in a fresh process: the peak of memory is the process's, replay buffer included."""
    prepare_process(THREADS)
    timer = CaseTimer(case, "eager")
    step = timer.time("end_to_end")
    for _ in range(updates):
        step()
    _, peak = memory_mb()
    agent, period = timer.agent, timer.period
    updates_of_period = partial(timer.update_often, period)
    return {
        **case.columns,
        "actor_parameters": flops.parameters(agent, "actor"),
        "critic_parameters": flops.parameters(agent, "critic"),
        "update_gflop": flops.gflop(updates_of_period) / period,
        "network_calls_update": flops.network_calls(agent, updates_of_period) / period,
        "network_calls_act": flops.network_calls(agent, timer.time("act_1")),
        "candidates": timer.candidates,
        "peak_memory_mb": peak,
    }


def prepared(planned: Sequence[Case], execution: str, protocol: Protocol) -> list[CaseTimer]:
    """Every case, compiled where the execution compiles, which leaves long chains out, and warm."""
    timers: list[CaseTimer] = []
    wanted = [case for case in planned if execution != "compile" or (case.T or 0) <= LONGEST_COMPILED]
    start = time.monotonic()
    for case in wanted:
        timer = CaseTimer(case, execution)
        timer.prepare(protocol.warm_up)
        timers.append(timer)
        left = (time.monotonic() - start) / len(timers) * (len(wanted) - len(timers))
        compiled = f", compiled in {timer.compile_s:.0f} s" if timer.compile_s else ""
        print(
            f"prepared {len(timers)} of {len(wanted)}: {case.title}, {execution}{compiled}; about {minutes(left)} left",
            flush=True,
        )
    return timers


# -- measurement -----------------------------------------------------------------------------------


def measure(timers: Sequence[CaseTimer], protocol: Protocol) -> tuple[list[Row], Quiet]:
    """All samples, and the load of the machine while they were taken.

    Raises:
        UserError: an algorithm has diverged.
    """
    rows = []
    for timer in timers:
        rows.append(timer.row("warmup", 0, timer.warm_up_s))
        if timer.compile_s:
            rows.append(timer.row("compile", 0, timer.compile_s))
    calls: dict[tuple[int, str], int] = {}
    total = 0.0
    for i, timer in enumerate(timers):
        budget = 0.0
        for part in timer.parts:
            calls[i, part] = protocol.calls_per_round(timer.case.reference, timer.seconds[part])
            budget += protocol.rounds * (calls[i, part] + 1) * timer.seconds[part] * timer.calls(part)
        least = protocol.rounds * min(calls[i, part] for part in timer.parts)
        print(f"{timer.case.title}, {timer.execution}: each part {least} times or more, {budget:.0f} s")
        total += budget
    print(f"timing {len(calls)} parts in {protocol.rounds} rounds, about {minutes(total)}", flush=True)
    watch, start = Watch(), time.monotonic()
    turns = chunks(list(calls), protocol.rounds, protocol.order_seed)
    for done, (number, (i, part)) in enumerate(turns, 1):
        timer = timers[i]
        taken = timed(calls[i, part], timer.time(part))
        rows += [timer.row(part, number, seconds) for seconds in taken]
        if done % len(calls) == 0:
            left = (time.monotonic() - start) / done * (len(calls) * protocol.rounds - done)
            print(f"round {number + 1} of {protocol.rounds}, about {minutes(left)} left", flush=True)
    quiet = watch.quiet()
    for timer in timers:
        timer.check()
    return rows, quiet


# -- the table -------------------------------------------------------------------------------------


def table(samples: Sequence[Row]) -> list[str]:
    """The reference table as lines of at most 80 characters, one block per execution.

    Ratios: to QSM at the same T (at T = 5 for algorithms without T), in the same execution.
    """
    times: dict[tuple, list[float]] = defaultdict(list)
    for row in samples:
        if (row["hidden"], row["batch"], row["pack"]) == ("x".join(map(str, WIDTH)), str(BATCH), 1):
            times[row["mode"], row["algo"], row["T"], row["what"]].append(row["seconds"])
    lines = []
    for execution in dict.fromkeys(key[0] for key in times):
        lines += ["", f"{execution}, 2x256, batch {BATCH}, {THREADS} thread; milliseconds, ratios to QSM"]
        lines.append(
            f"{'':6}{'T':>3}{'n':>4} |{'update':>7}{'p95':>7}{'ratio':>6} |{'actor':>7}{'p95':>7}{'ratio':>6} "
            f"|{'critic':>6}{'act':>6} |{'steps/s':>7}"
        )
        for algo, T in dict.fromkeys(key[1:3] for key in times if key[0] == execution):
            of = {part: np.array(times.get((execution, algo, T, part), [])) for part in PARTS}
            base = {part: times.get((execution, "qsm", T or "5", part), []) for part in PARTS}
            cells = [f"{algo:6}{T or '–':>3}{len(of['update']):>4} |"]
            for part in ("update", "actor_update"):
                cells.append(
                    _ms(of[part], 50, 7) + _ms(of[part], 95, 7) + _ratio(of[part], base[part]) + " |"
                )
            cells.append(_ms(of["critic_update"], 50, 6) + _ms(of["act_1"], 50, 6) + " |")
            steps = of["end_to_end"]
            cells.append(f"{1 / np.median(steps):>7.0f}" if len(steps) else f"{'':7}")
            lines.append("".join(cells))
    return lines


def _ms(seconds: np.ndarray, percentile: float, width: int) -> str:
    return f"{1e3 * np.percentile(seconds, percentile):>{width}.2f}" if len(seconds) else " " * width


def _ratio(seconds: np.ndarray, base: Sequence[float]) -> str:
    both = len(seconds) and len(base)
    return f"{np.median(seconds) / np.median(base):>6.2f}" if both else " " * 6
