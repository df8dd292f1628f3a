"""An algorithm for tests of everything around algorithms: it costs next to nothing, and fails as it is told to."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from algos.core.agent import Batch, Metrics, State
from algos.core.config import require
from algos.core.networks import Generators
from algos.core.noise import Draws
from algos.core.optim import Adam
from algos.random import Random, RandomConfig

FAULTS = ("", "raise", "exit", "kill", "hang", "nan", "memory", "leak")


@dataclass(frozen=True)
class StubConfig(RandomConfig):
    batch_size: int = 4
    delay: float = 0.0  # seconds per update; changes nothing that is computed
    fault: str = ""  # one of FAULTS, in update number `fault_at` of the seed `fault_seed`
    fault_at: int = 20
    fault_seed: int = 0
    once: str = ""  # the fault happens only while there is no file of this name; it makes one

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.fault in FAULTS, "fault", self.fault, f"one of {FAULTS}")


class Stub(Random):
    """Acts at random; "learns" a sum over its batches and draws, which any slip in resuming changes."""

    name = "stub"
    Config = StubConfig
    config: StubConfig

    def initial_state(self, generators: Generators) -> State:
        return super().initial_state(generators) | {"sum": {"x": torch.zeros(len(self.seeds), 1)}}

    def optimisers(self) -> dict[str, Adam]:
        return {"sum": Adam(1e-3)}  # never stepped: a part that counts as trained

    def learn(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        x: Tensor = state["sum"]["x"]
        z = draws.normal("stub.z", self.config.batch_size)
        step = (batch.obs.mean(-1) * z + batch.reward + batch.mask).mean(1, keepdim=True)
        x.mul_(0.99).add_(step)
        return {"stub_loss": x.squeeze(1).clone()}

    def update(self, batch: Batch) -> Metrics:
        c = self.config
        if c.delay:
            time.sleep(c.delay)
        if c.fault and self.updates == c.fault_at and c.fault_seed in self.seeds and not self._happened():
            self._fail()
        return super().update(batch)

    def _happened(self) -> bool:
        if not self.config.once:
            return False
        flag = Path(self.config.once)
        before = flag.exists()
        flag.touch()
        return before

    def _fail(self) -> None:
        fault = self.config.fault
        if fault == "raise":
            raise ArithmeticError("the stub was told to fail")
        if fault == "exit":
            os._exit(1)
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hang":
            time.sleep(3600)
        if fault == "memory":
            torch.zeros(2**36).sum()  # 256 GiB
        if fault == "leak":
            held = []
            while True:
                held.append(torch.ones(2**24))  # 64 MiB at a time
        if fault == "nan":
            self.state["sum"]["x"][self.seeds.index(self.config.fault_seed)] = torch.nan
