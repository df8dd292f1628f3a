"""Diffusion-QL (Wang, Hunt, Zhou: Diffusion Policies as an Expressive Policy Class for Offline RL, ICLR 2023) as
published (the authors' `Diffusion_QL`): behaviour cloning plus eta times a normalised Q. As the QSM authors ran it
online: `dql`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from algos.core.agent import Batch, Metrics, Selection, State
from algos.core.config import at_least, between
from algos.core.diffusion_agent import DiffusionAgent, DiffusionConfig
from algos.core.networks import Generators, Params
from algos.core.noise import Draws
from algos.core.optim import polyak


@dataclass(frozen=True)
class DQLBCConfig(DiffusionConfig):
    """The defaults are the Diffusion-QL authors' (their repository's `ql_diffusion.py` and `main.py`)."""

    hidden: tuple[int, ...] = (256, 256, 256)
    critic_activation: str = "mish"
    init: str = "torch"
    actor_lr_decay: int = 0
    grad_norm: float = 1.0
    clip_sampler: str = "x0"
    time_features: str = "sinusoidal"
    time_dim: int = 16
    action_noise: float = 0.0
    target_noise: float = 0.0
    eta: float = 1.0  # weight of the Q term
    ema_decay: float = 0.995  # of the actor that the TD target samples from
    ema_every: int = 5  # updates
    ema_start: int = 1000  # updates
    act_candidates: int = 50  # drawn for every action; one is chosen from the softmax of Q

    # which the loss exchanges
    by_critic: ClassVar[Mapping[str, Mapping[str, Any]]] = {"simba": {"critics": 2}}

    def __post_init__(self) -> None:
        super().__post_init__()
        between(self, 0, 1, "ema_decay")
        at_least(self, 1, "ema_every", "act_candidates")
        at_least(self, 2, "critics")


class DQLBC(DiffusionAgent):
    """Minimises mean ||eps(s, a_t, t) - eps||^2 + eta L_q (paper, eq. 3 and section 4).

    An update, in order:
        a' = chain(s') of the averaged actor                   DiffusionAgent.target_action
        y = r + gamma mask min(Q1', Q2')(s', a')               Agent.td_target
        Q1, Q2: sum_k mean (Q_k(s, a) - y)^2, an Adam step     Agent.critic_loss, MLPCritic.step
        Q' <- (1 - tau) Q' + tau Q                             Critic.move_targets
        a_t = sqrt(abar_t) a + sqrt(1 - abar_t) z, t random    DiffusionAgent.noised
        eps: mean (eps(s, a_t, t) - z)^2 + eta L_q, Adam       actor_step
        averaged actor, in phase 1 only                        actor_step, optim.polyak

    L_q = -mean Q1(s, a) / mean |Q2(s, a)| or the same with Q1 and Q2 exchanged, by a fair coin per update and
    seed; a from the whole chain, the denominator without gradient, online critics.
    """

    name = "dql-bc"
    title = "DQL-BC"
    Config = DQLBCConfig
    config: DQLBCConfig
    target_part = "ema_actor"

    def initial_state(self, generators: Generators) -> State:
        state = super().initial_state(generators)
        return state | {"ema_actor": {name: p.clone() for name, p in state["actor"].items()}}

    def selection(self, mode: str) -> Selection:
        return Selection(self.config.act_candidates, "softmax")

    def phase(self, count: int) -> int:
        """1 where the update ends with a step of the averaged actor, 0 elsewhere."""
        return int(count >= self.config.ema_start and count % self.config.ema_every == 0)

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        noisy, steps, noise = self.noised(batch, draws)

        def loss(actor: Params) -> tuple[Tensor, Metrics]:
            eps = self.predicted_noise(actor, batch.obs, noisy, steps)
            bc_loss = (eps - noise).square().mean((1, 2))
            action = self.chain(actor, batch.obs, draws.scope("actor"))
            q1, q2 = self.q(state, batch.obs, action, first=2).unbind(1)  # (S, B) each
            q_loss = torch.where(
                draws.uniform("actor.coin") > 0.5,
                -q1.mean(1) / q2.detach().abs().mean(1),
                -q2.mean(1) / q1.detach().abs().mean(1),
            )
            per_seed = bc_loss + self.config.eta * q_loss
            return per_seed.sum(), {"actor_loss": per_seed, "bc_loss": bc_loss, "q_loss": q_loss}

        metrics = self.minimise(state, "actor", loss)
        if phase == 1:
            polyak(state["ema_actor"], state["actor"], 1 - self.config.ema_decay)
        return metrics
