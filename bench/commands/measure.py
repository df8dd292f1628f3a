"""The commands that measure: time and memory. Each returns the exit code."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from bench.commands.arguments import one_of, possible, whole, writable
from bench.errors import UserError
from bench.studies.overrides import agent_class


def timing(options: Namespace) -> int:
    """The wall-clock protocol for our algorithms."""
    from bench.timing import protocol as timing_room

    root, modes, quick = _measuring(options)
    algos = options.algos.split() or list(timing_room.ALGOS)
    for algo in algos:
        agent_class(algo)
        if algo == "random":
            raise UserError("ALGOS=random: it learns nothing, so there is nothing to time")
    timing_room.run(root, algos, modes, quick)
    return 0


def perf(options: Namespace) -> int:
    """Our algorithms beside Stable-Baselines3 and SBX; what the runner and a long run cost."""
    from bench.timing import comparison as perf_room

    root, modes, quick = _measuring(options)
    grids = [whole("GRIDS", text, 1) for text in options.grids.split()]
    perf_room.run(root, modes, quick, grids)
    return 0


def _measuring(options: Namespace) -> tuple[Path, list[str], bool]:
    """The root of all results, the execution modes to time (eager and, unless quick, compile), whether quick."""
    quick = one_of("QUICK", options.quick or "0", ("0", "1")) == "1"
    asked = options.execution.split() or (["eager"] if quick else ["eager", "compile"])
    modes = [possible(one_of("EXECUTION", mode, ("eager", "compile"))) for mode in asked]
    return writable("RESULTS", options.results), list(dict.fromkeys(modes)), quick
