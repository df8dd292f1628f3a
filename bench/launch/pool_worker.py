"""A process of the local pool: takes one pack after another from its standard input until that ends.

Protocol, a JSON line each way: {"spec": ..., "log": path} in, {"outcome": "done" | "stopped" | "failed"} out. What a
job prints goes to its log. Loading torch takes seconds, so a worker serves many jobs; a crash ends it and its job only.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from contextlib import suppress

from bench.launch.worker import StopFlag, limit_memory, run


def main() -> None:
    with suppress(OSError, AttributeError):
        PR_SET_PDEATHSIG = 1  # the kernel tells us when the launcher dies, even by SIGKILL
        ctypes.CDLL("libc.so.6").prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    stop = StopFlag(parent=os.getppid()).install()
    answers = os.fdopen(os.dup(1), "w")
    memory = int(os.environ.get("BENCH_JOB_MEMORY_MB", "0"))
    if memory:
        limit_memory(memory)
    while stop() is None:
        line = sys.stdin.readline()
        if not line:
            return
        request = json.loads(line)
        _redirect(request["log"])
        outcome = run(request["spec"], stop)
        with suppress(BrokenPipeError):
            answers.write(json.dumps({"outcome": outcome}) + "\n")
            answers.flush()


def _redirect(log: str) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


if __name__ == "__main__":
    main()
