"""How often algorithms are found better or worse, in simulated studies judged as claim 1. Prints a TOML file:

    python -m tests.analysis.simulated_verdicts > tests/analysis/simulated_verdicts.toml

One algorithm against three equal ones: differences of interquartile means, under Holm's correction. Holm finds a
first difference exactly where an interval at Bonferroni's level leaves out 0, so that these intervals say in which
studies there is one. Under equality any difference found is a false verdict. Power: how often an algorithm that is
better by EFFECT standard deviations on every task is found better than one other, at Bonferroni's level; Holm's is as
high or higher. Distributions as in simulated_coverage.py.
"""

from __future__ import annotations

import zlib
from functools import partial

import numpy as np

from bench.analysis import stats
from bench.analysis.resampling import LEVEL
from tests.analysis.simulated_coverage import AT_ONCE, DISTRIBUTIONS, DRAWS, studies_of

STUDIES = 2000
BASELINES = 3
EFFECT = {1: 2.0, 2: 1.5, 8: 0.8}  # tasks -> standard deviations
CASES = ((1, 3), (1, 5), (1, 10), (2, 5), (2, 10), (8, 5), (8, 10))  # tasks, seeds


def found_shares(
    distribution: str, tasks: int, seeds: int, *, equal: bool, studies: int = STUDIES
) -> tuple[float, float]:
    """Per cent of studies, by the percentile and by the stretched interval, with any difference found where all are
    `equal`; otherwise of contrasts in which the better algorithm is found better.
    """
    draw = DISTRIBUTIONS[distribution]
    rng = np.random.default_rng([zlib.crc32(distribution.encode()), tasks, seeds, equal])
    shift = 0.0 if equal else EFFECT[tasks] * float(draw(rng, (400_000,)).std())
    iqm = partial(stats.iqm, cut=stats.trimmed_share([seeds], tasks))
    level = 1.0 - (1.0 - LEVEL) / BASELINES
    plain, stretched = [], []
    for start in range(0, studies, AT_ONCE):
        count = min(AT_ONCE, studies - start)
        ours = [scores + shift for scores in studies_of(draw, tasks, seeds, count, rng)]
        groups = [(seeds, (f"{start} {task}", "ours")) for task in range(tasks)]
        for baseline in range(BASELINES):
            theirs = studies_of(draw, tasks, seeds, count, rng)
            their_groups = [(seeds, (f"{start} {task}", str(baseline))) for task in range(tasks)]
            found = stats.resampled_difference(iqm, ours, theirs, groups + their_groups, DRAWS)
            for bounds, kept in ((found.percentile(level), plain), (found.interval(level), stretched)):
                low, high = bounds
                kept.append((low > 0) | (high < 0) if equal else low > 0)
    return _share(plain, equal), _share(stretched, equal)


def _share(kept: list[np.ndarray], equal: bool) -> float:
    """Of studies with any difference, or of contrasts: kept, block by block, holds (studies,) for each baseline."""
    of_studies = [kept[i : i + BASELINES] for i in range(0, len(kept), BASELINES)]
    joined = np.concatenate(
        [np.any(block, axis=0) if equal else np.mean(block, axis=0) for block in of_studies]
    )
    return 100 * float(joined.mean())


def main() -> None:
    print(
        "# Per cent of simulated studies with a false verdict, and of contrasts in which a better algorithm is found,"
    )
    print(
        "# by the percentile and by the stretched interval. Written by tests/analysis/simulated_verdicts.py."
    )
    print(f"\nstudies = {STUDIES}")
    for distribution in DISTRIBUTIONS:
        for tasks, seeds in CASES:
            false = found_shares(distribution, tasks, seeds, equal=True)
            power = found_shares(distribution, tasks, seeds, equal=False)
            print(f'\n[[case]]\ndistribution = "{distribution}"\ntasks = {tasks}\nseeds = {seeds}')
            print(f"false_percentile = {false[0]:.1f}\nfalse_stretched = {false[1]:.1f}")
            print(f"power_percentile = {power[0]:.1f}\npower_stretched = {power[1]:.1f}", flush=True)


if __name__ == "__main__":
    main()
