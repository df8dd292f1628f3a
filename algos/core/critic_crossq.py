"""The critics of CrossQ (Bhatt et al., ICLR 2024): batch renormalisation and no target networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from algos.core.batch_renorm import BatchRenorm, init_renorm_mlp, renorm_mlp
from algos.core.critics import Critic, Metrics, State, rows_per_critic
from algos.core.networks import Generators, Params
from algos.core.optim import Adam, clip_by_norm


def batch_renorm(config: Any) -> BatchRenorm:
    c = config
    return BatchRenorm(c.crossq_momentum, c.crossq_warm_up, c.crossq_r_max, c.crossq_d_max, c.crossq_eps)


class CrossQCritic(Critic):
    """Q(s, a) and Q(s', a') from one pass, so that both are normalised by the statistics of all 2B rows.

    The critics of before the step give the targets; the gradient flows through the statistics, to which the rows
    (s', a') contribute. Everywhere else (actor's loss, choice among candidates) the running statistics normalise.
    """

    AUTHORS_HIDDEN = (2048, 2048)
    unused = ("tau",)
    outputs = 1  # of the last layer

    def __init__(self, config: Any, obs_dim: int, act_dim: int):
        super().__init__(config, obs_dim, act_dim)
        self.norm = batch_renorm(config)

    def initial_state(self, generators: Generators) -> State:
        hidden = self.config.critic_hidden or self.AUTHORS_HIDDEN
        sizes = (self.obs_dim + self.act_dim, *hidden, self.outputs)
        params, stats = init_renorm_mlp(generators, sizes, (self.config.critics,))
        return {"critic": params, "critic_stats": stats}

    def optimiser(self) -> Adam:
        c = self.config
        return Adam(c.critic_lr, betas=(c.crossq_beta1, 0.999), clip=clip_by_norm(c.grad_norm))

    def forward(
        self, params: Params, stats: Params, obs: Tensor, action: Tensor, training: bool = False
    ) -> tuple[Tensor, Params]:
        """The last layer's output (S, K, B, outputs) and, in training, the running statistics after the pass."""
        S, K = params["w0"].shape[:2]
        x = rows_per_critic(obs, action, K)
        out, after = renorm_mlp(self.norm, params, stats, x, self.config.critic_activation, training)
        return out.unflatten(0, (S, K)), after

    def value(self, output: Tensor) -> Tensor:
        """(S, K, B, outputs) -> Q (S, K, B)."""
        return output.squeeze(-1)

    def q(
        self, state: State, obs: Tensor, action: Tensor, target: bool = False, first: int | None = None
    ) -> Tensor:
        """(S, K, B), normalised by the running statistics. There are no target critics: `target` changes nothing."""
        params, stats = (
            {n: p[:, :first] for n, p in state[part].items()} for part in ("critic", "critic_stats")
        )
        return self.value(self.forward(params, stats, obs, action)[0])

    def step(
        self, agent: Any, state: State, batch: Any, draws: Any, next_action: Tensor, bonus: Tensor | float
    ) -> Metrics:
        """One step of all critics on the joint pass; then the running statistics."""
        obs = torch.cat([batch.obs, batch.next_obs], 1)
        action = torch.cat([batch.action, next_action], 1)

        def loss(params: Params) -> tuple[Tensor, Metrics]:
            out, stats = self.forward(params, state["critic_stats"], obs, action, training=True)
            now, following = out.chunk(2, 2)  # (S, K, B, outputs) each
            per_seed, metrics = self.loss(agent, now, following.detach(), batch, bonus)
            metrics |= {"critic_loss": per_seed}
            return per_seed.sum(), metrics | {f"critic_stats.{name}": x for name, x in stats.items()}

        metrics = agent.minimise(state, "critic", loss)
        for name, x in state["critic_stats"].items():
            x.copy_(metrics.pop(f"critic_stats.{name}"))
        return metrics

    def loss(
        self, agent: Any, now: Tensor, following: Tensor, batch: Any, bonus: Tensor | float
    ) -> tuple[Tensor, Metrics]:
        """The loss per seed (S,) and metrics, from the outputs at (s, a) and, without gradient, at (s', a')."""
        q = self.value(now)
        y = agent.td_target(batch, self.value(following), bonus)
        return agent.critic_loss(q, y), {"q": q.mean((1, 2)), "target_q": y.mean(1)}
