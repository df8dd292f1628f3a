"""Diffusion: the schedule, forward noising, the noise-prediction network, both kinds of reverse step, the chain."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from algos.core.diffusion import (
    SCHEDULES,
    STEPS,
    add_noise,
    ddpm_step,
    one_hot,
    posterior_step,
    sample_chain,
    vp_schedule,
)
from algos.core.networks import Params
from algos.core.noise import Draw, Draws, Noise, Recorder
from algos.core.score_network import FourierFeatures, ScoreNetwork

CPU = torch.device("cpu")
OBS, ACT, B = 5, 2, 6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


# -- the schedule ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 2, 5, 20, 120])
def test_the_schedule_is_the_discretised_variance_preserving_one(T):
    s = vp_schedule(T)
    assert s.T == len(s.beta) == len(s.alpha) == len(s.alpha_bar) == T
    abar = 1.0
    for t in range(1, T + 1):
        # the integral of b_min + (b_max - b_min) u over u from (t - 1)/T to t/T
        integral = 0.1 / T + (10 - 0.1) * ((t / T) ** 2 - ((t - 1) / T) ** 2) / 2
        abar *= math.exp(-integral)
        assert s.alpha[t - 1] == pytest.approx(math.exp(-integral), rel=1e-12)
        assert s.beta[t - 1] == pytest.approx(1 - math.exp(-integral), rel=1e-12)
        assert s.alpha_bar[t - 1] == pytest.approx(abar, rel=1e-12)
    assert s.alpha_bar[-1] == pytest.approx(math.exp(-5.05), rel=1e-12)  # whatever T


# -- forward noising ---------------------------------------------------------------------------------------


def test_one_hot_rows_pick_rows_of_a_table():
    t = torch.tensor([[0, 4, 2], [1, 1, 3]])
    steps = one_hot(t, 5, torch.float64)
    assert torch.equal(steps, F.one_hot(t, 5).double())
    table = normal(2, 5, 7)
    picked = torch.stack([table[k, t[k]] for k in range(2)])
    assert torch.equal(torch.bmm(steps, table), picked)


def test_forward_noise_mixes_action_and_noise_by_the_level_of_each_row():
    s = vp_schedule(5)
    abar = torch.tensor(s.alpha_bar, dtype=torch.float64)
    action, noise, t = normal(2, 3, ACT), normal(2, 3, ACT, seed=1), torch.tensor([[0, 4, 2], [1, 1, 3]])
    noisy = add_noise(abar, action, one_hot(t, 5, torch.float64), noise)
    for k in range(2):
        for row in range(3):
            level = s.alpha_bar[t[k, row]]
            expected = math.sqrt(level) * action[k, row] + math.sqrt(1 - level) * noise[k, row]
            torch.testing.assert_close(noisy[k, row], expected)


# -- the network -------------------------------------------------------------------------------------------


def network(features: str, T: int = 5, hidden: tuple[int, ...] = (9, 7)) -> tuple[ScoreNetwork, Params]:
    time_dim = 64 if features == "fourier" else 16
    net = ScoreNetwork(OBS, ACT, hidden, T, features, time_dim, "torch")
    return net, net.initial(Noise([4, 8], "initialisation", CPU, torch.float64).generators)


def concatenated(net: ScoreNetwork, params: Params, k: int, obs, action, t) -> torch.Tensor:
    """What the references write down: embed the time, concatenate all inputs, apply one network. (B, A)"""
    p = {name: value[k] for name, value in params.items()}
    x = t.double()[:, None]
    if net.features == "fourier":
        phase = 2 * math.pi * x @ p["frequencies"].T
        x = torch.cat([phase.cos(), phase.sin()], -1)
    else:
        half = net.time_dim // 2
        phase = x * torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half).double())
        x = torch.cat([phase.sin(), phase.cos()], -1)
    x = F.mish(x @ p["time_w0"] + p["time_b0"]) @ p["time_w1"] + p["time_b1"]
    weight = torch.cat([p["w0a"], p["w0s"], p["w0t"]])
    h = torch.cat([action, obs, x], -1) @ weight + p["b0"]
    for i in range(1, len(net.hidden) + 1):
        h = F.mish(h) @ p[f"w{i}"] + p[f"b{i}"]
    return h


@pytest.mark.parametrize("features", ["fourier", "sinusoidal"])
@pytest.mark.parametrize("hidden", [(9,), (9, 7), (9, 7, 5)])
def test_split_and_tabled_first_layer_is_the_network_on_concatenated_inputs(features, hidden):
    net, params = network(features, T=12, hidden=hidden)
    obs, action = normal(2, B, OBS), normal(2, B, ACT, seed=1)
    t = torch.randint(12, (2, B), generator=generator(2))
    table = net.time_table(params)
    shares = torch.stack([table[k, t[k]] for k in range(2)])
    eps = net(params, net.condition(params, obs) + shares, action)
    assert eps.shape == (2, B, ACT)
    for k in range(2):
        expected = concatenated(net, params, k, obs[k], action[k], t[k])
        torch.testing.assert_close(eps[k], expected, rtol=1e-11, atol=1e-12)


def test_the_networks_inputs_share_one_initial_bound():
    net, params = network("fourier", hidden=(900, 7))
    bound = 1 / math.sqrt(OBS + ACT + 128)
    for name in ("w0a", "w0s", "w0t"):
        assert 0.97 * bound < params[name].abs().max() < bound
    assert params["frequencies"].shape == (2, 32, 1)
    assert params["frequencies"].std().item() == pytest.approx(FourierFeatures.STD, rel=0.25)
    assert net.time_sizes == (64, 128, 128)
    assert network("sinusoidal")[0].time_sizes == (16, 32, 16)


# -- reverse steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0, 1, 4])
def test_ddpm_step_is_algorithm_2_of_ho_et_al_then_clipped(t):
    s = vp_schedule(5)
    a, eps, z = normal(1, 50, ACT), normal(1, 50, ACT, seed=1), normal(1, 50, ACT, seed=2)
    mean = (a - s.beta[t] / math.sqrt(1 - s.alpha_bar[t]) * eps) / math.sqrt(s.alpha[t])
    free = mean + (math.sqrt(s.beta[t]) * z if t > 0 else 0)
    assert (free.abs() > 1).any()
    assert (free.abs() < 1).any()
    torch.testing.assert_close(ddpm_step(s, t, a, eps, z), free.clamp(-1, 1))
    torch.testing.assert_close(ddpm_step(s, t, a, eps, None), mean.clamp(-1, 1))


@pytest.mark.parametrize("t", [0, 1, 4])
def test_posterior_step_has_mean_and_variance_of_the_gaussian_posterior(t):
    """From the product of q(a_t | a_{t-1}) and q(a_{t-1} | a_0), not from the formula in the code."""
    s = vp_schedule(5)
    a, eps, z = 0.5 * normal(1, 50, ACT), normal(1, 50, ACT, seed=1), normal(1, 50, ACT, seed=2)
    a0 = ((a - math.sqrt(1 - s.alpha_bar[t]) * eps) / math.sqrt(s.alpha_bar[t])).clamp(-1, 1)
    assert (a0.abs() == 1).any()
    if t == 0:
        for noise in (z, None):
            torch.testing.assert_close(posterior_step(s, t, a, eps, noise), a0, rtol=0, atol=1e-15)
        return
    previous = s.alpha_bar[t - 1]
    precision = s.alpha[t] / s.beta[t] + 1 / (1 - previous)
    mean = (math.sqrt(s.alpha[t]) / s.beta[t] * a + math.sqrt(previous) / (1 - previous) * a0) / precision
    torch.testing.assert_close(posterior_step(s, t, a, eps, None), mean)
    torch.testing.assert_close(posterior_step(s, t, a, eps, z), mean + z / math.sqrt(precision))


def test_an_exact_noise_prediction_brings_posterior_steps_back_to_the_clean_action():
    s = vp_schedule(8)
    clean, a = normal(1, 50, ACT).clamp(-0.9, 0.9), normal(1, 50, ACT, seed=1)
    for t in reversed(range(8)):
        eps = (a - math.sqrt(s.alpha_bar[t]) * clean) / math.sqrt(1 - s.alpha_bar[t])
        a = posterior_step(s, t, a, eps, None)
    torch.testing.assert_close(a, clean)


# -- the chain ---------------------------------------------------------------------------------------------


def chain_inputs(T: int, rows: int = B, scale: float = 1.0):
    names = ["x", *(f"z{t}" for t in reversed(range(T)))]
    draws = {name: scale * normal(2, rows, ACT, seed=i) for i, name in enumerate(names)}
    return normal(2, rows, OBS), draws


def chain(net, schedule, clip, params, obs, draws, noise=True):
    condition = net.condition(params, obs)
    return sample_chain(net, schedule, STEPS[clip], params, condition, Draws(draws), ACT, noise=noise)


@pytest.mark.parametrize("features", ["fourier", "sinusoidal"])
@pytest.mark.parametrize("clip", ["iterate", "x0"])
@pytest.mark.parametrize("T", [1, 5, 12])
def test_the_chain_applies_the_step_from_the_noisiest_level_down(features, clip, T):
    net, params = network(features, T)
    obs, draws = chain_inputs(T)
    s = vp_schedule(T)
    a = chain(net, s, clip, params, obs, draws)
    for k in range(2):
        x = draws["x"][k]
        for t in reversed(range(T)):
            eps = concatenated(net, params, k, obs[k], x, torch.full((B,), t))
            x = STEPS[clip](s, t, x, eps, draws[f"z{t}"][k])
        torch.testing.assert_close(a[k], x, rtol=1e-10, atol=1e-11)


def test_the_chain_draws_its_start_and_one_normal_per_step_down_to_the_unused_last():
    net, params = network("fourier", 3)
    obs = normal(2, 4, OBS)
    for noise in (True, False):
        recorder = Recorder(2, obs.device, obs.dtype)
        condition = net.condition(params, obs)
        sample_chain(
            net, vp_schedule(3), STEPS["x0"], params, condition, Draws(recorder).scope("p"), ACT, noise=noise
        )
        assert recorder.draws == [Draw(name, "normal", (4, ACT)) for name in ("p.x", "p.z2", "p.z1", "p.z0")]


def test_a_chain_can_start_from_another_width():
    net, params = network("fourier")
    obs, draws = chain_inputs(5)
    halved = draws | {"x": 0.5 * draws["x"]}
    run = lambda d, start: sample_chain(  # noqa: E731
        net, vp_schedule(5), STEPS["x0"], params, net.condition(params, obs), Draws(d), ACT, start=start
    )
    assert torch.equal(run(draws, 0.5), run(halved, 1.0))


@pytest.mark.parametrize("T", [1, 5, 20])
def test_the_cosine_schedule_is_that_of_nichol_and_dhariwal(T):
    s = SCHEDULES["cosine"](T)
    f = [math.cos((i / T + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(T + 1)]
    for t in range(T):
        assert s.beta[t] == pytest.approx(min(1 - f[t + 1] / f[t], 0.999), rel=1e-12)
    assert s.alpha_bar[-1] == pytest.approx(math.prod(s.alpha))


@pytest.mark.parametrize("clip", ["iterate", "x0"])
@pytest.mark.parametrize("T", [1, 2, 20])
def test_actions_stay_in_the_box_whatever_the_network_says(clip, T):
    net, params = network("fourier", T)
    wild = {name: 50 * p for name, p in params.items()}
    obs, draws = chain_inputs(T, rows=40, scale=10.0)
    for noise in (True, False):
        action = chain(net, vp_schedule(T), clip, wild, obs, draws, noise)
        assert action.abs().max() <= 1
        assert (action.abs() > 0.999).any()


@pytest.mark.parametrize("clip", ["iterate", "x0"])
def test_without_noise_only_the_start_matters(clip):
    net, params = network("fourier")
    obs, draws = chain_inputs(5)
    run = lambda d, noise: chain(net, vp_schedule(5), clip, params, obs, d, noise)  # noqa: E731
    other_steps = {name: d if name == "x" else d + 1 for name, d in draws.items()}
    other_start = {name: d + 0.1 if name == "x" else d for name, d in draws.items()}
    assert torch.equal(run(draws, False), run(other_steps, False))
    assert not torch.equal(run(draws, False), run(other_start, False))
    assert not torch.equal(run(draws, True), run(other_steps, True))
    unused = draws | {"z0": draws["z0"] + 1}
    assert torch.equal(run(draws, True), run(unused, True))


@pytest.mark.parametrize("clip", ["iterate", "x0"])
def test_the_chain_s_gradient_in_the_parameters_passes_through_every_step(clip):
    net, params = network("sinusoidal", T=3, hidden=(4, 4))
    obs, draws = chain_inputs(3, rows=2, scale=0.3)
    one = {name: p[:1].clone().requires_grad_() for name, p in params.items()}
    start = {name: d[:1] for name, d in draws.items()}

    def function(w0a, w0t, w1):
        changed = one | {"w0a": w0a, "w0t": w0t, "w1": w1}
        return chain(net, vp_schedule(3), clip, changed, obs[:1], start)

    assert torch.autograd.gradcheck(function, (one["w0a"], one["w0t"], one["w1"]), atol=1e-6)
