"""An algorithm that asks everything of the interface; it is no good one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from algos.core.agent import Agent, Selection
from algos.core.config import Config, at_least, positive
from algos.core.networks import init_mlp, mlp
from algos.core.optim import Adam, clip_entries
from outside.critic import GaussianCritic


@dataclass(frozen=True)
class OutsideConfig(Config):
    hidden: tuple[int, ...] = (32, 32)
    warmth: float = 0.3  # initial standard deviation of the exploration noise
    delay: int = 2  # updates per step of the noise's width
    samples: int = 8
    unused = ("tau", "critic_activation", "critics", "critic", "critic_hidden", "critic_loss")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "warmth")
        at_least(self, 1, "delay", "samples")


class Outside(Agent):
    """The actor's step first, on a batch of its own; noise whose width is learned; a critic of its own."""

    name = "outside"
    title = "Outside"
    Config = OutsideConfig
    small = {"samples": 2}  # noqa: RUF012

    def make_critic(self):
        return GaussianCritic(self.config, self.obs_dim, self.act_dim)

    def initial_state(self, generators):
        sizes = (self.obs_dim, *self.config.hidden, self.act_dim)
        warmth = torch.full((len(generators), 1), self.config.warmth, dtype=torch.float64).log()
        state = super().initial_state(generators)
        return state | {"actor": init_mlp(generators, sizes, "orthogonal"), "warmth": {"log": warmth}}

    def optimisers(self):
        return super().optimisers() | {"warmth": Adam(1e-2, clip=clip_entries(1.0))}

    def transitions(self):
        return 2 * self.config.batch_size

    def phase(self, count):
        return int(count % self.config.delay == 0)

    def policy(self, state, obs, draws, mode):
        return torch.tanh(mlp(state["actor"], obs, "tanh"))

    def exploration_noise(self, state):
        return state["warmth"]["log"].exp().unsqueeze(-1)  # (S, 1, 1)

    def selection(self, mode):
        return Selection(self.config.samples if mode == "sample" else 1, critic="online")

    def candidates(self, state, obs, k, draws, mode):
        actions = super().candidates(state, obs, k, draws, mode)
        return self.explore(state, actions, draws.scope("candidates"))

    def target_action(self, state, next_obs, draws):
        k = self.config.samples
        actions = self.candidates(state, next_obs, k, draws.scope("target"), "sample")
        return self.choose(state, next_obs, actions, k, critic="online"), 0.0

    def learn(self, state, batch, draws, phase):
        first, second = batch.split(self.config.batch_size)
        metrics = self.actor_step(state, second, draws, phase)
        return metrics | self.critic_step(state, first, draws, phase)

    def actor_step(self, state, batch, draws, phase):
        share = 1 - self.progress()  # of the run that is left

        def loss(actor):
            action = torch.tanh(mlp(actor, batch.obs, "tanh"))
            per_seed = -self.q(state, batch.obs, action).mean((1, 2)) * share
            return per_seed.sum(), {"actor_loss": per_seed}

        metrics = self.minimise(state, "actor", loss)
        if phase == 1:
            u = draws.uniform("warmth.u")

            def width(warmth):
                per_seed = (warmth["log"].squeeze(1) - (0.1 + 0.1 * u).log()).square()
                return per_seed.sum(), {"warmth_loss": per_seed}

            metrics |= self.minimise(state, "warmth", width)
        return metrics
