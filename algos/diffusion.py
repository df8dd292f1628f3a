"""Diffusion policies: noise schedule, forward noising, the noise-prediction network and the reverse chain.

Notation: t = T-1 ... 0 counts denoising steps, abar_t = prod_{i <= t} alpha_i, eps(s, a_t, t) is the predicted noise;
the score of the policy at noise level t is -eps / sqrt(1 - abar_t).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algos.networks import (
    Generators,
    Params,
    affine,
    fourier_features,
    init_linear,
    init_mlp,
    mish,
    mlp,
    sinusoidal_features,
)
from algos.noise import Draw, Draws


@dataclass(frozen=True)
class Schedule:
    """Variance-preserving noise schedule, T plain numbers each (python floats, so that they are graph constants)."""

    beta: tuple[float, ...]
    alpha: tuple[float, ...]
    alpha_bar: tuple[float, ...]

    @property
    def T(self) -> int:
        return len(self.beta)


def vp_schedule(T: int) -> Schedule:
    """alpha_t = exp(-b_min/T - (b_max - b_min)(2t - 1)/(2 T^2)), t = 1 ... T, b_min = 0.1, b_max = 10.

    The discretised variance-preserving SDE (Xiao et al. 2022), used by both reference implementations.
    """
    t = np.arange(1, T + 1)
    alpha = np.exp(-0.1 / T - 0.5 * (10.0 - 0.1) * (2 * t - 1) / T**2)
    as_floats = lambda x: tuple(float(v) for v in x)  # noqa: E731
    return Schedule(as_floats(1 - alpha), as_floats(alpha), as_floats(np.cumprod(alpha)))


def one_hot(t: Tensor, T: int, dtype: torch.dtype) -> Tensor:
    """Integer t (S, B) -> (S, B, T). A product with it picks rows of a table, faster than indexing both ways."""
    return (t.unsqueeze(-1) == torch.arange(T, device=t.device)).to(dtype)


def add_noise(alpha_bar: Tensor, action: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
    """a_t = sqrt(abar_t) a + sqrt(1 - abar_t) eps; abar (T,), action and noise (S, B, A), steps one-hot (S, B, T)."""
    signal, sigma = steps @ alpha_bar.sqrt(), steps @ (1 - alpha_bar).sqrt()  # (S, B)
    return signal.unsqueeze(-1) * action + sigma.unsqueeze(-1) * noise


# -- the noise-prediction network ------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreNetwork:
    """eps(s, a_t, t): a Mish network on the concatenated action, state and embedded time.

    The first layer acts on three inputs of which one alone changes along a chain, so its weight is kept in three parts:
    "w0a" (action), "w0s" (state), "w0t" (time). The state's part is computed once per state (`condition`), the
    time's part once per t (`time_table`).

    features: "fourier" (64 learnable, QSM authors) or "sinusoidal" (`time_dim` fixed, Diffusion-QL authors).
    """

    obs_dim: int
    act_dim: int
    hidden: tuple[int, ...]
    T: int
    features: str
    time_dim: int
    init: str

    FOURIER_STD = 0.2  # of the initial frequencies (QSM authors' `FourierFeatures`)

    @property
    def time_sizes(self) -> tuple[int, int, int]:
        """Layer sizes of the time network: features, hidden, embedding."""
        if self.features == "fourier":
            return self.time_dim, 2 * self.time_dim, 2 * self.time_dim
        return self.time_dim, 2 * self.time_dim, self.time_dim

    def initial(self, generators: Generators) -> Params:
        embedding = self.time_sizes[-1]
        params: Params = {}
        if self.features == "fourier":
            rows = [torch.randn(self.time_dim // 2, 1, generator=g, dtype=torch.float64) for g in generators]
            params["frequencies"] = torch.stack(rows) * self.FOURIER_STD
        time = init_mlp(generators, self.time_sizes, self.init)
        params |= {f"time_{name}": p for name, p in time.items()}
        w0, b0 = init_linear(generators, self.act_dim + self.obs_dim + embedding, self.hidden[0], self.init)
        parts = w0.split([self.act_dim, self.obs_dim, embedding], dim=1)
        params |= {name: p.contiguous() for name, p in zip(("w0a", "w0s", "w0t"), parts)} | {"b0": b0}
        body = init_mlp(generators, (*self.hidden, self.act_dim), self.init)
        return params | {f"{name[0]}{int(name[1:]) + 1}": p for name, p in body.items()}

    def time_table(self, params: Params) -> Tensor:
        """(S, T, H): the time's share of the first layer's input, one row per t, bias included."""
        t = torch.arange(self.T, device=params["b0"].device, dtype=params["b0"].dtype)
        if self.features == "fourier":
            x = fourier_features(params["frequencies"], t)
        else:
            x = sinusoidal_features(self.time_dim, t).expand(params["b0"].shape[0], -1, -1)
        time = {name.removeprefix("time_"): p for name, p in params.items() if name.startswith("time_")}
        return torch.baddbmm(params["b0"], mlp(time, x, "mish"), params["w0t"])

    def condition(self, params: Params, obs: Tensor) -> Tensor:
        """(S, B, O) -> (S, B, H): the state's share of the first layer's input."""
        return torch.bmm(obs, params["w0s"])

    def __call__(self, params: Params, condition: Tensor, noisy_action: Tensor) -> Tensor:
        """Predicted noise (S, B, A); `condition` (S, B, H) carries the shares of the state and of the time."""
        h = mish(torch.baddbmm(condition, noisy_action, params["w0a"]))
        last = len(self.hidden)
        for i in range(1, last + 1):
            h = affine(h, params[f"w{i}"], params[f"b{i}"])
            if i < last:
                h = mish(h)
        return h


# -- the reverse chain -----------------------------------------------------------------------------

Step = Callable[[Schedule, int, Tensor, Tensor, Tensor | None], Tensor]


def ddpm_step(schedule: Schedule, t: int, a: Tensor, eps: Tensor, z: Tensor | None) -> Tensor:
    """a_{t-1} = clip((a_t - (1 - alpha_t)/sqrt(1 - abar_t) eps)/sqrt(alpha_t) + sqrt(beta_t) z, -1, 1), z = 0 at t = 0.

    Ho et al. 2020, algorithm 2, with the clip on the iterate that the QSM authors' sampler applies at every step.
    """
    alpha, alpha_bar = schedule.alpha[t], schedule.alpha_bar[t]
    a = (a - (1 - alpha) / (1 - alpha_bar) ** 0.5 * eps) / alpha**0.5
    if t > 0 and z is not None:
        a = a + schedule.beta[t] ** 0.5 * z
    return a.clamp(-1.0, 1.0)


def posterior_step(schedule: Schedule, t: int, a: Tensor, eps: Tensor, z: Tensor | None) -> Tensor:
    """A step by the posterior q(a_{t-1} | a_t, a_0) at the clipped estimate a_0 (Diffusion-QL authors' `p_sample`).

    a_0 = clip((a_t - sqrt(1 - abar_t) eps)/sqrt(abar_t), -1, 1); mean and variance: Ho et al. 2020, eq. 6 and 7. The
    clip of the final action is the caller's in the reference; at t = 0 the mean is a_0, so it is clipped already.
    """
    alpha, alpha_bar, beta = schedule.alpha[t], schedule.alpha_bar[t], schedule.beta[t]
    previous = schedule.alpha_bar[t - 1] if t > 0 else 1.0
    a0 = ((a - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5).clamp(-1.0, 1.0)
    mean = beta * previous**0.5 / (1 - alpha_bar) * a0 + (1 - previous) * alpha**0.5 / (1 - alpha_bar) * a
    if t == 0 or z is None:
        return mean
    variance = max(beta * (1 - previous) / (1 - alpha_bar), 1e-20)  # the reference clips its logarithm there
    return mean + variance**0.5 * z


STEPS: dict[str, Step] = {"iterate": ddpm_step, "x0": posterior_step}


def chain_draws(prefix: str, T: int, shape: Sequence[int]) -> list[Draw]:
    """x_T, then one normal for each of t = T-1 ... 0 (the last is drawn and not used, as in the references)."""
    names = [f"{prefix}.x", *(f"{prefix}.z{t}" for t in reversed(range(T)))]
    return [Draw(name, "normal", tuple(shape)) for name in names]


def sample_chain(
    network: ScoreNetwork,
    schedule: Schedule,
    clip: str,
    params: Params,
    obs: Tensor,
    draws: Draws,
    prefix: str,
    noise: bool = True,
) -> Tensor:
    """Actions (S, B, A) from the reverse chain at obs (S, B, O), differentiable in the parameters.

    clip: "iterate" or "x0", see `STEPS`. noise=False leaves out what a step adds (x_T stays random).
    """
    step = STEPS[clip]
    state_part = network.condition(params, obs)
    table = network.time_table(params)
    a = draws[f"{prefix}.x"]
    for t in reversed(range(schedule.T)):
        eps = network(params, state_part + table[:, t : t + 1], a)
        a = step(schedule, t, a, eps, draws[f"{prefix}.z{t}"] if noise else None)
    return a
