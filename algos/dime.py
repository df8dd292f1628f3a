"""DIME (Celik, Li, Blessing, Li, Palenicek, Peters, Chalvatzaki, Neumann: DIME: Diffusion-Based Maximum Entropy
Reinforcement Learning, ICML 2025), as the authors' code runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from algos.core.agent import Agent, Batch, Metrics, State
from algos.core.config import Config, at_least, between, not_negative, one_of, positive
from algos.core.gaussian import log_tanh_slope
from algos.core.networks import Generators, Params
from algos.core.noise import Draws
from algos.core.optim import Adam, clip_entries, gradients, polyak
from algos.core.score_network import TIME_FEATURES, ScoreNetwork


@dataclass(frozen=True)
class DIMEConfig(Config):
    """The defaults are the authors' for DM Control (their configs and, where these are not read, their code)."""

    hidden: tuple[int, ...] = (256, 256, 256)
    init: str = "lecun_normal"
    critic: str = "distributional"
    T: int = 16  # diffusion steps
    time_out: int = 256  # width of the embedded step
    prior_std: float = 2.5  # of x_0, and of the process that the path cost compares with
    dt: float = 0.1  # initial value of the learned step size
    friction: float = 1.0  # initial value, learned for every action dimension
    dt_floor: float = 0.001  # lower bound of the schedule, as a share of dt
    dt_shift: float = 0.008
    dt_power: float = 2.0
    actor_beta1: float = 0.5
    process_lr: float = 3e-4  # of dt and friction
    gradient_bound: float = 1.0  # of each entry of the actor's gradient
    actor_q: str = "mean"  # of the critics, in the actor's loss; or "min"
    actor_delay: int = 3  # critic updates per actor update
    policy_tau: float = 1.0  # Polyak step of the actor that the TD target samples; 1: a copy of the actor
    initial_temperature: float = 1.0
    temperature_lr: float = 1e-3
    # Times |A|; the authors' config says 6 in all, which their code never reads
    target_cost_per_dim: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "actor_q", ("mean", "min"))
        at_least(self, 1, "T", "time_out", "actor_delay")
        positive(self, "prior_std", "dt", "friction", "process_lr", "gradient_bound")
        positive(self, "initial_temperature", "temperature_lr")
        not_negative(self, "dt_shift", "dt_power")
        between(self, 0, 1, "dt_floor", "policy_tau", "actor_beta1")


class LearnedPhases:
    """sin and cos of c_j t + phi_j, c evenly spaced from 0.1 to 100, phi learned (the authors' `PISGRADNet`)."""

    def sizes(self, dim: int) -> tuple[int, int, int]:
        return dim, dim // 2, dim // 2

    def initial(self, generators: Generators, dim: int) -> Params:
        return {"phases": torch.zeros(len(generators), 1, dim // 2, dtype=torch.float64)}

    def __call__(self, params: Params, t: Tensor, dim: int) -> Tensor:
        rates = torch.linspace(0.1, 100.0, dim // 2, dtype=t.dtype, device=t.device)
        phase = t.unsqueeze(-1) * rates + params["phases"]  # (S, n, dim / 2)
        return torch.cat([phase.sin(), phase.cos()], -1)


TIME_FEATURES["learned_phases"] = LearnedPhases()


class DIME(Agent):
    """Maximises Q minus alpha times a path cost, an upper bound of the policy's negative entropy (paper, section 4).

    One update, pi' the target actor:

        a', cost' = chain(pi', s')                                          target_action
        critics: cross-entropy to r + gamma mask (z - alpha cost')          critic_step
        every `actor_delay`-th update:                                      actor_step
            a, cost = chain(pi, s)
            actor:       mean[alpha cost - (Q1 + Q2)/2 (s, a)], through the whole chain
            temperature: alpha rises while the mean cost, without that of the start, is above its target
            pi' <- policy_tau pi + (1 - policy_tau) pi'
    """

    name = "dime"
    title = "DIME"
    Config = DIMEConfig
    config: DIMEConfig
    small: ClassVar[Mapping[str, Any]] = {"time_out": 8}

    SCORE_BOUND = 1e4

    def __init__(self, config: DIMEConfig, obs_dim: int, act_dim: int, seeds, **how):
        c = config
        self.network = ScoreNetwork(
            obs_dim,
            act_dim,
            c.hidden,
            c.T,
            "learned_phases",
            2 * c.hidden[0],
            c.init,
            "gelu",
            time_out=c.time_out,
        )
        self.shares = [dt_share(i, c.T, c.dt_floor, c.dt_shift, c.dt_power) for i in range(c.T)]
        super().__init__(config, obs_dim, act_dim, seeds, **how)

    def initial_state(self, generators: Generators) -> State:
        c, S = self.config, len(self.seeds)
        actor = self.network.initial(generators)
        last = len(c.hidden)
        # the chain begins as the reference process
        actor[f"w{last}"] = torch.full_like(actor[f"w{last}"], 1e-8)
        full = lambda value, *shape: torch.full((S, *shape), value, dtype=torch.float64)  # noqa: E731
        process = {
            "dt": full(inverse_softplus(c.dt), 1, 1),
            "friction": full(inverse_softplus(c.friction), 1, self.act_dim),
        }
        return super().initial_state(generators) | {
            "actor": actor,
            "process": process,
            "target_actor": {name: p.clone() for name, p in actor.items()},
            "target_process": {name: p.clone() for name, p in process.items()},
            "temperature": {"log": full(math.log(c.initial_temperature), 1)},
        }

    def optimisers(self) -> dict[str, Adam]:
        c, betas = self.config, (self.config.actor_beta1, 0.999)
        return super().optimisers() | {
            "actor": Adam(c.actor_lr, betas=betas, clip=clip_entries(c.gradient_bound)),
            "process": Adam(c.process_lr, betas=betas, clip=clip_entries(c.gradient_bound)),
            "temperature": Adam(c.temperature_lr),
        }

    def phase(self, count: int) -> int:
        """1 where the actor moves: every `actor_delay`-th update, the first at update number `actor_delay`."""
        return int((count + 1) % self.config.actor_delay == 0)

    def chain(
        self, params: Params, obs: Tensor, draws: Draws, noise: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (S, n, A), path cost (S, n) and log N(x_0; 0, prior_std^2) (S, n), differentiable in `params`.

        x_{i+1} = x_i + eta_i (score(s, x_i, i) - x_i / prior_std^2) + sqrt(2 eta_i) z, a = tanh(x_T), with
        eta_i = softplus(dt) share_i / softplus(friction). The path cost is the log density of these steps minus that of
        the steps back, N(x_i; x_{i+1} - eta_i x_{i+1} / prior_std^2, 2 eta_i), minus log |da/dx|. The density of x_0
        is the third result: the authors tune the temperature without it.
        """
        c, n = self.config, obs.shape[1]
        condition, table = self.network.condition(params, obs), self.network.time_table(params)
        pull = 1 / c.prior_std**2
        step = F.softplus(params["dt"]) / F.softplus(params["friction"])  # (S, 1, A)
        z = draws.normal("x", n, self.act_dim)
        x = c.prior_std * z
        start = (-0.5 * z.square() - math.log(c.prior_std * math.sqrt(2 * math.pi))).sum(-1)
        cost = torch.zeros_like(start)
        for i, share in enumerate(self.shares):
            eta = share * step
            sigma = (2 * eta).sqrt()
            score = self.network(params, condition + table[:, i : i + 1], x)
            following = x + eta * (score.clamp(-self.SCORE_BOUND, self.SCORE_BOUND) - pull * x)
            z = draws.normal(f"z{i}", n, self.act_dim)
            if noise:
                following = following + sigma * z
            back = (x - following + pull * eta * following) / sigma
            cost = cost + 0.5 * (back.square() - z.square()).sum(-1)
            x = following
        return torch.tanh(x), cost - log_tanh_slope(x).sum(-1), start

    def policy(self, state: State, obs: Tensor, draws: Draws, mode: str) -> Tensor:
        return self.chain(state["actor"] | state["process"], obs, draws, noise=mode != "greedy")[0]

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        """The bonus is -alpha times the whole cost."""
        action, cost, start = self.chain(
            state["target_actor"] | state["target_process"], next_obs, draws.scope("target")
        )
        return action, -state["temperature"]["log"].exp() * (cost + start)

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        if phase == 0:
            return {}
        c = self.config
        alpha = state["temperature"]["log"].exp()  # (S, 1)

        def loss(params: Params) -> tuple[Tensor, Metrics]:
            action, cost, start = self.chain(params, batch.obs, draws.scope("actor"))
            q = self.q(state, batch.obs, action)
            q = q.mean(1) if c.actor_q == "mean" else q.amin(1)
            per_seed = (alpha * (cost + start) - q).mean(1)
            return per_seed.sum(), {"actor_loss": per_seed, "path_cost": cost.mean(1)}

        grads, metrics = gradients(loss, state["actor"] | state["process"])
        for part in ("actor", "process"):
            self.descend(state, part, {name: grads[name] for name in state[part]})
        surplus = metrics["path_cost"] - c.target_cost_per_dim * self.act_dim

        def temperature_loss(temperature: Params) -> tuple[Tensor, Metrics]:
            per_seed = -temperature["log"].exp().squeeze(1) * surplus
            return per_seed.sum(), {"temperature_loss": per_seed}

        metrics |= self.minimise(state, "temperature", temperature_loss)
        for part in ("actor", "process"):
            polyak(state[f"target_{part}"], state[part], c.policy_tau)
        return metrics | {"temperature": alpha.squeeze(1)}


def dt_share(i: int, T: int, floor: float, shift: float, power: float) -> float:
    """Share of dt that step i = 0 ... T-1 takes, large ones first (the authors' `get_cosine_schedule`)."""
    t = (T - i) / T
    return (1 - floor) * math.cos(math.pi / 2 * (1 + shift - t) / (1 + shift)) ** power + floor


def inverse_softplus(y: float) -> float:
    return y + math.log(-math.expm1(-y))
