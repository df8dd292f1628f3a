"""DPMD, diffusion policy mirror descent (Ma, Chen, Wang, Li, Dai: Efficient Online Reinforcement Learning for Diffusion
Policies, ICML 2025), as the authors' repository runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from algos.core.agent import Batch, Metrics, State
from algos.core.config import at_least, between, one_of, positive
from algos.core.networks import Generators, Params
from algos.core.noise import Draws
from algos.core.optim import gradients
from algos.core.particle_agent import ParticleAgent, ParticleConfig
from algos.core.weighted_agent import track

GRADIENT = "gradient."  # before a parameter's name, among the metrics of the critics' step


@dataclass(frozen=True)
class DPMDConfig(ParticleConfig):
    """The defaults are the authors'; each departure from the paper is a field, whose comment gives the paper's form."""

    critic_steps: int = 2  # with one gradient (the code takes the step twice); the paper: 1
    brackets: bool = False  # Q is normalised to Q - mean/std as the code has it; True: (Q - mean)/std
    weight_clip: float = 3.0  # of the normalised Q
    # states, at the TD target's action; the paper: "current" ones, at an action of the policy there
    trained_on: str = "next"
    running_rate: float = 0.001  # of the mean and the standard deviation of Q

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "critic_steps")
        positive(self, "weight_clip")
        one_of(self, "trained_on", ("next", "current"))
        between(self, 0, 1, "running_rate")


class DPMD(ParticleAgent):
    """Denoises towards the old policy's actions, weighted by exp(Q/alpha): a step of mirror descent.

    One update:
        a' = argmax over P chains at s' of min Q + noise_scale alpha N          target_action
        y  = reward_scale r + gamma mask min Q'(s', a')                         td_target
        Q1, Q2: one step on (Q(s, a) - y)^2                                     critic.step
        w  = exp(clip(min Q(s', a') - mean/std, -3, 3)/alpha)                   weights
        Q1, Q2: the same step again                                             descend
        pi: one step on mean w ||eps(s', a'_t, t) - n||^2                       denoise
        mean, std: towards those of min Q(s', a')                               track
        Q', pi': Polyak; alpha: one step                                        with their delays
    """

    name = "dpmd"
    title = "DPMD"
    Config = DPMDConfig
    config: DPMDConfig

    def initial_state(self, generators: Generators) -> State:
        zero = torch.zeros(len(self.seeds), 1, dtype=torch.float64)
        return super().initial_state(generators) | {"running": {"mean": zero, "std": zero + 1}}

    def learn(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        c = self.config
        obs, action = batch.next_obs, self.noisy_best(state, batch.next_obs, draws.scope("target"))
        metrics = self.critic.step(self, state, batch, draws, action, 0.0)
        if c.trained_on == "current":
            obs, action = batch.obs, self.noisy_best(state, batch.obs, draws.scope("actor"))
        q = self.q(state, obs, action).amin(1)  # between the steps with one gradient
        gradient = {
            name.removeprefix(GRADIENT): metrics.pop(name) for name in [*metrics] if name.startswith(GRADIENT)
        }
        for _ in range(c.critic_steps - 1):
            self.descend(state, "critic", gradient)
        if phase & 1:
            noisy, steps, noise = self.noised(batch._replace(action=action), draws)
            metrics |= self.denoise(state, obs, noisy, steps, noise, self.weights(state, q))
            self.critic.move_targets(state, c.tau)
            self.move_target_actor(state)
        track(state["running"], q, c.running_rate, c.running_rate, unbiased=False)
        return metrics | self.temperature_step(state, phase)

    def weights(self, state: State, q: Tensor) -> Tensor:
        """exp(clip(norm Q, -3, 3)/alpha), (S, B)."""
        c, running = self.config, state["running"]
        mean, std = running["mean"], running["std"]
        norm_q = (q - mean) / std if c.brackets else q - mean / std
        return (norm_q.clamp(-c.weight_clip, c.weight_clip) / state["temperature"]["log"].exp()).exp()

    def minimise(self, state: State, part: str, loss: Callable[[Params], tuple[Tensor, Metrics]]) -> Metrics:
        """Hands the critics' gradient over with the metrics, for another step."""
        if part != "critic":
            return super().minimise(state, part, loss)
        gradient, metrics = gradients(loss, state[part])
        self.descend(state, part, gradient)
        return metrics | {GRADIENT + name: g for name, g in gradient.items()}
