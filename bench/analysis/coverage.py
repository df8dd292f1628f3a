"""How far the intervals of few seeds can be trusted: what simulated studies say (coverage.toml), and the mark †.

tests/analysis/simulated_coverage.py makes the file from the code that computes the tables' intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from bench.disk import parse_toml
from bench.shape import fit


class Case(Struct, forbid_unknown_fields=True):
    """A [[case]] of coverage.toml: per cent of simulated studies whose interval contains the truth."""

    distribution: str
    tasks: int
    seeds: int
    statistic: str
    percentile: float  # by the percentile interval of the bootstrap
    stretched: float  # by the interval of the tables


class CoverageFile(Struct, forbid_unknown_fields=True):
    """coverage.toml."""

    studies: int
    case: list[Case]


CASES = fit(parse_toml(Path(__file__).with_name("coverage.toml").read_bytes()), CoverageFile).case
ENOUGH = 90.0  # per cent: below it an interval misses the truth more than twice as often as it says
NOTED = (3, 5, 10)  # seeds whose coverage the note gives


def _ranges() -> dict[int, dict[int, tuple[float, float]]]:
    """tasks -> seeds -> lowest and highest coverage over distributions and statistics, in per cent."""
    found: dict[int, dict[int, tuple[float, float]]] = {}
    for case in CASES:
        ranges = found.setdefault(case.tasks, {})
        low, high = ranges.get(case.seeds, (100.0, 0.0))
        ranges[case.seeds] = min(low, case.stretched), max(high, case.stretched)
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


def _shown(tasks: int) -> list[str]:
    """The coverage at each of the NOTED numbers of seeds: "64 to 95%"."""
    return [f"{low:.0f} to {high:.0f}%" for low, high in (RANGES[tasks][seeds] for seeds in NOTED)]


def _joined(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


FEW = (
    "† With so few seeds a nominal 95% interval can be too narrow: in simulations it covers one task's true mean in "
    + _joined(
        [
            f"{share} of studies with {seeds} seeds" if seeds == NOTED[0] else f"{share} with {seeds}"
            for share, seeds in zip(_shown(1), NOTED)
        ]
    )
    + f" (over 8 tasks {_joined(_shown(8))})."
)
FEW_SEEDS_ONLY = f"† At most {_FEW[1]} seeds."
