"""The simulated figures that tables and documents print: the code still gives them, and the documents hold them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as distributions

from bench.analysis import coverage, stats
from tests.analysis import simulated_coverage, simulated_verdicts
from tests.analysis.simulated_coverage import DISTRIBUTIONS

HERE = Path(__file__).parent
VERDICTS = tomllib.loads((HERE / "simulated_verdicts.toml").read_text(encoding="utf-8"))["case"]
DOCUMENT = (HERE.parents[1] / "docs/analysis.md").read_text(encoding="utf-8")
QUICK = 400  # studies


def within_noise(share: float, studies: int, recorded: float) -> bool:
    """Whether a simulated share (per cent) is the recorded one up to the noise of both: four standard errors."""
    chance = np.clip(recorded, 1.0, 99.0) / 100
    return abs(share - recorded) <= 400 * np.sqrt(chance * (1 - chance) / studies * 1.1)


def recorded_coverage(distribution: str, tasks: int, seeds: int, statistic: str) -> tuple[float, float]:
    (case,) = [
        case
        for case in coverage.CASES
        if (case.distribution, case.tasks, case.seeds, case.statistic)
        == (distribution, tasks, seeds, statistic)
    ]
    return case.percentile, case.stretched


@pytest.mark.seconds
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize(
    ("tasks", "seeds", "statistic"),
    [
        (1, 2, "mean"),
        (1, 3, "mean"),
        (1, 5, "mean"),
        (1, 10, "mean"),
        (2, 3, "IQM"),
        (8, 3, "mean"),
        (8, 3, "IQM"),
    ],
)
def test_intervals_cover_the_truth_as_often_as_recorded(distribution, tasks, seeds, statistic):
    found = simulated_coverage.coverage(distribution, tasks, seeds, statistic, studies=QUICK, draws=500)
    for share, recorded in zip(found, recorded_coverage(distribution, tasks, seeds, statistic)):
        assert within_noise(share, QUICK, recorded)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", list(simulated_coverage.cases()), ids=str)
def test_recorded_coverage_can_be_made_again(case):
    """The same studies; sums may round differently on another processor."""
    assert simulated_coverage.coverage(*case) == pytest.approx(recorded_coverage(*case), abs=0.2)


def test_the_stretched_interval_covers_what_it_says():
    """From 3 normal seeds on, and over 8 tasks; what it cannot do is recorded too."""
    low = {(case.distribution, case.tasks, case.seeds): 100.0 for case in coverage.CASES}
    for case in coverage.CASES:
        key = case.distribution, case.tasks, case.seeds
        low[key] = min(low[key], case.stretched)
    assert all(low["normal", tasks, seeds] >= 93 for tasks in (1, 2, 8) for seeds in (3, 5, 10))
    assert all(share >= 90 for (_, tasks, _), share in low.items() if tasks == 8)
    assert low["two fates", 1, 3] < 70  # three seeds that share one fate say nothing of the other


def test_the_mark_follows_from_the_record():
    assert coverage.mark(20) == "†"
    assert coverage.mark(21) == ""
    assert coverage.mark(3, 8) == ""
    for tasks, ranges in coverage.RANGES.items():
        for seeds, (low, _) in ranges.items():
            assert coverage.mark(seeds, tasks) or low >= coverage.ENOUGH


def test_the_note_has_the_ranges_of_the_record():
    for tasks in (1, 8):
        for seeds in coverage.NOTED:
            low, high = coverage.RANGES[tasks][seeds]
            assert f"{low:.0f} to {high:.0f}%" in coverage.FEW


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("distribution", "tasks", "seeds"),
    [*((name, *case) for name in DISTRIBUTIONS for case in ((1, 3), (1, 5), (2, 5))), ("normal", 8, 5)],
)
def test_equal_algorithms_are_rarely_called_better_or_worse(distribution, tasks, seeds):
    """Quickly, against the record; the record itself is held by the test below."""
    plain, stretched = simulated_verdicts.found_shares(distribution, tasks, seeds, equal=True, studies=QUICK)
    (case,) = [
        c for c in VERDICTS if (c["distribution"], c["tasks"], c["seeds"]) == (distribution, tasks, seeds)
    ]
    assert within_noise(plain, QUICK, case["false_percentile"])
    assert within_noise(stretched, QUICK, case["false_stretched"])


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "case", VERDICTS, ids=lambda case: f"{case['distribution']} {case['tasks']} {case['seeds']}"
)
def test_recorded_verdicts_can_be_made_again(case):
    where = case["distribution"], case["tasks"], case["seeds"]
    for equal, name in ((True, "false"), (False, "power")):
        recorded = case[f"{name}_percentile"], case[f"{name}_stretched"]
        assert simulated_verdicts.found_shares(*where, equal=equal) == pytest.approx(recorded, abs=0.2)


def test_false_verdicts_are_as_rare_as_promised():
    """At most 5% of studies, up to the noise of the simulation, from 5 seeds on, and of one task at 3."""
    noise = 2 * np.sqrt(0.05 * 0.95 / simulated_verdicts.STUDIES)
    for case in VERDICTS:
        assert case["false_stretched"] <= 100 * (0.05 + noise), case


@pytest.mark.seconds
@pytest.mark.parametrize(("n", "share"), [(3, 0.92), (5, 0.92), (5, 0.5)])
def test_newcombes_interval_covers_the_probability_of_improvement(n, share):
    """Of normal scores, where a bootstrap covers 37% at n = 3 and 60% at n = 5 (truth 0.92)."""
    rng = np.random.default_rng(n)
    shift = np.sqrt(2) * distributions.norm.ppf(share)
    covered = 0
    for _ in range(QUICK):
        x, y = rng.standard_normal(n) + shift, rng.standard_normal(n)
        low, high = stats.improvement_interval([x], [y])
        covered += low <= share <= high
    assert 0.90 <= covered / QUICK <= 1.0


def test_the_document_has_the_recorded_figures():
    for row in coverage_rows() + verdict_rows():
        assert row in DOCUMENT


def coverage_rows() -> list[str]:
    """The lines of the table of coverage: seeds, then each distribution on one task and over 8, before and now."""
    rows = []
    for seeds in (2, 3, 5, 10):
        cells = []
        for tasks, statistic in ((1, "mean"), (8, "IQM")):
            for distribution in DISTRIBUTIONS:
                before, now = recorded_coverage(distribution, tasks, seeds, statistic)
                cells.append(f"{now:.0f} ({before:.0f})")
        rows.append(f"| {seeds} | " + " | ".join(cells) + " |")
    return rows


def verdict_rows() -> list[str]:
    """The lines of the table of verdicts: tasks, seeds, false verdicts, and power under the normal distribution."""
    rows = []
    for tasks, seeds in simulated_verdicts.CASES:
        cases = [case for case in VERDICTS if (case["tasks"], case["seeds"]) == (tasks, seeds)]
        cells = [f"{case['false_stretched']:.1f} ({case['false_percentile']:.1f})" for case in cases]
        power = next(case for case in cases if case["distribution"] == "normal")
        cells.append(f"{power['power_stretched']:.0f} ({power['power_percentile']:.0f})")
        rows.append(f"| {tasks} | {seeds} | " + " | ".join(cells) + " |")
    return rows
