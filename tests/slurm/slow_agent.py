"""An algorithm of a user's own: SAC that takes its time, so that faults have something to interrupt."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from algos.core.agent import Batch, Metrics
from algos.sac import SAC, SACConfig
from bench.launch import pack as worker


@dataclass(frozen=True)
class SlowConfig(SACConfig):
    """None of it changes what is computed."""

    delay: float = 0.0  # seconds per update
    crash: bool = False
    checkpoint_every: float = worker.CHECKPOINT_EVERY_S  # seconds; the tests' runs are shorter than that
    hog: int = 0  # megabytes that the 80th update of a process takes


class Slow(SAC):
    name = "slow"
    Config = SlowConfig
    config: SlowConfig

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        worker.CHECKPOINT_EVERY_S = self.config.checkpoint_every
        self.calls = 0

    def update(self, batch: Batch) -> Metrics:
        if self.config.crash:
            raise ArithmeticError("a fault of the algorithm's own")
        self.calls += 1
        if self.calls == 80 and self.config.hog:
            self.hoard = np.ones(self.config.hog << 20, np.uint8)
        if self.config.delay > 10:
            print("a long update", flush=True)
        time.sleep(self.config.delay)
        return super().update(batch)
