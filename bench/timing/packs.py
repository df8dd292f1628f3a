"""`make timing SIZES=packs`: how many seeds a second of training serves, as more of them train in lock-step.

Every algorithm at the matched size (bench/timing/cost.py), in packs of 1 to 20 seeds, on a GPU with DEVICE=cuda. Two
parts: `update`, many updates with one wait at their end, as a run on a GPU launches them; and, of some packs,
`end_to_end`, a whole step of training, environments included. The packs of an algorithm take turns; algorithms follow
one another. Writes results/timing/<machine>-packs-<execution>/: samples.csv, whose seconds are those of one call for
all seeds of the pack together, and facts.csv with the titles of the algorithms alone.
"""

from __future__ import annotations

import dataclasses
import gc
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch

from bench.launch.pack import prepare_process
from bench.machine.hardware import available_cores
from bench.machine.provenance import provenance
from bench.studies.overrides import agent_class
from bench.timing.case import THREADS, Case, CaseTimer
from bench.timing.cost import case
from bench.timing.measurement import Row, now, save
from bench.timing.protocol import FACT_COLUMNS, SAMPLE_COLUMNS
from bench.timing.stopwatch import Watch, chunks, pin, seconds

PACKS = (1, 5, 10, 20)
WITH_ENVIRONMENTS = (1, 10)  # the packs that are timed end to end too
MOST_ENV_WORKERS = 4  # processes that step a pack's environments beside a GPU


@dataclasses.dataclass(frozen=True)
class PacksProtocol:
    """Each sample is the mean of so many consecutive calls that they take about `seconds`, `most_calls` at most."""

    packs: Sequence[int] = PACKS
    rounds: int = 5
    seconds: float = 0.1
    most_calls: int = 100
    order_seed: int = 0


QUICK = PacksProtocol(packs=PACKS[:2], rounds=2, seconds=0.01, most_calls=2)


def run(
    root: Path, specs: Sequence[str], executions: Sequence[str], quick: bool, device: str = "cpu"
) -> list[Path]:
    """Measure, print, write one execution after the other; the folders written.

    Raises:
        UserError: an algorithm that there is not, or that diverges on random transitions.
    """
    protocol = QUICK if quick else PacksProtocol()
    prepare_process(THREADS)
    origin = provenance(device)
    # Beside a GPU the environments have processes of their own, and this one shares its core with none of them.
    env_workers = min(MOST_ENV_WORKERS, available_cores() - 1) if device == "cuda" else 0
    core = None if device == "cuda" else pin()
    sizes = [case(spec, "matched") for spec in specs]
    facts: list[Row] = [
        {**dict.fromkeys(FACT_COLUMNS, ""), **size.columns, "title": size.name(agent_class(size.algo).title)}
        for size in sizes
    ]
    folders = []
    for execution in executions:
        started, watch = now(), Watch()
        order = random.Random(protocol.order_seed)
        rows = [
            row for size in sizes for row in _algorithm(size, execution, device, env_workers, protocol, order)
        ]
        how = {**dataclasses.asdict(protocol), "core": core, "env_workers": env_workers, "sizes": "packs"}
        own = origin | {"started": started, "protocol": how}
        tables = {"samples": (SAMPLE_COLUMNS, rows), "facts": (FACT_COLUMNS, facts)}
        folders.append(save(root, "timing", tables, own, watch.quiet(), quick, f"packs-{execution}"))
    return folders


def _algorithm(
    matched: Case,
    execution: str,
    device: str,
    env_workers: int,
    protocol: PacksProtocol,
    order: random.Random,
) -> Iterator[Row]:
    """The samples of all packs of an algorithm."""
    timers = []
    for pack in protocol.packs:
        ends = pack in WITH_ENVIRONMENTS
        parts = ("update", "end_to_end") if ends else ("update",)
        size = dataclasses.replace(matched, pack=pack, parts=parts)
        timers.append(PackTimer(CaseTimer(size, execution, device, env_workers * ends), protocol))
    keys = [(i, part) for i, timer in enumerate(timers) for part in timer.parts]
    taken: dict[tuple[int, str], list[float]] = {key: [] for key in keys}
    for number, (i, part) in chunks(keys, protocol.rounds, order.randrange(2**32)):
        value = timers[i].sample(part)
        taken[i, part].append(value)
        yield timers[i].timer.row(part, number, value)
    for i, timer in enumerate(timers):
        pack = timer.timer.case.pack
        rates = ", ".join(f"{part} {pack / median(taken[i, part]):.0f}/s" for part in timer.parts)
        print(f"{timer.timer.case.title}, {execution}: seeds served: {rates}", flush=True)
        timer.close()
    timers.clear()
    gc.collect()  # the graphs of the last algorithm hold memory
    if device == "cuda":
        torch.cuda.empty_cache()


class PackTimer:
    """Bursts of calls of one case, with a wait at the end of each where a GPU works on."""

    def __init__(self, timer: CaseTimer, protocol: PacksProtocol):
        self.timer, self.parts = timer, timer.case.parts
        self.calls: dict[str, int] = {}
        timer.update_often(timer.period)  # compiles, or captures, every update function
        for part in self.parts:
            self._burst(part, 3 * timer.period)
            once = self._burst(part, timer.period) / timer.period
            periods = min(protocol.most_calls, protocol.seconds / once) // timer.period
            self.calls[part] = timer.period * max(1, int(periods))

    def sample(self, part: str) -> float:
        """Seconds of one call, on average over a burst."""
        return self._burst(part, self.calls[part]) / self.calls[part]

    def _burst(self, part: str, calls: int) -> float:
        once = self._update if part == "update" else self.timer.step

        def burst() -> None:
            for _ in range(calls):
                once()
            if self.timer.device == "cuda":
                torch.cuda.synchronize()

        return seconds(burst)

    def _update(self) -> None:
        """Its metrics stay where they are: a run on a GPU reads them in every hundredth update only."""
        self.timer.agent.update(self.timer.replay.sample(self.timer.agent.transitions()))

    def close(self) -> None:
        """Check that nothing broke down, and end the processes that step environments."""
        self.timer.check()
        self.timer.trainer.close()
