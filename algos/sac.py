"""Soft actor-critic (Haarnoja et al.: Soft Actor-Critic Algorithms and Applications, 2018), as the QSM authors ran it
(their `SACLearner`)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from algos.core.agent import Agent, Batch, Metrics, State
from algos.core.config import Config, at_least, between, later, not_negative, one_of, positive
from algos.core.gaussian import GAUSSIANS, log_tanh_slope
from algos.core.networks import Generators, Params
from algos.core.noise import Draws
from algos.core.optim import Adam, clip_by_norm


@dataclass(frozen=True)
class SACConfig(Config):
    """The defaults are the QSM authors'; each departure from the paper is a field, commented with its value."""

    critic_loss: str = "mean"
    temperature_lr: float = 3e-4
    initial_temperature: float = 1.0
    target_entropy_per_dim: float = -0.5  # times |A|; the paper: -1
    actor_q: str = "mean"  # of the two critics, in the actor's loss; the paper: "min"
    actor_network: str = later("mlp")  # one of GAUSSIANS
    # before the critics, whose target then takes the new actor and temperature
    actor_first: bool = later(False)
    actor_delay: int = later(1)  # critic updates per actor update
    actor_beta1: float = later(0.9)  # of Adam
    actor_weight_decay: float = later(0.0)  # of AdamW, of all leaves

    #: With another critic SAC is its authors' SAC, whose actor is of the same kind.
    by_critic: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "simba": {
            "actor_network": "simba",
            "hidden": (128,),
            "actor_q": "min",
            "actor_first": True,
            "actor_lr": 1e-4,
            "actor_weight_decay": 0.01,
            "temperature_lr": 1e-4,
            "initial_temperature": 0.01,
        },
        "crossq": {
            "actor_network": "crossq",
            "actor_q": "min",
            "actor_delay": 3,
            "actor_lr": 1e-3,
            "actor_beta1": 0.5,
            "temperature_lr": 1e-3,
            "target_entropy_per_dim": -1.0,
        },
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "actor_q", ("mean", "min"))
        one_of(self, "actor_network", GAUSSIANS)
        positive(self, "temperature_lr", "initial_temperature")
        at_least(self, 1, "actor_delay")
        between(self, 0, 1, "actor_beta1")
        not_negative(self, "actor_weight_decay")
        GAUSSIANS[self.actor_network].check(self)


class SAC(Agent):
    """A squashed Gaussian policy that maximises min Q + alpha H, with alpha tuned to a target entropy.

    An update, in order:
        a', log pi(a'|s') = sample(s')                         target_action, sample
        y = r + gamma mask (min(Q1', Q2')(s', a') - alpha log pi(a'|s'))    Agent.td_target
        Q1, Q2: mean (Q_k(s, a) - y)^2, an Adam step           Agent.critic_loss, MLPCritic.step
        Q' <- (1 - tau) Q' + tau Q                             Critic.move_targets
        pi: mean (alpha log pi(a|s) - Q(s, a)), a from pi      actor_step
        alpha: alpha (H - target entropy), an Adam step on log alpha    actor_step
    """

    name = "sac"
    title = "SAC"
    Config = SACConfig
    config: SACConfig
    evaluation_mode = "greedy"

    def __init__(self, config: SACConfig, obs_dim: int, act_dim: int, seeds, **how):
        self.network = GAUSSIANS[config.actor_network](config, obs_dim, act_dim)
        super().__init__(config, obs_dim, act_dim, seeds, **how)

    def initial_state(self, generators: Generators) -> State:
        c = self.config
        temperature = torch.full((len(self.seeds), 1), math.log(c.initial_temperature), dtype=torch.float64)
        state = super().initial_state(generators) | self.network.initial_state(generators)
        return state | {"temperature": {"log": temperature}}

    def optimisers(self) -> dict[str, Adam]:
        c = self.config
        optimisers = super().optimisers()
        actor = dataclasses.replace(
            optimisers["actor"], betas=(c.actor_beta1, 0.999), weight_decay=c.actor_weight_decay
        )
        temperature = Adam(c.temperature_lr, clip=clip_by_norm(c.grad_norm))
        return optimisers | {"actor": actor, "temperature": temperature}

    def phase(self, count: int) -> int:
        """1 where the actor moves: every `actor_delay`-th update, the first at update number `actor_delay`."""
        return int((count + 1) % self.config.actor_delay == 0)

    def learn(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        if not self.config.actor_first:
            return super().learn(state, batch, draws, phase)
        metrics = self.actor_step(state, batch, draws, phase)
        return metrics | self.critic_step(state, batch, draws, phase)

    def sample(
        self, actor: Params, stats: Params, obs: Tensor, z: Tensor, training: bool = False
    ) -> tuple[Tensor, Tensor, Params]:
        """a = tanh(u), u = mean + std z, and log pi(a|s) = log N(u) - sum log(1 - tanh(u)^2) (S, B); appendix C.

        The third: running statistics of the network after this pass, in training.
        """
        mean, log_std, stats = self.network.heads(actor, stats, obs, training)
        u = mean + log_std.exp() * z
        log_normal = -0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)
        return torch.tanh(u), (log_normal - log_tanh_slope(u)).sum(-1), stats

    def policy(self, state: State, obs: Tensor, draws: Draws, mode: str) -> Tensor:
        mean, log_std, _ = self.network.heads(state["actor"], state.get("actor_stats", {}), obs)
        z = draws.normal("z", obs.shape[1], self.act_dim)
        return torch.tanh(mean if mode == "greedy" else mean + log_std.exp() * z)

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        """The bonus is the entropy term -alpha log pi(a'|s')."""
        z = draws.normal("target.z", next_obs.shape[1], self.act_dim)
        action, log_prob, _ = self.sample(state["actor"], state.get("actor_stats", {}), next_obs, z)
        return action, -state["temperature"]["log"].exp() * log_prob

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        if phase == 0:
            return {}
        c, stats = self.config, state.get("actor_stats", {})
        alpha = state["temperature"]["log"].exp()  # (S, 1)
        z = draws.normal("actor.z", batch.obs.shape[1], self.act_dim)

        def actor_loss(actor: Params) -> tuple[Tensor, Metrics]:
            action, log_prob, after = self.sample(actor, stats, batch.obs, z, training=True)
            q = self.q(state, batch.obs, action)
            q = q.mean(1) if c.actor_q == "mean" else q.amin(1)
            per_seed = (alpha * log_prob - q).mean(1)
            metrics = {"actor_loss": per_seed, "entropy": -log_prob.mean(1)}
            return per_seed.sum(), metrics | {f"actor_stats.{name}": x for name, x in after.items()}

        metrics = self.minimise(state, "actor", actor_loss)
        for name, x in stats.items():
            x.copy_(metrics.pop(f"actor_stats.{name}"))
        surplus = metrics["entropy"] - c.target_entropy_per_dim * self.act_dim

        def temperature_loss(temperature: Params) -> tuple[Tensor, Metrics]:
            per_seed = temperature["log"].exp().squeeze(1) * surplus
            return per_seed.sum(), {"temperature_loss": per_seed}

        metrics |= self.minimise(state, "temperature", temperature_loss)
        return metrics | {"temperature": alpha.squeeze(1)}
