"""SDAC, soft diffusion actor-critic (Ma, Chen, Wang, Li, Dai: Efficient Online Reinforcement Learning for Diffusion
Policies, ICML 2025), as the authors' repository runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from algos.core.agent import Batch, Metrics, State
from algos.core.config import at_least, one_of, positive
from algos.core.noise import Draws
from algos.core.particle_agent import ParticleAgent, ParticleConfig


@dataclass(frozen=True)
class SDACConfig(ParticleConfig):
    """The defaults are the authors'; their hard-coded values are fields, whose comments give the paper's form."""

    samples: int = 64  # x_0 drawn around each x_t
    q_scale: float = 5.0  # times Q/alpha in the weights; the paper: 1
    weigh_with: str = "before"  # with the critics before or "after" their step
    weighted: str = "mean"  # of w ||...||^2 over the samples; the paper: "sum", as the weights sum to 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "samples")
        positive(self, "q_scale")
        one_of(self, "weigh_with", ("before", "after"))
        one_of(self, "weighted", ("mean", "sum"))


class SDAC(ParticleAgent):
    """Denoises towards samples of the policy's neighbourhood, weighted by softmax of Q (reverse sampling).

    One update:
        a' = argmax over P chains at s' of min Q + noise_scale alpha N          target_action
        y  = reward_scale r + gamma mask min Q'(s', a')                         td_target
        a  = the same at s; x_t = sqrt(abar_t) a + sqrt(1 - abar_t) n           noised
        z_k ~ N(0, I), x0_k = clip((x_t - sqrt(1 - abar_t) z_k)/sqrt(abar_t))   k = 1 ... K
        w  = softmax_k(q_scale min Q(s, x0_k)/alpha)                            critics before their step
        Q1, Q2: one step on (Q(s, a) - y)^2                                     critic_step
        pi: one step on mean w_k ||eps(s, x_t, t) - z_k||^2                     denoise
        Q', pi': Polyak; alpha: one step                                        with their delays
    """

    name = "sdac"
    title = "SDAC"
    Config = SDACConfig
    config: SDACConfig
    small: ClassVar[Mapping[str, Any]] = {**ParticleAgent.small, "samples": 4}

    def learn(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        moves, before = phase & 1, self.config.weigh_with == "before"
        around = self.around(state, batch, draws) if moves and before else None
        metrics = self.critic_step(state, batch, draws, phase)
        if moves:
            around = around or self.around(state, batch, draws)
            metrics |= self.denoise(state, batch.obs, *around)
            self.move_target_actor(state)
        return metrics | self.temperature_step(state, phase)

    def around(self, state: State, batch: Batch, draws: Draws) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x_t (S, B, A), its noise level (S, B, T), z (S, B, K, A) and w (S, B, K)."""
        c = self.config
        action = self.noisy_best(state, batch.obs, draws.scope("actor"))
        noisy, steps, _ = self.noised(batch._replace(action=action), draws)
        z = draws.normal("actor.z", batch.obs.shape[1], c.samples, self.act_dim)
        x0 = self.clean(noisy.unsqueeze(2), steps, z)  # (S, B, K, A)
        q = self.q(state, batch.obs.repeat_interleave(c.samples, 1), x0.flatten(1, 2)).amin(1)
        alpha = state["temperature"]["log"].exp()
        weight = (c.q_scale / alpha * q).unflatten(1, (-1, c.samples)).softmax(-1)
        return noisy, steps, z, weight * c.samples if c.weighted == "sum" else weight

    def clean(self, noisy: Tensor, steps: Tensor, z: Tensor) -> Tensor:
        """x_0 = clip((x_t - sqrt(1 - abar_t) z)/sqrt(abar_t), -1, 1) for many z (S, B, K, A) of each x_t."""
        signal, sigma = (steps @ x.sqrt() for x in (self.alpha_bar, 1 - self.alpha_bar))  # (S, B)
        return ((noisy - sigma[..., None, None] * z) / signal[..., None, None]).clamp(-1.0, 1.0)
