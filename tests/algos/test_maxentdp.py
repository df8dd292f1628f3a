"""MaxEntDP's parts on problems whose answer is known, and the continuous schedule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from algos.core.cosine import T_MAX, T_MIN, beta_step, continuous_cosine, levels
from algos.core.diffusion import posterior_step, vp_schedule
from algos.core.noise import Draws
from algos.maxentdp import MaxEntDP, MaxEntDPConfig, truncated_normal


def test_levels_keep_their_digits_where_abar_is_near_one():
    t = torch.linspace(T_MIN, T_MAX, 50, dtype=torch.float64)
    signal, sigma = levels(t)
    exact = [
        math.cos((x + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
        for x in t.tolist()
    ]
    torch.testing.assert_close(signal, torch.tensor(exact, dtype=torch.float64))
    torch.testing.assert_close(signal**2 + sigma**2, torch.ones_like(t))
    torch.testing.assert_close(levels(t.float())[1].double(), sigma, rtol=1e-5, atol=0)


def test_a_step_is_the_posterior_s_mean_with_the_larger_variance():
    schedule = vp_schedule(5)
    a, eps, z = torch.randn(3, 1, 4, 2, dtype=torch.float64)
    mean = posterior_step(schedule, 3, a, eps, None)
    torch.testing.assert_close(beta_step(schedule, 3, a, eps, None, clip=True), mean)
    noise = beta_step(schedule, 3, a, eps, z, clip=True) - mean
    torch.testing.assert_close(noise, schedule.beta[3] ** 0.5 * z)
    torch.testing.assert_close(beta_step(schedule, 0, a, eps, z), beta_step(schedule, 0, a, eps, None))
    start = continuous_cosine(5).start
    assert 0.9999 < start < 1


def test_truncated_normals_lie_between_their_bounds_and_have_their_distribution():
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    n = truncated_normal(u, torch.tensor(-0.5).double(), torch.tensor(2.0).double())
    assert -0.5 <= n.min() < n.max() <= 2.0
    below = lambda x: 0.5 * (1 + math.erf(x / math.sqrt(2)))  # noqa: E731
    share = (below(1.0) - below(-0.5)) / (below(2.0) - below(-0.5))
    assert abs((n < 1.0).double().mean().item() - share) < 1e-3
    tails = truncated_normal(
        torch.tensor([0.0, 0.5, 1 - 1e-12]).double(), *torch.tensor([[-30.0], [-4.0]]).double()
    )
    assert bool(tails.isfinite().all())


class Normal(MaxEntDP):
    """Its network predicts the noise of a ~ N(0, std^2 I) exactly."""

    std = 0.3

    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        self.network = self

    def condition(self, params, obs):
        return torch.zeros_like(obs[..., :1])

    def time_share(self, params, t):
        return t.view(1, -1, 1)

    def __call__(self, params, condition, noisy):
        signal, sigma = levels(condition)  # the condition is the time
        return sigma * noisy / (signal**2 * self.std**2 + sigma**2)


def test_the_log_probability_of_a_known_normal_distribution():
    """A sum over noise levels is a quadrature: the finer the grid, the nearer to log N(a; 0, std^2 I)."""
    config = MaxEntDPConfig(log_prob_steps=800, log_prob_samples=2, log_prob_clip=False)
    agent = Normal(config, 3, 2, [0], dtype=torch.float64)
    rng = np.random.default_rng(1)
    action = torch.as_tensor(0.3 * rng.normal(size=(1, 5, 2)))
    noise = torch.as_tensor(rng.normal(size=(1, 5, 100, 800, 2)))
    agent.config = MaxEntDPConfig(log_prob_steps=800, log_prob_samples=100, log_prob_clip=False)
    ours = agent.log_prob({}, torch.zeros(1, 5, 3).double(), action, Draws({"log_prob.noise": noise}))
    exact = -(action**2).sum(-1) / (2 * 0.3**2) - 2 * math.log(0.3) - math.log(2 * math.pi)
    torch.testing.assert_close(ours, exact, rtol=0, atol=0.15)


def test_the_first_noise_level_of_the_log_probability_is_not_free_of_noise():
    """abar at the first time of the grid, 0.001, is below 1 by 4e-5: too little for the golden files to see."""
    config = MaxEntDPConfig(log_prob_steps=1, log_prob_samples=1, log_prob_clip=False)
    agent = Normal(config, 3, 2, [0], dtype=torch.float64)
    action, n = torch.tensor([[[0.3, -0.2]]]).double(), torch.tensor([[[[[0.7, -1.1]]]]]).double()
    ours = agent.log_prob({}, torch.zeros(1, 1, 3).double(), action, Draws({"log_prob.noise": n}))
    cosine = lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2)  # noqa: E731
    first, abar = ((cosine(t) / cosine(0.0)) ** 2 for t in (0.001, 0.9946))
    x = abar**0.5 * action + (1 - abar) ** 0.5 * n.view(1, 1, 2)
    eps = (1 - abar) ** 0.5 * x / (abar * Normal.std**2 + 1 - abar)
    error = (eps - n.view(1, 1, 2)).square().sum().item()
    exact = (first - abar) / (2 * abar * (1 - abar)) * (2 * abar - error) - math.log(2 * math.pi * math.e)
    assert ours.item() == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize(
    "settings",
    [
        {"network": "mlp"},
        {"schedule": "vp"},
        {"score": "noises"},
        {"temperature": 0.0},
        {"action_noise": 0.1},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(
        ValueError, match=next(iter(settings)) if settings != {"schedule": "vp"} else "network"
    ):
        MaxEntDPConfig(**settings)
