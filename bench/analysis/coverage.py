"""How far the intervals of few seeds can be trusted: what simulated studies say (coverage.toml), and the mark †.

tests/analysis/simulated_coverage.py makes the file from the code that computes the tables' intervals.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CASES: list[dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("coverage.toml").read_text(encoding="utf-8")
)["case"]
ENOUGH = 90.0  # per cent: below it an interval misses the truth more than twice as often as it says
NOTED = (3, 5, 10)  # seeds whose coverage the note gives


def _ranges() -> dict[int, dict[int, tuple[float, float]]]:
    """tasks -> seeds -> lowest and highest coverage over distributions and statistics, in per cent."""
    found: dict[int, dict[int, tuple[float, float]]] = {}
    for case in CASES:
        ranges = found.setdefault(case["tasks"], {})
        low, high = ranges.get(case["seeds"], (100.0, 0.0))
        ranges[case["seeds"]] = min(low, case["stretched"]), max(high, case["stretched"])
    return found


RANGES = _ranges()


def _few(ranges: Mapping[int, tuple[float, float]]) -> int:
    """The largest number of seeds whose coverage is below ENOUGH under one of the simulated distributions."""
    return max((seeds for seeds, (low, _) in ranges.items() if low < ENOUGH), default=1)


_FEW = {tasks: _few(ranges) for tasks, ranges in RANGES.items()}


def mark(n: int, tasks: int = 1) -> str:
    """What stands behind a number of seeds whose intervals, over so many tasks, can cover too little."""
    simulated = max(number for number in _FEW if number <= max(tasks, 1))
    return "†" if n <= _FEW[simulated] else ""


def _shown(tasks: int, unit: str) -> str:
    """ "64 to 95% with 3 seeds, 83 to 95% with 5, 85 to 96% with 10" """
    parts: list[str] = []
    for seeds in NOTED:
        low, high = (round(bound) for bound in RANGES[tasks][seeds])
        parts.append(f"{low} to {high}% with {seeds}" + (unit if not parts else ""))
    return ", ".join(parts)


FEW = (
    "† With so few seeds a nominal 95% interval can be too narrow: in simulated studies it covers the truth, for one "
    f"task's mean in {_shown(1, ' seeds')} (over 8 tasks {_shown(8, '')})."
)
FEW_SEEDS_ONLY = f"† At most {_FEW[1]} seeds."
