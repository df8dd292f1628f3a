"""Critics of a package: one that any algorithm can take, and one that belongs to an algorithm."""

from __future__ import annotations

import torch.nn.functional as F

from algos.core.critics import Critic, MLPCritic, q_networks
from algos.core.networks import init_mlp, mlp
from algos.core.optim import Adam


class EluCritic(MLPCritic):
    """The suite's perceptrons with another activation, chosen by critic=elu-critic."""

    def forward(self, params, obs, action):
        return q_networks(params, obs, action, "elu")


class GaussianCritic(Critic):
    """One network for the mean and spread of the return, without a target network, by the likelihood of the TD target.

    The spread of recent targets, a running statistic, scales the loss.
    """

    def initial_state(self, generators):
        sizes = (self.obs_dim + self.act_dim, *self.config.hidden, 2)
        critic = init_mlp(generators, sizes, self.config.init)
        scale = critic["b0"].new_ones(len(generators), 1)
        return {"critic": critic, "critic_stats": {"scale": scale}}

    def optimiser(self):
        return Adam(self.config.critic_lr, betas=(0.5, 0.999), weight_decay=0.01)

    def forward(self, params, obs, action):
        """Mean and standard deviation, (S, B) each."""
        mean, spread = mlp(
            params, F.pad(obs, (0, self.act_dim)) + F.pad(action, (self.obs_dim, 0)), "gelu"
        ).unbind(-1)
        return mean, F.softplus(spread) + 1e-3

    def q(self, state, obs, action, target=False, first=None):
        return self.forward(state["critic"], obs, action)[0].unsqueeze(1)

    def step(self, agent, state, batch, draws, next_action, bonus):
        y = agent.td_target(batch, self.q(state, batch.next_obs, next_action), bonus)
        noisy = y + 0.01 * draws.normal("critic.z", y.shape[1])
        scale = state["critic_stats"]["scale"]

        def loss(critic):
            mean, std = self.forward(critic, batch.obs, batch.action)
            per_seed = ((noisy - mean).square() / (2 * std.square()) + std.log()).mean(1) / scale.squeeze(1)
            return per_seed.sum(), {"critic_loss": per_seed, "std": std.mean(1)}

        metrics = agent.minimise(state, "critic", loss)
        scale.lerp_(1 + y.std(1, keepdim=True), 0.01)
        return metrics
