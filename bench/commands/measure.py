"""The commands that measure: time and memory. Each returns the exit code."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from bench.commands.arguments import check_device, one_of, possible, whole, writable
from bench.errors import UserError
from bench.studies.overrides import parse_overrides

PARTS = "parts"  # what SIZES calls the protocol of bench/timing/protocol.py
PACKS = "packs"  # and that of bench/timing/packs.py


def timing(options: Namespace) -> int:
    """What all our algorithms cost at two sizes; the parts of those of the paper over many sizes; packs on demand."""
    from bench.timing import cost, packs, protocol

    device = one_of("DEVICE", options.device or "cpu", ("cpu", "cuda"))
    check_device(device)
    root, executions, quick = _measuring(options, device)
    usual = (*cost.SIZES, PARTS) if device == "cpu" else (PACKS,)
    sizes = [one_of("SIZES", size, (*cost.SIZES, PARTS, PACKS)) for size in options.sizes.split() or usual]
    if device == "cuda" and sizes != [PACKS]:
        raise UserError(
            "DEVICE=cuda: only SIZES=packs is timed on a GPU; the others have one core and one thread"
        )
    asked = options.algos.split()
    for spec in asked:
        algo, own = parse_overrides(spec)
        if algo == "random":
            raise UserError("ALGOS=random: it learns nothing, so there is nothing to time")
        if own and PARTS in sizes:
            raise UserError(f"ALGOS={spec}: settings are timed with SIZES=authors or matched only")
    if compared := [size for size in cost.SIZES if size in sizes]:
        cost.run(root, asked or cost.ALGOS, compared, executions, quick)
    if PARTS in sizes:
        protocol.run(root, asked or protocol.ALGOS, executions, quick)
    if PACKS in sizes:
        packs.run(root, asked or cost.ALGOS, executions, quick, device)
    return 0


def perf(options: Namespace) -> int:
    """Our algorithms compared with Stable-Baselines3 and SBX; what the runner and a long run cost."""
    from bench.timing import comparison

    root, executions, quick = _measuring(options)
    grids = [whole("GRIDS", text, 1) for text in options.grids.split()]
    comparison.run(root, executions, quick, grids)
    return 0


def _measuring(options: Namespace, device: str = "cpu") -> tuple[Path, list[str], bool]:
    """The root of all results, the executions to time (eager and, unless quick, the device's faster), whether quick."""
    quick = one_of("QUICK", options.quick or "0", ("0", "1")) == "1"
    known = ("eager", "compile") if device == "cpu" else ("eager", "graph")
    asked = options.execution.split() or (known[:1] if quick else known)
    executions = [possible(one_of("EXECUTION", execution, known)) for execution in asked]
    return writable("RESULTS", options.results), list(dict.fromkeys(executions)), quick
