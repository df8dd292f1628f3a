"""`make timing`: how long each part of our algorithms takes on this machine, by one protocol (docs/timing.md).

One process, one thread, one core. Each part of each algorithm, size and execution is called at least 20 times to
warm up, and then timed in rounds: in every round all of them take their turn, in random order, for a few consecutive
calls each. Writes results/timing/<machine>-<execution>/: samples.csv (every timed call), facts.csv (counts and memory),
provenance.json. A quick run, or one that had to share its machine, is not evidence: it goes to results/timing-draft/.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.analysis.table import to_terminal
from bench.analysis.wallclock import timings
from bench.analysis.wallclock.tables import compact
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
    *("algo", "title", "hidden", "batch", "T", "actor_parameters", "critic_parameters", "update_gflop"),
    *("act_gflop", "network_calls_update", "network_calls_act", "candidates", "peak_memory_mb"),
]


@dataclass(frozen=True)
class Protocol:
    """How much is measured.

    A part of the reference table is timed `rounds * calls` times. Of the other sizes a part gets as many calls as
    `seconds` allow, between `rounds * fewest_calls` and the same. It warms up for `warm_up_seconds` at most. The
    peak of memory is that of `memory_updates` steps of training.
    """

    warm_up: int = 20
    rounds: int = 20
    calls: int = 10
    fewest_calls: int = 3
    seconds: float = 6.0
    warm_up_seconds: float = 60.0
    memory_updates: int = 20
    order_seed: int = 0

    def calls_per_round(self, reference: bool, seconds: float) -> int:
        """For a part that takes `seconds`."""
        if reference:
            return self.calls
        return max(self.fewest_calls, min(self.calls, int(self.seconds / (self.rounds * seconds))))


QUICK = Protocol(warm_up=2, rounds=2, calls=2, fewest_calls=1, seconds=0.1, memory_updates=2)


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
        tables = {"samples": (SAMPLE_COLUMNS, samples), "facts": (FACT_COLUMNS, facts)}
        own = origin | {"started": started, "protocol": {**asdict(protocol), "core": core}}
        folders.append(save(root, "timing", tables, own, quiet, quick, execution))
        for timing_set in timings.read(folders[-1]):
            shown = compact(timing_set)
            print(f"\n{shown.title}\n\n{to_terminal(shown)}", end="")
    return folders


# -- preparation -----------------------------------------------------------------------------------


def all_facts(planned: Sequence[Case], protocol: Protocol) -> list[Row]:
    """Facts that do not depend on execution, pack or clock, each case in a fresh process."""
    single = [(case, protocol.memory_updates) for case in planned if case.pack == 1]
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
        "title": case.name(agent.title),
        "actor_parameters": flops.parameters(agent, "actor"),
        "critic_parameters": flops.parameters(agent, "critic"),
        "update_gflop": flops.gflop(updates_of_period) / period,
        "act_gflop": flops.gflop(timer.time("act_1")),
        "network_calls_update": flops.network_calls(agent, updates_of_period) / period,
        "network_calls_act": flops.network_calls(agent, timer.time("act_1")),
        "candidates": timer.candidates,
        "peak_memory_mb": peak,
    }


def prepared(
    planned: Sequence[Case], execution: str, protocol: Protocol, cold: bool = True
) -> list[CaseTimer]:
    """Every case, compiled where the execution compiles, which leaves long chains out, and warm.

    cold: nothing counts as compiled already.
    """
    timers: list[CaseTimer] = []
    wanted = [case for case in planned if execution != "compile" or (case.T or 0) <= LONGEST_COMPILED]
    start = time.monotonic()
    for case in wanted:
        timer = CaseTimer(case, execution)
        timer.prepare(protocol.warm_up, protocol.warm_up_seconds, cold)
        timers.append(timer)
        left = (time.monotonic() - start) / len(timers) * (len(wanted) - len(timers))
        compiled = f", compiled in {timer.compile_s:.0f} s" if timer.compile_s else ""
        print(
            f"prepared {len(timers)} of {len(wanted)}: {case.title}, {execution}{compiled}; about {minutes(left)} left",
            flush=True,
        )
    return timers


# -- measurement -----------------------------------------------------------------------------------


def measure(timers: Sequence[Any], protocol: Protocol) -> tuple[list[Row], Quiet]:
    """All samples, and the load of the machine while they were taken.

    Args:
        timers: each a `CaseTimer`, or something else that is timed in turns with them and has what is used of it here.

    Raises:
        UserError: an algorithm has diverged.
    """
    rows = []
    for timer in timers:
        before = (("warmup", timer.warm_up_s), ("compile", timer.compile_s))
        rows += [timer.row(what, 0, taken) for what, taken in before if taken]
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
