"""An algorithm under test: a small agent of it, made-up batches, and the comparison of two agents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from algos.core.agent import Agent, Batch
from bench.studies.overrides import agent_class, algorithm_config, build_config, parse_overrides, settable

O, A, B = 5, 2, 16  # noqa: E741 (observation and action dimensions, batch)
SEEDS = (3, 0, 11)
#: Settings that make every algorithm cheap, where it has them; an algorithm adds its own (`Agent.small`).
SMALL = {
    "hidden": [8, 8],
    "critic_hidden": [8, 8],
    "batch_size": B,
    "T": 2,
    "time_dim": 4,
    "act_candidates": 3,
}
UPDATES = 1000  # that a run is said to make


@dataclass(frozen=True)
class Algorithm:
    """An algorithm with settings: "sac", "sac:critic=simba"."""

    spec: str

    @property
    def name(self) -> str:
        return parse_overrides(self.spec)[0]

    def config(self) -> dict[str, Any]:
        """The full configuration: `spec` over small sizes."""
        algo, own = parse_overrides(self.spec)
        small = SMALL | dict(agent_class(algo).small)
        known = settable(algo)
        return algorithm_config(algo, {k: v for k, v in small.items() if k in known} | own)

    def make(self, seeds: Sequence[int] = SEEDS, execution: str = "eager", device: str = "cpu") -> Agent:
        config = build_config(self.name, self.config())
        agent: Agent = agent_class(self.name)(
            config, O, A, seeds, execution=execution, device=device, total_updates=UPDATES
        )
        return agent


def observations(seeds: Sequence[int] = SEEDS, n: int = 4) -> torch.Tensor:
    """(S, n, O), each seed's own."""
    return torch.stack([torch.randn(n, O, generator=torch.Generator().manual_seed(k)) for k in seeds])


def batch(size: int, seeds: Sequence[int] = SEEDS, count: int = 0) -> Batch:
    """Fields (S, size, ...), each seed's own; another one for every `count`."""

    def draw(k: int) -> list[torch.Tensor]:
        g = torch.Generator().manual_seed(1000 * count + k)
        obs, next_obs = torch.randn(2, size, O, generator=g)
        action = 2 * torch.rand(size, A, generator=g) - 1
        return [obs, action, torch.randn(size, generator=g), torch.rand(size, generator=g).round(), next_obs]

    return Batch(*(torch.stack(fields) for fields in zip(*map(draw, seeds))))


def train(agent: Agent, updates: int, start: int = 0) -> list[dict[str, torch.Tensor]]:
    """So many updates; a copy of the metrics of each."""
    size = agent.transitions()
    recorded = []
    for i in range(updates):
        given = Batch(*(x.to(agent.device) for x in batch(size, agent.seeds, start + i)))
        recorded.append({name: value.clone() for name, value in agent.update(given).items()})
    return recorded


def state_of(agent: Agent, k: int) -> dict[str, torch.Tensor]:
    """ "<part>.<name>" -> a tensor of seed k's state."""
    state = agent.state_dict(k)["state"]
    return {f"{part}.{name}": x for part, xs in state.items() for name, x in xs.items()}


def same(one: Agent, other: Agent) -> None:
    """Raises AssertionError, with the tensor's name, where two states differ."""
    for k in range(len(one.seeds)):
        for name, x in state_of(one, k).items():
            assert torch.equal(x, state_of(other, k)[name]), f"{name} differs"


def close(ours: torch.Tensor, theirs: torch.Tensor, what: str, rtol: float, atol: float) -> None:
    """Raises AssertionError where |ours - theirs| > atol + rtol |theirs|. what: whose numbers these are."""
    off = (ours.double() - theirs.double()).abs()
    assert bool((off <= atol + rtol * theirs.double().abs()).all()), (
        f"{what} differs by {off.max().item():.2g}"
    )
