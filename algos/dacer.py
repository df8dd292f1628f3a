"""DACER (Wang et al.: Diffusion Actor-Critic with Entropy Regulator, NeurIPS 2024), as its authors' code runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from algos.core.agent import Batch, Metrics, State
from algos.core.config import at_least, not_negative, positive
from algos.core.critic_gaussian import GaussianCritic
from algos.core.critics import Critic
from algos.core.diffusion_agent import DiffusionAgent, DiffusionConfig
from algos.core.mixture_entropy import mixture_entropy
from algos.core.networks import Generators, Params
from algos.core.noise import Draws
from algos.core.optim import Adam


@dataclass(frozen=True)
class DACERConfig(DiffusionConfig):
    """The defaults are the authors' for HalfCheetah and Humanoid; their comments give action_noise 0.1 elsewhere."""

    unused: ClassVar[tuple[str, ...]] = ("target_noise", "actor_lr_decay")

    hidden: tuple[int, ...] = (256, 256, 256)
    critic_activation: str = "mish"
    init: str = "haiku"
    actor_lr: float = 1e-4
    critic_lr: float = 1e-4
    actor_lr_decay: int = 0
    T: int = 20
    clip_sampler: str = "x0"
    time_features: str = "quarter_sinusoidal"
    time_dim: int = 16
    target_noise: float = 0.0
    action_noise: float = 0.15  # times alpha: everywhere but in evaluation
    reward_scale: float = 0.2
    actor_delay: int = 2  # updates per step of the actor and of the target critics
    initial_alpha: float = 3.0
    alpha_lr: float = 3e-2
    alpha_delay: int = 10_000  # updates per estimate of the entropy and step of alpha
    entropy_samples: int = 200  # actions per state
    mixture_components: int = 3
    mixture_seed: int = 42  # of k-means++, the same in every fit
    target_entropy_per_dim: float = -0.9
    # The critics learn a normal distribution of returns; False: as other algorithms'
    distributional: bool = True
    z_clip: float = 3.0  # of the normal number of a sampled return
    td_clip: float = 3.0  # of a sampled return, in running standard deviations
    variance_floor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "reward_scale", "initial_alpha", "alpha_lr", "variance_floor")
        not_negative(self, "z_clip", "td_clip", "mixture_seed")
        at_least(self, 1, "actor_delay", "alpha_delay", "mixture_components")
        at_least(self, self.mixture_components, "entropy_samples")


class DACER(DiffusionAgent):
    """Minimises -mean min Q(s, a), a = clip(chain(s) + action_noise alpha n), through the whole chain.

    An update, line by line:
        every `alpha_delay`-th: H = entropy of a mixture fitted to N actions of every state (`entropy`)
        every `actor_delay`-th: actor on -mean min Q of the critics as they are           (`actor_step`)
        critics at a' ~ the actor of before its step; their targets with the actor        (`GaussianCritic.step`)
        log alpha down its gradient H - H_target, with the entropy                          (`alpha_step`)
    """

    name = "dacer"
    title = "DACER"
    Config = DACERConfig
    small: ClassVar[Mapping[str, Any]] = {"entropy_samples": 6, "alpha_delay": 3}
    config: DACERConfig

    def make_critic(self) -> Critic:
        c = self.config
        if c.critic == "mlp" and c.distributional:
            return GaussianCritic(c, self.obs_dim, self.act_dim)
        return super().make_critic()

    def initial_state(self, generators: Generators) -> State:
        log = torch.full((len(generators), 1), math.log(self.config.initial_alpha), dtype=torch.float64)
        return super().initial_state(generators) | {"alpha": {"log": log}}

    def optimisers(self) -> dict[str, Adam]:
        return super().optimisers() | {"alpha": Adam(self.config.alpha_lr)}

    def phase(self, count: int) -> int:
        """Bit 1: the actor and the targets move; bit 2: the entropy is estimated and alpha moves."""
        c = self.config
        return int(count % c.actor_delay == 0) + 2 * int(count % c.alpha_delay == 0)

    def targets_move(self, phase: int) -> bool:
        return bool(phase & 1)

    def exploration_noise(self, state: State) -> Tensor:
        return self.config.action_noise * state["alpha"]["log"].exp().unsqueeze(-1)  # (S, 1, 1)

    def noisy(self, state: State, actor: Params, obs: Tensor, draws: Draws, candidates: int = 1) -> Tensor:
        """clip(chain(s) + action_noise alpha N(0, I), -1, 1), (S, n candidates, A), differentiable in `actor`."""
        action = self.chain(actor, obs, draws, candidates=candidates)
        noise = draws.normal("noise", action.shape[1], self.act_dim)
        return (action + self.exploration_noise(state) * noise).clamp(-1.0, 1.0)

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        return self.noisy(state, state["actor"], next_obs, draws.scope("target")), 0.0

    def td_target(self, batch: Batch, next_q: Tensor, bonus: Tensor | float) -> Tensor:
        scaled = batch._replace(reward=self.config.reward_scale * batch.reward)
        return super().td_target(scaled, next_q, bonus)

    def learn(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        next_action, bonus = self.target_action(state, batch.next_obs, draws)
        metrics: Metrics = {}
        if phase & 2:
            metrics["entropy"] = self.entropy(state, batch.obs, draws)
        if phase & 1:
            metrics |= self.actor_step(state, batch, draws, phase)
        metrics |= self.critic.step(self, state, batch, draws, next_action, bonus)
        if self.targets_move(phase):
            self.critic.move_targets(state, self.config.tau)
        if phase & 2:
            metrics |= self.alpha_step(state, metrics["entropy"])
        return metrics | {"alpha": state["alpha"]["log"].exp().squeeze(1)}

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        def loss(actor: Params) -> tuple[Tensor, Metrics]:
            action = self.noisy(state, actor, batch.obs, draws.scope("actor"))
            per_seed = -self.q(state, batch.obs, action).amin(1).mean(1)
            return per_seed.sum(), {"actor_loss": per_seed}

        return self.minimise(state, "actor", loss)

    def entropy(self, state: State, obs: Tensor, draws: Draws) -> Tensor:
        """Mean over the batch of the entropy of the noisy policy, (S,)."""
        c = self.config
        actions = self.noisy(state, state["actor"], obs, draws.scope("entropy"), c.entropy_samples)
        rows = actions.view(-1, c.entropy_samples, self.act_dim)  # (S B, N, A)
        entropy = mixture_entropy(rows, c.mixture_components, c.mixture_seed)
        return entropy.view(obs.shape[:2]).mean(1)

    def alpha_step(self, state: State, entropy: Tensor) -> Metrics:
        surplus = entropy - self.config.target_entropy_per_dim * self.act_dim

        def loss(alpha: Params) -> tuple[Tensor, Metrics]:
            per_seed = alpha["log"].squeeze(1) * surplus
            return per_seed.sum(), {"alpha_loss": per_seed}

        return self.minimise(state, "alpha", loss)
