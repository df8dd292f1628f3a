"""Where files of the user's and the suite's own lie: the one place that expands a path, and that chooses a cache."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from bench.errors import UserError


def expand(text: str) -> str:
    """`text` with a leading ~ or ~user and variables such as $SCRATCH put in, as a shell does it.

    Not every shell does: none in quotes, many not after `NAME=`, and a TOML file has none. Raises UserError where
    there is no such user or variable, since a folder named "~" or "$SCRATCH" is never meant.
    """
    found = os.path.expandvars(os.path.expanduser(text))
    if found.startswith("~"):
        raise UserError(f"{found.partition('/')[0]} is no home folder on this host; ./{text} is a path")
    if unset := re.search(r"\$\{?(\w+)", found):
        raise UserError(f"${unset[1]} is not set on this host")
    return found


def cache_folder() -> Path:
    """A folder for what can be made again, such as compiled updates; it exists and can be written.

    $XDG_CACHE_HOME/qsm-bench or ~/.cache/qsm-bench, else a folder of this user's among the temporary files. Never below
    the code, which may be another user's or read-only.
    """
    places = [Path(tempfile.gettempdir()) / f"qsm-bench-{os.getuid()}"]
    with suppress(RuntimeError):  # no home folder
        places.insert(0, Path.home() / ".cache" / "qsm-bench")
    with suppress(UserError):
        own = Path(expand(os.environ.get("XDG_CACHE_HOME", "")))
        if own.is_absolute():  # others do not count, says the XDG base directory specification
            places.insert(0, own / "qsm-bench")
    for folder in places:
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK | os.X_OK):
                return folder
    return Path(tempfile.mkdtemp(prefix="qsm-bench-"))
