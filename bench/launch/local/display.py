"""The display of a running grid: a live table on a terminal, plain lines in a log."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.launch.local.pool import Pool
from bench.launch.local.progress import Progress, TimeLeft, progress

LINE_EVERY_S = 30.0
TABLE_EVERY_S = 1.0


def duration(seconds: float | None) -> str:
    """h:mm:ss, or a dash if unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{s:02d}"


def number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


class Display:
    """Call it with the pool as often as you like; it looks and prints at its own pace."""

    def __init__(self, total: int, console: Console | None = None):
        self.total = total
        self.console = console or Console()
        terminal = self.console.is_terminal
        self.live = Live(console=self.console, auto_refresh=False, transient=True) if terminal else None
        self.started = time.monotonic()
        self._next = 0.0
        self._printed = 0
        self._time_left = TimeLeft()
        self._ended = ""  # how the grid stood when last looked at

    def __enter__(self) -> Callable[[Pool], None]:
        if self.live:
            self.live.start()
        return self.show

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()
        if kind is None:
            self.console.print(
                Text(f"{self._ended} after {duration(time.monotonic() - self.started)}"), soft_wrap=True
            )

    def show(self, pool: Pool) -> None:
        for message in pool.messages[self._printed :]:
            stamp = time.strftime("%H:%M:%S")
            self.console.print(Text(f"{stamp} {message}"), soft_wrap=True)
        self._printed = len(pool.messages)
        self._ended = self._counts(pool)
        if time.monotonic() < self._next:
            return
        running = [[progress(pool.root, job) for job in pack] for pack in pool.running()]
        if not running:
            return
        if self.live:
            self._next = time.monotonic() + TABLE_EVERY_S
            self.live.update(self._table(pool, running), refresh=True)
        else:
            self._next = time.monotonic() + LINE_EVERY_S
            self.console.print(
                Text(f"{time.strftime('%H:%M:%S')} {self._summary(pool, running)}"), soft_wrap=True
            )

    def _table(self, pool: Pool, running: list[list[Progress]]) -> Table:
        table = Table(box=None, padding=(0, 1), title=self._summary(pool, running), title_justify="left")
        table.add_column("run", overflow="fold", ratio=1)
        for name in ("steps", "steps/s", "return", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        for p in itertools.chain(*running):
            steps = p.job.settings.steps
            table.add_row(
                Text("/".join(p.job.path.parts[1:])),
                f"{p.step / steps:4.0%} of {steps:,}",
                number(p.rate),
                number(p.last_return),
                duration(p.eta),
            )
        return table

    def _counts(self, pool: Pool) -> str:
        done = len(pool.plan.done) + len(pool.outcome.done)
        failed = len(pool.outcome.failed) + len(pool.plan.failed)
        return f"{done} of {self.total} runs done" + (f", {failed} failed" if failed else "")

    def _summary(self, pool: Pool, running: list[list[Progress]]) -> str:
        jobs = list(itertools.chain(*running))
        parts = [self._counts(pool), f"{len(jobs)} running"]
        if rates := [p.rate for p in jobs if p.rate]:
            parts.append(f"{sum(rates):.0f} steps/s")
        left = self._time_left(pool, [max(pack, key=lambda p: p.step) for pack in running])
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)
