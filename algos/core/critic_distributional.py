"""Distributional critics on CrossQ's networks, as in DIME (Celik et al.: DIME: Diffusion-Based Maximum Entropy
Reinforcement Learning, ICML 2025)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from algos.core.critic_crossq import CrossQCritic
from algos.core.critics import Metrics

TINY = 1e-15  # inside the logarithms


class DistributionalCritic(CrossQCritic):
    """Each critic is a distribution over `atoms` returns z_1 ... z_n, evenly spaced in [low, high]; Q = sum p z.

    Its loss is the cross-entropy to the mean of both critics' projected targets (Bellemare et al. 2017), minus
    `distributional_entropy` times the entropy of its own distribution.
    """

    def __init__(self, config: Any, obs_dim: int, act_dim: int):
        super().__init__(config, obs_dim, act_dim)
        self.outputs = config.distributional_atoms
        self.low, self.high = config.distributional_low, config.distributional_high

    def atoms(self, like: Tensor) -> Tensor:
        return torch.linspace(self.low, self.high, self.outputs, dtype=like.dtype, device=like.device)

    def value(self, output: Tensor) -> Tensor:
        return output.softmax(-1) @ self.atoms(output)

    def project(self, probs: Tensor, z: Tensor) -> Tensor:
        """Probabilities (S, K, B, n) of returns z (S, B, n), clipped to [low, high], shared between the two atoms next
        to each -> (S, K, B, n)."""
        spacing = (self.high - self.low) / (self.outputs - 1)
        distance = z.clamp(self.low, self.high).unsqueeze(-1) - self.atoms(z)  # (S, B, from, to)
        share = (1 - distance.abs() / spacing).clamp(min=0)
        return torch.einsum("skbi,sbij->skbj", probs, share)

    def loss(
        self, agent: Any, now: Tensor, following: Tensor, batch: Any, bonus: Tensor | float
    ) -> tuple[Tensor, Metrics]:
        """z' = r + gamma mask (z + bonus) for every atom z."""
        atoms = self.atoms(now)
        following_z = atoms + (bonus.unsqueeze(-1) if isinstance(bonus, Tensor) else bonus)
        z = batch.reward.unsqueeze(-1) + agent.config.discount * batch.mask.unsqueeze(-1) * following_z
        target = self.project(following.softmax(-1), z).mean(1, keepdim=True)  # (S, 1, B, n)
        probs = now.softmax(-1)
        log_probs = (probs + TINY).log()
        cross_entropy = -(target * log_probs).sum(-1).mean(-1)  # (S, K)
        entropy = -(probs * log_probs).sum(-1).mean(-1)
        per_seed = (cross_entropy - self.config.distributional_entropy * entropy).sum(1)
        metrics = {
            "q": (probs @ atoms).mean((1, 2)),
            "target_q": (target @ atoms).mean((1, 2)),
            "q_entropy": entropy.mean(1),
        }
        return per_seed, metrics
