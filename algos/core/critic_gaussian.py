"""Critics that learn the distribution of returns as a normal one (Duan et al.: DSAC-T, arXiv 2310.05858)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from algos.core.critics import Metrics, MLPCritic, State
from algos.core.networks import Generators, Params, init_mlp, mlp


class GaussianCritic(MLPCritic):
    """Z(s, a) ~ N(mean, std^2) per critic; Q(s, a) is the mean.

    The statistics hold w (S, K), a running mean of each critic's std, in units of which the sampled return is clipped;
    -1 before the first update. `config` has `z_clip`, `td_clip` and `variance_floor` besides the fields of any critic.
    """

    def initial_state(self, generators: Generators) -> State:
        c = self.config
        sizes = (self.obs_dim + self.act_dim, *(c.critic_hidden or c.hidden), 2)
        critic = init_mlp(generators, sizes, c.init, c.critics)
        width = torch.full((len(generators), c.critics), -1.0, dtype=torch.float64)
        target = {name: p.clone() for name, p in critic.items()}
        return {"critic": critic, "target_critic": target, "critic_stats": {"width": width}}

    def heads(self, params: Params, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (S, K, B) each."""
        S, B = obs.shape[:2]
        K = params["w0"].shape[1]
        x = torch.cat([obs, action], -1)
        x = x.unsqueeze(1).expand(S, K, B, x.shape[-1]).flatten(0, 1)  # (S K, B, O + A)
        stacked = {name: p.flatten(0, 1) for name, p in params.items()}
        mean, raw = mlp(stacked, x, self.config.critic_activation).view(S, K, B, 2).unbind(-1)
        return mean, F.softplus(raw)

    def forward(self, params: Params, obs: Tensor, action: Tensor) -> Tensor:
        return self.heads(params, obs, action)[0]

    def step(
        self, agent: Any, state: State, batch: Any, draws: Any, next_action: Tensor, bonus: Tensor | float
    ) -> Metrics:
        """One step of every critic on minus the log-likelihood of a sampled return, in DSAC-T's three refinements.

        mean and std of Z(s', a') by the target critics; z = mean + std clip(n, +-z_clip) of the critic with the
        smaller mean; y = r + gamma mask mean, y_z the same with z. With m, s this critic's own, primes for constants:
        L = -(w^2 + floor) mean[m (y - m')/(s'^2 + floor) + s ((m' - clip(y_z))^2 - s'^2)/(s'^3 + floor)],
        clip(y_z) within m' +- td_clip w. The mean is moved by the expectation, the std by the clipped sample.
        """
        c = self.config
        next_mean, next_std = self.heads(state["target_critic"], batch.next_obs, next_action)
        n = torch.stack([draws.normal(f"z{k}", next_mean.shape[-1]) for k in range(c.critics)], 1)
        z = next_mean + next_std * n.clamp(-c.z_clip, c.z_clip)
        z = z.take_along_dim(next_mean.argmin(1, keepdim=True), 1)  # (S, 1, B)
        y = agent.td_target(batch, next_mean, bonus).unsqueeze(1)
        y_z = agent.td_target(batch, z, bonus).unsqueeze(1)
        before = state["critic_stats"]["width"]

        def loss(critic: Params) -> tuple[Tensor, Metrics]:
            mean, std = self.heads(critic, batch.obs, batch.action)  # (S, K, B)
            m, s = mean.detach(), std.detach()
            width = torch.where(before == -1, s.mean(-1), before.lerp(s.mean(-1), c.tau))  # (S, K)
            w = width.unsqueeze(-1)
            sample = m + torch.clamp(y_z - m, -c.td_clip * w, c.td_clip * w)
            likelihood = mean * (y - m) / (s.square() + c.variance_floor)
            likelihood = likelihood + std * ((m - sample).square() - s.square()) / (s**3 + c.variance_floor)
            each = -(width.square() + c.variance_floor) * likelihood.mean(-1)  # (S, K)
            metrics = {"critic_loss": each.sum(1), "q": m.mean((1, 2)), "q_std": s.mean((1, 2))}
            return each.sum(), metrics | {"target_q": y.mean((1, 2)), "critic_stats.width": width}

        metrics = agent.minimise(state, "critic", loss)
        before.copy_(metrics.pop("critic_stats.width"))
        return metrics
