"""A process of the local pool: takes one pack after another from its standard input until that ends.

    python -m bench.launch.local.child ANSWERS MEMORY_MB

Protocol, a JSON line each way: {"spec": ..., "log": path} in; out, on the file descriptor ANSWERS, {"outcome": "done" |
"stopped" | "busy" | "failed", "reason": text}. The output of a job goes to its log. Loading torch takes seconds, so a
worker serves many jobs; after one that failed it ends, since a crash can leave a process (or its GPU) of no use to
the next.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import resource
import signal
import sys
import time
from contextlib import suppress

from bench.launch.pack import run
from bench.launch.stopping import StopFlag

STAMP = "%Y-%m-%d %H:%M:%S"  # before a line that says how far a run is


def main(answers: int, memory_mb: int) -> None:
    with suppress(OSError, AttributeError):
        PR_SET_PDEATHSIG = 1  # the kernel signals us when the launcher dies, even by SIGKILL
        ctypes.CDLL("libc.so.6").prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    stop = StopFlag(parent=os.getppid()).install()
    faulthandler.enable()
    if memory_mb:
        _limit_memory(memory_mb)
    outcome = ""
    while stop() is None and outcome != "failed":
        line = sys.stdin.readline()
        if not line:
            return
        request = json.loads(line)
        _redirect(request["log"])
        said: list[str] = []

        def say(line: str, said: list[str] = said) -> None:
            said.append(line)
            _print(line)

        outcome = run(request["spec"], stop, say, lambda line: _print(f"{time.strftime(STAMP)} {line}"))
        answer = {"outcome": outcome, "reason": said[-1].strip().splitlines()[-1] if said else ""}
        with suppress(BrokenPipeError):
            os.write(answers, (json.dumps(answer) + "\n").encode())


def _limit_memory(megabytes: int) -> None:
    """Make an allocation beyond so much address space fail in this process, instead of the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


def _print(line: str) -> None:
    with suppress(OSError):  # the disk is full, and the line would have said so
        print(line, flush=True)


def _redirect(log: str) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
