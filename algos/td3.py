"""TD3 (Fujimoto, van Hoof, Meger: Addressing Function Approximation Error in Actor-Critic Methods, ICML 2018), as the
QSM authors ran it (their `TD3Learner`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from algos.core.agent import Agent, Batch, Metrics, State
from algos.core.config import Config, at_least, not_negative, one_of
from algos.core.networks import Generators, Params, init_mlp, mlp
from algos.core.noise import Draws
from algos.core.optim import polyak


@dataclass(frozen=True)
class TD3Config(Config):
    """The defaults are the QSM authors'; each departure from the paper is a field, commented with its value."""

    critic_loss: str = "mean"
    action_noise: float = 0.1  # standard deviation, when exploring
    target_noise: float = 0.2  # standard deviation, on the TD target's action
    target_noise_clip: float = 0.5
    clip_target_action: bool = False  # to [-1, 1] after the noise; the paper's code: True
    actor_delay: int = 2  # critic updates per actor update
    delay_targets: bool = False  # move the target critics only when the actor moves; the paper: True
    actor_q: str = "mean"  # of the two critics, in the actor's loss; the paper: "first"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "actor_q", ("mean", "first"))
        at_least(self, 1, "actor_delay")
        not_negative(self, "action_noise", "target_noise", "target_noise_clip")


class TD3(Agent):
    """A deterministic policy; smoothed target action, delayed actor, twin critics.

    An update, in order:
        a' = mu'(s') + clip(target_noise z, -c, c)             target_action
        y = r + gamma mask min(Q1', Q2')(s', a')               Agent.td_target
        Q1, Q2: mean (Q_k(s, a) - y)^2, an Adam step           Agent.critic_loss, MLPCritic.step
        Q' <- (1 - tau) Q' + tau Q                             Critic.move_targets
        in phase 1: mu: -mean Q(s, mu(s)), an Adam step        actor_step
        in phase 1: mu' <- (1 - tau) mu' + tau mu              actor_step, optim.polyak
    """

    name = "td3"
    title = "TD3"
    Config = TD3Config
    config: TD3Config
    evaluation_mode = "greedy"

    def initial_state(self, generators: Generators) -> State:
        actor = init_mlp(generators, (self.obs_dim, *self.config.hidden, self.act_dim), self.config.init)
        return super().initial_state(generators) | {
            "actor": actor,
            "target_actor": {name: p.clone() for name, p in actor.items()},
        }

    def exploration_noise(self, state: State) -> Tensor | float:
        return self.config.action_noise

    def phase(self, count: int) -> int:
        """1 where the actor moves: every `actor_delay`-th update, the first at update number `actor_delay`."""
        return int((count + 1) % self.config.actor_delay == 0)

    def targets_move(self, phase: int) -> bool:
        return phase == 1 or not self.config.delay_targets

    def policy(self, state: State, obs: Tensor, draws: Draws, mode: str) -> Tensor:
        return torch.tanh(mlp(state["actor"], obs, "relu"))

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        c = self.config
        z = draws.normal("target.noise", next_obs.shape[1], self.act_dim)
        noise = (c.target_noise * z).clamp(-c.target_noise_clip, c.target_noise_clip)
        action = torch.tanh(mlp(state["target_actor"], next_obs, "relu")) + noise
        return (action.clamp(-1.0, 1.0) if c.clip_target_action else action), 0.0

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        if phase == 0:
            return {}
        c = self.config
        first = 1 if c.actor_q == "first" else None

        def loss(actor: Params) -> tuple[Tensor, Metrics]:
            action = torch.tanh(mlp(actor, batch.obs, "relu"))
            q = self.q(state, batch.obs, action, first=first)  # (S, 2 or 1, B)
            per_seed = -q.mean((1, 2))
            return per_seed.sum(), {"actor_loss": per_seed}

        metrics = self.minimise(state, "actor", loss)
        polyak(state["target_actor"], state["actor"], c.tau)
        return metrics
