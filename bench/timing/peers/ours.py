"""Our algorithms, the matrix products in them, and plain ones. `python -m bench.timing.peers.ours eager compile`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch

from bench.launch.pack import prepare_process
from bench.timing import flops
from bench.timing.case import Case, CaseTimer
from bench.timing.peers.serve import serve
from bench.timing.peers.work import BATCH, HIDDEN, OURS, STEPS
from bench.timing.stopwatch import seconds

#: Batches of square products (number, size): those of a layer and of the twin critics', and a large one.
SGEMM = ((1, 256), (2, 256), (1, 1024))


def end_to_end(timer: CaseTimer) -> float:
    """Seconds per environment step, over as many as the peers' samples have."""
    step = timer.time("end_to_end")
    return sum(step() for _ in range(STEPS)) / STEPS


def products_alone(timer: CaseTimer) -> Callable[[], float]:
    """A function that returns the seconds per update of its matrix products alone."""
    products = flops.products(partial(timer.update_often, timer.period))
    return lambda: seconds(products) / timer.period


def sgemm(count: int, size: int) -> float:
    """Seconds per product, the mean over about a millisecond of them."""
    a, b, out = (torch.randn(count, size, size) for _ in range(3))
    repeats = max(1, 2**26 // (count * size**3))
    return seconds(lambda: [torch.bmm(a, b, out=out) for _ in range(repeats)]) / repeats


def main(executions: list[str]) -> None:
    prepare_process(1)
    tasks: dict[str, Callable[[], float]] = {
        f"{count}x{size}/sgemm": partial(sgemm, count, size) for count, size in SGEMM
    }
    gflop = {}
    for name, (algo, overrides) in OURS.items():
        case = Case(algo, HIDDEN, BATCH, overrides.get("T"), overrides=overrides)
        for execution in executions:
            timer = CaseTimer(case, execution)
            tasks[f"{name}/update/{execution}"] = timer.time("update")
            tasks[f"{name}/end_to_end/{execution}"] = partial(end_to_end, timer)
        counted = CaseTimer(case, "eager")
        updates = partial(counted.update_often, counted.period)
        gflop[name] = flops.gflop(updates) / counted.period
        tasks[f"{name}/products"] = products_alone(counted)
    serve(tasks, {"gflop": gflop})


if __name__ == "__main__":
    main(sys.argv[1:])
