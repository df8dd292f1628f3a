"""Q-score matching (Psenka, Escontrela, Abbeel, Ma: Learning a Diffusion Model Policy from Rewards via Q-Score
Matching, ICML 2024), as the authors' `ScoreMatchingLearner` runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from algos.agent import Agent, Batch, Config, Metrics, State, require
from algos.diffusion import STEPS, ScoreNetwork, add_noise, chain_draws, one_hot, sample_chain, vp_schedule
from algos.networks import Generators, Params
from algos.noise import Draw, Draws
from algos.optim import input_gradient


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


@dataclass(frozen=True)
class QSMConfig(DiffusionConfig):
    """The defaults are the authors' (M_q = 120 for the quadruped and humanoid tasks)."""

    M_q: float = 50.0  # weight of grad_a Q; one knob with the scale of the reward
    score_scale: bool = (
        False  # multiply the target by sqrt(1 - abar_t), so that the temperature is the same at every t
    )
    normalise_gradient: bool = False  # divide grad_a Q by its mean absolute value over the batch

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.M_q > 0, "M_q", self.M_q, "a positive number")


class QSM(DiffusionAgent):
    """Minimises mean ||eps(s, a_t, t) + M_q grad_a Q(s, a_t)||^2, Q = (Q1 + Q2)/2, no gradient through Q.

    The score of the policy is -eps/sqrt(1 - abar_t), so this turns it towards the action gradient of Q (paper,
    section 4; the loss as in the authors' `ScoreMatchingLearner`). a_t is the replay action noised to a random t, and
    Q is taken there, unclipped; the critics have already made their step.
    """

    name = "qsm"
    Config = QSMConfig
    config: QSMConfig

    def actor_draws(self) -> list[Draw]:
        return self.forward_draws()

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        c = self.config
        noisy, steps = self.noised(batch, draws)
        gradient = input_gradient(lambda a: self.q(state["critic"], batch.obs, a).mean(1).sum(), noisy)
        if c.normalise_gradient:
            gradient = gradient / (gradient.abs().mean((1, 2), keepdim=True) + 1e-6)
        target = -c.M_q * gradient
        if c.score_scale:
            target = target * (steps @ (1 - self.alpha_bar).sqrt()).unsqueeze(-1)

        def loss(actor: Params) -> tuple[Tensor, Metrics]:
            eps = self.predicted_noise(actor, batch.obs, noisy, steps)
            per_seed = (eps - target).square().mean((1, 2))
            return per_seed.sum(), {"actor_loss": per_seed}

        return self.minimise_actor(state, loss) | {"q_gradient": gradient.abs().mean((1, 2))}
