"""Common to QVPO and DIPO, whose authors' code is of one family: a second batch for the actor, Adam's epsilon."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from algos.core.config import at_least, positive
from algos.core.networks import INITIALISERS, Generators, normal
from algos.core.optim import Adam
from algos.core.weighted_agent import WeightedAgent, WeightedConfig


def half_normal(generators: Generators, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """N(0, 1/(4 in)), bias 0: as both authors' code has it, which means to truncate and does not."""
    w = normal(generators, *shape) / (2 * math.sqrt(shape[-2]))
    return w, torch.zeros(*w.shape[:-2], 1, w.shape[-1], dtype=w.dtype)


INITIALISERS["half_normal"] = half_normal


@dataclass(frozen=True)
class SecondBatchConfig(WeightedConfig):
    """The defaults are those of both authors' repositories."""

    init: str = "half_normal"
    schedule: str = "cosine"
    time_features: str = "sinusoidal"
    time_dim: int = 32
    grad_norm: float = 2.0  # one norm for both critics
    adam_eps: float = 1e-5
    target_actor_every: int = 1  # updates

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "adam_eps")
        at_least(self, 1, "target_actor_every")


class SecondBatchAgent(WeightedAgent):
    """A diffusion policy trained on a second batch, apart from the critics'."""

    config: SecondBatchConfig

    def optimisers(self) -> dict[str, Adam]:
        return {part: replace(adam, eps=self.config.adam_eps) for part, adam in super().optimisers().items()}

    def transitions(self) -> int:
        """A batch for the critics, and another one for the actor."""
        return 2 * self.config.batch_size
