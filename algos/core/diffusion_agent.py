"""The common base of algorithms whose policy is the reverse chain of a diffusion model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from algos.core.agent import Agent, Batch, State
from algos.core.config import Config, at_least, later, not_negative, one_of, require
from algos.core.diffusion import SCHEDULES, STEPS, Schedule, add_noise, one_hot, sample_chain
from algos.core.networks import Generators, Params
from algos.core.noise import Draws
from algos.core.score_network import NETWORKS, TIME_FEATURES


@dataclass(frozen=True)
class DiffusionConfig(Config):
    """Settings of QSM and the QSM authors' Diffusion-QL; the defaults are those of the authors' repository."""

    hidden: tuple[int, ...] = (512, 512)
    T: int = 5  # denoising steps
    clip_sampler: str = "iterate"  # clip a_t at every step; "x0": clip the estimate of the clean action
    time_features: str = "fourier"  # 64 learnable Fourier features; "sinusoidal": fixed ones
    time_dim: int = 64
    actor_lr_decay: int = 2_000_000  # whatever the length of the run
    action_noise: float = 0.1  # standard deviation, added to actions when exploring
    target_noise: float = 0.1  # standard deviation, added to the TD target's action, then clipped to [-1, 1]
    schedule: str = later("vp")  # one of SCHEDULES
    network: str = later("mlp")  # one of NETWORKS

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.T >= 1, "T", self.T, "at least 1 denoising step")
        one_of(self, "clip_sampler", STEPS)
        one_of(self, "time_features", TIME_FEATURES)
        one_of(self, "schedule", SCHEDULES)
        one_of(self, "network", NETWORKS)
        at_least(self, 4, "time_dim")
        require(self.time_dim % 2 == 0, "time_dim", self.time_dim, "an even number")
        not_negative(self, "action_noise", "target_noise")


class DiffusionAgent(Agent):
    """An actor-critic whose policy is the reverse chain of a diffusion model."""

    config: DiffusionConfig
    target_part: ClassVar[str] = "actor"  # whose chain the TD target samples

    def __init__(self, config: DiffusionConfig, obs_dim: int, act_dim: int, seeds: Any, **how: Any):
        self.network = self.make_network(config, obs_dim, act_dim)
        self.schedule = self.make_schedule(config)
        super().__init__(config, obs_dim, act_dim, seeds, **how)
        self.alpha_bar = torch.tensor(self.schedule.alpha_bar, device=self.device, dtype=self.dtype)

    def make_network(self, config: Any, obs_dim: int, act_dim: int) -> Any:
        """A network with the methods of `ScoreNetwork`."""
        return NETWORKS[config.network](config, obs_dim, act_dim)

    def make_schedule(self, config: Any) -> Schedule:
        return SCHEDULES[config.schedule](config.T)

    def initial_state(self, generators: Generators) -> State:
        return super().initial_state(generators) | {"actor": self.network.initial(generators)}

    def exploration_noise(self, state: State) -> Tensor | float:
        return self.config.action_noise

    def chain(
        self, actor: Params, obs: Tensor, draws: Draws, noise: bool = True, candidates: int = 1
    ) -> Tensor:
        """So many actions per observation (S, n, O) from the reverse chain, (S, n candidates, A), differentiable."""
        condition = self.network.condition(actor, obs)
        if candidates > 1:
            condition = condition.repeat_interleave(candidates, 1)
        step = STEPS[self.config.clip_sampler]
        return sample_chain(
            self.network, self.schedule, step, actor, condition, draws, self.act_dim, noise=noise
        )

    def policy(self, state: State, obs: Tensor, draws: Draws, mode: str) -> Tensor:
        return self.chain(state["actor"], obs, draws, noise=mode != "greedy")

    def candidates(self, state: State, obs: Tensor, k: int, draws: Draws, mode: str) -> Tensor:
        """As `Agent.candidates`; the state's share of the network is computed once for all k."""
        if type(self).policy is not DiffusionAgent.policy:
            return super().candidates(state, obs, k, draws, mode)
        return self.chain(state["actor"], obs, draws, noise=mode != "greedy", candidates=k)

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        """a' = clip(sample(s') + target_noise N(0, I), -1, 1), no bonus."""
        action = self.chain(state[self.target_part], next_obs, draws.scope("target"))
        if self.config.target_noise > 0:
            z = draws.normal("target.noise", *action.shape[1:])
            action = (action + self.config.target_noise * z).clamp(-1.0, 1.0)
        return action, 0.0

    def noised(self, batch: Batch, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Replay actions at random noise levels (S, B, A), those levels one-hot (S, B, T), and the noise (S, B, A)."""
        rows = batch.action.shape[1]
        t = draws.integers("actor.t", self.config.T, rows)
        noise = draws.normal("actor.noise", rows, self.act_dim)
        steps = one_hot(t, self.config.T, batch.action.dtype)
        return add_noise(self.alpha_bar, batch.action, steps, noise), steps, noise

    def predicted_noise(self, actor: Params, obs: Tensor, noisy_action: Tensor, steps: Tensor) -> Tensor:
        """eps(s, a_t, t) with one t per row, (S, B, A)."""
        condition = self.network.condition(actor, obs) + torch.bmm(steps, self.network.time_table(actor))
        return self.network(actor, condition, noisy_action)
