"""How results touch the disk: whole files by rename, whole lines by one append, and reading without trust.

Fault hook (tests only): with the environment variable `BENCH_FAULT="point:n"` the process kills itself with
SIGKILL the n-th time it crosses that point. Points are `<what>.<moment>`, where `what` is

    append (lines of a CSV), run, owner, heartbeat, failure, policy, done, study (files written whole),
    shard, state, manifest (the parts of a checkpoint, in this order), cleanup (of files that a run no longer needs)

and `moment` is `before` (nothing written), `middle` (half of the bytes written), `written` (the temporary
file is complete but not renamed; not for append and cleanup) or `after`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import signal
import stat
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.names import TEMPORARY
from bench.text import one_line

LARGEST_JSON = 64 * 2**20  # bytes; a JSON file of ours has kilobytes
LARGEST_SEALED = 2**30  # bytes; the tables and policies of ours have kilobytes to megabytes
DEEPEST_JSON = 32  # levels; ours have six at most, and what walks them may recurse

_crossed: Counter[str] = Counter()


class DamagedFile(ValueError):
    """A file that differs from what was written. The message is one line and names the file."""


def _armed(point: str) -> bool:
    """Count a crossing of `point`; whether it is the one to die at."""
    name, _, count = os.environ.get("BENCH_FAULT", "").rpartition(":")
    if name != point:
        return False
    _crossed[point] += 1
    return count.isdigit() and _crossed[point] == int(count)


def crossing(point: str) -> None:
    """Die here if the fault hook says so (module docstring)."""
    if _armed(point):
        os.kill(os.getpid(), signal.SIGKILL)


def write_all(descriptor: int, data: bytes, what: str) -> None:
    """Write `data` in one call where the system allows it; the fault point `what`.middle lies half way."""
    view = memoryview(data)
    if _armed(f"{what}.middle"):
        os.write(descriptor, view[: len(view) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    while view:
        view = view[os.write(descriptor, view) :]


def sync(path: Path) -> None:
    """Make the file's bytes, or the folder's names, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, what: str, *, durable: bool = True) -> None:
    """Replace the file at `path` by `data`, whole or not at all.

    A temporary name in the same folder, fsynced, renamed, then the folder fsynced; `durable=False` leaves out
    both fsyncs, for files that mean nothing after a loss of power. Raises OSError and leaves the old file.
    """
    crossing(f"{what}.before")
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            write_all(descriptor, data, what)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        crossing(f"{what}.written")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)
    crossing(f"{what}.after")


def write_json(path: Path, record: dict[str, Any], what: str, *, durable: bool = True) -> None:
    """Write `record` as indented JSON, atomically. ValueError for NaN and infinity, which JSON lacks."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text.encode(errors="replace") + b"\n", what, durable=durable)


@contextmanager
def open_regular(path: Path, limit: int | None = None) -> Iterator[io.FileIO]:
    """The regular file at `path`, open for reading without a buffer.

    Raises OSError where it cannot be opened, and DamagedFile for a link, a folder, a device, more than `limit`
    bytes or bytes that cannot be read. A link is refused because it could lead anywhere; a pipe would block
    for ever.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        if path.is_symlink():
            raise DamagedFile(f"{path.name} is a symbolic link, not a file") from None
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise DamagedFile(f"{path.name} is not a regular file")
    with io.FileIO(descriptor) as file:
        if limit is not None and found.st_size > limit:
            raise DamagedFile(f"{path.name} has {found.st_size} bytes, more than any file of its kind")
        try:
            yield file
        except OSError as error:
            raise DamagedFile(f"{path.name} cannot be read: {error.strerror}") from None


def check_inside(root: Path, path: Path) -> None:
    """DamagedFile if a link on the way from the folder `root` to `path` leads out of `root`."""
    top, real = os.path.realpath(root), os.path.realpath(path)
    if os.path.commonpath((top, real)) != top:
        raise DamagedFile(
            f"{one_line(path.relative_to(root))}: a symbolic link leads out of {one_line(root)}"
        )


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file of at most `limit` bytes. Raises OSError or DamagedFile."""
    with open_regular(path, limit) as file:
        return file.readall()


def sha256_file(path: Path, limit: int | None = None) -> str:
    """The SHA-256 of a regular file of at most `limit` bytes, hexadecimal, read in pieces. Raises OSError or
    DamagedFile.
    """
    with open_regular(path, limit) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """The JSON object in `data`. DamagedFile, naming the file `name`, for anything else."""
    try:
        text = data.decode()
        record = json.loads(text, parse_constant=_no_constant)
        if "\\ud" in text.lower():  # perhaps a lone surrogate, which no terminal or file can be given
            json.dumps(record, ensure_ascii=False).encode()
    except RecursionError:
        raise DamagedFile(f"{name} is nested too deeply") from None
    except ValueError as error:
        if not data:
            raise DamagedFile(f"{name} is empty") from None
        if b"<<<<<<< " in data or b">>>>>>> " in data:
            raise DamagedFile(f"{name} holds the markers of an unfinished git merge") from None
        raise DamagedFile(f"{name} is not JSON: {one_line(error, 120)}") from None
    if not isinstance(record, dict):
        raise DamagedFile(f"{name} holds no JSON object")
    level: list[Any] = [record]
    for _ in range(DEEPEST_JSON):
        level = [c for node in level for c in (node.values() if isinstance(node, dict) else node)]
        level = [child for child in level if isinstance(child, (dict, list))]
        if not level:
            return record
    raise DamagedFile(f"{name} is nested too deeply")


def parse_toml(data: bytes) -> dict[str, Any]:
    """The TOML in `data`; a byte order mark, which some editors write, is skipped. ValueError for anything else."""
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("its encoding is not UTF-8") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in the file at `path`. Raises OSError or DamagedFile."""
    return parse_json(read_bytes(path, LARGEST_JSON), path.name)


def check_format(record: dict[str, Any], newest: int, name: str) -> None:
    """DamagedFile unless `record` has a format version between 1 and `newest`."""
    version = record.get("format")
    if type(version) is not int or version < 1:
        raise DamagedFile(f"{name}: 'format' must be a version number, not {one_line(repr(version), 60)}")
    if version > newest:
        raise DamagedFile(f"{name} has format {version}; this code reads up to {newest}: update it")
