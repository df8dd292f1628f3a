"""What four updates of the reference do not show of DACER."""

from __future__ import annotations

import math

import pytest
import torch

from algos.core.agent import Batch
from algos.core.critics import MLPCritic
from algos.core.noise import Draws
from algos.dacer import DACER, DACERConfig

TINY = {"hidden": (8, 8), "batch_size": 6, "T": 2, "entropy_samples": 5, "alpha_delay": 4}


def make(seeds: tuple[int, ...] = (0,), **settings: object) -> DACER:
    return DACER(DACERConfig(**(TINY | settings)), 3, 2, seeds, dtype=torch.float64)


def batch(agent: DACER, seed: int) -> Batch:
    g = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(len(agent.seeds), 6, *shape, generator=g, dtype=torch.float64)  # noqa: E731
    return Batch(normal(3), normal(2).tanh(), normal(), torch.ones_like(normal()), normal(3))


def test_alpha_follows_the_entropy_s_distance_from_its_target():
    """By the logarithm of alpha. Adam's first step hides the size, its average does not."""
    agent = make()
    agent.alpha_step(agent.state, torch.tensor([0.7], dtype=torch.float64))
    surplus = 0.7 + 0.9 * 2
    assert agent.state["alpha.adam"]["m.log"].item() == pytest.approx(0.1 * surplus)
    assert agent.state["alpha"]["log"].item() == pytest.approx(math.log(3.0) - 3e-2)


@pytest.mark.seconds
def test_the_entropy_is_estimated_and_alpha_moves_every_so_many_updates():
    agent, alphas = make(), []
    for i in range(9):
        metrics = agent.update(batch(agent, i))
        alphas.append(metrics["alpha"].item())
        assert ("entropy" in metrics) == (i % 4 == 0)
        assert ("actor_loss" in metrics) == (i % 2 == 0)
    moved = [i for i, (a, b) in enumerate(zip([3.0, *alphas], alphas)) if abs(a - b) > 1e-9]
    assert moved == [0, 4, 8]


def test_the_first_clip_is_the_first_batch_s_and_then_a_running_mean():
    agent = make((0, 5), tau=0.5)
    widths = agent.state["critic_stats"]["width"]
    assert bool((widths == -1).all())
    agent.update(batch(agent, 0))
    first = widths.clone()
    _, std = agent.critic.heads(agent.state["critic"], batch(agent, 1).obs, batch(agent, 1).action)
    agent.update(batch(agent, 1))
    torch.testing.assert_close(widths, 0.5 * (first + std.mean(-1)))


def test_a_sampled_return_takes_a_clipped_normal_number():
    """Of far more than the temporal-difference clip hides: a normal number of 10 counts as 3."""

    def loss(n: float) -> float:
        agent = make(td_clip=1e6)
        given, action = batch(agent, 0), torch.zeros(1, 6, 2, dtype=torch.float64)
        numbers = {f"z{k}": torch.full((1, 6), n, dtype=torch.float64) for k in range(2)}
        with torch.no_grad():
            return agent.critic.step(agent, agent.state, given, Draws(numbers), action, 0.0)[
                "critic_loss"
            ].item()

    assert loss(10.0) == loss(3.0) != loss(2.0)
    assert loss(-10.0) == loss(-3.0) != loss(3.0)


def test_its_noise_scales_with_alpha_and_evaluation_has_none():
    agent, obs = make(), torch.randn(1, 400, 3, dtype=torch.float64)
    agent.state["alpha"]["log"].fill_(-math.inf)
    chain = agent.act(obs, mode="sample").clone()
    assert agent.exploration_noise(agent.state).item() == 0
    agent.state["alpha"]["log"].fill_(math.log(2.0))
    assert agent.exploration_noise(agent.state).item() == pytest.approx(0.3)
    assert chain.shape == (1, 400, 2)


def test_the_critic_can_be_that_of_other_algorithms():
    agent = make(distributional=False)
    assert type(agent.critic) is MLPCritic
    assert "critic_stats" not in agent.state
    assert bool(agent.update(batch(agent, 0))["critic_loss"].isfinite().all())
