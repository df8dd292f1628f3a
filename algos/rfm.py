"""Reverse flow matching (arXiv 2601.08136), as the authors' code runs it with its rfm.yaml."""

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
from algos.core.flow import INTEGRATORS, VelocityNetwork
from algos.core.networks import Generators, Params
from algos.core.noise import Draws
from algos.core.optim import Adam, clip_by_norm, gradients


@dataclass(frozen=True)
class RFMConfig(Config):
    """The defaults are the authors' (default.yaml and rfm.yaml of their repository)."""

    unused: ClassVar[tuple[str, ...]] = ("actor_lr_decay",)

    init: str = "orthogonal_sqrt2"
    critic_lr: float = 1e-3
    grad_norm: float = 10.0  # of the actor; default.yaml alone: 0, no clipping
    critic_grad_norm: float = 10.0  # of each critic on its own; default.yaml alone: 0
    embedding: int = 64  # numbers each for the time and the temperature
    flow_steps: int = 10
    integrator: str = "euler"
    t_min: float = 0.01  # the flow runs from t_min to 1 - t_min
    particles: int = 32  # drawn for the TD target's action and for the flow's endpoint; one is chosen by Q
    act_particles: int = 32  # the same when acting
    eval_particles: int = 32  # the same in evaluation, where the best one by Q is taken
    samples: int = 100  # K, of the posterior of the endpoint
    on_policy: bool = True  # the endpoint is a sample of the policy; False: the replay action
    temperature: float = 0.02
    final_temperature: float = 0.02  # reached log-linearly
    temperature_steps: int = 250_000  # updates
    # Eta; "fixed": cv_weight; "gradient": ((1 - t)/t)^2, the pure gradient form
    control_variate: str = "tuned"
    cv_weight: float = 0.0  # 0: the noise form
    cv_ridge: float = 1e-4
    cv_clip: float = 2.0
    target_every: int = 1  # updates per Polyak step

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(
            self, 1, "flow_steps", "particles", "act_particles", "eval_particles", "samples", "target_every"
        )
        at_least(self, 4, "embedding")
        positive(self, "temperature", "final_temperature", "temperature_steps", "cv_ridge")
        not_negative(self, "cv_clip", "critic_grad_norm")
        between(self, 0, 0.5, "t_min")
        one_of(self, "integrator", INTEGRATORS)
        one_of(self, "control_variate", ("tuned", "fixed", "gradient"))
        if len(set(self.hidden)) > 1:
            raise ValueError(f"hidden = {self.hidden!r}: expected layers of one width, which are residual")


class RFM(Agent):
    """A flow policy trained to the posterior mean of its endpoints under exp(Q / temperature).

    An update, line by line:
        y1 ~ flow(s), the latent of one of n actions chosen by Q            (`latent`)
        critics: y = r + gamma mask min Q'(s', a'), a' drawn as y1          (`critic_step`)
        y_t = t y1 + (1 - t) z;  x_k = (y_t - (1 - t) e_k)/t, e_k ~ N(0, I)  (`actor_step`)
        w = softmax_k(Q(s, tanh x)/temperature + sum ln sech^2 x)
        score = t/(1 - t) e + grad_x [Q/temperature + sum ln sech^2 x]
        m = E_w x, S = E_w score, posterior mean m + eta S                  (`posterior_mean`)
        actor: mean ||v(s, y_t, t) - (y1_post - y0_post)||^2
    """

    name = "rfm"
    title = "RFM"
    Config = RFMConfig
    config: RFMConfig
    evaluation_mode = "greedy"
    small: ClassVar[Mapping[str, Any]] = {
        "samples": 5,
        "particles": 3,
        "act_particles": 3,
        "eval_particles": 3,
        "flow_steps": 2,
        "embedding": 4,
    }

    def __init__(self, config: RFMConfig, obs_dim: int, act_dim: int, seeds, **how):
        self.network = VelocityNetwork(obs_dim, act_dim, config.hidden, config.embedding, config.init)
        super().__init__(config, obs_dim, act_dim, seeds, **how)

    def initial_state(self, generators: Generators) -> State:
        return super().initial_state(generators) | {"actor": self.network.initial(generators)}

    def optimisers(self) -> dict[str, Adam]:
        c = self.config
        critic = Adam(c.critic_lr, clip=clip_by_norm(c.critic_grad_norm, apart=2))
        return super().optimisers() | ({"critic": critic} if c.critic == "mlp" else {})

    def phase(self, count: int) -> int:
        """1 where the target critics move: at every `target_every`-th update."""
        return int((count + 1) % self.config.target_every == 0)

    def targets_move(self, phase: int) -> bool:
        return phase == 1

    def temperature(self, state: State) -> Tensor:
        """Log-linear in the number of updates made, ()."""
        c = self.config
        share = (state["actor.adam"]["step"] / c.temperature_steps).clamp(max=1.0)
        low, high = math.log(c.temperature), math.log(c.final_temperature)
        return (low + share * (high - low)).exp().to(self.dtype)

    # -- the policy --------------------------------------------------------------------------------

    def flow(self, state: State, obs: Tensor, start: Tensor, particles: int) -> Tensor:
        """Latents (S, n k, A) from start (S, n k, A) at obs (S, n, O); row i k + j is particle j of state i."""
        c = self.config
        actor = state["actor"]
        condition = self.network.condition(actor, obs).repeat_interleave(particles, 1)
        temperature, dt = self.temperature(state), (1 - 2 * c.t_min) / c.flow_steps

        def velocity(t: float, y: Tensor) -> Tensor:
            share = self.network.time_share(actor, y.new_full((len(y), 1), t), temperature)
            return self.network(actor, condition + share, y)

        y = start
        for i in range(c.flow_steps):
            y = INTEGRATORS[c.integrator](velocity, c.t_min + i * dt, dt, y)
        return y

    def latent(self, state: State, obs: Tensor, draws: Draws, particles: int, best: bool = False) -> Tensor:
        """One latent action (S, n, A) per state, drawn from softmax(min Q / temperature), or the best."""
        n, k = obs.shape[1], particles
        y = self.flow(state, obs, draws.normal("x", n * k, self.act_dim), k)
        if k == 1:
            return y
        q = self.q(state, obs.repeat_interleave(k, 1), y.tanh()).amin(1).unflatten(1, (n, k))
        if not best:  # the largest of Q/temperature + Gumbel noise is such a draw
            q = q / self.temperature(state) - (-draws.uniform64("gumbel", n, k).log()).log().to(q.dtype)
        index = q.argmax(-1)[..., None, None]
        return y.unflatten(1, (n, k)).take_along_dim(index, 2).squeeze(2)

    def policy(self, state: State, obs: Tensor, draws: Draws, mode: str) -> Tensor:
        c, greedy = self.config, mode == "greedy"
        particles = c.act_particles if mode == "behaviour" else c.eval_particles
        return self.latent(state, obs, draws, particles, best=greedy).tanh()

    # -- the update --------------------------------------------------------------------------------

    def learn(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        c = self.config
        if c.on_policy:
            endpoint = self.latent(state, batch.obs, draws.scope("endpoint"), c.particles)
        else:
            endpoint = batch.action.clamp(-1 + 1e-4, 1 - 1e-4).atanh()
        metrics = self.critic_step(state, batch, draws, phase)
        return metrics | self.flow_step(state, batch, endpoint, draws)

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        return self.latent(state, next_obs, draws.scope("target"), self.config.particles).tanh(), 0.0

    def flow_step(self, state: State, batch: Batch, endpoint: Tensor, draws: Draws) -> Metrics:
        c, B = self.config, self.config.batch_size
        time = c.t_min + (1 - 2 * c.t_min) * draws.uniform("t", B)  # (S, B)
        t = time.unsqueeze(-1)
        y = t * endpoint + (1 - t) * draws.normal("z", B, self.act_dim)  # (S, B, A)
        noise = draws.normal("noise", B, c.samples, self.act_dim)
        y1, metrics = self.posterior_mean(state, batch.obs, y, t, noise)
        velocity = y1 - (y - t * y1) / (1 - t)
        temperature = self.temperature(state)

        def loss(actor: Params) -> tuple[Tensor, Metrics]:
            share = self.network.time_share(actor, time, temperature)
            v = self.network(actor, self.network.condition(actor, batch.obs) + share, y)
            per_seed = (v - velocity).square().mean((1, 2))
            return per_seed.sum(), {"actor_loss": per_seed}

        return metrics | self.minimise(state, "actor", loss) | {"temperature": temperature.expand(len(y))}

    def posterior_mean(
        self, state: State, obs: Tensor, y: Tensor, t: Tensor, noise: Tensor
    ) -> tuple[Tensor, Metrics]:
        """E[y_1 | y_t] under exp(Q / temperature), (S, B, A), from noise (S, B, K, A), with its control variate."""
        c, temperature = self.config, self.temperature(state)
        t = t.unsqueeze(2)  # (S, B, 1, 1)
        x = (y.unsqueeze(2) - (1 - t) * noise) / t  # (S, B, K, A)
        repeated = obs.repeat_interleave(c.samples, 1)

        def log_density(latent: Tensor) -> Tensor:
            """Q(s, tanh x)/temperature + sum ln sech^2 x, (S, B, K): the policy's target, with tanh's slope."""
            q = self.q(state, repeated, latent.flatten(1, 2).tanh()).amin(1).view(latent.shape[:-1])
            return q / temperature + 2 * (math.log(2) - latent - F.softplus(-2 * latent)).sum(-1)

        def summed(leaf: Params) -> tuple[Tensor, Metrics]:
            density = log_density(leaf["x"])
            return density.sum(), {"density": density}

        slope, found = gradients(summed, {"x": x})  # with the density itself: the critics are asked once
        w = found["density"].softmax(-1).unsqueeze(-1)  # (S, B, K, 1)
        score = t / (1 - t) * noise + slope["x"]
        mean, mean_score = (w * x).sum(2), (w * score).sum(2)  # (S, B, A)
        off, off_score = x - mean.unsqueeze(2), score - mean_score.unsqueeze(2)
        if c.control_variate == "tuned":  # the least variance of the estimate
            variance = (w.square() * off_score.square()).sum(2) + c.cv_ridge
            eta = (-(w.square() * off * off_score).sum(2) / variance).clamp(-c.cv_clip, c.cv_clip)
        elif c.control_variate == "fixed":
            eta = torch.full_like(mean, c.cv_weight)
        else:
            eta = ((1 - t) / t).square().squeeze(2).expand_as(mean)
        metrics = {"cv_weight": eta.mean((1, 2)), "ess": (1 / w.square().sum(2)).mean((1, 2))}
        return mean + eta * mean_score, metrics
