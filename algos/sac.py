"""Soft actor-critic (Haarnoja et al.: Soft Actor-Critic Algorithms and Applications, 2018), as the QSM authors ran it
(their `SACLearner`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from algos.core.agent import Agent, Batch, Metrics, State
from algos.core.config import Config, one_of, positive
from algos.core.networks import Generators, Params, init_mlp, mlp
from algos.core.noise import Draws
from algos.core.optim import Adam, clip_by_norm


@dataclass(frozen=True)
class SACConfig(Config):
    """The defaults are the QSM authors'; each departure from the paper is a field, with the paper's value beside it."""

    critic_loss: str = "mean"
    temperature_lr: float = 3e-4
    initial_temperature: float = 1.0
    target_entropy_per_dim: float = -0.5  # times |A|; the paper: -1
    actor_q: str = "mean"  # of the two critics, in the actor's loss; the paper: "min"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "actor_q", ("mean", "min"))
        positive(self, "temperature_lr", "initial_temperature")


LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # the paper's code and the QSM authors'


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

    def initial_state(self, generators: Generators) -> State:
        c = self.config
        temperature = torch.full((len(self.seeds), 1), math.log(c.initial_temperature), dtype=torch.float64)
        return super().initial_state(generators) | {
            # the last layer gives mean and log standard deviation
            "actor": _init_gaussian(generators, (self.obs_dim, *c.hidden), self.act_dim, c.init),
            "temperature": {"log": temperature},
        }

    def optimisers(self) -> dict[str, Adam]:
        c = self.config
        return super().optimisers() | {"temperature": Adam(c.temperature_lr, clip=clip_by_norm(c.grad_norm))}

    def gaussian(self, actor: Params, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the tanh, (S, B, A) each."""
        mean, log_std = mlp(actor, obs, "relu").chunk(2, -1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def sample(self, actor: Params, obs: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """a = tanh(u), u = mean + std z, and log pi(a|s) = log N(u) - sum log(1 - tanh(u)^2) (S, B); appendix C."""
        mean, log_std = self.gaussian(actor, obs)
        u = mean + log_std.exp() * z
        log_normal = -0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))  # log(1 - tanh(u)^2), stable for large |u|
        return torch.tanh(u), (log_normal - log_slope).sum(-1)

    def policy(self, state: State, obs: Tensor, draws: Draws, mode: str) -> Tensor:
        mean, log_std = self.gaussian(state["actor"], obs)
        z = draws.normal("z", obs.shape[1], self.act_dim)
        return torch.tanh(mean if mode == "greedy" else mean + log_std.exp() * z)

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        """The bonus is the entropy term -alpha log pi(a'|s')."""
        z = draws.normal("target.z", next_obs.shape[1], self.act_dim)
        action, log_prob = self.sample(state["actor"], next_obs, z)
        return action, -state["temperature"]["log"].exp() * log_prob

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        c = self.config
        alpha = state["temperature"]["log"].exp()  # (S, 1)
        z = draws.normal("actor.z", batch.obs.shape[1], self.act_dim)

        def actor_loss(actor: Params) -> tuple[Tensor, Metrics]:
            action, log_prob = self.sample(actor, batch.obs, z)
            q = self.q(state, batch.obs, action)
            q = q.mean(1) if c.actor_q == "mean" else q.amin(1)
            per_seed = (alpha * log_prob - q).mean(1)
            return per_seed.sum(), {"actor_loss": per_seed, "entropy": -log_prob.mean(1)}

        metrics = self.minimise(state, "actor", actor_loss)
        surplus = metrics["entropy"] - c.target_entropy_per_dim * self.act_dim

        def temperature_loss(temperature: Params) -> tuple[Tensor, Metrics]:
            per_seed = temperature["log"].exp().squeeze(1) * surplus
            return per_seed.sum(), {"temperature_loss": per_seed}

        metrics |= self.minimise(state, "temperature", temperature_loss)
        return metrics | {"temperature": alpha.squeeze(1)}


def _init_gaussian(generators: Generators, sizes: tuple[int, ...], act_dim: int, scheme: str) -> Params:
    """An MLP with two heads of width A side by side in the last weight, each initialised as a layer of its own."""
    body = init_mlp(generators, sizes, scheme)
    heads = [init_mlp(generators, (sizes[-1], act_dim), scheme) for _ in ("mean", "log_std")]
    last = len(sizes) - 1
    return body | {
        f"w{last}": torch.cat([head["w0"] for head in heads], -1),
        f"b{last}": torch.cat([head["b0"] for head in heads], -1),
    }
