"""Evaluation episodes: the policies of a pack as they stand at a step, on environments of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

import numpy as np

from algos.core.noise import stream_seed
from bench.envs import tasks as envs
from bench.envs.batch import EnvBatch
from bench.envs.parallel import ParallelEnvBatch
from bench.studies.job import RunSettings
from bench.training.events import Evaluating, Event, Row, Rows

NO_TIME_LIMIT = 10_000  # environment steps after which an evaluation episode without a time limit is cut
FINAL_MODES = (("sample", 1), ("greedy", 1), ("sample", 10))  # candidates chosen by the critics: "best of 10"

AnyEnvBatch = EnvBatch | ParallelEnvBatch
Act = Callable[[np.ndarray, str, int | None], np.ndarray]  # (S, n, O), acting mode, candidates -> (S, n, A)
# seed number -> (return, length in environment steps) per episode
Played = Mapping[int, Sequence[tuple[float, int]]]


class Evaluation:
    """Plays all episodes of all seeds in lock-step, through one batched `act`.

    Start states depend on seed, environment step and episode alone.

    Args:
        seeds: of the pack.
        spec: of the task.
        make_batch: makes that number of environments of the task.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        spec: envs.EnvSpec,
        settings: RunSettings,
        make_batch: Callable[[int], AnyEnvBatch],
        act: Act,
    ):
        self.seeds, self.spec, self.settings = seeds, spec, settings
        self.make_batch, self.act = make_batch, act
        self.batches: dict[int, AnyEnvBatch] = {}  # by the number of episodes

    def close(self) -> None:
        for batch in self.batches.values():
            batch.close()

    def play(
        self, env_step: int, alive: Sequence[bool], mode: str, candidates: int | None, episodes: int
    ) -> Generator[Event, None, Played]:
        """Play episodes of the living seeds; yields an event at every step.

        The return of an episode whose environment fails is nan.
        """
        E, S, repeat = episodes, len(self.seeds), self.settings.action_repeat
        if E not in self.batches:
            self.batches[E] = self.make_batch(S * E)
        batch = self.batches[E]
        batch.clear_errors()
        for j in range(S * E):
            k, i = divmod(j, E)
            batch.reset(j, stream_seed(self.seeds[k], "evaluation environment", env_step, i) % 2**32)
            if not alive[k]:
                batch.stand_still(j)
        running = np.repeat(alive, E)
        returns, actions_taken, lengths = np.zeros(S * E), 0, np.zeros(S * E, int)
        limit = self.spec.max_episode_steps or NO_TIME_LIMIT
        while running.any() and actions_taken * repeat < limit:
            actions = np.nan_to_num(self.act(batch.obs.reshape(S, E, -1), mode, candidates))
            _, reward, terminated, truncated = batch.step(actions.reshape(S * E, -1))
            returns[running] += reward[running]
            actions_taken += 1
            lengths[running] = [episode_length(actions_taken, n, repeat) for n in batch.frames[running]]
            yield Evaluating(env_step)
            failed = np.array([error is not None for error in batch.error])
            returns[running & failed] = math.nan  # unknown
            ended = running & (terminated | truncated | failed)
            for j in map(int, np.flatnonzero(ended)):
                batch.stand_still(j)
            running &= ~ended
        return {
            k: [(float(returns[j]), int(lengths[j])) for j in range(k * E, (k + 1) * E)]
            for k in range(S)
            if alive[k]
        }

    def compare_modes(self, env_step: int, alive: Sequence[bool]) -> Iterator[Event]:
        """The rows of final.csv: the final policy in every acting mode, from the same start states."""
        for mode, candidates in FINAL_MODES:
            played = yield from self.play(env_step, alive, mode, candidates, self.settings.final_episodes)
            for k, results in played.items():
                rows: list[Row] = [
                    {"mode": mode, "candidates": candidates, "episode": i, "return": r, "length": n}
                    for i, (r, n) in enumerate(results)
                ]
                yield Rows(k, "final.csv", rows)


def episode_length(actions: int, last: int, action_repeat: int) -> int:
    """Environment steps of an episode of `actions` actions, the last of which was repeated `last` times."""
    return (actions - 1) * action_repeat + int(last)
