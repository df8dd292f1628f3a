"""The training loop: what it stores, what evaluation and stopping must not change, and what ends a run early."""

from __future__ import annotations

import dataclasses
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algos.core.noise import stream_seed
from bench.envs import tasks as envs
from bench.launch import pack as worker
from bench.runs import read_run
from bench.studies.job import Job, RunSettings
from bench.studies.overrides import agent_class, algorithm_config
from bench.training import clock
from bench.training import trainer as train
from bench.training.events import Diverged, Rows, Step
from bench.training.trainer import Trainer
from tests.launching import ALGORITHMS, TINY, spec, stub_study, substance

EAGER = {"mode": "eager", "device": "cpu"}
SECONDS = [f"{kind}_s" for kind in clock.Clock.KINDS]

pytestmark = pytest.mark.usefixtures("stubs", "quick")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of train.csv in short runs too; nothing that concerns this process or machine."""
    monkeypatch.setattr(train, "LOG_EVERY", 20)
    monkeypatch.setattr(worker, "prepare_process", torch.set_num_threads)
    monkeypatch.setattr("bench.machine.provenance.provenance", lambda *given: {})


def jobs(
    algo: str = "stub", seeds: tuple[int, ...] = (0,), env: str = "stubs/Toy-v0", **given: Any
) -> list[Job]:
    study = stub_study(
        algo=algo, env=env, **{k: v for k, v in given.items() if k in RunSettings.__dataclass_fields__}
    )
    known = algorithm_config(algo, {}).keys() - set(agent_class(algo).Config.unused)
    own = {k: v for k, v in (TINY | given).items() if k in known}
    config = algorithm_config(algo, own)
    return [Job("s", env, algo, algo, seed, config, study.settings) for seed in seeds]


def run(root: Path, pack: list[Job], stops: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """Train to the end in len(stops) + 1 attempts, each but the last stopped at an environment step."""
    repeat = pack[0].settings.action_repeat
    step = 0

    def stop_at(at: int) -> Any:
        def stop() -> str | None:
            nonlocal step
            step += repeat
            return "stop" if step >= at else None

        return stop

    for at in stops:
        step -= repeat  # it is also asked once before the first step of an attempt
        assert worker.run(spec(root, pack), stop_at(at)) == "stopped"
        assert {read_run(root / job.path).state for job in pack} == {"stale"}
    assert worker.run(spec(root, pack)) == "done"
    return [substance(root / job.path) for job in pack]


def events(trainer: Trainer) -> list[Any]:
    return list(trainer.events())


def rows(found: list[Any], table: str, k: int = 0) -> list[dict[str, Any]]:
    return [row for e in found if isinstance(e, Rows) and e.k == k and e.table == table for row in e.rows]


# -- stopping and going on ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("algo", [*ALGORITHMS, "stub"])
@pytest.mark.parametrize(("seeds", "env"), [((3,), "stubs/Toy-v0"), ((0, 1, 7), "Hopper-v5")])
def test_resume_is_exact(algo: str, seeds: tuple[int, ...], env: str, tmp_path: Path) -> None:
    # The ring has overwritten rows at the later stops; episodes end early, and at different times within a pack.
    pack = jobs(algo, seeds, env, steps=100, random_steps=20, replay_size=50, eval_every=40)
    whole = run(tmp_path / "whole", pack)
    stops = tuple(sorted(random.Random(algo).sample(range(1, 100), 3)))
    resumed = run(tmp_path / "resumed", pack, stops)
    assert resumed == whole
    assert whole[0]["train.csv"].count("\n") > 5
    attempts = read_run(tmp_path / "resumed" / pack[0].path).meta["attempts"]
    assert [attempt["resumed_at_step"] for attempt in attempts] == [0, *stops]


@pytest.mark.slow
def test_resume_is_exact_within_long_episodes(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 1400, "random_steps": 300, "replay_size": 500, "eval_every": 1400}
    settings |= {"eval_episodes": 1, "final_episodes": 0, "action_repeat": 2}
    pack = jobs("td3", (0, 1), "cartpole-swingup", **settings)
    whole = run(tmp_path / "whole", pack)
    assert run(tmp_path / "resumed", pack, (200, 990, 1230)) == whole


@pytest.mark.slow
def test_a_stop_at_every_step_is_exact(tmp_path: Path) -> None:
    pack = jobs(seeds=(0, 1), steps=60, replay_size=7, eval_every=25)
    assert run(tmp_path / "resumed", pack, tuple(range(1, 60))) == run(tmp_path / "whole", pack)


@pytest.mark.seconds
def test_action_repeat_resumes_exactly_and_counts_environment_steps(tmp_path: Path) -> None:
    pack = jobs("td3", (0, 1), steps=120, random_steps=40, eval_every=40, action_repeat=4)
    whole = run(tmp_path / "whole", pack)
    assert run(tmp_path / "resumed", pack, (16, 64, 88)) == whole
    trainer = Trainer(pack, EAGER)
    found = events(trainer)
    assert [e.env_step for e in found if isinstance(e, Step)] == list(range(4, 121, 4))
    assert trainer.replay.written == 30
    assert trainer.agent.updates == 20  # one per action after the random ones


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("repeat", [1, 2, 3, 4])
def test_a_length_counts_the_environment_steps_that_took_place(repeat: int, workers: int) -> None:
    """Episodes of 5 to 20 steps end within a repeated action; a Toy observes its steps and how many it will take."""
    pack = jobs(seeds=(0, 1), action_repeat=repeat, steps=120, random_steps=60, eval_every=120)
    trainer = Trainer(pack, {**EAGER, "env_workers": workers})
    found = events(trainer)
    for k in range(2):
        transitions = trainer.replay.split(torch.from_numpy(trainer.replay.rows_between(0, 120 // repeat, k)))
        counted = [0.0, *transitions.next_obs[:, 1].tolist()]
        starts = [*transitions.obs[:, 1].tolist(), 0.0]
        ends = [steps for steps, start in zip(counted, starts) if start == 0 and steps > 0]
        lengths = [row["value"] for row in rows(found, "train.csv", k) if row["name"] == "length"]
        assert lengths == ends[: len(lengths)]
        assert len(lengths) > 3
    env = envs.make("stubs/Toy-v0", action_repeat=repeat)
    trainer.env_step = 0
    for k, episodes in trainer.evaluate("sample", 1, 5).items():
        seeds = [stream_seed(k, "evaluation environment", 0, i) % 2**32 for i in range(5)]
        assert [length for _, length in episodes] == [min(20, env.reset(seed=seed)[0][2]) for seed in seeds]
    trainer.close()


@pytest.mark.seconds
def test_a_stopped_pack_can_go_on_as_single_seeds_and_back(tmp_path: Path) -> None:
    pack = jobs(seeds=(0, 1, 2))
    whole = run(tmp_path / "whole", pack)
    count = itertools.count()
    assert worker.run(spec(tmp_path / "r", pack), lambda: "stop" if next(count) >= 50 else None) == "stopped"
    count = itertools.count()
    assert (
        worker.run(spec(tmp_path / "r", pack[:1]), lambda: "stop" if next(count) >= 30 else None) == "stopped"
    )
    # Seeds that stand at different steps: two groups, one after the other.
    assert worker.run(spec(tmp_path / "r", pack)) == "done"
    assert [substance(tmp_path / "r" / job.path) for job in pack] == whole


@pytest.mark.seconds
def test_a_damaged_checkpoint_of_one_seed_starts_the_run_again(tmp_path: Path) -> None:
    pack = jobs(seeds=(0, 1))
    whole = run(tmp_path / "whole", pack)
    count = itertools.count()
    worker.run(spec(tmp_path / "r", pack), lambda: "stop" if next(count) >= 50 else None)
    shard = next((tmp_path / "r" / pack[1].path / "checkpoint").glob("replay-*.npy"))
    shard.write_bytes(shard.read_bytes()[:-4] + b"abcd")
    assert worker.run(spec(tmp_path / "r", pack)) == "done"
    assert [substance(tmp_path / "r" / job.path) for job in pack] == whole
    for job in pack:
        assert "restarted" in read_run(tmp_path / "r" / job.path).meta["attempts"][-1]


# -- what evaluation and packs must not change -------------------------------------------------------


@pytest.mark.seconds
@pytest.mark.parametrize("algo", ["qsm", "td3"])
def test_evaluating_more_often_does_not_change_training(algo: str) -> None:
    def training(**settings: Any) -> tuple[list[Any], list[Any], dict[str, Any]]:
        trainer = Trainer(jobs(algo, (0, 1), **settings), EAGER)
        found = events(trainer)
        return rows(found, "train.csv", 0), rows(found, "train.csv", 1), trainer.agent.policy_dict(1)["state"]

    seldom = training(eval_every=120, eval_episodes=1)
    often = training(eval_every=10, eval_episodes=3, eval_mode="sample", final_episodes=0)
    assert often[:2] == seldom[:2]
    for part, params in often[2].items():
        for name, x in params.items():
            assert torch.equal(x, seldom[2][part][name])


def test_start_states_of_an_evaluation_depend_on_seed_step_and_episode_alone() -> None:
    pack = jobs(seeds=(0, 1), eval_episodes=2)
    few, many = Trainer(pack, EAGER), Trainer(pack[1:], EAGER)
    lengths = {k: [n for _, n in results] for k, results in few.evaluate("sample", 1, 2).items()}
    assert [n for _, n in many.evaluate("sample", 1, 5)[0]][:2] == lengths[1]
    few.env_step = 40
    assert {k: [n for _, n in results] for k, results in few.evaluate("sample", 1, 2).items()} != lengths


@pytest.mark.seconds
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_seed_in_a_pack_trains_as_alone(algo: str) -> None:
    # 40 updates of tiny networks: the rounding of batched products has not yet grown by the loop through the
    # environment, so that a wrong seed, stream or row would stand out by orders of magnitude.
    settings: dict[str, Any] = {"steps": 60, "random_steps": 20, "eval_every": 60}
    together = Trainer(jobs(algo, (5, 9, 2), **settings), EAGER)
    alone = Trainer(jobs(algo, (9,), **settings), EAGER)
    in_pack, single = rows(events(together), "train.csv", 1), rows(events(alone), "train.csv")
    assert [(r["env_step"], r["name"]) for r in in_pack] == [(r["env_step"], r["name"]) for r in single]
    np.testing.assert_allclose(
        [r["value"] for r in in_pack], [r["value"] for r in single], rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(together.replay.rows[1], alone.replay.rows[0], atol=1e-4)
    theirs = alone.agent.policy_dict(0)["state"]
    for part, params in together.agent.policy_dict(1)["state"].items():
        for name, x in params.items():
            torch.testing.assert_close(x, theirs[part][name], rtol=1e-3, atol=1e-4)


# -- what is stored ----------------------------------------------------------------------------------


def test_transitions_at_the_end_of_an_episode() -> None:
    trainer = Trainer(jobs(seeds=(0, 1), steps=200), EAGER)
    events(trainer)
    for k in range(2):
        batch = trainer.replay.split(trainer.replay.rows[:, :200])
        (position, step, length), after = batch.obs[k].T, batch.next_obs[k]
        assert torch.equal(after[:, 1], step + 1)  # the true next observation, never that of a reset
        assert torch.equal(after[:, 2], length)
        torch.testing.assert_close(
            after[:, 0], position + 0.1 * (batch.action[k, :, 0] - batch.action[k, :, 1])
        )
        assert torch.equal(batch.mask[k] == 0, after[:, 1] >= length)  # terminated, not cut by the limit
        cut = (after[:, 1] == 20) & (length > 20)
        assert cut.any()
        assert (batch.mask[k][cut] == 1).all()
        new_episode = torch.nonzero(step[1:] == 0).flatten() + 1
        ended = torch.nonzero((batch.mask[k] == 0) | (after[:, 1] == 20)).flatten() + 1
        assert torch.equal(new_episode, ended[ended < 200])


def test_episode_rows_tell_return_and_length() -> None:
    trainer = Trainer(jobs(steps=200), EAGER)
    episodes = [row for row in rows(events(trainer), "train.csv") if row["kind"] == "episode"]
    batch = trainer.replay.split(trainer.replay.rows[0, :200])
    ends = {row["env_step"]: row["value"] for row in episodes if row["name"] == "return"}
    lengths = {row["env_step"]: row["value"] for row in episodes if row["name"] == "length"}
    assert len(ends) > 5
    for end, value in ends.items():
        reward = batch.reward[end - int(lengths[end]) : end]
        assert value == pytest.approx(float(reward.double().sum()), abs=1e-5)


def test_random_actions_come_first_and_updates_after_them() -> None:
    trainer = Trainer(jobs("td3", random_steps=30, action_noise=0.0), EAGER)
    updates = {e.env_step: trainer.agent.updates for e in trainer.events() if isinstance(e, Step)}
    assert updates[30] == 0
    assert updates[31] == 1
    assert updates[120] == 90
    actions = trainer.replay.split(trainer.replay.rows[:, :120]).action[0]
    assert len(set(actions[:30, 0].tolist())) == 30
    assert actions[:30].min() < -0.8
    assert actions[:30].max() > 0.8


@pytest.mark.seconds
def test_tables_of_a_run(tmp_path: Path) -> None:
    pack = jobs("sac", (0, 1), steps=110, eval_every=40, eval_episodes=2, final_episodes=3)
    begin = time.perf_counter()
    run(tmp_path, pack)
    wall = time.perf_counter() - begin
    for job in pack:
        result = read_run(tmp_path / job.path, job_hash=job.hash)
        assert result.state == "done"
        assert result.verified
        evaluations = result.table("eval.csv")
        assert evaluations["env_step"].tolist() == [40, 40, 80, 80, 110, 110]  # the last step too
        assert evaluations["episode"].tolist() == [0, 1] * 3
        assert evaluations["wall_s"].is_monotonic_increasing
        final = result.table("final.csv")
        modes = list(zip(final["mode"], final["candidates"]))
        assert modes == [("sample", 1)] * 3 + [("greedy", 1)] * 3 + [("sample", 10)] * 3
        assert final["length"].tolist() == final["length"].tolist()[:3] * 3  # the same start states
        losses = result.table("train.csv").query("kind == 'loss'")
        assert {"critic_loss", "actor_loss", "temperature"} <= set(losses["name"])
        # nothing after the last full interval is lost
        assert result.table("train.csv")["env_step"].max() == 110
        bound = result.table("train.csv").query("kind == 'actions'")["value"]
        assert bound.between(0, 1).all()
        seconds = result.table("time.csv")
        assert seconds["env_step"].tolist() == [40, 80, 110]
        assert (seconds["seeds"] == 2).all()
        counted = seconds[SECONDS].to_numpy().sum()
        assert evaluations["wall_s"].max() < counted + 0.1 < wall + 0.1


@pytest.mark.seconds
def test_time_over_several_attempts(tmp_path: Path) -> None:
    pack = jobs(steps=100, eval_every=100, delay=0.002)
    run(tmp_path, pack, (30, 60, 90))
    seconds = read_run(tmp_path / pack[0].path).table("time.csv")
    assert seconds["update_s"].sum() > 80 * 0.002
    wall = read_run(tmp_path / pack[0].path).table("eval.csv")["wall_s"].iloc[-1]
    assert wall == pytest.approx(seconds[SECONDS].to_numpy().sum(), abs=0.1)


def test_compiling_is_timed_apart() -> None:
    begin = time.perf_counter()
    trainer = Trainer(jobs("td3", random_steps=80), EAGER)  # evaluates before the first update

    def compiling(call: Any) -> Any:
        def slow(*given: Any, **named: Any) -> Any:
            time.sleep(0.003)
            trainer.agent.execution.preparation_s += 0.003
            return call(*given, **named)

        return slow

    trainer.agent.act = compiling(trainer.agent.act)  # type: ignore[method-assign]
    trainer.agent.update = compiling(trainer.agent.update)  # type: ignore[method-assign]
    table = rows(events(trainer), "time.csv")
    wall = time.perf_counter() - begin
    calls = 2 * 40 + 6 * 3  # and the steps of at least six episodes
    assert sum(row["compile_s"] for row in table) > 0.003 * calls
    assert all(row[kind] >= 0 for row in table for kind in SECONDS)
    assert sum(row[kind] for row in table for kind in SECONDS) < wall  # nothing is counted twice


# -- divergence --------------------------------------------------------------------------------------


def outcome(found: list[Any], k: int) -> tuple[int, str] | None:
    return next(((e.env_step, e.reason) for e in found if isinstance(e, Diverged) and e.k == k), None)


def test_a_loss_that_is_not_a_number_ends_its_seed_alone() -> None:
    pack = jobs(seeds=(4, 5, 6), fault="nan", fault_seed=5, fault_at=10)
    alone = [rows(events(Trainer(jobs(seeds=(k,)), EAGER)), "train.csv") for k in (4, 6)]
    trainer = Trainer(pack, EAGER)
    found = events(trainer)
    assert outcome(found, 1) == (31, "stub_loss is nan")
    assert outcome(found, 0) is outcome(found, 2) is None
    assert [rows(found, "train.csv", 0), rows(found, "train.csv", 2)] == alone
    assert {row["env_step"] for row in rows(found, "train.csv", 1)} <= set(range(31))
    assert not rows(found, "eval.csv", 1)


@pytest.mark.seconds
def test_an_environment_that_fails_ends_its_seed_alone() -> None:
    pack = jobs(seeds=tuple(range(6)), env="stubs/Faulty-v0")
    found = events(Trainer(pack, EAGER))
    ends = {k: outcome(found, k) for k in range(6)}
    assert 0 < sum(end is None for end in ends.values()) < 6
    for k, end in ends.items():
        alone = events(Trainer(pack[k : k + 1], EAGER))
        assert outcome(alone, 0) == end
        assert rows(alone, "train.csv") == rows(found, "train.csv", k)
        assert end is None or end[1] == "environment: the environment returned the reward nan"


@pytest.mark.seconds
def test_an_action_or_parameter_that_is_not_finite_ends_its_seed() -> None:
    for part, end in (
        ("actor", (50, "an action is not finite")),
        ("target_critic", (51, "critic_loss is nan")),
    ):
        trainer = Trainer(jobs("td3", (0, 1)), EAGER)
        found = []
        for event in trainer.events():
            found.append(event)
            if isinstance(event, Step) and event.env_step == 50:
                trainer.agent.state[part]["w0"][1] = torch.nan
        assert outcome(found, 1) == end
        assert outcome(found, 0) is None
        assert len(rows(found, "eval.csv", 0)) == 6


def test_a_parameter_that_no_loss_shows_is_found_at_the_next_row(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(jobs("td3", (0, 1)), EAGER)
    found = []
    for event in trainer.events():
        found.append(event)
        if isinstance(event, Step) and event.env_step == 45:
            monkeypatch.setattr(trainer.agent, "finite", lambda: [True, False])
    assert outcome(found, 1) == (60, "a parameter is not finite")


@pytest.mark.seconds
def test_diverged_seeds_are_finished_and_the_rest_resumes_exactly(tmp_path: Path) -> None:
    pack = jobs(seeds=(0, 1, 2), fault="nan", fault_seed=1, fault_at=30)
    whole = run(tmp_path / "whole", pack)
    count = itertools.count()
    worker.run(spec(tmp_path / "r", pack), lambda: "stop" if next(count) >= 90 else None)
    states = [read_run(tmp_path / "r" / job.path).state for job in pack]
    assert states == ["stale", "diverged", "stale"]
    assert worker.run(spec(tmp_path / "r", pack)) == "done"
    assert [substance(tmp_path / "r" / job.path) for job in pack] == whole
    result = read_run(tmp_path / "r" / pack[1].path)
    assert (result.state, result.reason, result.env_step) == ("diverged", "stub_loss is nan", 51)
    assert len(result.meta["attempts"]) == 1


def test_a_pack_ends_when_every_seed_has_diverged(tmp_path: Path) -> None:
    pack = jobs(seeds=(1,), fault="nan", fault_seed=1, fault_at=30)
    assert worker.run(spec(tmp_path, pack)) == "done"
    assert read_run(tmp_path / pack[0].path).state == "diverged"


@pytest.mark.seconds
def test_a_snapshot_holds_plain_data_only() -> None:
    trainer = Trainer(jobs("dql-bc", (0, 1)), EAGER)
    steps = (e for e in trainer.events() if isinstance(e, Step))
    for _ in range(50):
        next(steps)

    def leaves(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            for child in value.values():
                yield from leaves(child)
        else:
            yield value

    record = train.read_snapshot(trainer.snapshot(1))
    assert {type(leaf) for leaf in leaves(record)} <= {torch.Tensor, int, float, str}
    assert dataclasses.is_dataclass(jobs()[0])
