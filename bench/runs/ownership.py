"""Which process may write a run directory: one at a time, named by owner.json, decided under a lock.

An owner on this host lives while a process with its pid, start time and boot does. An owner elsewhere cannot
be asked, so its heartbeat file decides: it lives while that file is younger than `STALE_AFTER_S`.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.disk import DamagedFile, read_json
from bench.names import TEMPORARY
from bench.runs.records import check
from bench.text import one_line

# Seconds without a heartbeat; a heartbeat comes every few seconds, a compilation takes 60
STALE_AFTER_S = 300.0
# Seconds; a lock is held for milliseconds, or while the parts of a checkpoint are written
LOCK_TIMEOUT_S = 120.0
LOCK, OWNER, HEARTBEAT = ".lock", "owner.json", "heartbeat.json"


@contextmanager
def locked(folder: Path, *, create: bool = True) -> Iterator[None]:
    """Hold the exclusive lock on `folder` (flock on its .lock file, so that it ends with the process).

    Raises FileNotFoundError where the lock file is missing and `create` is false; OSError where the file
    system has no locks; TimeoutError after `LOCK_TIMEOUT_S` seconds.
    """
    path = folder / LOCK
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            _wait_for_lock(descriptor, path, deadline)
            if _is_still(path, descriptor):  # else its holder removed it while we waited: a lock on nothing
                yield
                return
        finally:
            os.close(descriptor)


def _wait_for_lock(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    errno.ETIMEDOUT,
                    f"another process has held the lock for {LOCK_TIMEOUT_S:.0f} s",
                    str(path),
                ) from None
            time.sleep(0.01)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise OSError(error.errno, "this file system has no file locks (flock)", str(path)) from None
            raise


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@functools.cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"boot-{psutil.boot_time():.0f}"


def this_host() -> str:
    """The name by which owner.json knows this machine."""
    return socket.gethostname()


def _pid_namespace() -> str:
    """Containers on one kernel may share the host's name and boot, and still number processes apart."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def start_ticks(pid: int) -> int | None:
    """When process `pid` started (clock ticks since boot; elsewhere than on Linux, hundredths of a second).

    None if there is no such process or only its zombie, which writes nothing any more.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() * 100)
    except psutil.Error:
        return None


def this_process(attempt: int, scheduler: dict[str, Any] | None) -> dict[str, Any]:
    """The record that owner.json holds while this process owns a run."""
    return {
        "token": secrets.token_hex(16),
        "attempt": attempt,
        "host": this_host(),
        "boot_id": _boot_id(),
        "pid_namespace": _pid_namespace(),
        "pid": os.getpid(),
        "start_ticks": start_ticks(os.getpid()),
        "scheduler": scheduler,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def read_owner(folder: Path) -> dict[str, Any] | None:
    """The owner that `folder` names; None if it names none, or nothing that a writer would have written."""
    try:
        return check(read_json(folder / OWNER), OWNER)
    except (OSError, DamagedFile):
        return None


def describe(owner: dict[str, Any]) -> str:
    """The owner in words, for messages."""
    job = (owner.get("scheduler") or {}).get("job_id")
    return f"process {owner['pid']} on {one_line(owner['host'], 80)}" + (
        f" (scheduler job {one_line(job, 40)})" if job else ""
    )


def is_alive(owner: dict[str, Any], heartbeat_age: float | None) -> bool:
    """Whether the owner still runs. `heartbeat_age`: as `heartbeat_age_s` gives it."""
    if owner["host"] == this_host() and not owner["host"].startswith("localhost"):
        if owner["boot_id"] != _boot_id():
            return False  # this host has been restarted since
        if owner.get("pid_namespace") == _pid_namespace():
            return owner["pid"] > 0 and start_ticks(owner["pid"]) == owner.get("start_ticks")
    # a heartbeat from the future is older than a change of the clock, after which a living owner wrote again
    return heartbeat_age is not None and abs(heartbeat_age) < STALE_AFTER_S


def heartbeat_age_s(folder: Path, clock_offset: float) -> float | None:
    """Seconds since the last heartbeat in `folder`; None without one. `clock_offset`: see below."""
    try:
        return time.time() + clock_offset - os.stat(folder / HEARTBEAT, follow_symlinks=False).st_mtime
    except OSError:
        return None


def clock_offset_s(folder: Path) -> float:
    """Seconds by which the file system's clock at `folder` is ahead of this host's.

    Found by writing a file there, so that hosts whose clocks disagree judge a heartbeat alike. 0 where
    nothing can be written.
    """
    probe = folder / f".clock.{secrets.token_hex(4)}{TEMPORARY}"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            return probe.stat().st_mtime - time.time()
        finally:
            probe.unlink()
    except OSError:
        return 0.0


def restarts(owner: dict[str, Any], scheduler: dict[str, Any] | None) -> bool:
    """Whether this process is the scheduler's restart of the very job that `owner` belongs to.

    Then it takes over even if the owner seems alive: a process on a node that the scheduler lost can live on.
    """
    theirs = owner.get("scheduler")
    if theirs is None or scheduler is None or theirs.get("job_id") != scheduler.get("job_id"):
        return False
    before, now = theirs.get("restart_count"), scheduler.get("restart_count")
    return isinstance(before, int) and isinstance(now, int) and now > before
