"""Rules of reproducibility: the same numbers in a pack, after a resume, and in every execution mode."""

from __future__ import annotations

import io

import torch

from algos.core.agent import MODES, Agent
from bench.check.algorithm import SEEDS, A, Algorithm, O, close, observations, same, state_of, train
from bench.studies.job import Job, RunSettings
from bench.training.events import Step
from bench.training.trainer import Trainer, read_snapshot

ENV, STEPS = "Pendulum-v1", 60  # of the run that is stopped and resumed

#: Products of a pack are rounded differently from those of one seed. The tolerance is far above the effect of that in
#: five updates of such networks, and far below the effect of another seed's random number.
PACK_TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}


def independent_seeds(algorithm: Algorithm) -> None:
    pack = algorithm.make()
    found = train(pack, 5)
    trained = [state_of(pack, k) for k in range(len(SEEDS))]  # acting may move statistics of observations
    acted = {mode: pack.act(observations(), mode=mode).clone() for mode in MODES}
    for k, seed in enumerate(SEEDS):
        alone = algorithm.make((seed,))
        for mine, theirs in zip(train(alone, 5), found):
            assert mine.keys() == theirs.keys(), "a pack reports other metrics than a seed alone"
            for name in mine:
                close(theirs[name][k : k + 1], mine[name], f"{name} of seed {seed}", **PACK_TOLERANCE)
        for name, x in state_of(alone, 0).items():
            close(trained[k][name], x, f"{name} of seed {seed}", **PACK_TOLERANCE)
        for mode in MODES:
            action = alone.act(observations((seed,)), mode=mode)
            close(acted[mode][k : k + 1], action, f"the {mode} action of seed {seed}", **PACK_TOLERANCE)


def seeds_differ(algorithm: Algorithm) -> None:
    action = algorithm.make((1, 2)).act(torch.zeros(2, 3, O), mode="behaviour")
    assert not torch.equal(action[0], action[1]), "two seeds act alike"


def deterministic(algorithm: Algorithm) -> None:
    one, two = algorithm.make(), algorithm.make()
    train(one, 3)
    two.act(observations(), mode=two.evaluation_mode)  # evaluation draws from a stream of its own
    train(two, 3)
    same(one, two)


def goes_on(algorithm: Algorithm) -> None:
    agent, other = algorithm.make(), algorithm.make()
    train(agent, 3)
    agent.act(observations(), mode="behaviour")
    buffer = io.BytesIO()
    torch.save([agent.state_dict(k) for k in range(len(SEEDS))], buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))  # tensors and plain numbers alone
    assert other.updates == agent.updates
    mine, theirs = (a.act(observations(), mode="behaviour") for a in (agent, other))
    assert torch.equal(mine, theirs), "the next action differs"
    train(agent, 3, 3)
    train(other, 3, 3)
    same(agent, other)


def resumes(algorithm: Algorithm) -> None:
    job = Job("check", ENV, algorithm.name, algorithm.name, 7, algorithm.config(), _short_run())
    execution = {"mode": "eager", "device": "cpu"}

    def finish(trainer: Trainer) -> Agent:
        for _ in trainer.events():
            pass
        return trainer.agent

    whole = finish(Trainer([job], execution))
    stopped = Trainer([job], execution)
    for event in stopped.events():
        if isinstance(event, Step) and event.env_step == STEPS // 2:
            break
    snapshot = read_snapshot(stopped.snapshot(0))
    rows = stopped.replay.rows_between(0, stopped.replay.written, 0)
    same(whole, finish(Trainer([job], execution, [snapshot], [rows])))


def _short_run() -> RunSettings:
    return RunSettings(
        steps=STEPS, random_steps=STEPS // 3, eval_every=STEPS, eval_episodes=1, final_episodes=0
    )


def compiles(algorithm: Algorithm) -> None:
    _compared(algorithm, "compile", "cpu")


def captures(algorithm: Algorithm) -> None:
    if torch.cuda.is_available():
        _compared(algorithm, "graph", "cuda")


def _compared(algorithm: Algorithm, execution: str, device: str) -> None:
    eager, other = algorithm.make(SEEDS[:2]), algorithm.make(SEEDS[:2], execution, device)
    for theirs, mine in zip(train(eager, 3), train(other, 3)):
        for name in theirs:
            close(mine[name].cpu(), theirs[name], name, rtol=1e-2, atol=1e-3)
    obs = observations(SEEDS[:2])
    action = other.act(obs.to(other.device), mode="behaviour").cpu()
    shape = (2, 4, A)
    assert action.shape == shape, f"actions of shape {tuple(action.shape)}, expected {shape}"
    assert bool((action.abs() <= 1).all()), "actions beyond [-1, 1] or not finite"
