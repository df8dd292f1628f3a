"""Every algorithm here solves a problem of one step: r = -(a - 0.8 s)^2, learned from uniform actions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from algos import agent_class
from algos.core.agent import Agent, Batch

#: With the authors' M_q of 50 every step of the chain overshoots this Q of curvature 2, and actions end at the bounds.
SETTINGS: dict[str, dict[str, object]] = {
    "dacer": {"T": 3, "entropy_samples": 10, "alpha_delay": 50, "action_noise": 0.1, "initial_alpha": 1.0},
    "maxentdp": {"T": 5, "samples": 16, "log_prob_steps": 3, "log_prob_samples": 3, "time_dim": 16},
    "q-langevin": {"M_q": 1.0},
    "qsm": {"M_q": 1.0, "time_dim": 16},
    "rfm": {"samples": 16, "particles": 4, "eval_particles": 4, "flow_steps": 4, "embedding": 8},
}
ROWS, UPDATES = 64, 400


def problem(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """s and a uniform in [-1, 1], (1, ROWS, 1) each, and r, (1, ROWS)."""
    s, a = 2 * torch.rand(2, 1, ROWS, 1, generator=torch.Generator().manual_seed(seed)) - 1
    return s, a, reward(s, a)


def reward(s: Tensor, a: Tensor) -> Tensor:
    return -(a - 0.8 * s).square().squeeze(-1)


def loss(agent: Agent) -> float:
    s = torch.linspace(-1, 1, 200).view(1, 200, 1)
    return -reward(s, agent.act(s, mode=agent.evaluation_mode)).mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_its_actions_become_those_of_the_highest_reward(name):
    """The loss is less than a fifth of that of uniform actions, 0.55."""
    torch.set_num_threads(1)
    cls = agent_class(name)
    settings = {"hidden": (32, 32), "batch_size": ROWS, "actor_lr": 3e-3, "critic_lr": 3e-3}
    agent = cls(cls.Config(**(settings | SETTINGS[name])), 1, 1, [0])
    for i in range(UPDATES):
        s, a, r = problem(i)
        agent.update(Batch(s, a, r, torch.zeros_like(r), s))
    assert loss(agent) < 0.11
