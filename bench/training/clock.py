"""The time of a run by activity."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds per activity; time inside a nested measurement counts only there."""

    KINDS = ("env", "act", "update", "eval", "compile", "other")

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(self.KINDS, 0.0)
        self._mark = time.perf_counter()
        self._kind = "other"

    @contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        outer = self.switch(kind)
        try:
            yield
        finally:
            self.switch(outer)

    def switch(self, kind: str) -> str:
        """Count for `kind` from now on; returns the activity counted until now."""
        now = time.perf_counter()
        self.seconds[self._kind] += now - self._mark
        before, self._kind, self._mark = self._kind, kind, now
        return before

    def move(self, seconds: float, kind: str) -> None:
        """Move seconds from the current measurement to `kind`."""
        self.seconds[self._kind] -= seconds
        self.seconds[kind] += seconds

    def running(self) -> dict[str, float]:
        """The seconds since the last `take`, by kind."""
        self.switch(self._kind)
        return dict(self.seconds)

    def take(self) -> dict[str, float]:
        """The seconds since the last call, by kind."""
        taken, self.seconds = self.running(), dict.fromkeys(self.KINDS, 0.0)
        return taken
