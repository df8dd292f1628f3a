"""Diffusion in continuous time on the cosine schedule, as MaxEntDP and flow-rl run it.

abar(t) = cos^2((t + s)/(1 + s) pi/2) / cos^2(s/(1 + s) pi/2), s = 0.008 (Nichol & Dhariwal 2021, eq. 17), t in
[0.001, 0.9946]. A chain of T steps visits t_i = linspace(0.001, 0.9946, T + 1), and abar(t_0) is not quite 1; in
training t is uniform, one per row.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos.core.agent import Batch
from algos.core.config import one_of
from algos.core.diffusion import SCHEDULES, STEPS, Schedule
from algos.core.diffusion_agent import DiffusionAgent
from algos.core.kernels import mish
from algos.core.networks import Generators, Params, init_mlp, mlp
from algos.core.noise import Draws
from algos.core.score_network import NETWORKS, TIME_FEATURES, FourierFeatures, ScoreNetwork

OFFSET = 0.008
T_MIN, T_MAX = 1e-3, 0.9946


def levels(t: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(abar) and sqrt(1 - abar) at t, of its shape.

    1 - cos^2 x / cos^2 x_0 = sin(x - x_0) sin(x + x_0) / cos^2 x_0 loses no digits where abar is near 1.
    """
    start = OFFSET / (1 + OFFSET) * math.pi / 2
    x = (t.clamp(max=T_MAX) + OFFSET) / (1 + OFFSET) * math.pi / 2
    noise = (torch.sin(x - start) * torch.sin(x + start)).sqrt()
    return torch.cos(x) / math.cos(start), noise / math.cos(start)


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """T entries each, entry i of the step from t_{i+1} to t_i; `start` is abar(t_0), `times` are t_1 ... t_T."""

    start: float
    times: tuple[float, ...]


def continuous_cosine(T: int) -> CosineSchedule:
    t = torch.from_numpy(np.linspace(T_MIN, T_MAX, T + 1))
    abar = levels(t)[0].square()
    alpha = abar[1:] / abar[:-1]
    floats = lambda x: tuple(x.tolist())  # noqa: E731
    return CosineSchedule(floats(1 - alpha), floats(alpha), floats(abar[1:]), abar[0].item(), floats(t[1:]))


def clean_action(schedule: Schedule, t: int, a: Tensor, eps: Tensor, clip: bool = True) -> Tensor:
    """a_0 = (a_t - sqrt(1 - abar_t) eps)/sqrt(abar_t), clipped to [-1, 1] or not."""
    abar = schedule.alpha_bar[t]
    a0 = (a - (1 - abar) ** 0.5 * eps) / abar**0.5
    return a0.clamp(-1.0, 1.0) if clip else a0


def beta_step(
    schedule: Schedule, t: int, a: Tensor, eps: Tensor, z: Tensor | None, clip: bool = False
) -> Tensor:
    """The mean of q(a_{t-1} | a_t, a_0) at the estimate of a_0 (Ho et al. 2020, eq. 7), plus sqrt(beta_t) z if t > 0.

    Of Ho et al.'s two variances (section 3.2) the larger; `posterior_step` takes the smaller. In continuous time
    abar before the last step is that of t_0, so that a little of the noise remains.
    """
    abar, beta = schedule.alpha_bar[t], schedule.beta[t]
    previous = schedule.alpha_bar[t - 1] if t > 0 else getattr(schedule, "start", 1.0)
    a0 = clean_action(schedule, t, a, eps, clip)
    mean = previous**0.5 * beta / (1 - abar) * a0 + (1 - previous) * schedule.alpha[t] ** 0.5 / (1 - abar) * a
    return mean + beta**0.5 * z if t > 0 and z is not None else mean


SCHEDULES["continuous_cosine"] = continuous_cosine
STEPS["x0_beta"] = functools.partial(beta_step, clip=True)
STEPS["beta"] = beta_step


class LogSNRFeatures(FourierFeatures):
    """Those of the log-SNR ln(abar/(1 - abar)) at a time t of the continuous schedule."""

    def __call__(self, params: Params, t: Tensor, dim: int) -> Tensor:
        signal, sigma = levels(t)
        return super().__call__(params, 2 * (signal / sigma).log(), dim)


TIME_FEATURES["log_snr"] = LogSNRFeatures()


@dataclass(frozen=True)
class CosineScoreNetwork(ScoreNetwork):
    """The score network at real times: its table holds t_1 ... t_T of the continuous schedule."""

    def time_table(self, params: Params) -> Tensor:
        b0 = params["b0"]
        t = torch.linspace(T_MIN, T_MAX, self.T + 1, device=b0.device, dtype=b0.dtype)
        return self.time_share(params, t[1:])


@dataclass(frozen=True)
class FlowRLNetwork(CosineScoreNetwork):
    """flow-rl's: the state passes two Mish layers of 128 first, and the time network ends in Mish too."""

    STATE = (128, 128)  # fixed in its `qsm.py`

    def initial(self, generators: Generators) -> Params:
        state = init_mlp(generators, (self.obs_dim, *self.STATE), self.init)
        inner = dataclasses.replace(self, obs_dim=self.STATE[-1])
        params = super(FlowRLNetwork, inner).initial(generators)
        return params | {f"state_{name}": p for name, p in state.items()}

    def condition(self, params: Params, obs: Tensor) -> Tensor:
        return super().condition(params, mish(mlp(part(params, "state_"), obs, "mish")))

    def time_share(self, params: Params, t: Tensor) -> Tensor:
        x = TIME_FEATURES[self.features](params, t, self.time_dim)
        return torch.baddbmm(params["b0"], mish(mlp(part(params, "time_"), x, "mish")), params["w0t"])


def part(params: Params, prefix: str) -> Params:
    return {name.removeprefix(prefix): p for name, p in params.items() if name.startswith(prefix)}


def _continuous(config: Any, obs_dim: int, act_dim: int) -> ScoreNetwork:
    c = config
    return CosineScoreNetwork(obs_dim, act_dim, c.hidden, c.T, c.time_features, c.time_dim, c.init)


def _flow_rl(config: Any, obs_dim: int, act_dim: int) -> ScoreNetwork:
    c, d = config, config.time_dim
    return FlowRLNetwork(obs_dim, act_dim, c.hidden, c.T, c.time_features, d, c.init, "mish", d, d)


NETWORKS["continuous"] = _continuous
NETWORKS["flow_rl"] = _flow_rl


def check_time(config: Any) -> None:
    """Raises ValueError where schedule and network do not know the time by the same numbers."""
    networks = ("continuous", "flow_rl")
    if config.schedule == "continuous_cosine":
        one_of(config, "network", networks)
    else:
        one_of(config, "network", [name for name in NETWORKS if name not in networks])


class CosineAgent(DiffusionAgent):
    """A diffusion policy in discrete or, with `schedule=continuous_cosine`, in continuous time."""

    def __init__(self, config: Any, obs_dim: int, act_dim: int, seeds: Any, **how: Any):
        self.continuous = config.schedule == "continuous_cosine"
        super().__init__(config, obs_dim, act_dim, seeds, **how)

    def noised(self, batch: Batch, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """As in discrete time, with the times (S, B) for the steps."""
        if not self.continuous:
            return super().noised(batch, draws)
        rows = batch.action.shape[1]
        t = T_MIN + (T_MAX - T_MIN) * draws.uniform("actor.t", rows)
        noise = draws.normal("actor.noise", rows, self.act_dim)
        signal, sigma = (level.unsqueeze(-1) for level in levels(t))
        return signal * batch.action + sigma * noise, t, noise

    def sigma(self, steps: Tensor) -> Tensor:
        """sqrt(1 - abar) at the second result of `noised`, (S, B)."""
        return levels(steps)[1] if self.continuous else steps @ (1 - self.alpha_bar).sqrt()

    def predicted_noise(self, actor: Params, obs: Tensor, noisy_action: Tensor, steps: Tensor) -> Tensor:
        if not self.continuous:
            return super().predicted_noise(actor, obs, noisy_action, steps)
        condition = self.network.condition(actor, obs) + self.network.time_share(actor, steps)
        return self.network(actor, condition, noisy_action)
