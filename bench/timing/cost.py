"""`make timing SIZES="authors matched"`: what an update and an action cost, for every algorithm (docs/timing.md).

Two sizes of each: the settings of its authors, and one width, batch and number of denoising steps for all. Everything
is timed in turns on one core, and with it the matrix products of each update alone, and plain ones, whose best rate is
the bound. What takes seconds is timed a few times only. Writes results/timing/<machine>-<size>-<execution>/:
samples.csv and facts.csv as the protocol of the parts does, and bound.csv, the plain products.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.launch.pack import prepare_process
from bench.machine.provenance import provenance
from bench.studies.overrides import algorithm_config, canonical, default_config, parse_overrides
from bench.timing.case import THREADS, Case, CaseTimer
from bench.timing.measurement import Row, now, save
from bench.timing.peers.ours import SGEMM, products_alone, sgemm
from bench.timing.peers.work import BATCH, HIDDEN
from bench.timing.protocol import (
    FACT_COLUMNS,
    SAMPLE_COLUMNS,
    Protocol,
    all_facts,
    measure,
    prepared,
)
from bench.timing.stopwatch import pin

ALGOS = (
    *("qsm", "q-langevin", "dql", "dql-bc", "sac", "td3"),
    *("sdac", "dpmd", "qvpo", "dipo", "dacer", "maxentdp", "rfm", "dime"),
    *("sac:critic=simba", "sac:critic=crossq", "qsm:critic=simba", "qsm:critic=crossq"),
)
SIZES = ("authors", "matched")
PARTS = ("update", "act_1")
MATCHED_T = 5  # denoising steps, or steps of a flow
BOUND_COLUMNS = ["count", "size", "mode", "round", "seconds"]


@dataclasses.dataclass(frozen=True)
class CostProtocol(Protocol):
    """A part gets as many calls as `seconds` allow, from one a round up to `calls`; so do the calls before them."""

    rounds: int = 5
    fewest_calls: int = 1
    seconds: float = 2.0
    warm_up_seconds: float = 2.0
    memory_updates: int = 2


QUICK = CostProtocol(warm_up=1, rounds=2, calls=2, seconds=0.05, warm_up_seconds=0.05, memory_updates=1)


def case(spec: str, size: str) -> Case:
    """An algorithm, critic and overrides in the form "sac:critic=crossq", at a size of SIZES. Raises UserError."""
    algo, own = parse_overrides(spec)
    overrides: dict[str, Any] = dict(own)
    if size == "matched":
        critic = algorithm_config(algo, own)["critic"]
        overrides = {**_matched(algo, critic), **own}
    config = algorithm_config(algo, overrides)
    return Case(
        algo,
        tuple(config["hidden"]),
        config["batch_size"],
        config.get("T"),
        parts=PARTS,
        overrides={key: config[key] for key in overrides if key not in ("hidden", "batch_size", "T")},
        variant=tuple(f"{key}={canonical(own[key])}" for key in sorted(own)),
    )


def _matched(algo: str, critic: str) -> dict[str, Any]:
    """One width for all networks, one batch, one number of denoising steps; everything else as the authors have it."""
    plain = default_config(algo)
    settings: dict[str, Any] = {"hidden": HIDDEN, "batch_size": BATCH}
    if critic != "mlp":
        settings["critic_hidden"] = HIDDEN  # of the plain critics it is `hidden`
    return settings | {steps: MATCHED_T for steps in ("T", "flow_steps") if steps in plain}


class Products:
    """Plain matrix products, timed in turns with the algorithms as a `CaseTimer` is."""

    warm_up_s = compile_s = 0.0

    def __init__(self, count: int, size: int, execution: str):
        self.count, self.size, self.execution = count, size, execution
        self.case = Case(f"{count}x{size} products", (size,), 1, None)
        self.parts = ("products",)
        self.seconds = {"products": self.time("products")()}

    def calls(self, part: str) -> int:
        return 1

    def time(self, part: str) -> Callable[[], float]:
        return partial(sgemm, self.count, self.size)

    def check(self) -> None:
        """Products cannot diverge."""

    def row(self, what: str, number: int, taken: float) -> Row:
        """A row of bound.csv."""
        return {
            "count": self.count,
            "size": self.size,
            "mode": self.execution,
            "round": number,
            "seconds": taken,
        }


class UpdateProducts:
    """The matrix products of an algorithm's update and nothing else, timed in turns with it.

    They are those of the eager update, whatever `execution` the update itself is timed in.
    """

    parts = ("products",)
    warm_up_s = compile_s = 0.0

    def __init__(self, case: Case, execution: str):
        self.case, self.execution = case, execution
        self._timer = CaseTimer(case, "eager")
        self._once = products_alone(self._timer)
        self.seconds = {"products": self._once()}

    def calls(self, part: str) -> int:
        return 1

    def time(self, part: str) -> Callable[[], float]:
        return self._once

    def check(self) -> None:
        self._timer.check()

    def row(self, what: str, number: int, taken: float) -> Row:
        """A row of samples.csv."""
        return self._timer.row(what, number, taken) | {"mode": self.execution}


def run(
    root: Path, specs: Sequence[str], sizes: Sequence[str], executions: Sequence[str], quick: bool
) -> list[Path]:
    """Measure, print, write one size and execution after the other; the folders written.

    Raises:
        UserError: an algorithm that there is not, or that diverges on random transitions.
    """
    protocol = QUICK if quick else CostProtocol()
    prepare_process(THREADS)
    origin = provenance()  # before pinning, which hides the other cores
    planned = {size: [case(spec, size) for spec in specs] for size in sizes}
    facts = {size: all_facts(planned[size], protocol) for size in sizes}
    core = pin()
    folders = []
    for execution in executions:
        for size in sizes:
            started = now()
            timers = prepared(planned[size], execution, protocol, cold=False)
            products = [Products(count, width, execution) for count, width in SGEMM]
            alone = [UpdateProducts(timer.case, execution) for timer in timers]
            rows, quiet = measure([*timers, *alone, *products], protocol)
            tables = {
                "samples": (SAMPLE_COLUMNS, [row for row in rows if "count" not in row]),
                "facts": (FACT_COLUMNS, facts[size]),
                "bound": (BOUND_COLUMNS, [row for row in rows if "count" in row]),
            }
            how = {**dataclasses.asdict(protocol), "core": core, "sizes": size}
            own = origin | {"started": started, "protocol": how}
            folders.append(save(root, "timing", tables, own, quiet, quick, f"{size}-{execution}"))
    return folders
