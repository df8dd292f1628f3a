"""One pack of jobs: act, step, store, update, evaluate, and go on after a stop as if there had been none.

A `Trainer` is a plain generator of events, apart from storing and showing them. It may be left between any two events;
after a `Step` its `snapshot`s hold its whole state, apart from the rows of the replay buffer.
"""

from __future__ import annotations

import io
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from algos.core.noise import Draw, Noise, stream_seed
from algos.core.replay import Replay
from bench.envs import tasks as envs
from bench.envs.batch import EnvBatch
from bench.envs.parallel import ParallelEnvBatch
from bench.studies.job import Job, RunSettings
from bench.studies.overrides import agent_class, build_config
from bench.training.clock import Clock
from bench.training.evaluation import AnyEnvBatch, Evaluation, Played, episode_length
from bench.training.events import Diverged, Event, Row, Rows, Step

LOG_EVERY = 1000  # environment steps between rows of train.csv
AT_BOUND = 0.999  # an action coordinate beyond this counts as lying at +-1


class Trainer:
    """Trains the seeds of one cell of a grid in lock-step.

    Args:
        jobs: the same but for their seeds.
        execution: "mode" ("eager", "compile", "graph"), "device", and "env_workers", the processes that step the
            environments; 0: this one.
        snapshots: one per job, all of the same step, to go on from; None to start.
        rows: with snapshots, per job the rows of its replay buffer.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        execution: Mapping[str, Any],
        snapshots: Sequence[Mapping[str, Any]] | None = None,
        rows: Sequence[np.ndarray] | None = None,
    ):
        job = jobs[0]
        self.jobs, self.settings = list(jobs), job.settings
        self.seeds = [j.seed for j in jobs]
        self.S = len(jobs)
        spec = envs.spec(job.env)
        self.spec = spec
        self.clock = Clock()
        self.prepared_s = 0.0  # of compiling, in this attempt
        self.agent = agent_class(job.algo)(
            build_config(job.algo, job.config),
            spec.obs_dim,
            spec.act_dim,
            self.seeds,
            device=execution["device"],
            execution=execution["mode"],
            total_updates=updates_of(self.settings),
        )
        capacity = min(
            self.settings.replay_size, math.ceil(self.settings.steps / self.settings.action_repeat)
        )
        # Reading a metric waits for a GPU. The agent's own flags miss nothing in between (see `Agent.finite`).
        self._metrics_every = 1 if self.agent.device.type == "cpu" else 100
        self.replay = Replay(capacity, spec.obs_dim, spec.act_dim, self.seeds, device=self.agent.device)
        self.random_actions = Noise(self.seeds, "random actions", torch.device("cpu"), torch.float32)
        self._env_workers = execution.get("env_workers", 0)
        self.pack = self._make_pack(self.S)
        self.evaluation = Evaluation(self.seeds, spec, self.settings, self._make_pack, self.act)
        self.env_step = 0
        self._started = time.perf_counter()
        self.alive = [True] * self.S
        self.episode = [0] * self.S
        self.actions: list[list[np.ndarray]] = [[] for _ in jobs]  # of the running episode
        self.returns = np.zeros(self.S)
        # per name and seed, since the last row of train.csv
        self.sums: defaultdict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self.last_return = [math.nan] * self.S  # the mean of the newest evaluation, or the newest episode's
        if snapshots is None:
            for k in range(self.S):
                self.pack.reset(k, self._reset_seed(k))
            if all(self.pack.error):  # which is no divergence
                raise RuntimeError(f"the task does not start: {self.pack.error[0]}")
        else:
            self._restore(snapshots, rows or [])

    @property
    def wall_s(self) -> float:
        """Seconds since the first start, without the time between attempts."""
        return time.perf_counter() - self._started

    def _make_pack(self, size: int) -> AnyEnvBatch:
        name, repeat = self.jobs[0].env, self.settings.action_repeat
        if self._env_workers and size > 1:
            return ParallelEnvBatch(name, size, repeat, self._env_workers)
        return EnvBatch([envs.make(name, action_repeat=repeat) for _ in range(size)])

    def close(self) -> None:
        """Give up the environments and the processes that step them."""
        self.pack.close()
        self.evaluation.close()

    def _reset_seed(self, k: int) -> int:
        return stream_seed(self.seeds[k], "environment reset", self.episode[k]) % 2**32

    # -- the loop ----------------------------------------------------------------------------------

    def events(self) -> Iterator[Event]:
        """Until the last step, or until no seed is left; each row belongs before the `Step` that follows it."""
        s = self.settings
        while self.env_step < s.steps and any(self.alive):
            random = self.env_step < s.random_steps
            actions = self._random_actions() if random else self._behave()
            yield from self._check_actions(actions)
            ended = self._interact(actions)
            self.env_step += s.action_repeat
            yield from self._check_environments()
            yield from self._end_episodes(ended)
            if not random and any(self.alive):
                yield from self._learn()
            if self.env_step % LOG_EVERY < s.action_repeat or self.env_step == s.steps:
                yield from self._log()
            if self.env_step % s.eval_every == 0 or self.env_step == s.steps:
                yield from self._evaluate()
            yield Step(self.env_step)

    def _random_actions(self) -> np.ndarray:
        self.agent.observe(torch.from_numpy(self.pack.obs[:, None]).to(self.agent.device))
        draw = self.random_actions.fill([Draw("u", "uniform64", (self.spec.act_dim,))])["u"]
        return (2 * draw - 1).float().numpy()

    def _behave(self) -> np.ndarray:
        with self.clock("act"):
            return self.act(self.pack.obs[:, None], "behaviour")[:, 0]

    def act(self, obs: np.ndarray, mode: str, candidates: int | None = None) -> np.ndarray:
        """Actions (S, n, A) of the seeds' policies for observations (S, n, O)."""
        given = torch.from_numpy(obs).to(self.agent.device)
        actions = self.agent.act(given, mode=mode, candidates=candidates).to("cpu", torch.float32)
        self._set_preparation_apart()
        return actions.numpy()

    def _set_preparation_apart(self) -> None:
        """Count compile time apart from acting and updates."""
        execution = self.agent.execution
        seconds, execution.preparation_s = execution.preparation_s, 0.0
        self.clock.move(seconds, "compile")
        self.prepared_s += seconds

    def _interact(self, actions: np.ndarray) -> np.ndarray:
        """Step the environments and store the transition; which episodes ended, (S,) bool."""
        before = self.pack.obs
        with self.clock("env"):
            obs, reward, terminated, truncated = self.pack.step(actions)
        self.replay.add(before, actions, reward, terminated, obs)
        self.returns += reward
        for k in range(self.S):
            self.actions[k].append(actions[k].copy())
            self._count(k, "actions/at_bound", float((np.abs(actions[k]) > AT_BOUND).mean()))
        return terminated | truncated

    def _end_episodes(self, ended: np.ndarray) -> Iterator[Event]:
        for k in map(int, np.flatnonzero(ended)):
            self.last_return[k] = float(self.returns[k])
            length = episode_length(len(self.actions[k]), self.pack.frames[k], self.settings.action_repeat)
            values = {"return": self.last_return[k], "length": length}
            yield self._train_rows(k, "episode", values)
            self.episode[k] += 1
            self.actions[k], self.returns[k] = [], 0.0
            with self.clock("env"):
                self.pack.reset(k, self._reset_seed(k))

    def _learn(self) -> Iterator[Event]:
        with self.clock("update"):
            metrics = self.agent.update(self.replay.sample(self.agent.transitions()))
            self._set_preparation_apart()
        if self.agent.updates % self._metrics_every:
            return
        for name, value in metrics.items():
            for k, x in enumerate(value.tolist()):
                self._count(k, f"loss/{name}", x)
                if not math.isfinite(x):
                    yield from self._diverge(k, f"{name} is {x}")

    # -- divergence ---------------------------------------------------------------------------

    def _check_actions(self, actions: np.ndarray) -> Iterator[Event]:
        finite = np.isfinite(actions).all(1)
        for k in np.flatnonzero(~finite):
            yield from self._diverge(int(k), "an action is not finite")
            actions[k] = 0.0

    def _check_environments(self) -> Iterator[Event]:
        for k, error in enumerate(self.pack.error):
            if error is not None:
                yield from self._diverge(k, f"environment: {error}")

    def _diverge(self, k: int, reason: str) -> Iterator[Event]:
        """Mark a seed as diverged, for good: its environment is no longer stepped, and the rest of the pack goes on."""
        if self.alive[k]:
            self.alive[k] = False
            self.pack.stand_still(k)
            yield Diverged(k, self.env_step, reason)

    # -- logging ----------------------------------------------------------------------------

    def _count(self, k: int, name: str, value: float) -> None:
        self.sums[f"{k}/{name}"] += value
        self.counts[f"{k}/{name}"] += 1

    def _train_rows(self, k: int, kind: str, values: Mapping[str, float]) -> Rows:
        rows: list[Row] = [
            {"env_step": self.env_step, "kind": kind, "name": name, "value": value}
            for name, value in values.items()
        ]
        return Rows(k, "train.csv", rows)

    def _log(self) -> Iterator[Event]:
        """Means since the last row; a parameter that is not finite shows here at the latest."""
        finite = self.agent.finite()
        for k in range(self.S):
            if not finite[k]:
                yield from self._diverge(k, "a parameter is not finite")
            if self.alive[k]:
                means: dict[str, dict[str, float]] = {}
                for key, total in self.sums.items():
                    seed, kind, name = key.split("/", 2)
                    if int(seed) == k:
                        means.setdefault(kind, {})[name] = total / self.counts[key]
                for kind, values in means.items():
                    yield self._train_rows(k, kind, values)
        self.sums.clear()
        self.counts.clear()

    # -- evaluation --------------------------------------------------------------------------------

    def _evaluate(self) -> Iterator[Event]:
        s = self.settings
        last = self.env_step >= s.steps
        mode = self.agent.evaluation_mode if s.eval_mode == "authors" else s.eval_mode
        candidates = None if s.eval_mode == "authors" else 1
        with self.clock("eval"):
            played = yield from self.evaluation.play(
                self.env_step, self.alive, mode, candidates, s.eval_episodes
            )
            for k, results in played.items():
                self.last_return[k] = float(np.mean([r for r, _ in results]))
                rows: list[Row] = [
                    {"env_step": self.env_step, "episode": i, "return": r, "length": n, "wall_s": self.wall_s}
                    for i, (r, n) in enumerate(results)
                ]
                yield Rows(k, "eval.csv", rows)
            if last and s.final_episodes:
                yield from self.evaluation.compare_modes(self.env_step, self.alive)
        row = {f"{kind}_s": value for kind, value in self.clock.take().items()} | {"seeds": self.S}
        for k in range(self.S):
            if self.alive[k]:
                yield Rows(k, "time.csv", [{"env_step": self.env_step, **row}])

    def evaluate(self, mode: str, candidates: int | None, episodes: int) -> Played:
        """Play episodes of the policies as they are; nothing is stored, and training does not notice."""
        played = self.evaluation.play(self.env_step, self.alive, mode, candidates, episodes)
        while True:
            try:
                next(played)
            except StopIteration as end:
                return end.value

    # -- stopping and going on ---------------------------------------------------------------------

    def snapshot(self, k: int) -> bytes:
        """The whole state of seed number k, except for the rows of its replay buffer."""
        own = f"{k}/"
        record = {
            "agent": self.agent.state_dict(k),
            "replay_noise": self.replay.noise.state(k),
            "random_actions": self.random_actions.state(k),
            "env_step": self.env_step,
            "wall_s": self.wall_s,
            "seconds": self.clock.running(),
            "written": self.replay.written,
            "episode": self.episode[k],
            "actions": torch.from_numpy(np.array(self.actions[k], np.float32).reshape(-1, self.spec.act_dim)),
            "return": float(self.returns[k]),
            "last_return": self.last_return[k],
            "sums": {name.removeprefix(own): x for name, x in self.sums.items() if name.startswith(own)},
            "counts": {name.removeprefix(own): x for name, x in self.counts.items() if name.startswith(own)},
        }
        return _to_bytes(record)

    def policy(self, k: int) -> bytes:
        """Seed number k's networks, a small file that `torch.load` reads with `weights_only=True`."""
        return _to_bytes(self.agent.policy_dict(k))

    def _restore(self, snapshots: Sequence[Mapping[str, Any]], rows: Sequence[np.ndarray]) -> None:
        self.env_step = snapshots[0]["env_step"]
        self._started -= snapshots[0]["wall_s"]
        self.clock.seconds.update(snapshots[0]["seconds"])
        self.agent.load_state_dict([s["agent"] for s in snapshots])
        self.replay.restore(rows, snapshots[0]["written"])
        for k, s in enumerate(snapshots):
            self.replay.noise.set_state(k, s["replay_noise"])
            self.random_actions.set_state(k, s["random_actions"])
            self.episode[k], self.returns[k] = s["episode"], s["return"]
            self.last_return[k] = s["last_return"]
            self.actions[k] = list(s["actions"].numpy())
            self.sums.update({f"{k}/{name}": x for name, x in s["sums"].items()})
            self.counts.update({f"{k}/{name}": x for name, x in s["counts"].items()})
            self.pack.replay(k, self._reset_seed(k), s["actions"].numpy())


def updates_of(settings: RunSettings) -> int:
    """How many updates a whole run makes: one after every step that is not random."""
    every = settings.action_repeat
    return max(0, math.ceil(settings.steps / every) - math.ceil(settings.random_steps / every))


def read_snapshot(data: bytes) -> dict[str, Any]:
    """Read the bytes of `Trainer.snapshot`; nothing in them is executed."""
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


def _to_bytes(record: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(record, buffer)
    return buffer.getvalue()
