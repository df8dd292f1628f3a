"""The signals that stop a process of ours, and the flag that they set: it saves its checkpoints and ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any


def stopping_signals() -> list[signal.Signals]:
    """SIGINT, SIGTERM and, unless it is ignored (`nohup`), SIGHUP."""
    heard = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *[signal.SIGHUP] * heard]


class StopFlag:
    """Set by `stopping_signals` or SIGUSR2; a second SIGINT ends the process at once.

    Watches its parent too: a worker whose launcher was killed finishes its step, checkpoints and stops.
    """

    def __init__(self, parent: int | None = None):
        self.reason: str | None = None
        self.parent = parent
        self._next_look = 0.0

    def install(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            for number in (*stopping_signals(), signal.SIGUSR2):
                signal.signal(number, self._set)
        return self

    def _set(self, number: int, frame: Any) -> None:
        if self.reason is not None and number == signal.SIGINT:
            os._exit(130)
        self.reason = signal.Signals(number).name

    def __call__(self) -> str | None:
        if self.parent is not None and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + 1.0
            if os.getppid() != self.parent:
                self.reason = self.reason or "the launcher is gone"
        return self.reason
