"""Rules of the interface: what an algorithm takes and returns, and what it must leave alone."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from algos.core.agent import METRIC, MODES, Agent, Batch
from algos.core.config import Config
from bench.check.algorithm import SEEDS, A, Algorithm, B, O, batch, observations, state_of, train
from bench.studies.overrides import (
    agent_class,
    algorithm_config,
    build_config,
    canonical,
    default_config,
    parse_overrides,
    settable,
)


def settings(algorithm: Algorithm) -> None:
    algo = algorithm.name
    cls: Any = agent_class(algo)
    assert issubclass(cls, Agent), f"{cls.__name__} is not an Agent"
    assert issubclass(cls.Config, Config), "its Config is not a subclass of algos.core.config.Config"
    assert dataclasses.is_dataclass(cls.Config), "its Config is not a dataclass"
    with suppress(dataclasses.FrozenInstanceError):
        default: Any = build_config(algo, {})
        default.batch_size = B
        raise AssertionError("its Config is not frozen")
    for key, value in settable(algo).items():
        if value not in ([], ""):
            spec = f"{algo}:{key}={canonical(value)}"
            read = algorithm_config(*parse_overrides(spec))
            assert read == default_config(algo), f"{spec} is read as {read[key]!r}"


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


def large_observations(algorithm: Algorithm) -> None:
    action = algorithm.make().act(1e4 * observations(), mode="behaviour")
    assert bool((action.abs() <= 1).all()), "actions beyond [-1, 1] or not finite"


def updates(algorithm: Algorithm) -> None:
    agent = algorithm.make()
    before = [state_of(agent, k) for k in range(len(SEEDS))]
    found: dict[str, torch.Tensor] = {}
    for metrics in train(agent, 6):  # an actor may be updated less often than every time
        found |= metrics
    for name, value in found.items():
        assert METRIC.fullmatch(name), f"{name!r} cannot be a name in train.csv"
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


def state(algorithm: Algorithm) -> None:
    agent = algorithm.make()
    where = {(part, name): x.data_ptr() for part, xs in agent.state.items() for name, x in xs.items()}
    train(agent, 2)
    for part, params in agent.state.items():
        for name, x in params.items():
            assert isinstance(x, torch.Tensor), f"{part}.{name} is not a tensor"
            shared = x.dim() == 0 and part.endswith(".adam")  # the count of steps
            has_axis = x.dim() > 0 and x.shape[0] == len(SEEDS)
            assert shared or has_axis, f"{part}.{name} has no seed axis: {tuple(x.shape)}"
            assert not x.requires_grad, f"{part}.{name} requires a gradient"
            assert where.get((part, name)) == x.data_ptr(), f"{part}.{name} was replaced: change it in place"


def policy(algorithm: Algorithm) -> None:
    buffer = io.BytesIO()
    torch.save(algorithm.make().policy_dict(1), buffer)
    buffer.seek(0)
    record = torch.load(buffer, weights_only=True)
    assert record["algo"] == algorithm.name, f"the class is named {record['algo']!r}"
    assert (record["obs_dim"], record["act_dim"]) == (O, A)


def batch_unchanged(algorithm: Algorithm) -> None:
    agent = algorithm.make()
    given = batch(agent.transitions())
    agent.update(given)
    for name, mine, theirs in zip(Batch._fields, given, batch(agent.transitions())):
        assert torch.equal(mine, theirs), f"{name} of the batch was changed"


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
