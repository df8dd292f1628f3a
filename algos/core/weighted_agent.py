"""The common base of SDAC, DPMD, QVPO and DIPO: a denoising loss on actions with weights, and a target actor.

None of them differentiates through the chain: an update samples actions, weighs or moves them by Q, and denoises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from algos.core.agent import Metrics, State
from algos.core.config import at_least, not_negative, positive
from algos.core.diffusion import STEPS, Schedule, sample_chain
from algos.core.diffusion_agent import DiffusionAgent, DiffusionConfig
from algos.core.networks import Generators, Params
from algos.core.noise import Draws
from algos.core.optim import polyak
from algos.core.score_network import ScoreNetwork


@dataclass(frozen=True)
class WeightedConfig(DiffusionConfig):
    """The settings common to all four authors' code, and those of their chains."""

    unused: ClassVar[tuple[str, ...]] = ("actor_lr_decay", "action_noise", "target_noise")

    hidden: tuple[int, ...] = (256, 256, 256)
    critic_activation: str = "mish"
    T: int = 20
    clip_sampler: str = "x0"
    actor_lr_decay: int = 0
    action_noise: float = 0.0
    target_noise: float = 0.0
    time_hidden: int = 256  # width of the time network
    start_std: float = 1.0  # of x_T
    noise_ratio: float = 1.0  # times the noise that a step of the chain adds

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "time_hidden")
        positive(self, "start_std")
        not_negative(self, "noise_ratio")


class WeightedAgent(DiffusionAgent):
    """A diffusion policy that learns by a weighted denoising loss."""

    config: WeightedConfig
    small: ClassVar[Mapping[str, Any]] = {"time_hidden": 8}

    def make_network(self, config: WeightedConfig, obs_dim: int, act_dim: int) -> ScoreNetwork:
        c = config
        sizes = (obs_dim, act_dim, c.hidden, c.T, c.time_features, c.time_dim, c.init)
        return ScoreNetwork(*sizes, time_hidden=c.time_hidden)

    def initial_state(self, generators: Generators) -> State:
        state = super().initial_state(generators)
        return state | {"target_actor": {name: p.clone() for name, p in state["actor"].items()}}

    def chain(
        self, actor: Params, obs: Tensor, draws: Draws, noise: bool = True, candidates: int = 1
    ) -> Tensor:
        """As `DiffusionAgent.chain`, from `start_std` N(0, I) and with `noise_ratio` times the noise."""
        c = self.config
        condition = self.network.condition(actor, obs).repeat_interleave(candidates, 1)

        def step(schedule: Schedule, t: int, a: Tensor, eps: Tensor, z: Tensor | None) -> Tensor:
            return STEPS[c.clip_sampler](schedule, t, a, eps, None if z is None else c.noise_ratio * z)

        return sample_chain(
            self.network,
            self.schedule,
            step,
            actor,
            condition,
            draws,
            self.act_dim,
            noise=noise,
            start=c.start_std,
        )

    def denoise(
        self, state: State, obs: Tensor, noisy: Tensor, steps: Tensor, noise: Tensor, weight: Tensor
    ) -> Metrics:
        """One step of the actor on mean w ||eps(s, a_t, t) - noise||^2 over rows, samples and action dimensions.

        Args:
            obs, noisy, steps: (S, n, O), noised actions (S, n, A) and their noise levels one-hot (S, n, T).
            noise: (S, n, A), or K samples for each row, (S, n, K, A).
            weight: (S, n) or (S, n, K).
        """
        if noise.dim() == 3:
            noise, weight = noise.unsqueeze(2), weight.unsqueeze(2)

        def loss(actor: Params) -> tuple[Tensor, Metrics]:
            eps = self.predicted_noise(actor, obs, noisy, steps).unsqueeze(2)
            per_seed = (weight * (eps - noise).square().mean(-1)).mean((1, 2))
            return per_seed.sum(), {"actor_loss": per_seed}

        metrics = self.minimise(state, "actor", loss)
        return metrics | {"weight": weight.mean((1, 2)), "weight_max": weight.amax((1, 2))}

    def move_target_actor(self, state: State) -> None:
        """The Polyak step of the target actor."""
        polyak(state["target_actor"], state["actor"], self.config.tau)


def track(running: Params, q: Tensor, mean_rate: float, std_rate: float, *, unbiased: bool) -> None:
    """Moves a running mean and standard deviation (S, 1) towards those of q (S, n), in place."""
    running["mean"].lerp_(q.mean(1, keepdim=True), mean_rate)
    running["std"].lerp_(q.std(1, unbiased=unbiased, keepdim=True), std_rate)
