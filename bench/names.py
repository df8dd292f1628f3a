"""Which names may become part of a path, and what folder an environment has."""

from __future__ import annotations

import re

TEMPORARY = ".tmp"  # suffix of every temporary name, so that leftovers of a crash can be found
INDEX = "index.html"  # the page over all studies that have a report, below the root of all results

# ASCII, no separator, no leading dot, not a temporary name.
SAFE_NAME = rf"(?![^/]*{re.escape(TEMPORARY)}(?:/|\Z))[A-Za-z0-9][A-Za-z0-9._=+,@-]{{0,199}}"
MODULE = r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*"
# The module that registers it, if the name says so; then safe names, joined by slashes where it has a namespace.
ENV_NAME = rf"(?:{MODULE}:)?{SAFE_NAME}(?:/{SAFE_NAME})*"
# The name of a job's log holds it, a label and a seed, and a file's name has 255 bytes at most.
LONGEST_ENV_NAME = 84

ALLOWED = "letters, digits and . _ = + , @ -"  # for messages

_NAME = re.compile(SAFE_NAME)


def is_safe_name(name: object) -> bool:
    """Whether `name` can be part of a path and of a message: ASCII, no separator, no leading dot."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def env_folder(env: str) -> str:
    """The folder of an environment below a study's: "a/b-v0" is a_b-v0, "module:a/b-v0" is module+a+b-v0.

    A colon is no part of a file's name on every system, and tools that copy take it for a host. A plus is in no name of
    Gymnasium's, so that names with a module never share a folder.
    """
    return re.sub("[:/]", "+", env) if ":" in env else env.replace("/", "_")
