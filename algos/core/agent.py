"""Agent: the one actor-critic interface, and the critic update that all algorithms share.

An algorithm is a subclass that says how it acts (`policy`), how it draws the action for the TD target and what bonus
the target carries (`target_action`), and what its actor minimises (`actor_step`). These are functions of tensors: they
change `state` in place, make no random numbers and never look at a value, so that they run eagerly, compiled or inside
a CUDA graph, for one seed or many. Shapes: S seeds, B batch, O observation and A action dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from algos.core.config import Config
from algos.core.execution import Execution
from algos.core.networks import Generators, Params, init_twin_q, twin_q
from algos.core.noise import Draw, Draws, Noise
from algos.core.optim import adam, adam_state, clip_by_norm, cosine, gradients, polyak

State = dict[str, Params]
Metrics = dict[str, Tensor]

MODES = ("behaviour", "sample", "greedy")


class Batch(NamedTuple):
    """Transitions of S seeds. mask = 1 - terminated: a time limit does not end the return."""

    obs: Tensor  # (S, B, O)
    action: Tensor  # (S, B, A)
    reward: Tensor  # (S, B)
    mask: Tensor  # (S, B)
    next_obs: Tensor  # (S, B, O)


@dataclass(frozen=True)
class Selection:
    """How an action is chosen among candidates: "argmax" of Q, or drawn from "softmax" of Q."""

    candidates: int = 1
    rule: str = "argmax"


class Agent:
    """Trains S independent seeds in lock-step; owns the state, the noise and the execution.

    Args:
        config: the algorithm's `Config`.
        obs_dim, act_dim: sizes of observation and action; actions lie in [-1, 1].
        seeds: one integer per seed of the pack.
        execution: how update and act run; "eager", "compile" or "graph" (CUDA).
    """

    name: ClassVar[str]
    Config: ClassVar[type[Config]]
    #: The mode in which the algorithm's own authors evaluate.
    evaluation_mode: ClassVar[str] = "sample"

    def __init__(
        self,
        config: Any,
        obs_dim: int,
        act_dim: int,
        seeds: Sequence[int],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        execution: str = "eager",
    ):
        self.config, self.obs_dim, self.act_dim, self.seeds = config, obs_dim, act_dim, tuple(seeds)
        self.device, self.dtype = torch.device(device), dtype
        self.noise = {
            purpose: Noise(self.seeds, purpose, self.device, dtype)
            for purpose in ("update", "behaviour", "evaluation noise")
        }
        # Initial values are drawn on the CPU in float64: the same on every device and in every precision.
        initial = Noise(self.seeds, "initialisation", torch.device("cpu"), dtype).generators
        self.state: State = {
            part: {name: p.to(self.device, dtype).contiguous() for name, p in params.items()}
            for part, params in self.initial_state(initial).items()
        }
        for part in self.trained():
            self.state[f"{part}.adam"] = adam_state(self.state[part])
        alive = torch.ones(len(self.seeds), dtype=torch.bool, device=self.device)
        self.state["health"] = {"finite": alive}
        self.updates = 0
        self.execution = Execution(execution)

    # -- what an algorithm says --------------------------------------------------------------------

    def initial_state(self, generators: Generators) -> State:
        """The networks: the twin critics and their targets; a subclass adds its actor and what else it trains."""
        c = self.config
        critic = init_twin_q(generators, self.obs_dim, self.act_dim, c.hidden, c.init)
        return {"critic": critic, "target_critic": {name: p.clone() for name, p in critic.items()}}

    def trained(self) -> tuple[str, ...]:
        """Parts of the state that have an optimiser."""
        return ("actor", "critic")

    def policy_draws(self, prefix: str, rows: int) -> list[Draw]:
        """What `policy` needs for `rows` actions; names begin with `prefix`."""
        raise NotImplementedError

    def policy(self, state: State, obs: Tensor, draws: Draws, prefix: str, greedy: bool) -> Tensor:
        """Actions (S, n, A) at obs (S, n, O). greedy: the mean (SAC, TD3), or the chain without added noise."""
        raise NotImplementedError

    def target_draws(self) -> list[Draw]:
        return self.policy_draws("target", self.config.batch_size)

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        """The action at which the TD target takes Q, (S, B, A), and the bonus added to Q there, (S, B)."""
        raise NotImplementedError

    def actor_draws(self) -> list[Draw]:
        raise NotImplementedError

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        """One step of the actor and what belongs to it; metrics are (S,)."""
        raise NotImplementedError

    def phase(self, count: int) -> int:
        """Which of the algorithm's update functions the update after `count` updates takes (delays, EMA)."""
        return 0

    def targets_move(self, phase: int) -> bool:
        """Whether the target critics take their Polyak step in an update of this phase."""
        return True

    def selection(self, mode: str) -> Selection:
        """The authors' own choice among candidates."""
        return Selection()

    def exploration_noise(self) -> float:
        """Standard deviation of the normal noise added to actions in behaviour mode."""
        return 0.0

    # -- the update --------------------------------------------------------------------------------

    def update_draws(self) -> list[Draw]:
        """All random numbers of one update, in the order in which the reference implementations draw them."""
        return self.target_draws() + self.actor_draws()

    def update_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        """The core: one update of everything, as a function of tensors; changes `state` in place."""
        with torch.no_grad():
            metrics = self.critic_step(state, batch, draws, phase)
            metrics |= self.actor_step(state, batch, draws, phase)
            losses = torch.stack([value for name, value in metrics.items() if name.endswith("loss")])
            state["health"]["finite"].logical_and_(losses.isfinite().all(0))
        return metrics

    def critic_step(self, state: State, batch: Batch, draws: Draws, phase: int = 0) -> Metrics:
        """Both critics to y = r + gamma mask (min_k Q'_k(s', a') + bonus) by mean squared error; then Polyak."""
        c = self.config
        next_action, bonus = self.target_action(state, batch.next_obs, draws)
        next_q = self.q(state["target_critic"], batch.next_obs, next_action).amin(1)
        y = batch.reward + c.discount * batch.mask * (next_q + bonus)

        def loss(critic: Params) -> tuple[Tensor, Metrics]:
            q = self.q(critic, batch.obs, batch.action)  # (S, 2, B)
            errors = (q - y.unsqueeze(1)).square().mean(-1)
            per_seed = errors.sum(1) if c.critic_loss == "sum" else errors.mean(1)
            return per_seed.sum(), {"critic_loss": per_seed, "q": q.mean((1, 2)), "target_q": y.mean(1)}

        metrics = self.minimise(state, "critic", loss, c.critic_lr)
        if self.targets_move(phase):
            polyak(state["target_critic"], state["critic"], c.tau)
        return metrics

    def q(self, critic: Params, obs: Tensor, action: Tensor) -> Tensor:
        """Both critics, (S, 2, B)."""
        return twin_q(critic, obs, action, self.config.critic_activation)

    def minimise(self, state: State, part: str, loss: Any, lr: float, decay: int = 0) -> Metrics:
        """One Adam step of `state[part]` on loss(params) -> (scalar, metrics)."""
        grads, metrics = gradients(loss, state[part])
        if self.config.grad_norm > 0:
            grads = clip_by_norm(grads, self.config.grad_norm)
        optimiser = state[f"{part}.adam"]
        adam(state[part], grads, optimiser, lr * cosine(optimiser["step"], decay) if decay else lr)
        return metrics

    def minimise_actor(self, state: State, loss: Any) -> Metrics:
        return self.minimise(state, "actor", loss, self.config.actor_lr, self.config.actor_lr_decay)

    # -- acting ------------------------------------------------------------------------------------

    def act_draws(self, mode: str, rows: int, selection: Selection) -> list[Draw]:
        draws = self.policy_draws("act", rows * selection.candidates)
        if selection.candidates > 1 and selection.rule == "softmax":
            draws.append(Draw("act.choice", "uniform", (rows,)))
        if mode == "behaviour" and self.exploration_noise() > 0:
            draws.append(Draw("act.exploration", "normal", (rows, self.act_dim)))
        return draws

    def act_step(self, state: State, obs: Tensor, draws: Draws, mode: str, selection: Selection) -> Tensor:
        """Actions (S, n, A) at obs (S, n, O), as a function of tensors."""
        with torch.no_grad():
            n, k = obs.shape[1], selection.candidates
            repeated = obs.repeat_interleave(k, 1) if k > 1 else obs
            action = self.policy(state, repeated, draws, "act", greedy=mode == "greedy")
            if k > 1:
                action = self._choose(state, repeated, action, draws, n, selection)
            if "act.exploration" in draws:
                action = (action + self.exploration_noise() * draws["act.exploration"]).clamp(-1.0, 1.0)
        return action

    def _choose(
        self, state: State, obs: Tensor, action: Tensor, draws: Draws, n: int, selection: Selection
    ) -> Tensor:
        """One of k candidates (S, n k, A) per row, by the smaller target critic.

        As in the Diffusion-QL authors' `sample_action`.
        """
        q = self.q(state["target_critic"], obs, action).amin(1).unflatten(1, (n, selection.candidates))
        if selection.rule == "argmax":
            index = q.argmax(-1)
        else:  # inverse of the cumulative distribution at a uniform draw
            cumulative = q.softmax(-1).cumsum(-1)
            index = (
                (cumulative < draws["act.choice"].unsqueeze(-1)).sum(-1).clamp(max=selection.candidates - 1)
            )
        action = action.unflatten(1, (n, selection.candidates))  # (S, n, k, A)
        return action.take_along_dim(index[..., None, None], 2).squeeze(2)

    # -- the interface -----------------------------------------------------------------------------

    def act(self, obs: Tensor, *, mode: str, candidates: int | None = None) -> Tensor:
        """Actions for S seeds at n observations each.

        Args:
            obs: (S, n, O).
            mode: "behaviour" (with exploration noise), "sample" (the policy itself) or "greedy".
            candidates: how many to draw and choose from by argmax of Q; None: as the algorithm's authors do.

        Returns:
            (S, n, A), in [-1, 1]. The memory may be reused by the next call.

        Raises:
            ValueError: no such mode.
        """
        if mode not in MODES:
            raise ValueError(f"mode {mode!r}: expected behaviour, sample or greedy")
        selection = self.selection(mode) if candidates is None else Selection(candidates)
        purpose = "behaviour" if mode == "behaviour" else "evaluation noise"
        draws = self.noise[purpose].fill(self.act_draws(mode, obs.shape[1], selection))
        key = ("act", mode, obs.shape[1], selection)
        execute = self.execution if mode == "behaviour" else self.execution.seldom
        return execute(key, self.act_step, (self.state, obs, draws), (mode, selection))

    def update(self, batch: Batch) -> Metrics:
        """One update on fields of shape (S, B, ...); metrics of shape (S,), on the device."""
        phase = self.phase(self.updates)
        draws = self.noise["update"].fill(self.update_draws())
        metrics = self.execution(("update", phase), self.update_step, (self.state, batch, draws), (phase,))
        self.updates += 1
        return metrics

    def finite(self) -> list[bool]:
        """Per seed: no loss was ever infinite or not a number, and no parameter is now."""
        flags = self.state["health"]["finite"].clone()
        for part in self.trained():
            for p in self.state[part].values():
                flags &= p.flatten(1).isfinite().all(1)
        return flags.tolist()

    def state_dict(self, k: int) -> dict[str, Any]:
        """Seed k's part of everything that decides what comes next: tensors and plain numbers only."""
        own = lambda x: x[k : k + 1].clone() if x.dim() else x.clone()  # noqa: E731
        return {
            "updates": self.updates,
            "state": {part: {name: own(x) for name, x in xs.items()} for part, xs in self.state.items()},
            "noise": {purpose: noise.state(k) for purpose, noise in self.noise.items()},
        }

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Goes on from one `state_dict` per seed, all after the same number of updates.

        Raises:
            ValueError: the seeds stand at different updates, or a tensor is missing or of another shape.
        """
        if len({s["updates"] for s in states}) != 1 or len(states) != len(self.seeds):
            raise ValueError("one state per seed is needed, all after the same number of updates")
        loaded = []
        for part, params in self.state.items():
            for name, mine in params.items():
                theirs = [s["state"].get(part, {}).get(name) for s in states]
                expected = (1, *mine.shape[1:]) if mine.dim() else ()
                for value in theirs:
                    if value is None or value.shape != expected:
                        found = "is missing" if value is None else f"has shape {tuple(value.shape)}"
                        raise ValueError(f"{part}/{name} {found}, expected shape {expected}")
                loaded.append((mine, torch.cat(theirs) if mine.dim() else theirs[0]))
        for mine, value in loaded:  # nothing is changed unless everything fits
            mine.copy_(value)
        for k, s in enumerate(states):
            for purpose, noise in self.noise.items():
                noise.set_state(k, s["noise"][purpose])
        self.updates = states[0]["updates"]

    def policy_dict(self, k: int) -> dict[str, Any]:
        """Seed k's networks without optimiser moments: what is needed to act and to ask the critics."""
        parts = {
            part: xs for part, xs in self.state.items() if not part.endswith(".adam") and part != "health"
        }
        return {
            "algo": self.name,
            "config": {f.name: getattr(self.config, f.name) for f in dataclasses.fields(self.config)},
            "obs_dim": self.obs_dim,
            "act_dim": self.act_dim,
            "state": {
                part: {name: x[k : k + 1].clone() for name, x in xs.items()} for part, xs in parts.items()
            },
        }
