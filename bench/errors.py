"""Mistakes of a user, reported in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The command line prints the message alone and exits with code 2."""


LISTED = 60  # options at most that a message lists; an algorithm has some 40 settings


def close_to(name: str, options: Iterable[str]) -> list[str]:
    """The options that `name` may be a misspelling of, the likeliest first."""
    return difflib.get_close_matches(name, sorted(options), n=3, cutoff=0.6)


def suggest(name: str, options: Iterable[str]) -> str:
    """A clause that says how names are parted, or names the options closest to `name`, or all where none is close.

    "" where none is close and there are more than LISTED.
    """
    options = sorted(options)
    if "," in name and set(name.split(",")) <= set(options):
        return f"; names have blanks between them: {name.replace(',', ' ')!r}"
    if close := close_to(name, options):
        return "; did you mean " + " or ".join(repr(option) for option in close) + "?"
    return f"; there are {', '.join(options)}" if 0 < len(options) <= LISTED else ""
