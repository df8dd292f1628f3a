"""Q-score matching (Psenka, Escontrela, Abbeel, Ma: Learning a Diffusion Model Policy from Rewards via Q-Score
Matching, ICML 2024), as the authors' `ScoreMatchingLearner` runs it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from algos.core.agent import Batch, Metrics, Selection, State
from algos.core.config import at_least, later, not_negative, one_of, positive
from algos.core.cosine import CosineAgent, check_time
from algos.core.diffusion_agent import DiffusionConfig
from algos.core.networks import Params
from algos.core.noise import Draws
from algos.core.optim import Adam, input_gradient, linear_fall


@dataclass(frozen=True)
class QSMConfig(DiffusionConfig):
    """The defaults are the authors' (M_q = 120 for the quadruped and humanoid tasks)."""

    M_q: float = 50.0  # weight of grad_a Q; one knob with the scale of the reward
    # Multiply the target by sqrt(1 - abar_t), so that the temperature is the same at every t
    score_scale: bool = False
    normalise_gradient: bool = False  # divide grad_a Q by its mean absolute value over the batch
    # Differences of flow-rl's QSM (docs/fidelity.md, "Which QSM").
    gradient_critic: str = later("online")  # "target": the target critics, already averaged in this update
    # updates in which the rate falls linearly to `actor_lr_end`; 0: it does not
    actor_lr_fall: int = later(0)
    actor_lr_hold: int = later(0)  # updates before that
    actor_lr_end: float = later(0.0)
    clip_behaviour: bool = later(True)  # actions to [-1, 1] after the exploration noise
    eval_candidates: int = later(1)  # in evaluation, the best by the online critics is taken

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "M_q")
        one_of(self, "gradient_critic", ("online", "target"))
        not_negative(self, "actor_lr_fall", "actor_lr_hold", "actor_lr_end")
        at_least(self, 1, "eval_candidates")
        check_time(self)


class QSM(CosineAgent):
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

    def optimisers(self) -> dict[str, Adam]:
        c, ours = self.config, super().optimisers()
        if c.actor_lr_fall:
            fall = linear_fall(c.actor_lr_hold, c.actor_lr_fall, c.actor_lr_end / c.actor_lr)
            ours["actor"] = dataclasses.replace(ours["actor"], schedule=fall)
        return ours

    def selection(self, mode: str) -> Selection:
        if self.config.eval_candidates == 1:
            return super().selection(mode)
        return Selection(1 if mode == "behaviour" else self.config.eval_candidates, critic="online")

    def explore(self, state: State, action: Tensor, draws: Draws) -> Tensor:
        if self.config.clip_behaviour:
            return super().explore(state, action, draws)
        return action + self.config.action_noise * draws.normal("exploration", *action.shape[1:])

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        c, target = self.config, self.config.gradient_critic == "target"
        noisy, steps, _ = self.noised(batch, draws)
        gradient = input_gradient(lambda a: self.q(state, batch.obs, a, target).mean(1).sum(), noisy)
        if c.normalise_gradient:
            gradient = gradient / (gradient.abs().mean((1, 2), keepdim=True) + 1e-6)
        score = -c.M_q * gradient
        if c.score_scale:
            score = score * self.sigma(steps).unsqueeze(-1)

        def loss(actor: Params) -> tuple[Tensor, Metrics]:
            eps = self.predicted_noise(actor, batch.obs, noisy, steps)
            per_seed = (eps - score).square().mean((1, 2))
            return per_seed.sum(), {"actor_loss": per_seed}

        return self.minimise(state, "actor", loss) | {"q_gradient": gradient.abs().mean((1, 2))}
