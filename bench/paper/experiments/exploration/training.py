"""Training runs of an experiment: a pack of seeds into run directories, watched by an observer.

The runs are those of `make bench` (same Trainer, same Writer, same identity), without checkpoints: a pack takes a few
minutes, and one that was cut off begins anew, also with the seeds of it that had ended. They keep no policy.pt.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.envs import tasks as envs
from bench.machine.provenance import provenance
from bench.runs import FORMAT, AlreadyFinished, Writer, write_study
from bench.studies.job import Job
from bench.studies.study import Study
from bench.training.events import Diverged, Rows, Step
from bench.training.trainer import Trainer

EXECUTION: dict[str, Any] = {"mode": "eager", "device": "cpu", "threads": 1, "dtype": "float32"}


def train(root: Path, study: Study, algo: str, observe: Callable[[Trainer], None]) -> Trainer:
    """Train all seeds of `algo` (as a study spells it) on the study's one task as one pack.

    root: of these results; the runs lie in root/<study's name>. observe: called at the start and after every step.
    Returns the trainer at its end; close it.

    Raises:
        UserError: a run's folder cannot be written, is damaged, or another process writes it.
    """
    jobs = [job for job in study.jobs() if job.label == label(study, algo)]
    grid = [
        {"env": job.env, "algo": job.algo, "label": job.label, "seed": job.seed, "hash": job.hash}
        for job in jobs
    ]
    write_study(root, {"format": FORMAT, "study": study.name, **study.to_dict(), "grid": grid})
    execution = {**EXECUTION, "pack": [job.seed for job in jobs]}
    writers = _open(root, jobs, execution)
    trainer = Trainer(jobs, EXECUTION)
    observe(trainer)
    living = set(range(len(jobs)))
    for event in trainer.events():
        if isinstance(event, Rows):
            extra = {"attempt": writers[event.k].attempt} if event.table == "time.csv" else {}
            writers[event.k].append(event.table, [{**row, **extra} for row in event.rows])
        elif isinstance(event, Diverged):
            writers[event.k].finish("diverged", event.env_step, policy=None, reason=event.reason)
            living.discard(event.k)
        elif isinstance(event, Step):
            observe(trainer)
            for k in living:
                writers[k].heartbeat(env_step=event.env_step, steps=study.settings.steps)
    for k in living:
        writers[k].finish("done", trainer.env_step, policy=None)
    return trainer


def label(study: Study, algo: str) -> str:
    """The folder of an algorithm as a study spells it, overrides included."""
    return next(job.label for job in replace(study, algos=(algo,)).jobs())


def _open(root: Path, jobs: Sequence[Job], execution: dict[str, Any]) -> list[Writer]:
    how: dict[str, Any] = {"execution": execution, "provenance": provenance()}
    how["about"] = {"family": envs.check_name(jobs[0].env)}
    writers = []
    for job in jobs:
        try:
            writers.append(Writer.open(root, job, **how))
        except AlreadyFinished:  # by a part that was cut off before its record
            shutil.rmtree(root / job.path)
            writers.append(Writer.open(root, job, **how))
    return writers


def visited(trainer: Trainer) -> NDArray[np.float32]:
    """The state after every step so far, (S, steps, obs_dim): the replay buffer, which must hold them all."""
    replay = trainer.replay
    assert replay.written <= replay.capacity
    return replay.split(replay.rows[:, : replay.written]).next_obs.numpy()


def sample(trainer: Trainer, obs: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """n actions of every seed's policy at one observation (obs_dim,): (S, n, act_dim).

    The generators are restored afterwards, so the run is not changed.
    """
    agent = trainer.agent
    noise = agent.noise["evaluation noise"]
    before = [noise.state(k) for k in range(trainer.S)]
    given = torch.from_numpy(obs).expand(trainer.S, n, -1).contiguous()
    actions = agent.act(given, mode="sample", candidates=1).numpy().copy()
    for k, state in enumerate(before):
        noise.set_state(k, state)
    return actions
