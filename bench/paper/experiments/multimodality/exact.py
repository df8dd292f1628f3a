"""An algorithm of the suite with a Q that is known, in the place of its critics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from algos.core.agent import Agent, Batch, Metrics, State
from algos.core.noise import Draws

Q = Callable[[Tensor, Tensor], Tensor]


def with_exact_q(algorithm: type[Agent], q: Q) -> type[Agent]:
    """The same algorithm, whose critics are q: obs (S, B, O), action (S, B, A) -> (S, B), differentiable.

    Both critics and their targets are q, and nothing of them is trained. Actor, sampler, loss and optimiser
    are the algorithm's own.
    """

    class Exact(algorithm):  # type: ignore[misc, valid-type]
        def q(
            self, state: State, obs: Tensor, action: Tensor, target: bool = False, first: int | None = None
        ) -> Tensor:
            return q(obs, action).unsqueeze(1).expand(-1, first or 2, -1)

        def critic_step(self, state: State, batch: Batch, draws: Draws, phase: int = 0) -> Metrics:
            return {}

    return Exact


def make(algorithm: str, q: Q, obs_dim: int, act_dim: int, seeds: list[int], **settings: Any) -> Agent:
    """An agent of the suite with exact q and its own defaults but for `settings`."""
    from algos import agent_class

    cls = with_exact_q(agent_class(algorithm), q)
    return cls(cls.Config(**settings), obs_dim, act_dim, seeds)
