"""From an interval to a verdict: better, worse, as good, undecided; and the seeds that would decide it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
from scipy import special

from bench.analysis.stats import Contrast

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
BETTER, WORSE, AS_GOOD = "better", "worse", "as good"
MANY = 1000  # seeds; more is not a practical plan
UNCHANGED = ", if value and spread stay as they are"  # what a number of seeds that would decide supposes


@dataclass(frozen=True)
class Finding:
    """One contrast, level or ratio of a claim with its verdict. n: the fewest seeds, or repeats, behind
    it.
    """

    name: str
    verdict: str
    n: int = 0
    contrast: Contrast | None = None
    lacks: tuple[str, ...] = ()  # what must be there before it can be decided
    enough: str = ""  # the seeds or rounds that would decide it, if value and spread stay as they are
    unit: str = "seeds"  # of n; few seeds are marked, rounds of a timing are not

    @property
    def decides(self) -> str:
        """The further evidence needed; "" if it is decided."""
        return "; ".join(self.lacks) or (f"{self.enough}{UNCHANGED}" if self.enough else "")


class Stated(Protocol):
    """What a report shows of a claim: its number and name, the statement, and the test that decides it."""

    id: str
    title: str
    says: str
    test: str


C = TypeVar("C", bound=Stated)


@dataclass(frozen=True)
class Verdict(Generic[C]):
    """A judged claim. conditions: under which steps, widths and evaluation it was judged."""

    claim: C
    verdict: str
    findings: tuple[Finding, ...]
    conditions: str


def difference(
    name: str, contrast: Contrast | None, n: int, margin: float, lacks: tuple[str, ...] = ()
) -> Finding:
    """The finding of a contrast; `lacks` says what must be there before it can be anything but
    undecided.
    """
    if contrast is None or lacks:
        return Finding(name, UNDECIDED, n, contrast, lacks or ("data",))
    verdict = difference_verdict(contrast, margin)
    enough = _enough(contrast, n, margin) if verdict == UNDECIDED else ""
    return Finding(name, verdict, n, contrast, enough=enough)


def level(
    name: str, contrast: Contrast, n: int, threshold: float, fewest: int, unit: str = "seeds"
) -> Finding:
    """The finding of a value against a threshold; undecided below the `fewest` seeds or rounds."""
    if n < fewest:
        return Finding(name, UNDECIDED, n, contrast, (f"at least {fewest} {unit}, not {n}",), unit=unit)
    verdict = level_verdict(contrast, threshold)
    away = replace(contrast, value=contrast.value - threshold)
    enough = _enough(away, n, 0.0, unit) if verdict == UNDECIDED else ""
    return Finding(name, verdict, n, contrast, enough=enough, unit=unit)


def difference_verdict(contrast: Contrast, margin: float) -> str:
    """better, worse, as good or undecided, in this order."""
    if contrast.low > 0:
        return BETTER
    if contrast.high < 0:
        return WORSE
    return AS_GOOD if -margin <= contrast.low and contrast.high <= margin else UNDECIDED


def level_verdict(contrast: Contrast, threshold: float) -> str:
    """supported or contradicted where the interval lies on one side of the threshold."""
    if contrast.low >= threshold:
        return SUPPORTED
    return CONTRADICTED if contrast.high < threshold else UNDECIDED


def overall(findings: Sequence[Finding], needs: Collection[str] = (BETTER, AS_GOOD, SUPPORTED)) -> str:
    """supported when every finding is in `needs`, contradicted when one is decided otherwise, else
    undecided.
    """
    if findings and all(finding.verdict in needs for finding in findings):
        return SUPPORTED
    against = {BETTER, AS_GOOD, WORSE, SUPPORTED, CONTRADICTED}.difference(needs)
    return CONTRADICTED if any(finding.verdict in against for finding in findings) else UNDECIDED


def seeds_that_decide(contrast: Contrast, n: int, margin: float) -> float:
    """About how many seeds make the interval narrow enough if value and spread stay as they are.

    Half its width goes as t / sqrt(n), with Student's t at its degrees of freedom, which grow as n - 1. It must get
    below the distance to 0, or fit within the margin. Infinity where MANY seeds are not enough.
    """
    half = (contrast.high - contrast.low) / 2
    allowed = max(abs(contrast.value), margin - abs(contrast.value))
    seeds = np.arange(n + 1, MANY + 1)
    freedom, tail = contrast.degrees_of_freedom, 0.5 + contrast.level / 2
    t = special.stdtrit([freedom, *freedom * (seeds - 1) / max(n - 1, 1)], tail)
    enough = half * np.sqrt(n / seeds) * t[1:] / t[0] < allowed
    return float(seeds[enough.argmax()]) if enough.any() else float(np.inf)


def _enough(contrast: Contrast, n: int, margin: float, unit: str = "seeds") -> str:
    needed = seeds_that_decide(contrast, n, margin)
    number = f"more than {MANY:,}" if needed > MANY else f"about {needed:.0f}"
    return f"{number} {unit}"
