"""Timed cases: an algorithm at one size in one execution, and functions that do one part of its training once.

They use the Trainer of training runs, on cheetah-run (observations of 17, actions of 6 numbers), so that each part is
the code that a run executes. The replay buffer is full of random transitions before the first step.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from algos.core.agent import Agent
from algos.core.noise import Draws
from bench.envs import tasks as envs
from bench.envs.batch import EnvBatch
from bench.errors import UserError
from bench.studies.job import Job, RunSettings
from bench.studies.overrides import algorithm_config, canonical
from bench.timing import flops
from bench.timing.peers.work import ENV, ROWS, transitions
from bench.timing.stopwatch import seconds
from bench.training.events import Step
from bench.training.trainer import Trainer

THREADS, DTYPE = 1, "float32"
HALVES = ("critic_update", "actor_update")
PARTS = ("update", "critic_update", "actor_update", "act_1", "act_10", "env_step", "end_to_end")


@dataclass(frozen=True)
class Case:
    """An algorithm at one size.

    parts: the timed ones. reference: whether it belongs to the main table. overrides: of other settings.
    variant: overrides that belong to its name, each "field=value".
    """

    algo: str
    hidden: tuple[int, ...]
    batch: int
    T: int | None  # denoising steps; None: the policy is not a diffusion model
    pack: int = 1
    parts: tuple[str, ...] = PARTS
    reference: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    variant: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """As a study names it: "sac-critic=crossq"."""
        return "-".join((self.algo, *self.variant))

    def name(self, title: str | None) -> str:
        """What a reader sees, of the algorithm's title: "SAC critic=crossq"."""
        return " ".join((title or self.algo, *self.variant))

    @property
    def columns(self) -> dict[str, str]:
        """As the CSV files spell it, pack apart."""
        T = "" if self.T is None else str(self.T)
        hidden = canonical(self.hidden)
        return {"algo": self.label, "hidden": hidden, "batch": str(self.batch), "T": T}

    @property
    def title(self) -> str:
        chain = "" if self.T is None else f" T={self.T}"
        return f"{self.label} {canonical(self.hidden)} batch {self.batch}{chain} pack {self.pack}"

    def jobs(self) -> list[Job]:
        """One per seed of the pack; endless, without evaluation."""
        overrides = {**self.overrides, "hidden": self.hidden, "batch_size": self.batch}
        if self.T is not None:
            overrides["T"] = self.T
        config = algorithm_config(self.algo, overrides)
        endless = 10**12
        settings = RunSettings(
            steps=endless, random_steps=0, eval_every=endless, replay_size=ROWS, final_episodes=0
        )
        return [Job("timing", ENV, self.algo, self.algo, seed, config, settings) for seed in range(self.pack)]


def _until(once: Callable[[], float], calls: int, at_most: float) -> list[float]:
    """The seconds of each of so many calls; fewer, but one at least, where they have taken `at_most` seconds."""
    taken = [once()]
    start = time.monotonic()
    while len(taken) < calls and taken[0] + time.monotonic() - start < at_most:
        taken.append(once())
    return taken


def fresh_cache() -> AbstractContextManager[None]:
    """While it is open, nothing counts as compiled already. (Importing the compiler costs memory: not done before.)"""
    from torch._inductor.utils import fresh_cache

    return fresh_cache()


class CaseTimer:
    """Times the parts of a case in one execution. A part's seconds are `self.time(part)()`.

    `period` updates make one sample where they differ (TD3 moves its actor in every second one): their mean.
    """

    def __init__(self, case: Case, execution: str, device: str = "cpu", env_workers: int = 0):
        """env_workers: processes that step the environments of `end_to_end`; 0: this one."""
        self.case, self.execution, self.device = case, execution, device
        how = {"mode": execution, "device": device, "threads": THREADS, "dtype": DTYPE}
        self.trainer = Trainer(case.jobs(), {**how, "env_workers": env_workers})
        self.agent, self.replay = self.trainer.agent, self.trainer.replay
        self.agent.updates = flops.LATE
        self.replay.rows.copy_(torch.from_numpy(transitions(self.agent.obs_dim, self.agent.act_dim)))
        self.replay.written = self.replay.capacity
        self.period = flops.period(self.agent)
        has_halves = type(self.agent).learn is Agent.learn  # an update of another order is timed as one
        self.parts = tuple(part for part in case.parts if has_halves or part not in HALVES)
        self.candidates = self.agent.selection("behaviour").candidates
        self._numbers = itertools.count(flops.LATE)
        self._events = self.trainer.events()
        self.compile_s = self.warm_up_s = 0.0
        self.seconds: dict[str, float] = {}
        self._pack: EnvBatch | None = None
        self._steps_left = 0
        self._random = np.random.default_rng(0)
        self._declare()

    def _declare(self) -> None:
        """The calls that only list the random numbers, so that no other call is counted or timed together with one."""
        batch = self.replay.sample(self.agent.transitions())
        for i in range(self.period):
            self.agent.update_draws(batch, self.agent.phase(flops.LATE + i))
        for rows, mode in ((1, "behaviour"), (10, self.agent.evaluation_mode)):
            self.agent.act_draws(batch.obs[:, :rows], mode, self.agent.selection(mode))

    def prepare(self, calls: int, at_most: float, cold: bool) -> None:
        """Compile, and call every part `calls` times; then `seconds` has the rough time of each part.

        at_most: seconds after which a part is called no more. cold: what was compiled before is compiled again.

        compile_s: the compile time of a training run with an empty cache. warm_up_s: of the first updates after that.
        """
        with fresh_cache() if cold and self.execution == "compile" else nullcontext():
            self.update_often(self.period)
            self._act_1()
        self.compile_s = self.agent.execution.preparation_s
        self.warm_up_s = sum(_until(self._update, calls, at_most))
        for part in self.parts:
            self.seconds[part] = float(np.median(_until(self.time(part), calls, at_most)))

    def calls(self, part: str) -> int:
        """How many calls make one sample of `part`."""
        return self.period if part in ("update", "actor_update", "end_to_end") else 1

    def time(self, part: str) -> Callable[[], float]:
        """A function that does `part` and returns the seconds per call."""
        once: Callable[[], float] = getattr(self, f"_{part}")
        calls = self.calls(part)
        return once if calls == 1 else lambda: sum(once() for _ in range(calls)) / calls

    def check(self) -> None:
        """Raises UserError where training broke down: a standing environment or NaNs would have been timed."""
        if not all(self.trainer.alive) or not all(self.agent.finite()):
            raise UserError(
                f"{self.case.title}, {self.execution}: diverged on random transitions; cannot be timed"
            )

    def row(self, what: str, number: int, taken: float) -> dict[str, object]:
        """A row of samples.csv."""
        return {
            **self.case.columns,
            "what": what,
            "mode": self.execution,
            "device": self.device,
            "threads": THREADS,
            "dtype": DTYPE,
            "pack": self.case.pack,
            "candidates": self.candidates,
            "round": number,
            "seconds": taken,
        }

    # -- the update --------------------------------------------------------------------------------

    def _update(self) -> float:
        return seconds(self.update)

    def update(self) -> None:
        """As a step of training does it: sample, update, read the metrics."""
        metrics = self.agent.update(self.replay.sample(self.agent.transitions()))
        for value in metrics.values():
            value.tolist()

    def update_often(self, times: int) -> None:
        for _ in range(times):
            self.update()

    def _critic_update(self) -> float:
        return self._half("critic", self._critic_step, self.agent.phase(flops.LATE))

    def _actor_update(self) -> float:
        return self._half("actor", self._actor_step, self.agent.phase(next(self._numbers)))

    def _half(self, name: str, step: Callable[..., Any], phase: int) -> float:
        """One half of the update, through the run's execution, on a batch and random numbers drawn before."""
        agent = self.agent
        batch = self.replay.sample(agent.transitions())
        draws = agent.noise["update"].fill(agent.update_draws(batch, phase))
        tensors = (agent.state, batch, draws)
        return seconds(lambda: agent.execution((name, phase), step, tensors, (phase,)))

    def _critic_step(self, state: Any, batch: Any, draws: Any, phase: int) -> Any:
        with torch.no_grad():
            return self.agent.critic_step(state, batch, Draws(draws), phase)

    def _actor_step(self, state: Any, batch: Any, draws: Any, phase: int) -> Any:
        with torch.no_grad():
            return self.agent.actor_step(state, batch, Draws(draws), phase)

    # -- acting ------------------------------------------------------------------------------------

    def _act_1(self) -> float:
        return self._act(1, "behaviour")

    def _act_10(self) -> float:
        return self._act(10, self.agent.evaluation_mode)

    def _act(self, rows: int, mode: str) -> float:
        obs = self.replay.rows[:, :rows, : self.agent.obs_dim].contiguous()
        return seconds(lambda: self.agent.act(obs, mode=mode).numpy())

    # -- the environment ---------------------------------------------------------------------------

    def _env_step(self) -> float:
        """The simulation alone, under random actions."""
        if self._pack is None:
            self._pack = EnvBatch([envs.make(ENV) for _ in range(self.case.pack)])
        if self._steps_left == 0:
            for k in range(self.case.pack):
                self._pack.reset(k, seed=k)
            self._steps_left = self.trainer.spec.max_episode_steps or 1
        self._steps_left -= 1
        actions = self._random.uniform(-1, 1, (self.case.pack, self.agent.act_dim)).astype(np.float32)
        pack = self._pack
        return seconds(lambda: pack.step(actions))

    def step(self) -> None:
        """One step of training and all that belongs to it but evaluation."""
        next(event for event in self._events if isinstance(event, Step))

    def _end_to_end(self) -> float:
        return seconds(self.step)
