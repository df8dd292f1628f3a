"""QSM without an actor: the chain driven by -M_q grad_a Q itself.

A reader of the QSM repository asked why the score is learned at all where the gradient that it learns is at hand
(escontra/score_matching_rl, issue 1). This is that ablation: everything as in `qsm`, but every denoising step asks the
critics for the gradient, where QSM asks its network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from algos.core.agent import Batch, Metrics, State
from algos.core.config import positive
from algos.core.diffusion import STEPS
from algos.core.diffusion_agent import DiffusionAgent, DiffusionConfig
from algos.core.networks import Generators
from algos.core.noise import Draws
from algos.core.optim import Adam, input_gradient


@dataclass(frozen=True)
class QLangevinConfig(DiffusionConfig):
    """QSM's settings, without those of its network."""

    unused: ClassVar[tuple[str, ...]] = ("actor_lr_decay", "time_features", "time_dim")

    M_q: float = 50.0  # weight of grad_a Q; one knob with the scale of the reward
    score_scale: bool = False  # multiply by sqrt(1 - abar_t), so that the temperature is the same at every t

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "M_q")


class QLangevin(DiffusionAgent):
    """a_{t-1} = step(a_t, eps), eps = -M_q grad_a Q(s, a_t), Q the mean of the online critics."""

    name = "q-langevin"
    title = "Q-Langevin"
    Config = QLangevinConfig
    config: QLangevinConfig

    def initial_state(self, generators: Generators) -> State:
        state = super().initial_state(generators)
        del state["actor"]
        return state

    def optimisers(self) -> dict[str, Adam]:
        return {"critic": super().optimisers()["critic"]}

    def policy(self, state: State, obs: Tensor, draws: Draws, mode: str) -> Tensor:
        c, n = self.config, obs.shape[1]
        a = draws.normal("x", n, self.act_dim)
        for t in reversed(range(c.T)):
            eps = -c.M_q * input_gradient(lambda x: self.q(state, obs, x).mean(1).sum(), a)
            if c.score_scale:
                eps = eps * (1 - self.schedule.alpha_bar[t]) ** 0.5
            z = draws.normal(f"z{t}", n, self.act_dim)
            a = STEPS[c.clip_sampler](self.schedule, t, a, eps, None if mode == "greedy" else z)
        return a

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        c, action = self.config, self.policy(state, next_obs, draws.scope("target"), "sample")
        if c.target_noise > 0:
            z = draws.normal("target.noise", *action.shape[1:])
            action = (action + c.target_noise * z).clamp(-1.0, 1.0)
        return action, 0.0

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        return {}
