"""An algorithm of a user's own: SAC that takes its time, so that faults have something to interrupt."""

from __future__ import annotations

import time
from dataclasses import dataclass

from algos.agent import Batch, Metrics
from algos.sac import SAC, SACConfig


@dataclass(frozen=True)
class SlowConfig(SACConfig):
    delay: float = 0.0  # seconds per update; changes nothing that is computed
    crash: bool = False


class Slow(SAC):
    name = "slow"
    Config = SlowConfig
    config: SlowConfig

    def update(self, batch: Batch) -> Metrics:
        if self.config.crash:
            raise ArithmeticError("a fault of the algorithm's own")
        if self.config.delay > 10:
            print("a long update", flush=True)
        time.sleep(self.config.delay)
        return super().update(batch)
