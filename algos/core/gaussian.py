"""Gaussian policies squashed by a tanh: the networks that give their mean and standard deviation, and log densities.

A network's parameters are the part "actor" of the state; its running statistics, where it has some, "actor_stats".
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from algos.core.batch_renorm import init_renorm_mlp, renorm_mlp
from algos.core.critic_crossq import batch_renorm
from algos.core.critics import State
from algos.core.networks import Generators, Params, init_mlp, mlp
from algos.core.residual import check_widths, init_residual, residual

Heads = tuple[Tensor, Tensor, Params]


def log_tanh_slope(u: Tensor) -> Tensor:
    """log(1 - tanh(u)^2), stable for large |u|."""
    return 2 * (math.log(2) - u - F.softplus(-2 * u))


class Gaussian:
    """A perceptron with a log standard deviation clipped to [-20, 2] (SAC's and the QSM authors' code)."""

    log_std_range = (-20.0, 2.0)

    def __init__(self, config: Any, obs_dim: int, act_dim: int):
        self.config, self.obs_dim, self.act_dim = config, obs_dim, act_dim

    @classmethod
    def check(cls, config: Any) -> None:
        """Raises ValueError for settings that this network cannot have."""

    def initial_state(self, generators: Generators) -> State:
        """Both heads lie side by side in the last weight, each initialised as a layer of its own."""
        c = self.config
        sizes = (self.obs_dim, *c.hidden)
        body = init_mlp(generators, sizes, c.init)
        heads = [init_mlp(generators, (sizes[-1], self.act_dim), c.init) for _ in ("mean", "log_std")]
        last = len(c.hidden)
        joined = {f"{kind}{last}": torch.cat([head[f"{kind}0"] for head in heads], -1) for kind in "wb"}
        return {"actor": body | joined}

    def heads(self, params: Params, stats: Params, obs: Tensor, training: bool = False) -> Heads:
        """Mean and log standard deviation (S, B, A) at obs (S, B, O); in training also the statistics after it."""
        mean, log_std = mlp(params, obs, "relu").chunk(2, -1)
        return mean, log_std.clamp(*self.log_std_range), {}


class SimBaGaussian(Gaussian):
    """Residual blocks with layer normalisation; log std = -10 + 6 (1 + tanh), in [-10, 2] (SimBa's authors' code)."""

    log_std_range = (-10.0, 2.0)

    @classmethod
    def check(cls, config: Any) -> None:
        check_widths("hidden", config.hidden)

    def initial_state(self, generators: Generators) -> State:
        hidden, heads = self.config.hidden, (self.act_dim, self.act_dim)
        return {"actor": init_residual(generators, self.obs_dim, hidden[0], len(hidden), heads)}

    def heads(self, params: Params, stats: Params, obs: Tensor, training: bool = False) -> Heads:
        low, high = self.log_std_range
        mean, log_std = residual(params, obs).chunk(2, -1)
        return mean, low + 0.5 * (high - low) * (1 + torch.tanh(log_std)), {}


class CrossQGaussian(Gaussian):
    """Batch renormalisation before every layer, by the batch's own statistics in the actor's step alone."""

    def initial_state(self, generators: Generators) -> State:
        sizes = (self.obs_dim, *self.config.hidden, 2 * self.act_dim)
        params, stats = init_renorm_mlp(generators, sizes)
        return {"actor": params, "actor_stats": stats}

    def heads(self, params: Params, stats: Params, obs: Tensor, training: bool = False) -> Heads:
        out, after = renorm_mlp(batch_renorm(self.config), params, stats, obs, "relu", training)
        mean, log_std = out.chunk(2, -1)
        return mean, log_std.clamp(*self.log_std_range), after


GAUSSIANS: dict[str, type[Gaussian]] = {"mlp": Gaussian, "simba": SimBaGaussian, "crossq": CrossQGaussian}
