"""How often 95% intervals of few seeds contain the truth, in simulated studies. Prints bench/analysis/coverage.toml:

    python -m tests.analysis.simulated_coverage > bench/analysis/coverage.toml

The intervals are those of the tables, computed by the same code. Scores follow one of three distributions:
normal; "two fates", where 30% of the runs end at the floor; and a skewed one (lognormal, sigma 1), where few runs
are far above the rest. Over several tasks the mean of every second one is shifted, and both the mean and the
interquartile mean are looked at.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from bench.analysis import stats
from bench.analysis.resampling import Array
from bench.analysis.stats import Statistic

STUDIES = 5000
# Resamples, where not all are listed: the tables have more, which changes little over many studies
DRAWS = 2000
AT_ONCE = 100  # studies
SHIFT = 2.0  # of every second task, in the unit of the scores
SEEDS = {1: (2, 3, 5, 10, 20, 50), 2: (2, 3, 5, 10, 20), 8: (2, 3, 5, 10)}  # tasks -> numbers of seeds

Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape)


def two_fates(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """30% at the floor, 0; the others at 1 with a standard deviation of 0.05."""
    return np.where(rng.random(shape) < 0.3, 0.0, 1.0 + 0.05 * rng.standard_normal(shape))


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.exp(rng.standard_normal(shape))


DISTRIBUTIONS: dict[str, Draw] = {"normal": normal, "two fates": two_fates, "skewed": skewed}


def studies_of(draw: Draw, tasks: int, seeds: int, studies: int, rng: np.random.Generator) -> list[Array]:
    """Scores of so many studies: for each task (studies, seeds)."""
    return [SHIFT * (task % 2) + draw(rng, (studies, seeds)) for task in range(tasks)]


def coverage(
    distribution: str, tasks: int, seeds: int, statistic: str, studies: int = STUDIES, draws: int = DRAWS
) -> tuple[float, float]:
    """The share of studies, in per cent, whose percentile interval and whose stretched interval has the truth."""
    draw = DISTRIBUTIONS[distribution]
    rng = np.random.default_rng([zlib.crc32(f"{distribution} {statistic}".encode()), tasks, seeds])
    function: Statistic = stats.mean
    if statistic == "IQM":
        function = partial(stats.iqm, cut=stats.trimmed_share([seeds], tasks))
    (truth,) = function(studies_of(draw, tasks, 400_000, 1, rng), None)
    plain = stretched = 0
    for start in range(0, studies, AT_ONCE):
        scores = studies_of(draw, tasks, seeds, min(AT_ONCE, studies - start), rng)
        groups = [(seeds, (str(start), str(task))) for task in range(tasks)]
        found = stats.resampled(function, scores, groups, draws)
        low, high = found.percentile()
        plain += int(((low <= truth) & (truth <= high)).sum())
        low, high = found.interval()
        stretched += int(((low <= truth) & (truth <= high)).sum())
    return 100 * plain / studies, 100 * stretched / studies


def cases() -> Iterator[tuple[str, int, int, str]]:
    """Distribution, tasks, seeds, statistic."""
    for tasks, numbers in SEEDS.items():
        for statistic in ("mean", "IQM") if tasks > 1 else ("mean",):
            for distribution in DISTRIBUTIONS:
                for seeds in numbers:
                    yield distribution, tasks, seeds, statistic


def main() -> None:
    print(
        "# Per cent of simulated studies whose 95% interval contains the truth: the percentile interval of the"
    )
    print(
        "# bootstrap, and the stretched one that the tables have. Written by tests/analysis/simulated_coverage.py."
    )
    print(f"\nstudies = {STUDIES}")
    for distribution, tasks, seeds, statistic in cases():
        plain, stretched = coverage(distribution, tasks, seeds, statistic)
        print(f'\n[[case]]\ndistribution = "{distribution}"\ntasks = {tasks}\nseeds = {seeds}')
        print(f'statistic = "{statistic}"\npercentile = {plain:.1f}\nstretched = {stretched:.1f}', flush=True)


if __name__ == "__main__":
    main()
