"""One process of the pool, seen from the pool: started with its limits, given packs, asked for their outcomes."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.paths import cache_folder
from bench.studies.job import Job
from bench.text import one_line

_ROOT = Path(__file__).resolve().parents[3]
_DATED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")


class WorkerProcess:
    """One process of the pool and the pack that it trains. Its output before the first job goes to `log`."""

    def __init__(self, core: int | None, gpu: str | None, memory_mb: int, log: Path):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH")))),
        }
        environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "torchinductor"))
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        self.log, self.log_start = log, _size(log)  # of the pack, and where its own part begins
        self._answers, answers = os.pipe()
        try:
            with log.open("ab") as output:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "bench.launch.local.child", str(answers), str(memory_mb)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    pass_fds=[answers],
                )
        except OSError:
            os.close(self._answers)
            raise
        finally:
            os.close(answers)
        self.core, self.gpu = core, gpu
        if core is not None:
            with suppress(OSError):
                os.sched_setaffinity(self.process.pid, {core})
        self.pack: list[Job] = []
        self.progress: list[Any] = []  # as last reported by its jobs, and when that changed
        self.moved = self.next_look = 0.0
        self.killed_for: str | None = None
        self._received = b""

    def give(self, pack: list[Job], spec: Mapping[str, Any], log: Path) -> None:
        self.pack, self.progress, self.moved = pack, [], time.monotonic()
        if log != self.log:
            self.log, self.log_start = log, _size(log)
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write((json.dumps({"spec": spec, "log": str(log)}) + "\n").encode())
            self.process.stdin.flush()

    def answer(self) -> dict[str, str] | None:
        """The "outcome" of the pack and its "reason", once they have come."""
        while select.select([self._answers], [], [], 0)[0]:
            data = os.read(self._answers, 65536)
            if not data:
                break
            self._received += data
        line, newline, rest = self._received.partition(b"\n")
        if not newline:
            return None
        self._received = rest
        answer: dict[str, str] = json.loads(line)
        return answer

    def last_words(self) -> str:
        """The last line that its pack has written to the log, if any, apart from those that report progress."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(max(self.log_start, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors="replace").split("\n")
            return next(
                (one_line(line) for line in reversed(lines) if line.strip() and not _DATED.match(line)), ""
            )
        return ""

    def close(self) -> None:
        """End the process if it has not ended, and free its resources."""
        with suppress(OSError):
            self.process.kill()
        self.process.wait()
        os.close(self._answers)
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
