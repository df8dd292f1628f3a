"""Small agents and batches for tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from algos import agent_class
from algos.core.agent import Agent, Batch

ALGORITHMS = ("qsm", "dql", "dql-bc", "sac", "td3")
OBS_DIM, ACT_DIM = 5, 2

#: What makes every branch of an algorithm happen within a few updates.
BUSY: dict[str, dict[str, object]] = {
    "dql-bc": {"hidden": (16, 16, 16), "ema_start": 0, "ema_every": 2, "grad_norm": 0.1, "act_candidates": 4},
}


def make(
    name: str,
    seeds: Sequence[int],
    *,
    dtype: torch.dtype = torch.float64,
    execution: str = "eager",
    **overrides: object,
) -> Agent:
    """A small agent with layers of 16 and batches of 8 unless overridden."""
    cls = agent_class(name)
    settings = {"hidden": (16, 16), "batch_size": 8} | BUSY.get(name, {}) | overrides
    return cls(cls.Config(**settings), OBS_DIM, ACT_DIM, seeds, dtype=dtype, execution=execution)


def random_batch(agent: Agent, update: int) -> Batch:
    """Transitions of update number `update`; a seed's own are the same in every pack and every precision."""
    batches = []
    for seed in agent.seeds:
        g = torch.Generator().manual_seed(1_000 * seed + update)
        B = agent.config.batch_size
        normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: B023, E731
        obs, next_obs, reward = normal(B, OBS_DIM), normal(B, OBS_DIM), normal(B)
        action = torch.rand(B, ACT_DIM, generator=g, dtype=torch.float64) * 2 - 1
        mask = (torch.rand(B, generator=g, dtype=torch.float64) > 0.2).double()
        batches.append((obs, action, reward, mask, next_obs))
    return Batch(*(torch.stack(field).to(agent.dtype) for field in zip(*batches)))


def train(agent: Agent, updates: int) -> Agent:
    for _ in range(updates):
        agent.update(random_batch(agent, agent.updates))
    return agent


def parameters(agent: Agent, k: int = 0) -> dict[str, torch.Tensor]:
    """Seed k's state, moments and counters included, as "part/name" -> float tensor, no seed axis (a copy)."""
    return {
        f"{part}/{name}": (p[k] if p.dim() else p).to(agent.dtype, copy=True)
        for part, leaves in agent.state.items()
        for name, p in leaves.items()
    }
