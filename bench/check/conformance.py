"""The rules that every algorithm must follow to train in this suite: `python -m bench check my-algo`.

docs/adding-an-algorithm.md explains the rules. A check is a function of an `Algorithm`. It raises AssertionError,
whose message says what is wrong, or whatever the algorithm raises.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from algos.core.agent import METRIC, MODES, Agent, Batch
from algos.core.config import Config
from bench.check.outcomes import outcomes
from bench.studies.job import Job, RunSettings
from bench.studies.overrides import (
    agent_class,
    algorithm_config,
    build_config,
    canonical,
    default_config,
    parse_overrides,
    settable,
)
from bench.training.events import Step
from bench.training.trainer import Trainer, read_snapshot

O, A, B = 5, 2, 16  # noqa: E741 (observation and action dimensions, batch)
SEEDS = (3, 0, 11)
#: Settings that make every algorithm cheap, where it has them; an algorithm adds its own (`Agent.small`).
SMALL = {
    "hidden": [8, 8],
    "critic_hidden": [8, 8],
    "batch_size": B,
    "T": 2,
    "time_dim": 4,
    "act_candidates": 3,
}
UPDATES = 1000  # that a run is said to make
ENV, STEPS = "Pendulum-v1", 60  # of the run that is stopped and resumed

#: Products of a pack are rounded differently from those of one seed. The tolerance is far above the effect of that in
#: five updates of such networks, and far below the effect of another seed's random number.
PACK_TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}


@dataclass(frozen=True)
class Algorithm:
    """An algorithm with settings: "sac", "sac:critic=simba"."""

    spec: str

    @property
    def name(self) -> str:
        return parse_overrides(self.spec)[0]

    def config(self) -> dict[str, Any]:
        """The full configuration: `spec` over small sizes."""
        algo, own = parse_overrides(self.spec)
        small = SMALL | dict(agent_class(algo).small)
        known = settable(algo)
        return algorithm_config(algo, {k: v for k, v in small.items() if k in known} | own)

    def make(self, seeds: Sequence[int] = SEEDS, execution: str = "eager", device: str = "cpu") -> Agent:
        config = build_config(self.name, self.config())
        agent: Agent = agent_class(self.name)(
            config, O, A, seeds, execution=execution, device=device, total_updates=UPDATES
        )
        return agent


Check = Callable[[Algorithm], None]
CHECKS: dict[str, Check] = {}
SLOW: set[str] = set()  # those that compile


def _check(what: str, slow: bool = False) -> Callable[[Check], Check]:
    def note(function: Check) -> Check:
        CHECKS[what] = function
        if slow:
            SLOW.add(what)
        return function

    return note


def run(spec: str, slow: bool) -> Iterator[tuple[str, str | None]]:
    """(rule, fault or None), one after the other."""
    yield from outcomes({k: v for k, v in CHECKS.items() if slow or k not in SLOW}, Algorithm(spec))


# -- inputs ------------------------------------------------------------------------------------------------


def observations(seeds: Sequence[int] = SEEDS, n: int = 4) -> torch.Tensor:
    """(S, n, O), each seed's own."""
    return torch.stack([torch.randn(n, O, generator=torch.Generator().manual_seed(k)) for k in seeds])


def batch(size: int, seeds: Sequence[int] = SEEDS, count: int = 0) -> Batch:
    """Fields (S, size, ...), each seed's own; another one for every `count`."""

    def draw(k: int) -> list[torch.Tensor]:
        g = torch.Generator().manual_seed(1000 * count + k)
        obs, next_obs = torch.randn(2, size, O, generator=g)
        action = 2 * torch.rand(size, A, generator=g) - 1
        return [obs, action, torch.randn(size, generator=g), torch.rand(size, generator=g).round(), next_obs]

    return Batch(*(torch.stack(fields) for fields in zip(*map(draw, seeds))))


def train(agent: Agent, updates: int, start: int = 0) -> list[dict[str, torch.Tensor]]:
    """So many updates; a copy of the metrics of each."""
    size = agent.transitions()
    recorded = []
    for i in range(updates):
        given = Batch(*(x.to(agent.device) for x in batch(size, agent.seeds, start + i)))
        recorded.append({name: value.clone() for name, value in agent.update(given).items()})
    return recorded


def state_of(agent: Agent, k: int) -> dict[str, torch.Tensor]:
    state = agent.state_dict(k)["state"]
    return {f"{part}.{name}": x for part, xs in state.items() for name, x in xs.items()}


def _same(one: Agent, other: Agent) -> None:
    for k in range(len(one.seeds)):
        for name, x in state_of(one, k).items():
            assert torch.equal(x, state_of(other, k)[name]), f"{name} differs"


def _close(ours: torch.Tensor, theirs: torch.Tensor, what: str, rtol: float, atol: float) -> None:
    off = (ours.double() - theirs.double()).abs()
    assert bool((off <= atol + rtol * theirs.double().abs()).all()), (
        f"{what} differs by {off.max().item():.2g}"
    )


# -- the checks --------------------------------------------------------------------------------------------


@_check("settings are plain values")
def settings(algorithm: Algorithm) -> None:
    algo = algorithm.name
    cls: Any = agent_class(algo)
    assert issubclass(cls, Agent), f"{cls.__name__} is no Agent"
    assert issubclass(cls.Config, Config), "its Config is not below algos.core.config.Config"
    assert dataclasses.is_dataclass(cls.Config), "its Config is no dataclass"
    with suppress(dataclasses.FrozenInstanceError):
        default: Any = build_config(algo, {})
        default.batch_size = B
        raise AssertionError("its Config is not frozen")
    for key, value in settable(algo).items():
        if value not in ([], ""):
            spec = f"{algo}:{key}={canonical(value)}"
            read = algorithm_config(*parse_overrides(spec))
            assert read == default_config(algo), f"{spec} is read as {read[key]!r}"


@_check("actions have their shape and lie in [-1, 1]")
def actions(algorithm: Algorithm) -> None:
    agent = algorithm.make()
    train(agent, 2)
    assert agent.evaluation_mode in MODES, (
        f"evaluation_mode {agent.evaluation_mode!r}: expected one of {MODES}"
    )
    for mode in MODES:
        for candidates, n in ((None, 4), (None, 1), (3, 2)):
            action = agent.act(observations(n=n), mode=mode, candidates=candidates)
            shape = (len(SEEDS), n, A)
            assert action.shape == shape, f"{mode}: actions of shape {tuple(action.shape)}, expected {shape}"
            assert action.dtype == torch.float32, f"{mode}: actions of type {action.dtype}"
            assert not action.requires_grad, f"{mode}: actions require a gradient"
            assert bool(action.isfinite().all()), f"{mode}: actions that are not finite"
            assert bool((action.abs() <= 1).all()), f"{mode}: actions beyond [-1, 1]"


@_check("actions at large observations lie in [-1, 1]")
def large_observations(algorithm: Algorithm) -> None:
    action = algorithm.make().act(1e4 * observations(), mode="behaviour")
    assert bool((action.abs() <= 1).all()), "actions beyond [-1, 1] or not finite"


@_check("an update changes the state and reports one number per seed")
def updates(algorithm: Algorithm) -> None:
    agent = algorithm.make()
    before = [state_of(agent, k) for k in range(len(SEEDS))]
    found: dict[str, torch.Tensor] = {}
    for metrics in train(agent, 6):  # an actor may be updated less often than every time
        found |= metrics
    for name, value in found.items():
        assert METRIC.fullmatch(name), f"{name!r} cannot stand in train.csv"
        assert value.shape == (len(SEEDS),), f"{name} is {tuple(value.shape)}, not one number per seed"
        assert bool(value.isfinite().all()), f"{name} is not finite"
    assert agent.updates == 6
    assert agent.finite() == [True] * len(SEEDS), "a parameter or loss is not finite"
    for part in agent.optimiser:
        for k in range(len(SEEDS)):
            now = state_of(agent, k)
            moved = any(
                not torch.equal(now[key], x) for key, x in before[k].items() if key.startswith(f"{part}.")
            )
            assert moved, f"{part} is not trained within 6 updates"


@_check("the state is tensors with a seed axis, at fixed addresses")
def state(algorithm: Algorithm) -> None:
    agent = algorithm.make()
    where = {(part, name): x.data_ptr() for part, xs in agent.state.items() for name, x in xs.items()}
    train(agent, 2)
    for part, params in agent.state.items():
        for name, x in params.items():
            assert isinstance(x, torch.Tensor), f"{part}.{name} is no tensor"
            shared = x.dim() == 0 and part.endswith(".adam")  # the count of steps
            has_axis = x.dim() > 0 and x.shape[0] == len(SEEDS)
            assert shared or has_axis, f"{part}.{name} has no seed axis: {tuple(x.shape)}"
            assert not x.requires_grad, f"{part}.{name} requires a gradient"
            assert where.get((part, name)) == x.data_ptr(), f"{part}.{name} was replaced: change it in place"


@_check("seeds in a pack compute what they compute alone")
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
                _close(theirs[name][k : k + 1], mine[name], f"{name} of seed {seed}", **PACK_TOLERANCE)
        for name, x in state_of(alone, 0).items():
            _close(trained[k][name], x, f"{name} of seed {seed}", **PACK_TOLERANCE)
        for mode in MODES:
            action = alone.act(observations((seed,)), mode=mode)
            _close(acted[mode][k : k + 1], action, f"the {mode} action of seed {seed}", **PACK_TOLERANCE)


@_check("seeds differ")
def seeds_differ(algorithm: Algorithm) -> None:
    action = algorithm.make((1, 2)).act(torch.zeros(2, 3, O), mode="behaviour")
    assert not torch.equal(action[0], action[1]), "two seeds act alike"


@_check("the same seed gives the same, however often it is evaluated")
def deterministic(algorithm: Algorithm) -> None:
    one, two = algorithm.make(), algorithm.make()
    train(one, 3)
    two.act(observations(), mode=two.evaluation_mode)  # evaluation draws from a stream of its own
    train(two, 3)
    _same(one, two)


@_check("it goes on from a state as if it had not stopped")
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
    _same(agent, other)


@_check("a run that is stopped and resumed ends the same")
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
    _same(whole, finish(Trainer([job], execution, [snapshot], [rows])))


def _short_run() -> RunSettings:
    return RunSettings(
        steps=STEPS, random_steps=STEPS // 3, eval_every=STEPS, eval_episodes=1, final_episodes=0
    )


@_check("its policy can be stored")
def policy(algorithm: Algorithm) -> None:
    buffer = io.BytesIO()
    torch.save(algorithm.make().policy_dict(1), buffer)
    buffer.seek(0)
    record = torch.load(buffer, weights_only=True)
    assert record["algo"] == algorithm.name, f"the class is named {record['algo']!r}"
    assert (record["obs_dim"], record["act_dim"]) == (O, A)


@_check("it leaves the batch as it is")
def batch_unchanged(algorithm: Algorithm) -> None:
    agent = algorithm.make()
    given = batch(agent.transitions())
    agent.update(given)
    for name, mine, theirs in zip(Batch._fields, given, batch(agent.transitions())):
        assert torch.equal(mine, theirs), f"{name} of the batch was changed"


@_check("it makes no random numbers itself")
def random_numbers(algorithm: Algorithm) -> None:
    # Numbers that it does not declare as draws would be the same for no two executions.
    numbers: Callable[[], Any] = lambda: np.random.get_state()[1]  # type: ignore[index]  # noqa: E731
    torch_state, numpy_state = torch.get_rng_state(), numbers().copy()
    agent = algorithm.make()
    train(agent, 2)
    agent.act(observations(), mode="behaviour")
    assert torch.equal(torch.get_rng_state(), torch_state), (
        "it draws from torch's own generator: declare draws"
    )
    assert np.array_equal(numbers(), numpy_state), "it draws from numpy's generator: declare draws"


@_check("its update is a function of tensors")
def function_of_tensors(algorithm: Algorithm) -> None:
    # No `.item()`, no branch on data: torch can follow every operation with tensors that hold no values.
    agent = algorithm.make()
    for phase in phases(agent):
        given = batch(agent.transitions())
        draws = agent.noise["update"].fill(agent.update_draws(given, phase))

        def step(state: Any, data: Any, numbers: Any, phase: int = phase) -> Any:
            return agent.update_step(state, data, numbers, phase)

        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            step(*(tree_map(mode.from_tensor, tree) for tree in (agent.state, given, draws)))


def phases(agent: Agent, within: int = 12) -> list[int]:
    """The different phases of the first updates."""
    return sorted({agent.phase(count) for count in range(within)})


def _compared(algorithm: Algorithm, execution: str, device: str) -> None:
    eager, other = algorithm.make(SEEDS[:2]), algorithm.make(SEEDS[:2], execution, device)
    for theirs, mine in zip(train(eager, 3), train(other, 3)):
        for name in theirs:
            _close(mine[name].cpu(), theirs[name], name, rtol=1e-2, atol=1e-3)
    obs = observations(SEEDS[:2])
    action = other.act(obs.to(other.device), mode="behaviour").cpu()
    shape = (2, 4, A)
    assert action.shape == shape, f"actions of shape {tuple(action.shape)}, expected {shape}"
    assert bool((action.abs() <= 1).all()), "actions beyond [-1, 1] or not finite"


@_check("compiled, it computes the same", slow=True)
def compiles(algorithm: Algorithm) -> None:
    _compared(algorithm, "compile", "cpu")


@_check("captured as a CUDA graph, it computes the same (where there is a GPU)", slow=True)
def captures(algorithm: Algorithm) -> None:
    if torch.cuda.is_available():
        _compared(algorithm, "graph", "cuda")
