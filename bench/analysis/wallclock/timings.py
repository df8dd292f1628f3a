"""Wall-clock from the timing studies, results/timing/<name>/: how long each part of an algorithm takes.

Timings of different hardware (another timing study) or execution (mode, device, threads, number type) never
share a table. The clocks of training runs are not used: these runs share their machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis import resampling
from bench.analysis.csvfile import read_text
from bench.analysis.resampling import Array
from bench.analysis.scores.results import Results, name_parts
from bench.analysis.style import display_name
from bench.disk import check_inside, read_json
from bench.names import is_safe_name
from bench.text import one_line

TIMING = "timing"  # the folder under results/
SAMPLES = ("algo", "what", "mode", "device", "threads", "dtype", "hidden", "batch", "T", "pack", "candidates")
SAMPLE_NUMBERS = ("round", "seconds")
FACTS = ("algo", "hidden", "batch", "T", "candidates")
FACT_NUMBERS = (
    "actor_parameters",
    "critic_parameters",
    "update_gflop",
    "network_calls_update",
    "network_calls_act",
    "peak_memory_mb",
)
# Columns that an older facts.csv lacks -> the value used instead.
LATER = {"title": "", "act_gflop": "nan"}
LENGTHS = ("T", "candidates")  # whole numbers, or "" where an algorithm has none
EXECUTION = ("device", "mode", "threads", "dtype")
SIZE = ("hidden", "batch", "pack")
CHAINS = ("qsm", "dql", "dql-bc")  # algorithms with a denoising chain, whose length is T
GROWING = ("update", "actor_update")  # parts that are shown over T


@dataclass(frozen=True)
class TimingSet:
    """Timings that may be compared with each other: of one timing study, in one execution.

    samples: one row per timed repeat, seconds per call. facts: one row per algorithm and size. All but the
    numbers are text, "" where a column does not apply (T of SAC).
    """

    study: str
    how: dict[str, str]  # device, mode, threads, dtype
    samples: pd.DataFrame = field(repr=False)
    facts: pd.DataFrame = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Safe as part of a file name: "idle-cpu-compile-1-float32"."""
        return "-".join([self.study, *self.how.values()])

    @property
    def title(self) -> str:
        threads = f"{self.how['threads']} thread" + "s" * (self.how["threads"] != "1")
        return f"{self.study}: {self.how['device']}, {self.how['mode']}, {threads}, {self.how['dtype']}"

    @property
    def sizes(self) -> str | None:
        """What provenance.json calls the sizes of its protocol ("matched", "packs"); None: those of the parts."""
        protocol = self.provenance.get("protocol")
        found = protocol.get("sizes") if isinstance(protocol, Mapping) else None
        return found if isinstance(found, str) else None

    @property
    def hardware(self) -> str:
        """One line of what provenance.json says about the machine."""
        return hardware_line(self.provenance)

    def reference_size(self) -> dict[str, str]:
        """Widths, batch and pack under which most algorithms were timed, then most repeats: the main
        table's.
        """
        grouped = self.samples.groupby(list(SIZE), observed=True)["algo"]
        ranked = pd.DataFrame({"algos": grouped.nunique(), "repeats": grouped.size()}).reset_index()
        ranked["one"] = ranked["pack"] == "1"
        ranked = ranked.sort_values(
            ["algos", "one", "repeats", *SIZE], ascending=[False, False, False, True, True, True]
        )
        return {key: str(ranked.iloc[0][key]) for key in SIZE}

    def at(self, **where: str) -> pd.DataFrame:
        """The samples at these values of columns."""
        return _where(self.samples, where)

    def seconds(self, **where: str) -> Array:
        """Seconds of the repeats at these values of columns, in the order of the rounds."""
        return self.at(**where)["seconds"].to_numpy(np.float64)

    def fact(self, name: str, **where: str) -> float:
        """A number of facts.csv, nan where there is none or it is ambiguous."""
        values = _where(self.facts, where)[name].dropna().unique()
        return float(values[0]) if len(values) == 1 else float("nan")

    def shown(self, label: str) -> str:
        """What a reader sees for a label of the column `algo`: its title in facts.csv, where one was recorded."""
        titles = _where(self.facts, {"algo": label})["title"].unique()
        title = one_line(titles[0]) if len(titles) == 1 else ""
        return title or display_name(label, name_parts(label)[0])


def _where(frame: pd.DataFrame, where: dict[str, str]) -> pd.DataFrame:
    keep = np.ones(len(frame), bool)
    for column, value in where.items():
        keep &= (frame[column] == value).to_numpy()
    return frame[keep]


def hardware_line(provenance: Mapping[str, Any]) -> str:
    """One line of what provenance.json says about the machine."""
    found = provenance.get("hardware")
    if not isinstance(found, dict):
        return one_line(found or "")
    cores, gpus = found.get("cores"), found.get("gpus")
    names = ", ".join(map(str, gpus)) if isinstance(gpus, list) else gpus
    mkl = "AVX-512 in MKL" if found.get("mkl_avx512") is True else ""  # see bench/machine/mkl.py
    parts = [found.get("cpu"), cores and f"{cores} cores", mkl, names]
    return one_line("; ".join(str(part) for part in parts if part))


def load_timings(root: Path) -> tuple[list[TimingSet], list[str]]:
    """The timings of every execution of every study under `root`, in order of name; one line per study left out."""
    found: list[TimingSet] = []
    problems = []
    folder = root / TIMING
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for name in filter(is_safe_name, names):
        if not (folder / name / "samples.csv").is_file():
            continue
        try:
            check_inside(root, folder / name)
            found += read(folder / name)
        except (OSError, ValueError) as error:
            problems.append(f"{TIMING}/{name}: left out: {one_line(error)}")
    return found, problems


def read(folder: Path) -> Iterator[TimingSet]:
    """The timings of every execution of one study. Raises OSError or ValueError."""
    samples = read_table(folder / "samples.csv", SAMPLES, SAMPLE_NUMBERS)
    if not (np.isfinite(samples["seconds"]) & (samples["seconds"] > 0)).all():
        raise ValueError("samples.csv: seconds that are not positive numbers")
    if not np.isfinite(samples["round"]).all():
        raise ValueError("samples.csv: a round that is not a number")
    facts = pd.DataFrame(columns=[*FACTS, *FACT_NUMBERS, *LATER])
    if (folder / "facts.csv").is_file():
        facts = read_table(folder / "facts.csv", FACTS, (*FACT_NUMBERS, "act_gflop"), LATER)
    provenance = {}
    if (folder / "provenance.json").is_file():
        provenance = read_json(folder / "provenance.json")
    samples = samples.astype(dict.fromkeys(SAMPLES, "category"))  # looked up by value hundreds of times
    for values, group in samples.groupby(list(EXECUTION), observed=True):
        how = dict(zip(EXECUTION, map(str, values)))
        yield TimingSet(folder.name, how, group, facts, provenance)


def read_table(
    path: Path, texts: Sequence[str], numbers: Sequence[str], later: Mapping[str, str] = MappingProxyType({})
) -> pd.DataFrame:
    """A CSV with these columns: names as text, numbers as floats. ValueError for anything else.

    later: columns that may be missing -> the value used instead.
    """
    try:
        frame = read_text(path)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    frame = frame.assign(**{column: value for column, value in later.items() if column not in frame})
    missing = [column for column in (*texts, *numbers) if column not in frame]
    if missing:
        raise ValueError(f"{path.name} lacks the column {missing[0]}")
    for column in texts:
        frame[column] = frame[column].str.removesuffix(".0")
        bad = [value for value in frame[column].unique() if value and not is_safe_name(value)]
        if bad:
            raise ValueError(f"{path.name}: {column} cannot be {one_line(bad[0], 60)!r}")
    for column in set(LENGTHS) & set(texts):
        bad = [value for value in frame[column].unique() if value and not value.isdecimal()]
        if bad:
            raise ValueError(f"{path.name}: {column} cannot be {one_line(bad[0], 60)!r}")
    for column in numbers:
        try:
            frame[column] = [float(cell or "nan") for cell in frame[column]]
        except ValueError:
            raise ValueError(f"{path.name}: {column} holds values that are not numbers") from None
    return frame


def seconds_per_step(
    results: Results, timing_sets: Sequence[TimingSet]
) -> tuple[TimingSet | None, dict[str, float]]:
    """The timings that cover most of the study's algorithms end to end, and {label: seconds per env step}.

    A timing matches when algorithm, widths, batch and T are those of the label's configuration, for a single
    seed. Where several sets match equally many, the one that the runs themselves used, then by name.
    """
    used = {tuple(sorted(_used(score.run.meta))) for score in results.runs if score.run.meta}

    def rank(item: tuple[TimingSet, dict[str, float]]) -> tuple[int, bool]:
        timings, matched = item
        return len(matched), tuple(sorted(timings.how.items())) in used

    # the first of equals wins, and they come in order of name
    best = max(((timings, _matching(results, timings)) for timings in timing_sets), key=rank, default=None)
    return best if best and best[1] else (None, {})


def _used(meta: dict[str, Any]) -> Iterator[tuple[str, str]]:
    execution = meta["attempts"][-1]["execution"]
    return ((key, str(execution.get(key, ""))) for key in EXECUTION)


def _matching(results: Results, timings: TimingSet) -> dict[str, float]:
    matched = {}
    for label in results.learners:
        size = size_of(results.config(label))
        seconds = timings.seconds(algo=results.algos[label], what="end_to_end", pack="1", **size)
        if len(seconds):
            matched[label] = float(np.median(seconds))
    return matched


def size_of(config: dict[str, Any]) -> dict[str, str]:
    """Widths, batch and T of a configuration, as the timing studies write them; T is "" where there is
    none.
    """
    hidden = config.get("hidden", ())
    return {
        "hidden": "x".join(str(width) for width in hidden)
        if isinstance(hidden, list | tuple)
        else str(hidden),
        "batch": str(config.get("batch_size", "")),
        "T": str(config.get("T", "")),
    }


@dataclass(frozen=True)
class Slope:
    """Median seconds (K,) at each T (K,), and the least-squares line through them: seconds = intercept + slope T.

    low, high: 95% interval of the slope, resampling rounds (the same for all T).
    """

    T: Array
    seconds: Array
    intercept: float
    slope: float
    low: float
    high: float
    rounds: int


def slope_over_T(timings: TimingSet, **where: str) -> Slope | None:
    """How the time at these values of columns grows with T; None where it was timed at fewer than two T."""
    samples = timings.at(**where)
    samples = samples[samples["T"] != ""]
    by_round = (
        samples.groupby(["T", "round"], observed=True)["seconds"].median().unstack("round")
    )  # (T, rounds)
    by_round = by_round.loc[sorted(by_round.index, key=float)].dropna(axis="columns")
    if len(by_round) < 2 or not by_round.shape[1]:
        return None
    T = np.array([float(value) for value in by_round.index])
    seconds = samples.groupby("T", observed=True)["seconds"].median()[by_round.index].to_numpy(np.float64)
    slope, intercept = np.polyfit(T, seconds, 1)
    drawn = resampling.draws(by_round.shape[1], "rounds")
    slopes, _ = np.polyfit(T, np.median(by_round.to_numpy()[:, drawn], axis=-1), 1)
    low, high = resampling.interval(slopes)
    return Slope(T, seconds, float(intercept), float(slope), float(low), float(high), by_round.shape[1])


def round_medians(timings: TimingSet, **where: str) -> dict[int, float]:
    """{round: median seconds of its calls}: the round is the unit, since the calls of one follow each
    other.
    """
    medians = timings.at(**where).groupby("round")["seconds"].median()
    return {int(number): float(seconds) for number, seconds in medians.items()}


def ratio_over_rounds(
    slow: dict[int, float], fast: dict[int, float], resamples: int, level: float
) -> tuple[float, float, float, int]:
    """Median of `slow` / median of `fast` with its interval, and the number of rounds that both have.

    The bootstrap resamples rounds, the same for both: in each round they took turns on the same machine.
    """
    rounds = sorted(slow.keys() & fast.keys())
    if not rounds:
        return float("nan"), float("nan"), float("nan"), 0
    sides = np.array([[side[number] for number in rounds] for side in (slow, fast)])
    drawn = resampling.draws(len(rounds), "rounds", resamples=resamples)
    above, below = np.median(sides[:, drawn], axis=-1)
    low, high = resampling.interval(above / below, level)
    return float(np.divide(*np.median(sides, axis=-1))), float(low), float(high), len(rounds)
