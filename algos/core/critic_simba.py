"""The critics of SimBa (Lee et al.: SimBa: Simplicity Bias for Scaling Up Parameters in Deep RL, ICLR 2025)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from algos.core.critics import MLPCritic, State, rows_per_critic
from algos.core.networks import Generators, Params
from algos.core.optim import Adam, clip_by_norm
from algos.core.residual import (
    check_widths,
    init_residual,
    normalise,
    observation_statistics,
    observe,
    residual,
)


class SimBaCritic(MLPCritic):
    """Residual critics with layer normalisation, trained by AdamW, on observations normalised by running statistics.

    All networks of the agent see normalised observations. The statistics move with every observation of training, and
    with nothing else; replay holds raw observations, normalised by the statistics of the moment.
    """

    AUTHORS_HIDDEN = (512, 512)  # one entry per residual block
    unused = ("critic_activation",)

    @classmethod
    def check(cls, config: Any) -> None:
        check_widths("critic_hidden", config.critic_hidden)

    def initial_state(self, generators: Generators) -> State:
        hidden = self.config.critic_hidden or self.AUTHORS_HIDDEN
        sizes = (self.obs_dim + self.act_dim, hidden[0], len(hidden))
        critic = init_residual(generators, *sizes, heads=(1,), lead=(self.config.critics,))
        state = {"critic": critic, "target_critic": {name: p.clone() for name, p in critic.items()}}
        if self.config.simba_normalise:
            state["obs_stats"] = observation_statistics(len(generators), self.obs_dim)
        return state

    def optimiser(self) -> Adam:
        c = self.config
        return Adam(c.critic_lr, weight_decay=c.simba_weight_decay, clip=clip_by_norm(c.grad_norm))

    def forward(self, params: Params, obs: Tensor, action: Tensor) -> Tensor:
        """(S, K, B)."""
        S, K = params["w_in"].shape[:2]
        return residual(params, rows_per_critic(obs, action, K)).view(S, K, -1)

    def observe(self, state: State, obs: Tensor) -> None:
        if self.config.simba_normalise:
            observe(state["obs_stats"], obs)

    def normalised(self, state: State, obs: Tensor) -> Tensor:
        return normalise(state["obs_stats"], obs) if self.config.simba_normalise else obs
