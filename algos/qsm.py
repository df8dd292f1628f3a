"""Q-score matching (Psenka, Escontrela, Abbeel, Ma: Learning a Diffusion Model Policy from Rewards via Q-Score
Matching, ICML 2024), as the authors' `ScoreMatchingLearner` runs it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from algos.core.agent import Batch, Metrics, State
from algos.core.config import positive
from algos.core.diffusion_agent import DiffusionAgent, DiffusionConfig
from algos.core.networks import Params
from algos.core.noise import Draws
from algos.core.optim import input_gradient


@dataclass(frozen=True)
class QSMConfig(DiffusionConfig):
    """The defaults are the authors' (M_q = 120 for the quadruped and humanoid tasks)."""

    M_q: float = 50.0  # weight of grad_a Q; one knob with the scale of the reward
    score_scale: bool = (
        False  # multiply the target by sqrt(1 - abar_t), so that the temperature is the same at every t
    )
    normalise_gradient: bool = False  # divide grad_a Q by its mean absolute value over the batch

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "M_q")


class QSM(DiffusionAgent):
    """Minimises mean ||eps(s, a_t, t) + M_q grad_a Q(s, a_t)||^2, Q = (Q1 + Q2)/2, no gradient through Q.

    An update, in order:
        a' = clip(chain(s') + target_noise z, -1, 1)           DiffusionAgent.target_action
        y = r + gamma mask min(Q1', Q2')(s', a')               Agent.td_target
        Q1, Q2: sum_k mean (Q_k(s, a) - y)^2, an Adam step     Agent.critic_loss, MLPCritic.step
        Q' <- (1 - tau) Q' + tau Q                             Critic.move_targets
        a_t = sqrt(abar_t) a + sqrt(1 - abar_t) z, t random    DiffusionAgent.noised
        g = grad_a (Q1 + Q2)/2 (s, a_t)                        actor_step, optim.input_gradient
        eps: mean (eps(s, a_t, t) + M_q g)^2, an Adam step     actor_step, Agent.minimise

    The score of the policy is -eps/sqrt(1 - abar_t), so this turns it towards the action gradient of Q (paper,
    section 4; the loss as in the authors' `ScoreMatchingLearner`). a_t is the replay action noised to a random t, and
    Q is taken there, unclipped; the critics have already made their step.
    """

    name = "qsm"
    title = "QSM"
    Config = QSMConfig
    config: QSMConfig

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        c = self.config
        noisy, steps, _ = self.noised(batch, draws)
        gradient = input_gradient(lambda a: self.q(state, batch.obs, a).mean(1).sum(), noisy)
        if c.normalise_gradient:
            gradient = gradient / (gradient.abs().mean((1, 2), keepdim=True) + 1e-6)
        target = -c.M_q * gradient
        if c.score_scale:
            target = target * (steps @ (1 - self.alpha_bar).sqrt()).unsqueeze(-1)

        def loss(actor: Params) -> tuple[Tensor, Metrics]:
            eps = self.predicted_noise(actor, batch.obs, noisy, steps)
            per_seed = (eps - target).square().mean((1, 2))
            return per_seed.sum(), {"actor_loss": per_seed}

        return self.minimise(state, "actor", loss) | {"q_gradient": gradient.abs().mean((1, 2))}
