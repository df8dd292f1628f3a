"""Resampled seeds, and the interval that they give a statistic.

The seed is the unit. Seeds are resampled with replacement within each group: the seeds of one task and
algorithm. Where there are few different resamples each one is listed with its probability; otherwise they are
drawn at random.
"""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Counts = NDArray[np.int16]
Group = tuple[int, tuple[str, ...]]  # number of seeds; what its draws depend on

RESAMPLES = 10_000  # for every interval that is printed
CURVE_RESAMPLES = 1000  # at least, for a band along a curve
CURVE_SAMPLES = 200_000  # values of the statistic that make a band: its points x resamples
INFLUENCE_RESAMPLES = 2000  # the first of those drawn, for the degrees of freedom
LEVEL = 0.95
# Groups whose draws are kept, 20 kB a seed: every table of a study asks for the same ones
CACHED_GROUPS = 512


@dataclass(frozen=True)
class Resamples:
    """How often each seed is in each resample: for each group (B, n).

    weights: the probability of each resample (B,) where all are listed; None where they were drawn.
    """

    counts: tuple[Counts, ...]
    weights: Array | None


def resample(groups: Sequence[Group], draws: int = RESAMPLES) -> Resamples:
    """Every resample of these groups where at most 2 x `draws` differ, otherwise `draws` random ones."""
    sizes = tuple(n for n, _ in groups)
    if math.prod(math.comb(2 * n - 1, n) for n in sizes) <= 2 * draws:
        return every_resample(sizes)
    return Resamples(tuple(_drawn(n, key, max(draws, RESAMPLES))[:draws] for n, key in groups), None)


def curve_resamples(points: int) -> int:
    """For a band along a curve of so many points: as many as for a printed interval where there are few points.

    Such a curve's last point is often printed too. A band of hundreds of points is looked at, not read off.
    """
    return max(CURVE_RESAMPLES, min(RESAMPLES, CURVE_SAMPLES // points))


@functools.lru_cache(64)
def every_resample(sizes: tuple[int, ...]) -> Resamples:
    """Every different resample of groups of these sizes: all combinations of the groups' multisets."""
    counts, weights = zip(*map(_multisets, sizes))
    grid = np.indices([len(rows) for rows in counts]).reshape(len(sizes), -1)
    chance = np.prod([group[rows] for group, rows in zip(weights, grid)], axis=0)
    return Resamples(tuple(group[rows] for group, rows in zip(counts, grid)), chance)


@functools.cache
def _multisets(n: int) -> tuple[Counts, Array]:
    """Counts (C(2n - 1, n), n) of every multiset of n out of n seeds, with its multinomial probability."""
    rows = []
    for bars in itertools.combinations(range(2 * n - 1), n - 1):
        rows.append(np.diff(bars, prepend=-1, append=2 * n - 1) - 1)
    counts = np.array(rows, np.int16).reshape(-1, n)
    factorials = np.array([math.factorial(k) for k in range(n + 1)], np.float64)
    return counts, factorials[n] / factorials[counts].prod(axis=1) / float(n) ** n


def draws(n: int, *key: str, resamples: int = RESAMPLES) -> NDArray[np.int32]:
    """Seeds drawn with replacement: (resamples, n) indices below n.

    They depend on the key alone (task and algorithm), so that every measure and every checkpoint of a cell
    sees the same resampled seeds, and no cell's interval changes when another cell is added. With fewer `resamples`
    they are the first of more.
    """
    rng = np.random.default_rng([zlib.crc32(part.encode()) for part in key])
    return rng.integers(0, n, size=(resamples, n), dtype=np.int32)


@functools.lru_cache(CACHED_GROUPS)
def _drawn(n: int, key: tuple[str, ...], resamples: int) -> Counts:
    return counts_of(draws(n, *key, resamples=resamples))


def counts_of(drawn: NDArray[np.int32]) -> Counts:
    """How often each seed is in each resample: (B, n) indices -> (B, n)."""
    resamples, n = drawn.shape
    flat = drawn + n * np.arange(resamples, dtype=np.int64)[:, None]
    return np.bincount(flat.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.int16)


def interval(samples: Array, level: float = LEVEL) -> tuple[Array, Array]:
    """Percentile interval over the first axis: (B, ...) -> low (...), high (...)."""
    tail = 50.0 * (1.0 - level)
    ordered = np.sort(samples, axis=0)  # a third of the time of np.percentile, which partitions
    return _percentile(ordered, tail), _percentile(ordered, 100.0 - tail)


def _percentile(ordered: Array, per_cent: float) -> Array:
    """As `np.percentile` has it, to the last bit, of samples in order: (B, ...) -> (...). nan where one is."""
    place = (len(ordered) - 1) * (per_cent / 100)
    below = min(int(place), len(ordered) - 2) if len(ordered) > 1 else 0
    share = place - below
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    value = low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)
    return np.where(np.isnan(ordered[-1]), np.nan, value)


@dataclass(frozen=True)
class Resampled:
    """A statistic (...) with its values on resamples (B, ...)."""

    value: Array
    samples: Array
    resamples: Resamples

    def percentile(self, level: float = LEVEL) -> tuple[Array, Array]:
        """The plain percentile interval, as rliable has it: low (...), high (...)."""
        if level not in self._percentiles:
            self._percentiles[level] = self._percentile(level)
        return self._percentiles[level]

    @cached_property
    def _percentiles(self) -> dict[float, tuple[Array, Array]]:
        return {}

    def _percentile(self, level: float) -> tuple[Array, Array]:
        if self.resamples.weights is None:
            return interval(self.samples, level)
        ordered, below, above = self._in_order
        tail = (1.0 - level) / 2 - 1e-12  # a sum of probabilities is exact to rounding only
        first = (below < tail).sum(axis=0)[None]
        last = len(ordered) - 1 - (above < tail).sum(axis=0)[None]
        return np.take_along_axis(ordered, first, axis=0)[0], np.take_along_axis(ordered, last, axis=0)[0]

    @cached_property
    def _in_order(self) -> tuple[Array, Array, Array]:
        """Samples in order, with the probability of at most and at least each of them."""
        assert self.resamples.weights is not None
        order = np.argsort(self.samples, axis=0)
        weights = self.resamples.weights[order]
        below = np.cumsum(weights, axis=0)
        above = np.cumsum(weights[::-1], axis=0)[::-1]
        return np.take_along_axis(self.samples, order, axis=0), below, above

    def interval(self, level: float = LEVEL) -> tuple[Array, Array]:
        """The percentile interval stretched about the value: low (...), high (...).

        The bootstrap takes the seeds at hand for all there are, so that it sees (n - 1) / n of their variance and
        nothing of the uncertainty of that variance. For one group the interval of a mean therefore lacks the
        factor sqrt(n / (n - 1)) t / z, where t and z are the quantiles of Student's t distribution with n - 1
        degrees of freedom and of the normal distribution (Hesterberg, "What Teachers Should Know About the
        Bootstrap", The American Statistician 69, 2015, section 4.1.2). Here both ends get it, and for
        several groups `widening` and `degrees_of_freedom` combine the groups.

        A single seed says nothing about its spread: not a number where a group has no other.
        """
        if self._single:
            return np.full_like(self.value, np.nan), np.full_like(self.value, np.nan)
        low, high = self.percentile(level)
        tail = 0.5 + level / 2
        t = special.stdtrit(self.degrees_of_freedom, tail) / special.ndtri(tail)
        stretch = self.widening * t
        below, above = np.maximum(self.value - low, 0.0), np.maximum(high - self.value, 0.0)
        return self.value - stretch * below, self.value + stretch * above

    @property
    def _single(self) -> bool:
        return min(counts.shape[1] for counts in self.resamples.counts) == 1

    @cached_property
    def widening(self) -> Array:
        """The root of the variance with n - 1 in each group's denominator over that with n: (...)."""
        shares, n = self._shares
        return np.sqrt((shares * n / (n - 1)).sum(axis=-1))

    @cached_property
    def degrees_of_freedom(self) -> Array:
        """Satterthwaite's (Biometrics Bulletin 2, 1946): (sum v)^2 / sum(v^2 / (n - 1)) over groups: (...)."""
        if self._single:
            return np.full_like(self.value, np.nan)
        shares, n = self._shares
        unbiased = shares * n / (n - 1)
        return unbiased.sum(axis=-1) ** 2 / (unbiased**2 / (n - 1)).sum(axis=-1)

    @cached_property
    def _shares(self) -> tuple[Array, Array]:
        """The share that each group has in the statistic's variance, (..., groups), and its n (groups,).

        Each seed's influence is the covariance of its count with the statistic (Efron, "Estimation and
        Accuracy After Model Selection", JASA 109, 2014, section 3); a group's variance is the sum of their
        squares, less what random draws add to it. Where nothing varies all groups count alike.
        """
        n = np.array([counts.shape[1] for counts in self.resamples.counts], np.float64)
        if len(n) == 1:
            return np.ones((*self.value.shape, 1)), n
        weights = self.resamples.weights
        size = len(self.samples) if weights is not None else min(len(self.samples), INFLUENCE_RESAMPLES)
        flat = self.samples[:size].reshape(size, -1)
        apart = flat - (flat.mean(axis=0) if weights is None else weights @ flat)
        noise = (apart**2).mean(axis=0) / size if weights is None else 0.0
        apart *= 1.0 / size if weights is None else weights[:, None]
        parts = []
        for counts in self.resamples.counts:
            influence = counts[:size].T.astype(np.float64) @ apart
            parts.append(np.maximum((influence**2).sum(axis=0) - (counts.shape[1] - 1) * noise, 0.0))
        variances = np.stack(parts, axis=-1).reshape(*self.value.shape, len(n))
        total = variances.sum(axis=-1, keepdims=True)
        alike = np.full_like(variances, 1 / len(n))
        return np.divide(variances, total, out=alike, where=total > 0), n

    def p(self) -> float:
        """The smallest 1 - level at which the interval of this one number leaves out 0."""
        if self.value == 0:
            return 1.0
        inside, outside = 0.0, 1.0  # p lies between them; an interval of level 0 holds the value alone
        for _ in range(40):
            middle = (inside + outside) / 2
            low, high = self.interval(1.0 - middle)
            if low > 0 or high < 0:
                outside = middle
            else:
                inside = middle
        return outside
