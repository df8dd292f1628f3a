"""What the algorithms have in common whose policy is the reverse chain of a diffusion model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from algos.core.agent import Agent, Batch, State
from algos.core.config import Config, require
from algos.core.diffusion import STEPS, add_noise, chain_draws, one_hot, sample_chain, vp_schedule
from algos.core.networks import Generators, Params
from algos.core.noise import Draw, Draws
from algos.core.score_network import ScoreNetwork


@dataclass(frozen=True)
class DiffusionConfig(Config):
    """What QSM and the QSM authors' Diffusion-QL share; the defaults are those of the authors' repository."""

    hidden: tuple[int, ...] = (512, 512)
    T: int = 5  # denoising steps
    clip_sampler: str = "iterate"  # clip a_t at every step; "x0": clip the estimate of the clean action
    time_features: str = "fourier"  # 64 learnable Fourier features; "sinusoidal": fixed ones
    time_dim: int = 64
    actor_lr_decay: int = 2_000_000  # whatever the length of the run
    action_noise: float = 0.1  # standard deviation, added to actions when exploring
    target_noise: float = 0.1  # standard deviation, added to the TD target's action, then clipped to [-1, 1]

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.T >= 1, "T", self.T, "at least 1 denoising step")
        require(self.clip_sampler in STEPS, "clip_sampler", self.clip_sampler, "iterate or x0")
        require(
            self.time_features in ("fourier", "sinusoidal"),
            "time_features",
            self.time_features,
            "fourier or sinusoidal",
        )
        require(
            self.time_dim >= 4 and self.time_dim % 2 == 0,
            "time_dim",
            self.time_dim,
            "an even number from 4 on",
        )
        for name in ("action_noise", "target_noise"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "zero or a positive number")


class DiffusionAgent(Agent):
    """An actor-critic whose policy is the reverse chain of a diffusion model."""

    config: DiffusionConfig
    target_part: ClassVar[str] = "actor"  # whose chain the TD target samples

    def __init__(self, config: DiffusionConfig, obs_dim: int, act_dim: int, seeds, **how):
        self.network = ScoreNetwork(
            obs_dim, act_dim, config.hidden, config.T, config.time_features, config.time_dim, config.init
        )
        self.schedule = vp_schedule(config.T)
        super().__init__(config, obs_dim, act_dim, seeds, **how)
        self.alpha_bar = torch.tensor(self.schedule.alpha_bar, device=self.device, dtype=self.dtype)

    def initial_state(self, generators: Generators) -> State:
        return super().initial_state(generators) | {"actor": self.network.initial(generators)}

    def exploration_noise(self) -> float:
        return self.config.action_noise

    def policy_draws(self, prefix: str, rows: int) -> list[Draw]:
        return chain_draws(prefix, self.config.T, (rows, self.act_dim))

    def chain(self, actor: Params, obs: Tensor, draws: Draws, prefix: str, noise: bool = True) -> Tensor:
        """Actions (S, n, A) from the reverse chain, differentiable in `actor`."""
        return sample_chain(
            self.network, self.schedule, self.config.clip_sampler, actor, obs, draws, prefix, noise
        )

    def policy(self, state: State, obs: Tensor, draws: Draws, prefix: str, greedy: bool) -> Tensor:
        return self.chain(state["actor"], obs, draws, prefix, noise=not greedy)

    def target_draws(self) -> list[Draw]:
        if self.config.target_noise == 0:
            return super().target_draws()
        shape = (self.config.batch_size, self.act_dim)
        return [*super().target_draws(), Draw("target.noise", "normal", shape)]

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        """a' = clip(sample(s') + target_noise N(0, I), -1, 1), no bonus."""
        action = self.chain(state[self.target_part], next_obs, draws, "target")
        if self.config.target_noise > 0:
            action = (action + self.config.target_noise * draws["target.noise"]).clamp(-1.0, 1.0)
        return action, 0.0

    def forward_draws(self) -> list[Draw]:
        """An integer t per row and the forward noise."""
        B = self.config.batch_size
        return [
            Draw("actor.t", "randint", (B,), self.config.T),
            Draw("actor.noise", "normal", (B, self.act_dim)),
        ]

    def noised(self, batch: Batch, draws: Draws) -> tuple[Tensor, Tensor]:
        """Replay actions at random noise levels (S, B, A), and those levels one-hot (S, B, T)."""
        steps = one_hot(draws["actor.t"], self.config.T, batch.action.dtype)
        return add_noise(self.alpha_bar, batch.action, steps, draws["actor.noise"]), steps

    def predicted_noise(self, actor: Params, obs: Tensor, noisy_action: Tensor, steps: Tensor) -> Tensor:
        """eps(s, a_t, t) with one t per row, (S, B, A)."""
        condition = self.network.condition(actor, obs) + torch.bmm(steps, self.network.time_table(actor))
        return self.network(actor, condition, noisy_action)
