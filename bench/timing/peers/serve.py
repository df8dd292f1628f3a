"""A process that times its own work on request: a line of JSON in, a line out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.timing.stopwatch import timed

# name -> a function that does it once and returns the seconds per call
Tasks = Mapping[str, Callable[[], float]]


def serve(tasks: Tasks, facts: Mapping[str, Any]) -> None:
    """Answer the requests on standard input until it ends. Output of the libraries goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(record: Any) -> None:
        print(json.dumps(record), file=answers, flush=True)

    answer({"tasks": list(tasks), **facts})
    for line in sys.stdin:
        request = json.loads(line)
        answer(timed(request["calls"], tasks[request["task"]]))


class ServerEnded(Exception):
    """The process has ended; the message is its last line on standard error."""


class Server:
    """The other end: starts such a process in `folder` and asks it.

    Raises:
        ServerEnded: it could not start, or has ended.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], errors: Path, folder: Path):
        self._errors = errors
        with errors.open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env={**os.environ, **environment},
            )
        self.facts: dict[str, Any] = self._answer()
        self.tasks: list[str] = self.facts.pop("tasks")

    def seconds(self, task: str, calls: int) -> list[float]:
        """The seconds per call of each sample of `task`."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the answer says why
            print(json.dumps({"task": task, "calls": calls}), file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            last = self._errors.read_text(errors="replace").strip().splitlines()[-1:]
            raise ServerEnded(last[0] if last else f"exit code {self.process.returncode}")
        return json.loads(line)
