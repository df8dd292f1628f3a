"""Runs a list of checks on one algorithm or task, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from bench.failures import reason

T = TypeVar("T")


def outcomes(checks: Mapping[str, Callable[[T], None]], subject: T) -> Iterator[tuple[str, str | None]]:
    """(what is checked, what is wrong or None) of each check.

    A check raises AssertionError, whose message says what is wrong, or whatever the subject raises.
    """
    for what, check in checks.items():
        try:
            check(subject)
        except Exception as error:
            yield what, str(error) if type(error) is AssertionError else reason(error)
        else:
            yield what, None
