"""Agent: the one actor-critic interface, and the update and action that all algorithms share.

An algorithm is a subclass that says how it acts (`policy`), how it draws the action for the TD target and what bonus
the target carries (`target_action`), and what its actor minimises (`actor_step`); one with an order of its own says how
it learns (`learn`). These are functions of tensors: they change `state` in place, make no random numbers and never look
at a value, so that they run eagerly, compiled or inside a CUDA graph, for one seed or many.

Shapes: S seeds, B batch, n rows, K critics, O observation and A action dimensions.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from algos.core.config import Config
from algos.core.critics import Critic, Metrics, State, critic_class
from algos.core.execution import Execution
from algos.core.networks import Generators, Params
from algos.core.noise import Draw, Draws, Noise, Recorder
from algos.core.optim import Adam, adam_state, clip_by_norm, cosine_decay, gradients
from algos.core.stored import Stored

MODES = ("behaviour", "sample", "greedy")
METRIC = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,58}")  # a valid name in train.csv


class Batch(NamedTuple):
    """Transitions of S seeds. mask = 1 - terminated: a time limit does not end the return."""

    obs: Tensor  # (S, B, O)
    action: Tensor  # (S, B, A)
    reward: Tensor  # (S, B)
    mask: Tensor  # (S, B)
    next_obs: Tensor  # (S, B, O)

    def split(self, size: int) -> list[Batch]:
        """Batches of `size` rows each, views of this one."""
        return [Batch(*fields) for fields in zip(*(field.split(size, 1) for field in self))]


@dataclass(frozen=True)
class Selection:
    """How an action is chosen among candidates.

    rule: "argmax" of Q, or drawn from the "softmax" of Q. critic: whose Q, "target" or "online".
    """

    candidates: int = 1
    rule: str = "argmax"
    critic: str = "target"


class ContractError(Exception):
    """An algorithm's return value breaks the interface; the message says how and where."""


class Agent(Stored):
    """Trains S independent seeds in lock-step; owns the state, the noise and the execution.

    Args:
        config: the algorithm's `Config`.
        obs_dim, act_dim: sizes of observation and action; actions lie in [-1, 1].
        seeds: one integer per seed of the pack.
        execution: how update and act run; "eager", "compile" or "graph" (CUDA).
        total_updates: the number of updates of the whole run, for schedules over its length; None: unknown.
    """

    name: ClassVar[str]
    #: In tables and figures; None: the name.
    title: ClassVar[str | None] = None
    Config: ClassVar[type[Config]]
    #: The mode in which the algorithm's own authors evaluate.
    evaluation_mode: ClassVar[str] = "sample"
    #: Settings that make it cheap, for checks of the interface (numbers of samples, steps of a chain).
    small: ClassVar[Mapping[str, Any]] = {}

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
        total_updates: int | None = None,
    ):
        self.config, self.obs_dim, self.act_dim, self.seeds = config, obs_dim, act_dim, tuple(seeds)
        self.device, self.dtype = torch.device(device), dtype
        self.total_updates = total_updates
        self.critic = self.make_critic()
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
        self.optimiser = self.optimisers()
        for part in self.optimiser:
            self.state[f"{part}.adam"] = adam_state(self.state[part])
        alive = torch.ones(len(self.seeds), dtype=torch.bool, device=self.device)
        self.state["health"] = {"finite": alive}
        self.updates = 0
        #: `updates` as a tensor (), for functions of tensors.
        self.count = torch.zeros((), dtype=torch.float64, device=self.device)
        self.execution = Execution(execution)
        self._declared: dict[tuple, list[Draw]] = {}

    # -- the update, from the top ------------------------------------------------------------------

    def update(self, batch: Batch) -> Metrics:
        """One update on fields of shape (S, `transitions()`, ...); metrics of shape (S,), on the device."""
        phase = self.phase(self.updates)
        self.count.fill_(self.updates)
        draws = self.noise["update"].fill(self.update_draws(batch, phase))
        metrics = self.execution(("update", phase), self.update_step, (self.state, batch, draws), (phase,))
        self.updates += 1
        return metrics

    def update_step(self, state: State, batch: Batch, draws: Any, phase: int) -> Metrics:
        """One update of everything, as a function of tensors; changes `state` in place.

        draws: the tensors by name, as `update_draws` lists them.
        """
        with torch.no_grad():
            obs, next_obs = (self.critic.normalised(state, x) for x in (batch.obs, batch.next_obs))
            metrics = self.learn(state, batch._replace(obs=obs, next_obs=next_obs), Draws(draws), phase)
            if isinstance(draws, Recorder):
                self._check_metrics(metrics)
            losses = [value for name, value in metrics.items() if name.endswith("loss")]
            if losses:
                state["health"]["finite"].logical_and_(torch.stack(losses).isfinite().all(0))
        return metrics

    def learn(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        """The critics' step, then the actor's; metrics are (S,).

        Names that end in "loss" tell by a value that is not finite that a seed has diverged.
        """
        metrics = self.critic_step(state, batch, draws, phase)
        return metrics | self.actor_step(state, batch, draws, phase)

    def critic_step(self, state: State, batch: Batch, draws: Draws, phase: int = 0) -> Metrics:
        """All critics one step towards the TD target; then their targets."""
        next_action, bonus = self.target_action(state, batch.next_obs, draws)
        if next_action.shape != batch.action.shape:
            self._mistake("target_action: the action", next_action, batch.action.shape)
        if isinstance(bonus, Tensor) and bonus.shape != batch.reward.shape:
            self._mistake("target_action: the bonus", bonus, batch.reward.shape)
        metrics = self.critic.step(self, state, batch, draws, next_action, bonus)
        if self.targets_move(phase):
            self.critic.move_targets(state, self.config.tau)
        return metrics

    def td_target(self, batch: Batch, next_q: Tensor, bonus: Tensor | float) -> Tensor:
        """y = r + gamma mask (min_k Q'_k(s', a') + bonus), (S, B), of next_q (S, K, B)."""
        return batch.reward + self.config.discount * batch.mask * (next_q.amin(1) + bonus)

    def critic_loss(self, q: Tensor, y: Tensor) -> Tensor:
        """Mean squared error of each critic, added up or averaged over them: (S, K, B), (S, B) -> (S,)."""
        errors = (q - y.unsqueeze(1)).square().mean(-1)
        return errors.sum(1) if self.config.critic_loss == "sum" else errors.mean(1)

    def minimise(self, state: State, part: str, loss: Callable[[Params], tuple[Tensor, Metrics]]) -> Metrics:
        """One step of `state[part]` on loss(params) -> (scalar summed over seeds, metrics)."""
        grads, metrics = gradients(loss, state[part])
        self.descend(state, part, grads)
        return metrics

    def descend(self, state: State, part: str, grads: Params) -> None:
        """One step of the optimiser of `part`."""
        self.optimiser[part].step(state[part], grads, state[f"{part}.adam"])

    # -- defined by an algorithm --------------------------------------------------------------------

    def make_critic(self) -> Critic:
        """The critic of the user's choice; an algorithm whose critic is part of it makes its own."""
        return critic_class(self.config.critic)(self.config, self.obs_dim, self.act_dim)

    def initial_state(self, generators: Generators) -> State:
        """Tensors with the seed axis in front. Here the critic's; a subclass adds its actor and other parts."""
        return self.critic.initial_state(generators)

    def optimisers(self) -> dict[str, Adam]:
        """The parts of the state that are trained, and how."""
        c = self.config
        actor = Adam(c.actor_lr, cosine_decay(c.actor_lr_decay), clip=clip_by_norm(c.grad_norm))
        return {"actor": actor, "critic": self.critic.optimiser()}

    def policy(self, state: State, obs: Tensor, draws: Draws, mode: str) -> Tensor:
        """Actions (S, n, A) at obs (S, n, O). mode: one of `MODES`.

        "greedy" is the mean (SAC, TD3), or the chain without added noise.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method policy")

    def target_action(self, state: State, next_obs: Tensor, draws: Draws) -> tuple[Tensor, Tensor | float]:
        """The action at which the TD target takes Q, (S, B, A), and the bonus added to Q there, (S, B)."""
        raise NotImplementedError(f"{type(self).__name__} has no method target_action")

    def actor_step(self, state: State, batch: Batch, draws: Draws, phase: int) -> Metrics:
        """One step of the actor and of the parts trained with it; metrics are (S,)."""
        raise NotImplementedError(f"{type(self).__name__} has no method actor_step")

    def phase(self, count: int) -> int:
        """Which of the algorithm's update functions the update after `count` updates takes (delays, EMA)."""
        return 0

    def targets_move(self, phase: int) -> bool:
        """Whether the target critics take their step in an update of this phase."""
        return True

    def transitions(self) -> int:
        """How many transitions an update is given: one batch, or several (see `Batch.split`)."""
        return self.config.batch_size

    def selection(self, mode: str) -> Selection:
        """The authors' own choice among candidates."""
        return Selection()

    def candidates(self, state: State, obs: Tensor, k: int, draws: Draws, mode: str) -> Tensor:
        """k actions at each of n observations, (S, n k, A); row i k + j is the j-th at the i-th."""
        return self.policy(state, obs.repeat_interleave(k, 1), draws, mode)

    def exploration_noise(self, state: State) -> Tensor | float:
        """Standard deviation of the normal noise added in behaviour mode, () to (S, n, A); 0.0: none is drawn."""
        return 0.0

    def explore(self, state: State, action: Tensor, draws: Draws) -> Tensor:
        """Actions (S, n, A) with the exploration of behaviour mode; clipped to [-1, 1]."""
        std = self.exploration_noise(state)
        if isinstance(std, (int, float)) and std == 0:
            return action
        return (action + std * draws.normal("exploration", *action.shape[1:])).clamp(-1.0, 1.0)

    # -- called by an algorithm --------------------------------------------------------------------------

    def q(
        self, state: State, obs: Tensor, action: Tensor, target: bool = False, first: int | None = None
    ) -> Tensor:
        """Values (S, K, B); see `Critic.q`."""
        return self.critic.q(state, obs, action, target, first)

    def choose(
        self,
        state: State,
        obs: Tensor,
        actions: Tensor,
        k: int,
        critic: str = "target",
        rule: str = "argmax",
        draws: Draws | None = None,
    ) -> Tensor:
        """One of k candidates for each of n observations, by the smallest critic: (S, n k, A) -> (S, n, A).

        rule: "argmax" of Q, or drawn from its "softmax", which needs `draws` (the Diffusion-QL authors'
        `sample_action`). critic: "target" or "online".
        """
        n = obs.shape[1]
        q = self.q(state, obs.repeat_interleave(k, 1), actions, target=critic == "target").amin(1)
        q = q.unflatten(1, (n, k))
        if rule == "argmax":
            index = q.argmax(-1)
        else:  # inverse of the cumulative distribution at a uniform draw
            assert draws is not None
            u = draws.uniform("choice", n)
            index = (q.softmax(-1).cumsum(-1) < u.unsqueeze(-1)).sum(-1).clamp(max=k - 1)
        actions = actions.unflatten(1, (n, k))  # (S, n, k, A)
        return actions.take_along_dim(index[..., None, None], 2).squeeze(2)

    def progress(self) -> Tensor:
        """The share of the run's updates that are made, a tensor (): 0 in the first update, never above 1.

        Raises:
            ValueError: `total_updates` was not given.
        """
        if self.total_updates is None:
            raise ValueError(f"{self.name} needs the number of updates to come (total_updates)")
        return (self.count / max(1, self.total_updates)).clamp(max=1.0)

    # -- acting ------------------------------------------------------------------------------------

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
        selection = self.selection(mode)
        if candidates is not None:
            selection = dataclasses.replace(selection, candidates=candidates, rule="argmax")
        purpose = "behaviour" if mode == "behaviour" else "evaluation noise"
        draws = self.noise[purpose].fill(self.act_draws(obs, mode, selection))
        key = ("act", mode, obs.shape[1], selection)
        execute = self.execution if mode == "behaviour" else self.execution.seldom
        return execute(key, self.act_step, (self.state, obs, draws), (mode, selection))

    def observe(self, obs: Tensor) -> None:
        """Training has come to obs (S, n, O) and acts at random there: where statistics of observations run.

        `act` in behaviour mode does the same itself.
        """
        with torch.no_grad():
            self.critic.observe(self.state, obs.to(self.dtype))

    def act_step(self, state: State, obs: Tensor, draws: Any, mode: str, selection: Selection) -> Tensor:
        """Actions (S, n, A) at obs (S, n, O), as a function of tensors; draws: the tensors by name."""
        with torch.no_grad():
            numbers, k = Draws(draws), selection.candidates
            if mode == "behaviour":
                self.critic.observe(state, obs)
            obs = self.critic.normalised(state, obs)
            if k == 1:
                action = self.policy(state, obs, numbers, mode)
                self._check_action(action, torch.Size((*obs.shape[:2], self.act_dim)))
            else:
                action = self.candidates(state, obs, k, numbers, mode)
                self._check_action(action, torch.Size((obs.shape[0], k * obs.shape[1], self.act_dim)))
                action = self.choose(state, obs, action, k, selection.critic, selection.rule, numbers)
            return self.explore(state, action, numbers) if mode == "behaviour" else action

    # -- random numbers ----------------------------------------------------------------------------

    def update_draws(self, batch: Batch, phase: int) -> list[Draw]:
        """The random numbers of one update of this phase, in the order of their declaration."""
        return self._recorded(("update", phase), self.update_step, (batch,), (phase,))

    def act_draws(self, obs: Tensor, mode: str, selection: Selection) -> list[Draw]:
        """The random numbers of one call of `act_step`, in the order of their declaration."""
        key = ("act", mode, obs.shape[1], selection)
        return self._recorded(key, self.act_step, (obs,), (mode, selection))

    def _recorded(self, key: tuple, step: Callable[..., Any], tensors: tuple, constants: tuple) -> list[Draw]:
        """The draws of `step`, by one call on a copy of the state, which also checks results against the interface."""
        if key not in self._declared:
            recorder = Recorder(len(self.seeds), self.device, self.dtype)
            step(tree_map(torch.clone, self.state), *tensors, recorder, *constants)
            self._declared[key] = recorder.draws
        return self._declared[key]

    # -- the contract ------------------------------------------------------------------------------

    def _check_action(self, action: Any, shape: torch.Size) -> None:
        if not isinstance(action, Tensor) or action.shape != shape:
            self._mistake("policy: the action", action, shape)

    def _check_metrics(self, metrics: Any) -> None:
        if not isinstance(metrics, dict):
            raise ContractError(
                f"{self.name}: learn returned {type(metrics).__name__}, not a dict of metrics"
            )
        for name, value in metrics.items():
            if not isinstance(name, str) or not METRIC.fullmatch(name):
                raise ContractError(
                    f"{self.name}: {name!r} cannot name a metric: letters, digits and _ . / - only"
                )
            if not isinstance(value, Tensor) or value.shape != (len(self.seeds),):
                self._mistake(f"the metric {name!r}", value, torch.Size((len(self.seeds),)))

    def _mistake(self, what: str, value: Any, shape: torch.Size) -> None:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
        raise ContractError(f"{self.name}: {what} has {found}, expected a tensor of shape {tuple(shape)}")
