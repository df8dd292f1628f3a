"""The uniform random policy: the floor that every table shows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from algos.core.agent import Agent, Batch, Metrics, State
from algos.core.config import Config
from algos.core.noise import Draw, Draws


@dataclass(frozen=True)
class RandomConfig(Config):
    """Nothing to set that matters: no network is ever asked."""

    hidden: tuple[int, ...] = (1,)


class Random(Agent):
    """Uniform actions in [-1, 1]; learns nothing."""

    name = "random"
    Config = RandomConfig

    def trained(self) -> tuple[str, ...]:
        return ()

    def policy_draws(self, prefix: str, rows: int) -> list[Draw]:
        return [Draw(f"{prefix}.u", "uniform", (rows, self.act_dim))]

    def policy(self, state: State, obs: Tensor, draws: Draws, prefix: str, greedy: bool) -> Tensor:
        return (2 * draws[f"{prefix}.u"] - 1).to(obs.dtype)

    def update_draws(self) -> list[Draw]:
        return []

    def update_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        return {}
