"""Diffusion-QL as the QSM authors ran it online (their `DiffusionOnlineLearner`): no behaviour cloning, else as QSM.

Wang, Hunt, Zhou: Diffusion Policies as an Expressive Policy Class for Offline RL, ICLR 2023. As published: `dql-bc`.
"""

from __future__ import annotations

from torch import Tensor

from algos.core.agent import Batch, Metrics, State
from algos.core.diffusion_agent import DiffusionAgent, DiffusionConfig
from algos.core.networks import Params
from algos.core.noise import Draws


class DQL(DiffusionAgent):
    """Minimises -mean min(Q'1, Q'2)(s, a), a from the whole reverse chain, differentiated through every step.

    An update, in order:
        a' = clip(chain(s') + target_noise z, -1, 1)           DiffusionAgent.target_action
        y = r + gamma mask min(Q1', Q2')(s', a')               Agent.td_target
        Q1, Q2: sum_k mean (Q_k(s, a) - y)^2, an Adam step     Agent.critic_loss, MLPCritic.step
        Q' <- (1 - tau) Q' + tau Q                             Critic.move_targets
        eps: -mean min(Q1', Q2')(s, chain(s)), an Adam step    actor_step, DiffusionAgent.chain

    The critics are the target critics, already averaged in this update (authors' `DiffusionOnlineLearner`).
    """

    name = "dql"
    title = "DQL"
    Config = DiffusionConfig

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        def loss(actor: Params) -> tuple[Tensor, Metrics]:
            action = self.chain(actor, batch.obs, draws.scope("actor"))
            per_seed = -self.q(state, batch.obs, action, target=True).amin(1).mean(1)
            return per_seed.sum(), {"actor_loss": per_seed}

        return self.minimise(state, "actor", loss)
