"""Common to SDAC and DPMD: the best of several chains by Q, noise in proportion to a temperature, that temperature.

Ma, Chen, Wang, Li, Dai: Efficient Online Reinforcement Learning for Diffusion Policies, ICML 2025 (arXiv 2502.00361),
as the authors' repository runs it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from algos.core.agent import Batch, Metrics, Selection, State
from algos.core.config import at_least, between, not_negative, one_of, positive
from algos.core.diffusion import Schedule, of_alphas
from algos.core.networks import Generators, Params
from algos.core.noise import Draws
from algos.core.optim import Adam, clip_by_norm, linear_fall
from algos.core.weighted_agent import WeightedAgent, WeightedConfig


@dataclass(frozen=True)
class ParticleConfig(WeightedConfig):
    """The defaults are the authors' (`train_mujoco.py` and values hard-coded in their classes)."""

    unused: ClassVar[tuple[str, ...]] = (*WeightedConfig.unused, "schedule")

    init: str = "haiku"
    time_features: str = "quarter_sinusoidal"
    time_dim: int = 16
    time_hidden: int = 32
    beta_scale: float = 0.8  # beta_t = beta_scale * linspace(1e-4, 0.999, T)
    start_std: float = 0.5  # of x_T; the paper: 1
    particles: int = 32  # chains of which an action is the best by Q
    noise_scale: float = 0.1  # of the noise added to that action, times the temperature
    clip_target_action: bool = False  # to [-1, 1] after that noise
    acting_actor: str = "target"  # whose chain acts and is evaluated; "online"
    actor_delay: int = 2  # critic updates per update of the actor and of all targets
    # Linearly from actor_lr within actor_lr_fall updates, after actor_lr_hold of them
    actor_lr_end: float = 3e-5
    actor_lr_hold: int = 25_000
    actor_lr_fall: int = 50_000
    reward_scale: float = 0.2
    initial_temperature: float = 5.0
    temperature_lr: float = 7e-3
    temperature_delay: int = 250  # critic updates per update of the temperature
    target_entropy_per_dim: float = -0.9  # times |A|
    entropy_noise_scale: float = 0.1  # replaces noise_scale in the entropy, hard-coded

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "acting_actor", ("target", "online"))
        at_least(self, 1, "particles", "actor_delay", "actor_lr_fall", "temperature_delay")
        not_negative(self, "noise_scale", "actor_lr_end", "actor_lr_hold")
        positive(self, "initial_temperature", "temperature_lr", "entropy_noise_scale", "reward_scale")
        between(self, 0, 1, "beta_scale")


def linear_betas(T: int, scale: float) -> Schedule:
    """beta_t = scale * (1e-4 ... 0.999), T values at equal distances."""
    return of_alphas(1 - scale * np.linspace(1e-4, 0.999, T))


class ParticleAgent(WeightedAgent):
    """A diffusion policy whose action is the best of many chains by min Q, plus alpha noise_scale N(0, I)."""

    config: ParticleConfig
    small: ClassVar[Mapping[str, Any]] = {**WeightedAgent.small, "particles": 3}

    def make_schedule(self, config: ParticleConfig) -> Schedule:
        return linear_betas(config.T, config.beta_scale)

    def initial_state(self, generators: Generators) -> State:
        log_alpha = torch.full(
            (len(self.seeds), 1), math.log(self.config.initial_temperature), dtype=torch.float64
        )
        return super().initial_state(generators) | {"temperature": {"log": log_alpha}}

    def optimisers(self) -> dict[str, Adam]:
        c = self.config
        schedule = linear_fall(c.actor_lr_hold, c.actor_lr_fall, c.actor_lr_end / c.actor_lr)
        return super().optimisers() | {
            "actor": Adam(c.actor_lr, schedule, clip=clip_by_norm(c.grad_norm)),
            "temperature": Adam(c.temperature_lr),
        }

    # -- acting ------------------------------------------------------------------------------------

    def selection(self, mode: str) -> Selection:
        return Selection(self.config.particles, "argmax", "online")

    def policy(self, state: State, obs: Tensor, draws: Draws, mode: str) -> Tensor:
        return self.candidates(state, obs, 1, draws, mode)

    def candidates(self, state: State, obs: Tensor, k: int, draws: Draws, mode: str) -> Tensor:
        actor = state["target_actor" if self.config.acting_actor == "target" else "actor"]
        return self.chain(actor, obs, draws, noise=mode != "greedy", candidates=k)

    def exploration_noise(self, state: State) -> Tensor:
        """(S, 1, 1): noise_scale times the temperature."""
        return self.config.noise_scale * state["temperature"]["log"].exp().unsqueeze(-1)

    def noisy_best(self, state: State, obs: Tensor, draws: Draws) -> Tensor:
        """The online policy's action at obs (S, n, O), as it acts, but not clipped after the noise: (S, n, A)."""
        P = self.config.particles
        actions = self.chain(state["actor"], obs, draws, candidates=P)
        best = self.choose(state, obs, actions, P, critic="online")
        action = best + self.exploration_noise(state) * draws.normal("exploration", *best.shape[1:])
        return action.clamp(-1.0, 1.0) if self.config.clip_target_action else action

    # -- the update --------------------------------------------------------------------------------

    def phase(self, count: int) -> int:
        """1: the actor and the targets move; 2: the temperature moves; 3: both."""
        c = self.config
        return int(count % c.actor_delay == 0) + 2 * int(count % c.temperature_delay == 0)

    def targets_move(self, phase: int) -> bool:
        return bool(phase & 1)

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        return self.noisy_best(state, next_obs, draws.scope("target")), 0.0

    def td_target(self, batch: Batch, next_q: Tensor, bonus: Tensor | float) -> Tensor:
        """y = reward_scale r + gamma mask min_k Q'_k(s', a')."""
        return super().td_target(
            batch._replace(reward=self.config.reward_scale * batch.reward), next_q, bonus
        )

    def entropy(self, state: State) -> Tensor:
        """Of the added noise, |A|/2 log(2 pi e (entropy_noise_scale alpha)^2), (S, 1)."""
        std = self.config.entropy_noise_scale * state["temperature"]["log"].exp()
        return 0.5 * self.act_dim * (2 * math.pi * math.e * std.square()).log()

    def temperature_step(self, state: State, phase: int) -> Metrics:
        """In its phase, log alpha moves down the gradient entropy - target; the reported alpha is the new one."""
        if phase & 2:
            surplus = self.entropy(state) - self.config.target_entropy_per_dim * self.act_dim

            def loss(temperature: Params) -> tuple[Tensor, Metrics]:
                return (temperature["log"] * surplus).sum(), {}

            self.minimise(state, "temperature", loss)
        alpha = state["temperature"]["log"].exp()
        return {"temperature": alpha.squeeze(1), "entropy": self.entropy(state).squeeze(1)}
