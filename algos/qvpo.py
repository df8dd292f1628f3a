"""QVPO (Ding et al.: Diffusion-based Reinforcement Learning via Q-weighted Variational Policy Optimization, NeurIPS
2024, arXiv 2405.16173), as the authors' repository runs it with its README's `--weighted --aug`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from algos.core.agent import Batch, Metrics, Selection, State
from algos.core.config import at_least, between, not_negative, one_of, require
from algos.core.networks import Generators, Params
from algos.core.noise import Draws
from algos.core.second_batch_agent import SecondBatchAgent, SecondBatchConfig
from algos.core.weighted_agent import track

#: Weight of an action of value q (S, B, c), in a state where the mean over its n actions is v (S, B, 1).
WEIGHTS: dict[str, Callable[[QVPOConfig, Tensor, Tensor, Params], Tensor]] = {
    "qadv": lambda c, q, v, running: (q - v).clamp(min=0.0),
    "qrelu": lambda c, q, v, running: q.clamp(min=-c.q_neg) + c.q_neg,
    "qcut": lambda c, q, v, running: q.clamp(min=c.cut),
    "qcut0n": lambda c, q, v, running: (c.beta * (q - running["mean"].unsqueeze(-1))).clamp(min=0.0),
    "qcut1n": lambda c, q, v, running: (c.beta * (q - running["mean"].unsqueeze(-1))).clamp(min=1.0),
    "qexpn": lambda c, q, v, running: (c.beta * normalised(q, running).clamp(-8.0, 8.0)).exp(),
}


def normalised(q: Tensor, running: Params) -> Tensor:
    """(Q - mean)/std with the running statistics."""
    return (q - running["mean"].unsqueeze(-1)) / running["std"].unsqueeze(-1)


@dataclass(frozen=True)
class QVPOConfig(SecondBatchConfig):
    """The defaults are the authors' (`main.py`)."""

    actor_lr: float = 1e-4
    T: int = 20
    train_samples: int = 64  # of the policy for each state, of which
    chosen: int = 1  # are trained on: those of highest Q
    behaviour_samples: int = 4
    target_samples: int = 4
    evaluation_samples: int = 32
    weights: str = "qadv"
    beta: float = 1.0  # in qexpn, qcut0n, qcut1n
    q_neg: float = 0.0  # in qrelu
    cut: float = 1.0  # in qcut
    mean_rate: float = 0.001  # of the running mean of Q, in qexpn, qcut0n and qcut1n
    std_rate: float = 0.001  # of the running standard deviation of Q, in qexpn
    # Of uniform actions relative to the chosen ones; falls with the run, down to
    entropy_weight: float = 0.02
    entropy_floor: float = 0.002
    entropy_rows: int = 10  # uniform actions for each chosen one
    epsilon: float = 0.0  # how often a behaviour action is the first sample rather than the best
    actor_every: int = 1  # updates

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(
            self, 1, "train_samples", "chosen", "behaviour_samples", "target_samples", "evaluation_samples"
        )
        at_least(self, 1, "entropy_rows", "actor_every")
        require(self.chosen <= self.train_samples, "chosen", self.chosen, "at most train_samples")
        one_of(self, "weights", WEIGHTS)
        not_negative(self, "beta", "q_neg", "entropy_weight", "entropy_floor")
        between(self, 0, 1, "mean_rate", "std_rate", "epsilon")


class QVPO(SecondBatchAgent):
    """Denoises towards the best of its own samples, weighted by their advantage, and a little towards everything.

    One update:
        a' = best of target_samples chains of the target actor at s', by min Q'     target_action
        y  = r + gamma mask min Q'(s', a')
        Q1, Q2: one step on (Q(s, a) - y)^2; Q': Polyak                             critic_step
        a_j ~ pi(s) of a second batch; the `chosen` best by min Q; w = WEIGHTS      best_samples
        u ~ U(-1, 1), entropy_rows for each of them, with weight entropy_weight w   actor_step
        pi: one step on mean w ||eps(s, a_t, t) - n||^2 over all these rows         denoise
        pi': Polyak
    """

    name = "qvpo"
    title = "QVPO"
    Config = QVPOConfig
    config: QVPOConfig
    small: ClassVar[Mapping[str, Any]] = {
        **SecondBatchAgent.small,
        "train_samples": 4,
        "evaluation_samples": 3,
    }

    def initial_state(self, generators: Generators) -> State:
        zero = torch.zeros(len(self.seeds), 1, dtype=torch.float64)
        return super().initial_state(generators) | {"running": {"mean": zero, "std": zero + 1}}

    def selection(self, mode: str) -> Selection:
        c = self.config
        return Selection(
            c.behaviour_samples if mode == "behaviour" else c.evaluation_samples, "argmax", "online"
        )

    def candidates(self, state: State, obs: Tensor, k: int, draws: Draws, mode: str) -> Tensor:
        """With probability epsilon, a behaviour action is chosen among k copies of the first sample."""
        actions = super().candidates(state, obs, k, draws, mode)
        if mode != "behaviour" or self.config.epsilon == 0:
            return actions
        actions = actions.unflatten(1, (-1, k))
        plain = draws.uniform("coin", obs.shape[1]) <= self.config.epsilon
        return torch.where(plain[..., None, None], actions[:, :, :1], actions).flatten(1, 2)

    def phase(self, count: int) -> int:
        """1: the actor moves; 2: the target actor moves; 3: both."""
        c = self.config
        return int(count % c.actor_every == 0) + 2 * int(count % c.target_actor_every == 0)

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        k = self.config.target_samples
        actions = self.chain(state["target_actor"], next_obs, draws.scope("target"), candidates=k)
        return self.choose(state, next_obs, actions, k, critic="target"), 0.0

    def learn(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        first, second = batch.split(self.config.batch_size)
        metrics = self.critic_step(state, first, draws, phase)
        if phase & 1:
            metrics |= self.actor_step(state, second, draws, phase)
        if phase & 2:
            self.move_target_actor(state)
        return metrics

    def best_samples(self, state: State, obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """The chosen actions (S, B c, A) and their weights (S, B c)."""
        c = self.config
        n = c.train_samples
        actions = self.chain(state["actor"], obs, draws, candidates=n)
        q = self.q(state, obs.repeat_interleave(n, 1), actions).amin(1)  # (S, B n)
        track(state["running"], q, c.mean_rate, c.std_rate, unbiased=True)
        q = q.unflatten(1, (-1, n))
        best, index = q.topk(c.chosen, -1)  # (S, B, c)
        weight = WEIGHTS[c.weights](c, best, q.mean(-1, keepdim=True), state["running"])
        action = actions.unflatten(1, (-1, n)).take_along_dim(index.unsqueeze(-1), 2)
        return action.flatten(1, 2), weight.flatten(1)

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        c = self.config
        action, weight = self.best_samples(state, batch.obs, draws.scope("actor"))
        obs = batch.obs.repeat_interleave(c.chosen, 1)
        if c.entropy_weight > 0:
            uniform = 2 * draws.uniform("actor.u", c.entropy_rows * obs.shape[1], self.act_dim) - 1
            action = torch.cat([action, uniform], 1)
            obs = obs.repeat(1, 1 + c.entropy_rows, 1)
            weight = torch.cat([weight, self.entropy_weight() * weight.repeat(1, c.entropy_rows)], 1)
        noisy, steps, noise = self.noised(batch._replace(action=action), draws)
        return self.denoise(state, obs, noisy, steps, noise, weight)

    def entropy_weight(self) -> Tensor | float:
        """Falls linearly with the run from entropy_weight to entropy_floor; constant where its length is unknown."""
        c = self.config
        if self.total_updates is None:
            return c.entropy_weight
        return (c.entropy_weight * (1 - self.progress())).clamp(min=min(c.entropy_floor, c.entropy_weight))
