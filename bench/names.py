"""Which names may become part of a path, and what folder an environment has."""

from __future__ import annotations

import re

TEMPORARY = ".tmp"  # suffix of every temporary name, so that leftovers of a crash can be found
INDEX = "index.html"  # the page over all studies that have a report, below the root of all results

# ASCII, no separator, no leading dot, not a temporary name.
SAFE_NAME = rf"(?![^/]*{re.escape(TEMPORARY)}(?:/|\Z))[A-Za-z0-9][A-Za-z0-9._=+,@-]{{0,199}}"
ENV_NAME = rf"{SAFE_NAME}(?:/{SAFE_NAME})*"  # safe names, joined by slashes where it has a namespace

_NAME = re.compile(SAFE_NAME)


def is_safe_name(name: object) -> bool:
    """Whether `name` can be part of a path and of a message: ASCII, no separator, no leading dot."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def env_folder(env: str) -> str:
    """The folder of an environment below a study's: slashes of a namespace become underscores."""
    return env.replace("/", "_")
