"""Mistakes of a user, reported in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The command line prints the message alone and exits with code 2."""


def suggest(name: str, options: Iterable[str]) -> str:
    """A clause that names the options closest to `name`, or all of them where none is close."""
    options = sorted(options)
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(repr(option) for option in close) + "?"
    return f"; there are {', '.join(options)}" if 0 < len(options) <= 12 else ""
