"""What `make perf` measured, from results/perf/<machine>/ alone: ours beside other libraries and the machine's bound.

Everything in a folder took turns on one core. A ratio is one of medians, with an interval over the rounds of turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.resampling import RESAMPLES, Array
from bench.analysis.style import order
from bench.analysis.wallclock.timings import ratio_over_rounds, read_table
from bench.disk import check_inside, read_json
from bench.names import is_safe_name
from bench.text import one_line

PERF = "perf"  # the folder under results/
OURS = "ours"
PEERS = {"sb3": "Stable-Baselines3", "sbx": "SBX"}
TUNED = "-tuned"  # a peer with our settings of the memory allocator and of MKL
PAPER = "-paper"  # an algorithm with its paper's settings in place of the QSM authors'
KEY = ("who", "algo", "what", "mode")
NUMBERS = ("round", "seconds")
RUNNER = ("jobs", "at_once", "seconds", "seconds_nothing_to_do")
MEMORY = ("steps", "replay_mb", "held_mb", "peak_mb")
LEVEL = 0.95

Key = tuple[str, str, str, str]  # who, algo, what, mode
NAN = float("nan")


@dataclass(frozen=True)
class Comparison:
    """One folder of results/perf.

    times: per key the seconds of one update, step or product, a row per timed call with its round; keys in the order of
    the file. gflop: of the matrix products of an update of ours.
    """

    machine: str
    times: Mapping[Key, pd.DataFrame] = field(repr=False)
    gflop: Mapping[str, float]
    provenance: Mapping[str, Any] = field(repr=False)
    runner: pd.DataFrame = field(repr=False)
    memory: pd.DataFrame = field(repr=False)

    @property
    def algos(self) -> list[str]:
        """Of ours that learn."""
        found = {algo for who, algo, what, _ in self.times if (who, what) == (OURS, "update")}
        return sorted(found, key=lambda algo: (*order(algo.removesuffix(PAPER)), algo))

    def seconds(self, key: Key) -> Array:
        return self.times[key]["seconds"].to_numpy(float)

    def rate(self, key: Key, percentile: float = 50) -> float:
        """Per second: at the median of the time taken, or at another percentile of it."""
        return 1 / float(np.percentile(self.seconds(key), percentile))

    def fastest(self, algo: str, what: str) -> Key | None:
        """Ours in the faster of its execution modes; None where it was not timed."""
        ours = [key for key in self.times if key[:3] == (OURS, algo, what)]
        return max(ours, key=self.rate, default=None)

    def products(self) -> dict[str, float]:
        """GFLOP/s of plain matrix products: "2x256" are two of 256 x 256 at once."""
        found = {}
        for key in self.times:
            if key[2] == "sgemm":
                count, _, size = key[1].partition("x")
                found[key[1]] = 2 * int(count) * int(size) ** 3 * self.rate(key) / 1e9
        return found

    @property
    def bound(self) -> float:
        """GFLOP/s of the best of these; nan where none was timed."""
        return max(self.products().values(), default=NAN)

    def share_of_bound(self, key: Key) -> float:
        """The rate of an update in its matrix products / the bound."""
        return self.gflop.get(key[1], NAN) * self.rate(key) / self.bound

    def ratio(self, ours: Key | None, theirs: Key | None) -> tuple[float, float, float]:
        """How many times as fast ours is, with its 95% interval: value, low, high; nan where one was not timed."""
        if ours is None or theirs is None or ours not in self.times or theirs not in self.times:
            return NAN, NAN, NAN
        return ratio_over_rounds(self._rounds(theirs), self._rounds(ours), RESAMPLES, LEVEL)[:3]

    def _rounds(self, key: Key) -> dict[int, float]:
        """{round: median seconds}: calls of one round follow each other, so that the round is the unit."""
        medians = self.times[key].groupby("round")["seconds"].median()
        return {int(number): float(seconds) for number, seconds in medians.items()}


def load(root: Path) -> tuple[list[Comparison], list[str]]:
    """Every folder of results/perf, in order of name; one line for each that is left out."""
    folder = root / PERF
    found: list[Comparison] = []
    problems = []
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for name in filter(is_safe_name, names):
        if (folder / name / "samples.csv").is_file():
            try:
                check_inside(root, folder / name)
                found.append(read(folder / name))
            except (OSError, ValueError) as error:
                problems.append(f"{PERF}/{name}: left out: {one_line(error)}")
    return found, problems


def read(folder: Path) -> Comparison:
    """What one `make perf` wrote. Raises OSError, or ValueError for a file of another form."""
    samples = read_table(folder / "samples.csv", KEY, NUMBERS)
    if not (np.isfinite(samples["seconds"]) & (samples["seconds"] > 0) & np.isfinite(samples["round"])).all():
        raise ValueError(
            "samples.csv: seconds that are not positive numbers, or a round that is not a number"
        )
    times: dict[Key, pd.DataFrame] = {}
    for (who, algo, what, mode), rows in samples.groupby(list(KEY), sort=False):
        if what == "sgemm" and not all(part.isdecimal() for part in algo.split("x", 1)):
            raise ValueError(f"samples.csv: products are named as 2x256, not {one_line(algo, 60)!r}")
        times[str(who), str(algo), str(what), str(mode)] = rows[list(NUMBERS)]
    record = read_json(folder / "provenance.json")
    counted = record.get("update_gflop")
    gflop = {str(algo): float(value) for algo, value in counted.items()} if isinstance(counted, dict) else {}
    runner = _further(folder / "runner.csv", (), RUNNER)
    memory = _further(folder / "memory.csv", ("env", "algo"), MEMORY)
    return Comparison(folder.name, times, gflop, record, runner, memory)


def _further(path: Path, texts: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    return read_table(path, texts, numbers) if path.is_file() else pd.DataFrame(columns=[*texts, *numbers])
