"""Training that diverges and simulations that blow up: a seed ends, the others of its pack do not notice."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from algos.core.agent import Agent
from bench.envs.batch import EnvBatch
from bench.launch import pack as worker
from bench.runs import read_run
from bench.studies.job import Job
from tests.faults.harness import note
from tests.launching import TINY, spec, stub_study, substance

pytestmark = [pytest.mark.usefixtures("stubs"), pytest.mark.faults]

SEEDS = 5
ALGOS = ("stub", "td3", "sac", "qsm", "dql", "dql-bc")


def jobs(algo: str, env: str = "stubs/Toy-v0", seeds: int = SEEDS, **given: Any) -> list[Job]:
    from bench.studies.overrides import algorithm_config

    own = (
        {key: value for key, value in TINY.items() if key in algorithm_config(algo, {})}
        if algo != "stub"
        else {}
    )
    return stub_study(
        algo=algo, env=env, seeds=seeds, **({"steps": 160, "eval_every": 40} | own | given)
    ).jobs()


def train(root: Path, pack: list[Job]) -> list[dict[str, Any] | None]:
    """Trains the pack; what each seed's result is, None for one that diverged."""
    said: list[str] = []
    assert worker.run(spec(root, pack), say=said.append) == "done", said
    runs = [read_run(root / job.path) for job in pack]
    assert {run.state for run in runs} <= {"done", "diverged"}
    assert all(run.verified for run in runs)
    return [substance(run.path) if run.state == "done" else None for run in runs]


def is_prefix(diverged: Path, whole: dict[str, Any]) -> bool:
    """Whether the losses and returns of a run until it diverged are those of the run that did not."""
    if not (diverged / "train.csv").exists():
        return True
    found = (diverged / "train.csv").read_text()
    last = int(pd.read_csv(StringIO(found))["env_step"].max())
    before = pd.read_csv(StringIO(whole["train.csv"]), dtype=str)
    kept = before[before["env_step"].astype(int) <= last].to_csv(index=False)
    return kept.startswith(found)


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("part", ["loss", "parameter", "action"])
@pytest.mark.parametrize("algo", ALGOS[1:])
def test_a_seed_that_diverges_ends_alone(
    tmp_path: Path, algo: str, part: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that is not finite appears in one seed of the pack's losses, parameters or actions."""
    pack = jobs(algo, seeds=3)
    wanted = train(tmp_path / "whole", pack)
    bad = torch.tensor(float(value))

    if part == "action":
        act, count = Agent.act, iter(range(10**6))

        def spoiled(self: Agent, obs: torch.Tensor, **how: Any) -> torch.Tensor:
            actions = act(self, obs, **how)
            if how["mode"] == "behaviour" and next(count) >= 60:
                actions = actions.clone()
                actions[1] = bad
            return actions

        monkeypatch.setattr(Agent, "act", spoiled)
    else:
        update = Agent.update

        def broken(self: Agent, batch: Any) -> Any:
            metrics = update(self, batch)
            if self.updates == 60 and part == "parameter":
                name = next(iter(self.optimiser))
                next(iter(self.state[name].values()))[1] = bad
            if self.updates == 60 and part == "loss":
                first = next(iter(metrics))
                metrics[first] = metrics[first].clone()
                metrics[first][1] = bad
            return metrics

        monkeypatch.setattr(Agent, "update", broken)
    found = train(tmp_path / "r", pack)
    assert found[1] is None
    assert [found[0], found[2]] == [wanted[0], wanted[2]]
    run = read_run(tmp_path / "r" / pack[1].path)
    assert "is not finite" in run.reason or " is nan" in run.reason or "inf" in run.reason
    assert wanted[1] is not None
    assert is_prefix(run.path, wanted[1])


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ("Faulty", "environment: the environment returned the reward nan"),
        ("Raising", "environment: ArithmeticError: the simulation is unstable"),
        ("Exploding", "environment: the environment returned an observation that is not finite"),
        ("Unstartable", "environment: ArithmeticError: no start state can be found"),
    ],
)
@pytest.mark.parametrize("env_workers", [0, 2])
@pytest.mark.parametrize("algo", ["td3", "stub"])
def test_a_simulation_that_fails_ends_its_seed_alone(
    tmp_path: Path, env: str, reason: str, env_workers: int, algo: str
) -> None:
    """Of a pack on a task that fails here and there: who came through has the numbers of the task that never fails."""
    settings = {"steps": 160, "eval_every": 160, "eval_episodes": 1, "final_episodes": 0}
    wanted = train(tmp_path / "whole", jobs(algo, **settings))
    pack = jobs(algo, f"stubs/{env}-v0", **settings)
    said: list[str] = []
    outcome = worker.run(spec(tmp_path / "r", pack, env_workers=env_workers), say=said.append)
    assert outcome == "done", said
    runs = [read_run(tmp_path / "r" / job.path) for job in pack]
    states = [run.state for run in runs]
    assert set(states) == {"done", "diverged"}, states
    for run, whole in zip(runs, wanted):
        assert whole is not None
        if run.state == "done":
            assert substance(run.path)["parameters"] == whole["parameters"]
            assert (run.path / "train.csv").read_text() == whole["train.csv"]
        else:
            assert run.reason is not None
            assert run.reason.startswith(reason)  # then where it was raised
            assert is_prefix(run.path, whole)
    note(f"{env} task, {algo}, env_workers={env_workers}", seeds=SEEDS, diverged=states.count("diverged"))


def test_a_physics_that_explodes_ends_its_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo itself, thrown into a state that it cannot go on from in the hundredth step of one seed."""
    settings = {"steps": 160, "random_steps": 40, "eval_every": 160, "eval_episodes": 1, "final_episodes": 0}
    pack = jobs("td3", "cheetah-run", seeds=3, **settings)
    wanted = train(tmp_path / "whole", pack)
    advance, steps = EnvBatch._advance, iter(range(10**6))

    def exploding(self: EnvBatch, k: int, action: np.ndarray) -> bool:
        if k == 1 and next(steps) == 99:
            self.envs[k].unwrapped.native.physics.data.qvel[:] = 1e30
        return advance(self, k, action)

    monkeypatch.setattr(EnvBatch, "_advance", exploding)
    found = train(tmp_path / "r", pack)
    assert found[1] is None
    assert [found[0], found[2]] == [wanted[0], wanted[2]]
    run = read_run(tmp_path / "r" / pack[1].path)
    assert (run.env_step, "PhysicsError" in run.reason) == (100, True), run
    note("MuJoCo explodes", seeds=3, diverged=1, says=run.reason)


def test_a_pack_that_diverged_in_part_and_was_killed_goes_on(tmp_path: Path) -> None:
    """The diverged seed is not trained again, and the others resume without it."""
    pack = jobs("stub", seeds=3, fault="nan", fault_seed=1, fault_at=30)
    wanted = train(tmp_path / "whole", pack)
    assert [result is None for result in wanted] == [False, True, False]
    steps = iter(range(10**6))
    assert worker.run(spec(tmp_path / "r", pack), lambda: "stop" if next(steps) >= 90 else None) == "stopped"
    sealed = (tmp_path / "r" / pack[1].path / "done.json").read_bytes()
    assert train(tmp_path / "r", pack) == wanted
    assert (tmp_path / "r" / pack[1].path / "done.json").read_bytes() == sealed
