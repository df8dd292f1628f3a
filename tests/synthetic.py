"""Finished runs made up fast, in the writer's own format: to test and time what reads results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bench.machine.provenance import provenance
from bench.runs import FORMAT, TABLES, write_study
from bench.runs.reader import DONE, POLICY, RUN, seal
from bench.runs.tables import header

EVAL_EVERY = 1000  # environment steps between two evaluations


@dataclass(frozen=True)
class StubJob:
    """What bench.runs needs of a job."""

    seed: int = 0
    study: str = "study"
    env: str = "cheetah-run"
    algo: str = "qsm"
    label: str = "qsm"
    config: Mapping[str, Any] = field(default_factory=lambda: {"M_q": 50.0, "critic": {"hidden": [256, 256]}})
    settings: Mapping[str, Any] = field(default_factory=lambda: {"steps": 1000, "eval_every": 100})

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.study, self.env, self.label, f"seed-{self.seed}")

    def identity(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("env", "algo", "config", "settings", "seed")}

    @property
    def hash(self) -> str:
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def cell(self) -> dict[str, Any]:
        """The job's entry in a study's grid."""
        return {key: getattr(self, key) for key in ("env", "algo", "label", "seed", "hash")}


def study_record(jobs: Sequence[StubJob], settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `write_study` takes, for these jobs of one study."""
    return {
        "format": FORMAT,
        "study": jobs[0].study,
        "title": "A study",
        "settings": dict(settings or jobs[0].settings),
        "grid": [job.cell for job in jobs],
    }


def make_study(
    root: Path,
    study: str,
    envs: Sequence[str],
    algos: Sequence[str],
    seeds: Iterable[int],
    evaluations: int,
    rng: np.random.Generator,
    *,
    episodes: int = 10,
    levels: Mapping[str, float] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> list[StubJob]:
    """Write a study of finished runs under `root` and return its jobs.

    An algorithm's mean return rises from 0 towards its level in `levels` (default: 500, 600, … in the order
    of `algos`), with a factor per seed (sd 0.1) and noise per episode (sd 20).
    `origin`: the provenance recorded with each run, instead of this machine's.
    """
    settings = {
        "steps": evaluations * EVAL_EVERY,
        "random_steps": EVAL_EVERY // 2,
        "eval_every": EVAL_EVERY,
        "eval_episodes": episodes,
        "action_repeat": 1,
        "replay_size": 1_000_000,
        "final_episodes": episodes,
    }
    levels = levels or {algo: 500.0 + 100 * i for i, algo in enumerate(algos)}
    origin = origin or provenance()
    jobs = [
        StubJob(seed=seed, study=study, env=env, algo=algo, label=algo, settings=settings)
        for env in envs
        for algo in algos
        for seed in seeds
    ]
    for job in jobs:
        _write_run(root / job.path, job, levels[job.algo], evaluations, episodes, rng, origin)
    write_study(root, study_record(jobs))
    return jobs


def _write_run(
    folder: Path,
    job: StubJob,
    level: float,
    evaluations: int,
    episodes: int,
    rng: np.random.Generator,
    origin: Mapping[str, Any],
) -> None:
    folder.mkdir(parents=True)
    steps = [EVAL_EVERY * (i + 1) for i in range(evaluations)]
    curve = (
        level
        * (1 + 0.1 * rng.standard_normal())
        * (1 - np.exp(-3 * np.arange(1, evaluations + 1) / evaluations))
    )
    returns = np.abs(curve[:, None] + 20 * rng.standard_normal((evaluations, episodes))).tolist()
    losses = rng.random((evaluations, 2)).tolist()
    lines = {
        "eval.csv": [
            f"{step},{episode},{value!r},1000,{step / 50!r}\n"
            for step, row in zip(steps, returns)
            for episode, value in enumerate(row)
        ],
        "train.csv": [
            f"{step},loss,critic_loss,{critic!r}\n{step},loss,actor_loss,{actor!r}\n"
            f"{step},episode,return,{row[0]!r}\n{step},episode,length,1000.0\n{step},actions,saturated,0.25\n"
            for step, row, (critic, actor) in zip(steps, returns, losses)
        ],
        "time.csv": [f"{step},1,0.5,1.0,15.0,2.0,0.0,0.1,1\n" for step in steps],
        "final.csv": [
            f"{mode},{candidates},{episode},{value!r},1000\n"
            for mode, candidates in (("sample", 1), ("greedy", 1), ("sample", 10))
            for episode, value in enumerate(returns[-1])
        ],
    }
    execution = {"mode": "eager", "device": "cpu", "threads": 1, "dtype": "float32", "pack": [job.seed]}
    attempt = {
        "attempt": 1,
        "started": "2026-01-01T00:00:00Z",
        "resumed_at_step": 0,
        "execution": execution,
        "provenance": dict(origin),
    }
    meta = {"format": FORMAT, "study": job.study, "label": job.label, "hash": job.hash, "attempts": [attempt]}
    files = {table: header(table) + "".join(lines[table]).encode() for table in TABLES}
    files |= {RUN: json.dumps(meta | job.identity()).encode(), POLICY: b"no parameters"}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    done = {"format": FORMAT, "outcome": "done", "reason": None, "env_step": steps[-1], "files": digests}
    for name, data in (files | {DONE: json.dumps(done | {"sha256": seal(done)}).encode()}).items():
        (folder / name).write_bytes(data)
