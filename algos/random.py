"""The uniform random policy: the floor that every table shows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from algos.core.agent import Agent, Batch, Metrics, State
from algos.core.config import Config
from algos.core.noise import Draws
from algos.core.optim import Adam


@dataclass(frozen=True)
class RandomConfig(Config):
    """Nothing to set that matters: no network is ever asked."""

    hidden: tuple[int, ...] = (1,)


class Random(Agent):
    """Uniform actions in [-1, 1]; learns nothing."""

    name = "random"
    title = "Random"
    Config = RandomConfig

    def optimisers(self) -> dict[str, Adam]:
        return {}

    def policy(self, state: State, obs: Tensor, draws: Draws, mode: str) -> Tensor:
        return (2 * draws.uniform64("u", obs.shape[1], self.act_dim) - 1).to(obs.dtype)

    def learn(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        return {}
