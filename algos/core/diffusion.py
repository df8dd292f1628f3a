"""Diffusion policies: noise schedule, forward noising and the reverse chain.

Notation: t = T-1 ... 0 counts denoising steps, abar_t = prod_{i <= t} alpha_i, eps(s, a_t, t) is the predicted noise;
the score of the policy at noise level t is -eps / sqrt(1 - abar_t).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos.core.networks import Params
from algos.core.noise import Draws


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
    return of_alphas(alpha)


def of_alphas(alpha: np.ndarray) -> Schedule:
    """beta_t = 1 - alpha_t and abar_t from alpha_t, t = 0 ... T-1."""
    as_floats = lambda x: tuple(float(v) for v in x)  # noqa: E731
    return Schedule(as_floats(1 - alpha), as_floats(alpha), as_floats(np.cumprod(alpha)))


def cosine_schedule(T: int) -> Schedule:
    """abar(i) = cos^2((i/T + 0.008)/1.008 pi/2) at i = 0 ... T, beta_t = 1 - abar(t+1)/abar(t), at most 0.999.

    Nichol and Dhariwal 2021, eq. 17.
    """
    abar = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    return of_alphas(1 - np.clip(1 - abar[1:] / abar[:-1], 0, 0.999))


#: Name -> T -> noise schedule. A package may add its own.
SCHEDULES: dict[str, Callable[[int], Schedule]] = {"vp": vp_schedule, "cosine": cosine_schedule}


def one_hot(t: Tensor, T: int, dtype: torch.dtype) -> Tensor:
    """Integer t (S, B) -> (S, B, T). A product with it picks rows of a table, faster than indexing both ways."""
    return (t.unsqueeze(-1) == torch.arange(T, device=t.device)).to(dtype)


def add_noise(alpha_bar: Tensor, action: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
    """a_t = sqrt(abar_t) a + sqrt(1 - abar_t) eps; abar (T,), action and noise (S, B, A), steps one-hot (S, B, T)."""
    signal, sigma = steps @ alpha_bar.sqrt(), steps @ (1 - alpha_bar).sqrt()  # (S, B)
    return signal.unsqueeze(-1) * action + sigma.unsqueeze(-1) * noise


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


#: A package may add its own.
STEPS: dict[str, Step] = {"iterate": ddpm_step, "x0": posterior_step}


def sample_chain(
    network: Any,
    schedule: Schedule,
    step: Step,
    params: Params,
    condition: Tensor,
    draws: Draws,
    act_dim: int,
    *,
    noise: bool = True,
    start: float = 1.0,
) -> Tensor:
    """Actions (S, n, A) from the reverse chain, differentiable in the parameters.

    condition: `network.condition` of the observations, (S, n, H). noise=False leaves out what a step adds
    (x_T stays random). start: standard deviation of x_T. One normal is drawn for each of t = T-1 ... 0 whatever is
    added (the last is never used, as in the references).
    """
    rows = condition.shape[1]
    table = network.time_table(params)
    a = draws.normal("x", rows, act_dim)
    if start != 1.0:
        a = start * a
    for t in reversed(range(schedule.T)):
        z = draws.normal(f"z{t}", rows, act_dim)
        eps = network(params, condition + table[:, t : t + 1], a)
        a = step(schedule, t, a, eps, z if noise else None)
    return a
