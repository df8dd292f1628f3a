"""DIPO (Yang et al.: Policy Representation via Diffusion Probability Model for Reinforcement Learning, 2023, arXiv
2305.13122), as the authors' repository runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from algos.core.agent import Batch, Metrics, State
from algos.core.config import at_least, one_of, positive
from algos.core.noise import Draws
from algos.core.optim import Adam, adam_state, clip_by_norm, input_gradient
from algos.core.second_batch_agent import SecondBatchAgent, SecondBatchConfig


@dataclass(frozen=True)
class DIPOConfig(SecondBatchConfig):
    """The defaults are the authors' (`main.py`; their README has other norms for some tasks)."""

    T: int = 100
    action_steps: int = 20  # uphill on Q
    action_lr: float = 0.03
    action_norm: float = 0.1  # times |A|: the gradient is clipped to this norm
    action_norm_of: str = "batch"  # one norm for the whole batch; "action": each action's own

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "action_steps")
        positive(self, "action_lr", "action_norm")
        one_of(self, "action_norm_of", ("batch", "action"))


class DIPO(SecondBatchAgent):
    """Denoises towards replay actions that were moved uphill on Q.

    One update:
        a' = chain of the target actor at s'; y = r + gamma mask min Q'(s', a')     target_action
        Q1, Q2: one step on (Q(s, a) - y)^2; Q': Polyak                             critic_step
        a of a second batch: K Adam steps down -sum min Q(s, a), clipped to the box uphill
        pi: one step on mean ||eps(s, a_t, t) - n||^2                               denoise
        pi': Polyak                                                                 with its delay
    The authors' code writes the moved actions back to the replay, without effect (they go to a copy); so does this not.
    """

    name = "dipo"
    title = "DIPO"
    Config = DIPOConfig
    config: DIPOConfig
    small: ClassVar[Mapping[str, Any]] = {**SecondBatchAgent.small, "action_steps": 2}
    evaluation_mode = "greedy"  # no noise in the chain, whose start is random

    def phase(self, count: int) -> int:
        """1 where the target actor moves."""
        return int(count % self.config.target_actor_every == 0)

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        return self.chain(state["target_actor"], next_obs, draws.scope("target")), 0.0

    def learn(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        first, second = batch.split(self.config.batch_size)
        metrics = self.critic_step(state, first, draws, phase)
        action = self.uphill(state, second.obs, second.action)
        noisy, steps, noise = self.noised(second._replace(action=action), draws)
        metrics |= self.denoise(state, second.obs, noisy, steps, noise, torch.ones_like(noisy[..., 0]))
        if phase:
            self.move_target_actor(state)
        return metrics | {"action_moved": (action - second.action).abs().mean((1, 2))}

    def uphill(self, state: State, obs: Tensor, action: Tensor) -> Tensor:
        """Actions (S, B, A) after the Adam steps; the optimiser begins anew in every update."""
        c = self.config
        bound, apart = c.action_norm * self.act_dim, 1 if c.action_norm_of == "batch" else 2
        optimiser = Adam(c.action_lr, eps=c.adam_eps, clip=clip_by_norm(bound, apart))
        params = {"action": action.clone()}
        moments = adam_state(params)
        for _ in range(c.action_steps):
            gradient = input_gradient(lambda a: -self.q(state, obs, a).amin(1).sum(), params["action"])
            optimiser.step(params, {"action": gradient}, moments)
            params["action"].clamp_(-1.0, 1.0)
        return params["action"]
