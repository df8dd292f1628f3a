"""MaxEntDP (Dong et al.: Maximum Entropy Reinforcement Learning with Diffusion Policy, ICML 2025, arXiv 2502.11612),
as its authors' code runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from algos.core.agent import Batch, Metrics, Selection, State
from algos.core.config import at_least, one_of, positive
from algos.core.cosine import CosineAgent, check_time, clean_action, continuous_cosine, levels
from algos.core.diffusion_agent import DiffusionConfig
from algos.core.networks import Params
from algos.core.noise import Draws
from algos.core.optim import input_gradient


@dataclass(frozen=True)
class MaxEntDPConfig(DiffusionConfig):
    """The defaults are those of the authors' config; they set `temperature` per task, from 0.01 to 0.2."""

    unused: ClassVar[tuple[str, ...]] = ("action_noise", "target_noise")

    hidden: tuple[int, ...] = (256, 256)
    T: int = 20
    schedule: str = "continuous_cosine"
    time_features: str = "log_snr"
    network: str = "continuous"
    # "beta": no clip but of the final action; "x0": the posterior's smaller variance
    clip_sampler: str = "x0_beta"
    action_noise: float = 0.0
    target_noise: float = 0.0
    temperature: float = 0.1
    samples: int = 500  # K, clean actions per noisy one
    score: str = "noise"  # the actor's regression target; "gradient" (iDEM), "q-gradient" (QSM)
    backup_entropy: bool = True  # the TD target carries -temperature log pi(a'|s')
    log_prob_steps: int = 20
    log_prob_samples: int = 50  # per step
    # Predictions are recomputed from the clipped clean action; False: as they come
    log_prob_clip: bool = True
    eval_candidates: int = 10  # in evaluation, the best by Q is taken

    def __post_init__(self) -> None:
        super().__post_init__()
        check_time(self)
        positive(self, "temperature")
        at_least(self, 1, "samples", "log_prob_steps", "log_prob_samples", "eval_candidates")
        one_of(self, "score", ("noise", "gradient", "q-gradient"))


class MaxEntDP(CosineAgent):
    """Regresses the noise on that of clean actions weighted by exp(Q / temperature); soft TD targets.

    An update, line by line:
        a' ~ chain(s'), y = r + gamma mask (min Q' - temperature log pi(a'|s'))      (`target_action`, `log_prob`)
        critics to y, their targets by Polyak                                        (`critic_step`)
        x = alpha_t a + sigma_t z, a from replay;  a_k = (x + sigma_t n_k)/alpha_t,  n_k ~ N(0, I) with a_k in the box
        w = softmax_k(min Q'(s, a_k)/temperature)                                    (`actor_step`)
        actor: mean ||eps(s, x, t) + sum_k w_k n_k||^2
    """

    name = "maxentdp"
    title = "MaxEntDP"
    Config = MaxEntDPConfig
    small: ClassVar[Mapping[str, Any]] = {
        "samples": 5,
        "log_prob_steps": 2,
        "log_prob_samples": 3,
        "eval_candidates": 3,
    }
    config: MaxEntDPConfig

    def __init__(self, config: MaxEntDPConfig, obs_dim: int, act_dim: int, seeds: Any, **how: Any):
        super().__init__(config, obs_dim, act_dim, seeds, **how)
        self.log_prob_levels = continuous_cosine(config.log_prob_steps)
        self.log_prob_times = torch.tensor(self.log_prob_levels.times, dtype=self.dtype, device=self.device)

    def chain(
        self, actor: Params, obs: Tensor, draws: Draws, noise: bool = True, candidates: int = 1
    ) -> Tensor:
        return super().chain(actor, obs, draws, noise, candidates).clamp(-1.0, 1.0)

    def selection(self, mode: str) -> Selection:
        return Selection(1 if mode == "behaviour" else self.config.eval_candidates, critic="target")

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        action = self.chain(state["actor"], next_obs, draws.scope("target"))
        if not self.config.backup_entropy:
            return action, 0.0
        return action, -self.config.temperature * self.log_prob(state["actor"], next_obs, action, draws)

    def log_prob(self, actor: Params, obs: Tensor, action: Tensor, draws: Draws) -> Tensor:
        """log pi(a|s) (S, B) from the error of the noise prediction at every noise level (Kong et al. 2023).

        sum_i (abar_i - abar_{i+1})/(2 abar_{i+1} (1 - abar_{i+1})) (A abar_{i+1} - E||eps - n||^2) - A/2 ln(2 pi e).
        """
        c, (_, B, A) = self.config, action.shape
        N, T, schedule = c.log_prob_samples, c.log_prob_steps, self.log_prob_levels
        noise = draws.normal("log_prob.noise", B, N, T, A)
        condition = self.network.condition(actor, obs).repeat_interleave(N, 1)  # (S, B N, H)
        times, action = self.network.time_share(actor, self.log_prob_times), action.repeat_interleave(N, 1)
        total = torch.full_like(obs[..., 0], -0.5 * A * math.log(2 * math.pi * math.e))
        for t, abar in enumerate(schedule.alpha_bar):
            signal, sigma = abar**0.5, (1 - abar) ** 0.5
            n = noise[:, :, :, t].flatten(1, 2)
            x = signal * action + sigma * n
            eps = self.network(actor, condition + times[:, t : t + 1], x)
            if c.log_prob_clip and c.clip_sampler != "beta":
                eps = (x - signal * clean_action(schedule, t, x, eps)) / sigma
            error = (eps - n).square().sum(-1).unflatten(1, (B, N)).mean(-1)  # (S, B)
            previous = schedule.alpha_bar[t - 1] if t > 0 else schedule.start
            total = total + (previous - abar) / (2 * abar * (1 - abar)) * (A * abar - error)
        return total

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        c, obs = self.config, batch.obs
        noisy, t, _ = self.noised(batch, draws)
        signal, sigma = (level.unsqueeze(-1) for level in levels(t))  # (S, B, 1)
        if c.score == "q-gradient":
            q = lambda a: self.q(state, obs, a, target=True).amin(1).sum()  # noqa: E731
            target = -sigma / c.temperature * input_gradient(q, noisy)
        else:
            target = self.weighted_score(state, obs, noisy, signal, sigma, draws)

        def loss(actor: Params) -> tuple[Tensor, Metrics]:
            eps = self.predicted_noise(actor, obs, noisy, t)
            per_seed = (eps - target).square().mean((1, 2))
            return per_seed.sum(), {"actor_loss": per_seed}

        return self.minimise(state, "actor", loss)

    def weighted_score(
        self, state: State, obs: Tensor, noisy: Tensor, signal: Tensor, sigma: Tensor, draws: Draws
    ) -> Tensor:
        """The noise that the actor is to predict, (S, B, A), from K clean actions around every noisy one."""
        c, (_, B, A) = self.config, noisy.shape
        u = draws.uniform64("clean", B, c.samples, A)
        x, signal, sigma = (part.unsqueeze(2) for part in (noisy, signal, sigma))  # (S, B, 1, A or 1)
        n = truncated_normal(u, (-signal - x) / sigma, (signal - x) / sigma)  # (S, B, K, A)
        clean, repeated = ((x + sigma * n) / signal).flatten(1, 2), obs.repeat_interleave(c.samples, 1)
        min_q = lambda a: self.q(state, repeated, a, target=True).amin(1)  # noqa: E731
        w = (min_q(clean) / c.temperature).unflatten(1, (B, c.samples)).softmax(-1).unsqueeze(-1)
        if c.score == "noise":
            return -(w * n).sum(2)
        gradient = input_gradient(lambda a: min_q(a).sum(), clean).unflatten(1, (B, c.samples))
        return -(sigma / signal).squeeze(2) / c.temperature * (w * gradient).sum(2)


def truncated_normal(u: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The quantile u in [0, 1), float64, of N(0, 1) restricted to [low, high]."""
    a, b = (torch.special.erf(x.double() / math.sqrt(2)) for x in (low, high))
    n = math.sqrt(2) * torch.special.erfinv(a + u * (b - a))
    return n.to(low.dtype).clamp(low, high)
