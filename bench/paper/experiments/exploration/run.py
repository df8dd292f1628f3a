"""The states that QSM, Diffusion-QL, SAC, TD3 and uniform random actions visit in training (claims 4a, 4b), with and
without added noise, and their actions at the first state of cartpole-swingup as they learn.

Coverage: the number of cells of a grid over states in which a run has been at least once, divided by the mean of that
over the random policy's seeds after as many steps. Random actions and SAC have no added noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.envs import tasks as envs
from bench.envs.batch import EnvBatch
from bench.paper.experiments.data import read_rows
from bench.paper.experiments.exploration import problem as point
from bench.paper.experiments.exploration.training import label, sample, train, visited
from bench.paper.experiments.parts import Part, Row, Tables
from bench.studies.job import RunSettings
from bench.studies.study import Study
from bench.training.trainer import Trainer

EXPERIMENT = "exploration"
ALGOS = ("qsm", "dql", "sac", "td3", "random")
NOISELESS = ("qsm:action_noise=0", "dql:action_noise=0", "td3:action_noise=0")
SMALL: dict[str, Any] = {
    "hidden": [64, 64],
    "batch_size": 64,
    "actor_lr": 1e-3,
    "critic_lr": 1e-3,
    "actor_lr_decay": 0,
}
MARKS = 20  # moments of training at which coverage is taken
END_EPISODES = 20  # of the final policy
FIRST_STATE_SAMPLES = 500

POINT = Study(
    name="point",
    title="A point with a misleading near goal",
    algos=(*ALGOS, *NOISELESS),
    envs=(point.NAME,),
    seeds=tuple(range(10)),
    settings=RunSettings(
        steps=5_000,
        random_steps=500,
        eval_every=2_500,
        eval_episodes=2,
        replay_size=5_000,
        final_episodes=0,
    ),
    config={**SMALL, "hidden": [32, 32]},
)
SWINGUP = Study(
    name="swingup",
    title="The first actions of cartpole-swingup",
    algos=(*ALGOS, *NOISELESS),
    envs=("cartpole-swingup",),
    seeds=tuple(range(5)),
    settings=RunSettings(
        steps=6_000,
        random_steps=1_000,
        eval_every=3_000,
        eval_episodes=2,
        replay_size=6_000,
        final_episodes=0,
    ),
    config=SMALL,
)
STUDIES = {study.name: study for study in (POINT, SWINGUP)}

POINT_CELLS = 40  # per axis
#: Per coordinate of cartpole-swingup (cart, angle, their speeds): range and number of cells; beyond it the last cell.
CARTPOLE_GRID = ((-1.8, 1.8, 12), (-np.pi, np.pi, 16), (-4.0, 4.0, 8), (-12.0, 12.0, 12))


def parts() -> list[Part]:
    """One pack of seeds each; the slow ones first."""
    return [
        Part(EXPERIMENT, _part_name(study, algo), f"{__name__}:run", {"study": study.name, "algo": algo})
        for study in STUDIES.values()
        for algo in (*NOISELESS, *ALGOS)
    ]


def _part_name(study: Study, algo: str) -> str:
    return f"{study.name}-{algo.replace(':', '-')}"


def scores(folder: Path) -> list[Row]:
    """The numbers that the rules of the claims judge: coverage over all of training, and the end of the final policy.

    Settings: "authors" and "no-noise" on the point, the same with "swingup-" in front on cartpole-swingup.
    """
    found: list[Row] = []
    for study in STUDIES.values():
        cells = {
            (row["label"], int(row["seed"])): float(row["cells"])
            for algo in study.algos
            for row in read_rows(folder / "coverage" / f"{_part_name(study, algo)}.csv")
            if int(row["env_step"]) == study.settings.steps
        }
        reference = np.mean([value for (name, _), value in cells.items() if name == "random"])
        for (name, seed), value in cells.items():
            found.append(_score(study, name, "coverage", seed, value / float(reference)))
    for algo in POINT.algos:
        for row in read_rows(folder / "ends" / f"{_part_name(POINT, algo)}.csv"):
            for goal in ("near", "far"):
                most = float(float(row[goal]) > 0.5)
                found.append(_score(POINT, row["label"], f"{goal}_goal", int(row["seed"]), most))
    return found


def _score(study: Study, name: str, measure: str, seed: int, value: float) -> Row:
    algo, noiseless, _ = name.partition("-action_noise=0")
    setting = "no-noise" if noiseless else "authors"
    prefix = "" if study is POINT else f"{study.name}-"
    return {"measure": measure, "setting": prefix + setting, "algo": algo, "seed": seed, "value": value}


def run(folder: Path, study: str, algo: str) -> Tables:
    """Train one algorithm's seeds and record the visited states."""
    point.register()
    plan = STUDIES[study]
    first = FirstActions() if study == "swingup" else None
    trainer = train(folder, plan, algo, first or (lambda trainer: None))
    states = visited(trainer)
    cells = cell_numbers(study, states)
    marks = np.linspace(0, cells.shape[1], MARKS + 1).astype(int)[1:]
    name = label(plan, algo)
    coverage: list[Row] = [
        {"label": name, "seed": seed, "env_step": int(mark), "cells": len(np.unique(cells[k, :mark]))}
        for k, seed in enumerate(trainer.seeds)
        for mark in marks
    ]
    tables: Tables = {"coverage": coverage}
    if study == "point":
        tables["ends"] = ends(trainer, name)
    if first is not None:
        tables["actions"] = [{"label": name, **row} for row in first.rows]
    trainer.close()
    return tables


def cell_numbers(study: str, states: NDArray[np.float32]) -> NDArray[np.int64]:
    """The cell of each state, (S, n, obs_dim) -> (S, n)."""
    coordinates: NDArray[np.float32] = states
    grid: tuple[tuple[float, float, int], ...] = ((-1.0, 1.0, POINT_CELLS),) * 2
    if study == "swingup":
        cart, cos, sin, *speeds = np.moveaxis(states, -1, 0)
        coordinates, grid = np.stack([cart, np.arctan2(sin, cos), *speeds], -1), CARTPOLE_GRID
    number = np.zeros(states.shape[:2], np.int64)
    for i, (low, high, count) in enumerate(grid):
        index = np.floor((coordinates[..., i] - low) / (high - low) * count).astype(np.int64)
        number = number * count + index.clip(0, count - 1)
    return number


class FirstActions:
    """Takes samples of the policy at the first state of cartpole-swingup, every 1,000 steps.

    That state: the pole hangs down and everything is at rest. It is its own mirror image, so that swinging to either
    side is equally good.
    """

    EVERY = 1_000
    CELLS = 20  # of the action in [-1, 1]
    OBS = np.array([0.0, -1.0, 0.0, 0.0, 0.0], np.float32)  # cart, cos, sin, speeds

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def __call__(self, trainer: Trainer) -> None:
        if trainer.env_step % self.EVERY:
            return
        edges = np.linspace(-1, 1, self.CELLS + 1)
        for seed, actions in zip(trainer.seeds, sample(trainer, self.OBS, FIRST_STATE_SAMPLES)[..., 0]):
            counts, _ = np.histogram(actions, edges)
            self.rows += [
                {"seed": seed, "env_step": trainer.env_step, "cell": cell, "count": int(count)}
                for cell, count in enumerate(counts)
                if count
            ]


def ends(trainer: Trainer, name: str) -> list[Row]:
    """Where episodes of the final policy end, by each algorithm's own way of evaluating; far, near: shares of them."""
    S, E = trainer.S, END_EPISODES
    pack = EnvBatch([envs.make(point.NAME) for _ in range(S * E)])
    for j in range(S * E):
        pack.reset(j, seed=10_000 + j)
    for _ in range(point.LIMIT):
        actions = trainer.act(pack.obs.reshape(S, E, -1), trainer.agent.evaluation_mode)
        pack.step(actions.reshape(S * E, -1))
    at = pack.obs.reshape(S, E, 2).astype(np.float64)
    pack.close()
    shares = {
        goal: (np.linalg.norm(at - where, axis=-1) < point.REACHED).mean(1)
        for goal, where in (("near", point.NEAR), ("far", point.FAR))
    }
    return [
        {"label": name, "seed": seed, **{goal: float(share[k]) for goal, share in shares.items()}}
        for k, seed in enumerate(trainer.seeds)
    ]
