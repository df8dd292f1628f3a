"""What every algorithm must do, one of your own included: a file in algos/ or an entry point is found and tested here.

docs/adding-an-algorithm.md explains each demand.
"""

from __future__ import annotations

import dataclasses
import io
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from algos.agent import MODES, Agent, Batch, Config
from bench.config import agent_class, algorithm_config, build_config, default_config, parse_overrides
from tests.launching import ALGORITHMS

O, A, B = 5, 2, 16  # noqa: E741 (observation and action dimensions, batch)
SEEDS = (3, 0, 11)
SMALL = {"hidden": [8, 8], "batch_size": B, "T": 2, "time_dim": 4, "act_candidates": 3}


@pytest.fixture(params=ALGORITHMS)
def algo(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(algo: str, seeds: tuple[int, ...] = SEEDS, **settings: Any) -> Agent:
    known = default_config(algo)
    config = algorithm_config(algo, {k: v for k, v in (SMALL | settings).items() if k in known})
    agent: Agent = agent_class(algo)(build_config(algo, config), O, A, seeds)
    return agent


def observations(seeds: tuple[int, ...] = SEEDS, n: int = 4) -> torch.Tensor:
    """(S, n, O), each seed's own."""
    return torch.stack([torch.randn(n, O, generator=torch.Generator().manual_seed(k)) for k in seeds])


def batch(size: int, seeds: tuple[int, ...] = SEEDS, count: int = 0) -> Batch:
    """Fields (S, size, ...), each seed's own; another one for every `count`."""

    def draw(k: int) -> list[torch.Tensor]:
        g = torch.Generator().manual_seed(1000 * count + k)
        obs, next_obs = torch.randn(2, size, O, generator=g)
        action = 2 * torch.rand(size, A, generator=g) - 1
        return [obs, action, torch.randn(size, generator=g), torch.rand(size, generator=g).round(), next_obs]

    return Batch(*(torch.stack(fields) for fields in zip(*map(draw, seeds))))


def train(agent: Agent, updates: int, start: int = 0) -> list[dict[str, torch.Tensor]]:
    size = agent.config.batch_size
    return [agent.update(batch(size, agent.seeds, start + i)) for i in range(updates)]


def state_of(agent: Agent, k: int) -> dict[str, torch.Tensor]:
    state = agent.state_dict(k)["state"]
    return {f"{part}.{name}": x for part, xs in state.items() for name, x in xs.items()}


def test_its_settings_are_plain_values(algo: str) -> None:
    cls = agent_class(algo)
    assert issubclass(cls, Agent)
    assert issubclass(cls.Config, Config)
    assert dataclasses.is_dataclass(cls.Config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        cls.Config().batch_size = 3
    for key, value in default_config(algo).items():
        spec = f"{algo}:{key}={'x'.join(map(str, value)) if isinstance(value, list) else value}"
        if value not in ([], ""):
            assert algorithm_config(*parse_overrides(spec)) == default_config(algo)


def test_actions(algo: str) -> None:
    agent = make(algo)
    train(agent, 2)
    assert agent.evaluation_mode in MODES
    for mode in MODES:
        for candidates, n in ((None, 4), (None, 1), (3, 2)):
            action = agent.act(observations(n=n), mode=mode, candidates=candidates)
            assert action.shape == (len(SEEDS), n, A)
            assert action.dtype == torch.float32
            assert not action.requires_grad
            assert bool((action.abs() <= 1).all()), f"{mode}: actions beyond [-1, 1]"
            assert bool(action.isfinite().all())


def test_the_actions_of_a_large_observation_are_bounded_too(algo: str) -> None:
    action = make(algo).act(1e4 * observations(), mode="behaviour")
    assert bool((action.abs() <= 1).all())


def test_an_update_changes_the_state_and_tells_numbers(algo: str) -> None:
    agent = make(algo)
    before = [state_of(agent, k) for k in range(len(SEEDS))]
    told = {}
    for metrics in train(agent, 4):  # an actor may be updated less often than every time
        told |= metrics
    for name, value in told.items():
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]{0,58}", name), f"{name!r} cannot stand in train.csv"
        assert isinstance(value, torch.Tensor)
        assert value.shape == (len(SEEDS),), f"{name} is {tuple(value.shape)}, not one number per seed"
        assert bool(value.isfinite().all())
    assert agent.updates == 4
    assert agent.finite() == [True] * len(SEEDS)
    for part in agent.trained():
        for k in range(len(SEEDS)):
            changed = [key for key, x in state_of(agent, k).items() if not torch.equal(x, before[k][key])]
            assert any(key.startswith(f"{part}.") for key in changed), f"{part} is not trained"


def test_the_state_is_tensors_with_a_seed_axis(algo: str) -> None:
    agent = make(algo)
    train(agent, 2)
    for part, params in agent.state.items():
        for name, x in params.items():
            assert isinstance(x, torch.Tensor)
            assert x.dim() == 0 or x.shape[0] == len(SEEDS), (
                f"{part}.{name} has no seed axis: {tuple(x.shape)}"
            )
            assert not x.requires_grad
            assert x.grad_fn is None


def test_seeds_are_independent(algo: str) -> None:
    # Products of a pack are rounded otherwise than those of one seed: 1e-4 is far above what that amounts to in five
    # updates of such networks, and far below what another seed's number would do.
    pack = make(algo)
    told = train(pack, 5)
    actions = {mode: pack.act(observations(), mode=mode).clone() for mode in MODES}
    for k, seed in enumerate(SEEDS):
        alone = make(algo, (seed,))
        for mine, theirs in zip(train(alone, 5), told):
            assert mine.keys() == theirs.keys()
            for name in mine:
                torch.testing.assert_close(theirs[name][k : k + 1], mine[name], rtol=1e-3, atol=1e-4)
        for name, x in state_of(alone, 0).items():
            torch.testing.assert_close(state_of(pack, k)[name], x, rtol=1e-3, atol=1e-4)
        for mode in MODES:
            action = alone.act(observations((seed,)), mode=mode)
            torch.testing.assert_close(actions[mode][k : k + 1], action, rtol=1e-3, atol=1e-4)


def test_seeds_differ(algo: str) -> None:
    agent = make(algo, (1, 2))
    same = torch.zeros(2, 3, O)
    action = agent.act(same, mode="behaviour")
    assert not torch.equal(action[0], action[1])


def test_the_same_seed_gives_the_same(algo: str) -> None:
    one, two = make(algo), make(algo)
    train(one, 3)
    two.act(observations(), mode=two.evaluation_mode)  # evaluation draws from a stream of its own
    train(two, 3)
    for k in range(len(SEEDS)):
        for name, x in state_of(one, k).items():
            assert torch.equal(x, state_of(two, k)[name]), f"{name} differs"


def test_it_goes_on_from_a_state(algo: str) -> None:
    agent, other = make(algo), make(algo)
    train(agent, 3)
    agent.act(observations(), mode="behaviour")
    buffer = io.BytesIO()
    torch.save([agent.state_dict(k) for k in range(len(SEEDS))], buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))  # tensors and plain numbers alone
    assert other.updates == agent.updates
    assert torch.equal(
        agent.act(observations(), mode="behaviour"), other.act(observations(), mode="behaviour")
    )
    train(agent, 3, 3)
    train(other, 3, 3)
    for k in range(len(SEEDS)):
        for name, x in state_of(agent, k).items():
            assert torch.equal(x, state_of(other, k)[name]), f"{name} differs"


def test_its_policy_can_be_stored(algo: str) -> None:
    agent = make(algo)
    buffer = io.BytesIO()
    torch.save(agent.policy_dict(1), buffer)
    buffer.seek(0)
    record = torch.load(buffer, weights_only=True)
    assert record["algo"] == algo
    assert (record["obs_dim"], record["act_dim"]) == (O, A)


def test_it_leaves_the_batch_as_it_is(algo: str) -> None:
    agent = make(algo)
    given = batch(agent.config.batch_size)
    agent.update(given)
    for mine, theirs in zip(given, batch(agent.config.batch_size)):
        assert torch.equal(mine, theirs)


def test_it_makes_no_random_numbers_itself(algo: str) -> None:
    # Numbers that it does not declare as draws would be the same for no two executions.
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    agent = make(algo)
    train(agent, 2)
    agent.act(observations(), mode="behaviour")
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])


def test_its_update_is_a_function_of_tensors(algo: str) -> None:
    # No `.item()`, no branch on data: torch can follow every operation with tensors that hold no values.
    agent = make(algo)
    size = agent.config.batch_size
    for count in range(3):
        draws = agent.noise["update"].fill(agent.update_draws())

        def step(state: Any, data: Any, numbers: Any, phase: int = agent.phase(count)) -> Any:
            return agent.update_step(state, data, numbers, phase)

        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            step(*(tree_map(mode.from_tensor, tree) for tree in (agent.state, batch(size), draws)))
