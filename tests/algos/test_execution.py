"""Running an update eagerly, compiled or as a CUDA graph, and what a GPU asks of it, as far as a CPU can show."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from small import ACT_DIM, ALGORITHMS, OBS_DIM, make, parameters, random_batch, train
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from algos import agent_class
from algos.core.agent import Agent, Selection
from algos.core.execution import Execution
from algos.core.replay import Replay

MODES = ("behaviour", "sample", "greedy")


def act_everyhow(agent: Agent) -> list[tuple[str, int | None]]:
    return [(mode, candidates) for mode in MODES for candidates in (None, 3)]


def observations(agent: Agent, n: int = 2) -> Tensor:
    g = torch.Generator().manual_seed(n)
    return torch.randn(len(agent.seeds), n, OBS_DIM, generator=g, dtype=torch.float64).to(agent.dtype)


# -- tensors only: no host synchronisation, no other device ----------------------------------------------------


class Strict(TorchDispatchMode):
    """Runs operations on the meta device, which has shapes but no values, and refuses what a graph cannot capture."""

    REFUSED = (
        (torch.Tag.data_dependent_output, "reads a value on the host"),
        (torch.Tag.dynamic_output_shape, "has a shape that depends on values"),
        (torch.Tag.nondeterministic_seeded, "makes random numbers"),
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tag, why in self.REFUSED:
            assert tag not in func.tags, f"{func} {why}"
        no_meta_kernel = func is torch.ops.aten._fused_adam_.tensor_lr  # it returns nothing
        out = None if no_meta_kernel else func(*args, **(kwargs or {}))
        for x in pytree.tree_leaves((args, kwargs, out)):
            assert not isinstance(x, Tensor) or x.device.type == "meta", f"{func} touches the {x.device}"
        return out


def on_meta(tree: Any) -> Any:
    def convert(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")

    return pytree.tree_map(convert, tree)


def trace_update(agent: Agent) -> None:
    """Every update function of the agent on tensors without values."""
    batch = random_batch(agent, 0)
    phases = sorted({agent.phase(count) for count in range(6)})
    draws = {phase: agent.noise["update"].fill(agent.update_draws(batch, phase)) for phase in phases}
    state, batch, draws = on_meta((agent.state, batch, draws))
    for name, value in vars(agent).items():
        setattr(agent, name, on_meta(value) if isinstance(value, Tensor) else value)
    shapes = {f"{part}/{leaf}": p.shape for part, leaves in state.items() for leaf, p in leaves.items()}
    with Strict():
        for phase in phases:
            metrics = agent.update_step(state, batch, draws[phase], phase)
            assert all(value.shape == (len(agent.seeds),) for value in metrics.values())
    assert shapes == {
        f"{part}/{leaf}": p.shape for part, leaves in state.items() for leaf, p in leaves.items()
    }


@pytest.mark.seconds
@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_an_update_is_a_function_of_tensors_on_one_device(name, seeds):
    trace_update(make(name, seeds, dtype=torch.float32))


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("qsm", {"score_scale": True, "normalise_gradient": True, "actor_lr_decay": 0, "grad_norm": 1.0}),
        ("qsm", {"clip_sampler": "x0", "time_features": "sinusoidal", "target_noise": 0.0, "T": 1}),
        ("dql-bc", {"target_noise": 0.1, "grad_norm": 0.0, "actor_lr_decay": 100}),
        ("sac", {"actor_q": "min", "critic_activation": "mish", "critic_loss": "sum"}),
        ("td3", {"actor_q": "first", "clip_target_action": True, "actor_delay": 3}),
    ],
)
def test_so_it_is_with_other_settings(name, settings):
    trace_update(make(name, [0, 1], dtype=torch.float32, **settings))


@pytest.mark.seconds
@pytest.mark.parametrize("name", [*ALGORITHMS, "random"])
def test_acting_is_a_function_of_tensors_on_one_device(name):
    agent = make(name, [0, 1], dtype=torch.float32)
    calls = []
    for mode, candidates in act_everyhow(agent):
        selection = agent.selection(mode) if candidates is None else Selection(candidates)
        calls.append(
            (
                mode,
                selection,
                agent.noise["behaviour"].fill(agent.act_draws(observations(agent), mode, selection)),
            )
        )
    state, obs, calls = on_meta((agent.state, observations(agent), calls))
    with Strict():
        for mode, selection, draws in calls:
            assert agent.act_step(state, obs, draws, mode, selection).shape == (2, 2, ACT_DIM)


BREACHES: dict[str, tuple[Callable[[Agent, dict, Any], Any], str]] = {
    "item": (lambda agent, state, batch: batch.reward.mean().item(), "reads a value on the host"),
    "branch": (lambda agent, state, batch: 1 if batch.reward.mean() > 0 else 2, "reads a value on the host"),
    "to numpy": (lambda agent, state, batch: batch.reward.cpu(), "Cannot copy out of meta"),
    "boolean mask": (lambda agent, state, batch: batch.reward[batch.reward > 0], "depends on values"),
    "random": (lambda agent, state, batch: torch.randn_like(batch.reward), "makes random numbers"),
    "other device": (lambda agent, state, batch: torch.zeros(3) + 1, "touches the cpu"),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_an_update_that_a_graph_could_not_capture_is_found_out(breach):
    """The tests above can fail."""
    what, why = BREACHES[breach]

    class Careless(agent_class("td3")):
        def actor_step(self, state, batch, draws, phase):
            what(self, state, batch)
            return super().actor_step(state, batch, draws, phase)

    agent = Careless(Careless.Config(hidden=(8,), batch_size=4), OBS_DIM, ACT_DIM, [0])
    with pytest.raises((AssertionError, NotImplementedError), match=why):
        trace_update(agent)


# -- static memory -----------------------------------------------------------------------------------------


def addresses(agent: Agent) -> dict[str, int]:
    return {
        f"{part}/{leaf}": p.data_ptr() for part, leaves in agent.state.items() for leaf, p in leaves.items()
    }


@pytest.mark.parametrize("name", ALGORITHMS)
def test_state_draws_and_batch_stay_where_they_are(name):
    """A captured graph reads and writes fixed addresses."""
    agent = make(name, [0, 1])
    replay = Replay(16, OBS_DIM, ACT_DIM, [0, 1], dtype=agent.dtype)
    for i in range(4):
        row = random_batch(agent, i)
        obs, action, reward, mask, next_obs = (field[:, 0].numpy() for field in row)
        replay.add(obs, action, reward, 1 - mask, next_obs)
    before = addresses(agent)
    seen = set()
    for _ in range(3):
        batch = replay.sample(8)
        agent.update(batch)
        draws = agent.noise["update"].fill(agent.update_draws(batch, 0))
        seen.add(tuple(x.data_ptr() for x in (*batch, *draws.values())))
        agent.act(observations(agent), mode="behaviour")
    agent.load_state_dict([agent.state_dict(k) for k in range(2)])
    agent.update(replay.sample(8))
    assert addresses(agent) == before
    assert len(seen) == 1


# -- the graph ---------------------------------------------------------------------------------------------


class Tape(TorchDispatchMode):
    """A CUDA graph's stand-in on a CPU: records operations with the very tensors they used, and repeats them there.

    As in a real capture the operations take no effect while they are recorded: what they write is put back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple, dict, Any]] = []
        self.overwritten: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for argument, value in zip(func._schema.arguments, args):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for x in pytree.tree_leaves(value):
                    self.overwritten.setdefault(x.data_ptr(), (x, x.clone()))
        out = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, out))
        return out

    def put_back(self) -> None:
        with torch._C._AutoDispatchBelowAutograd():
            for x, value in reversed(self.overwritten.values()):
                x.copy_(value)

    def replay(self) -> None:
        with torch._C._AutoDispatchBelowAutograd():  # where they were recorded
            for func, args, kwargs, recorded in self.operations:
                aliases = [value.alias_info for value in func._schema.returns]
                if any(alias is not None and not alias.is_write for alias in aliases):
                    continue  # a view: still of the same memory
                out = func(*args, **kwargs)
                if all(alias is None for alias in aliases):
                    for old, new in zip(pytree.tree_leaves(recorded), pytree.tree_leaves(out)):
                        if isinstance(old, Tensor):
                            old.copy_(new)


@pytest.fixture
def tape(monkeypatch) -> list[Tape]:
    """torch.cuda's graphs made of tapes; the list of those captured."""
    tapes: list[Tape] = []

    class Stream:
        def wait_stream(self, other: Stream) -> None:
            pass

    @contextlib.contextmanager
    def capture(graph: Tape) -> Iterator[None]:
        with graph:
            yield
        graph.put_back()
        tapes.append(graph)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return tapes


def assert_same_state(one: Agent, other: Agent) -> None:
    for k in range(len(one.seeds)):
        mine, theirs = parameters(one, k), parameters(other, k)
        assert all(torch.equal(mine[leaf], theirs[leaf]) for leaf in mine)


@pytest.mark.seconds
@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_graph_path_computes_what_the_eager_path_computes(name, tape):
    graph, eager = make(name, [0, 1], execution="graph"), make(name, [0, 1])
    for i in range(6):  # the batches are other tensors every time: a graph must copy them in
        batch = random_batch(eager, i)
        metrics, expected = graph.update(batch), eager.update(batch)
        assert metrics.keys() == expected.keys()
        assert all(torch.equal(metrics[key], expected[key]) for key in expected)
        assert_same_state(graph, eager)
    assert len(tape) == len({eager.phase(i) for i in range(6)})  # one graph per phase
    for mode, candidates in act_everyhow(eager):
        for n in (1, 3):
            obs = observations(eager, n)
            for _ in range(2):
                actions = (agent.act(obs, mode=mode, candidates=candidates) for agent in (graph, eager))
                assert torch.equal(*actions)
    states = [eager.state_dict(k) for k in range(2)]
    train(graph, 3)
    graph.load_state_dict(states)  # into the memory that the graphs know
    assert_same_state(train(graph, 3), train(eager, 3))


def test_a_number_that_the_host_changes_is_frozen_in_a_graph(tape):
    """The test above can fail: here for a learning rate that Python computes from the update's count."""

    class Careless(agent_class("td3")):
        def descend(self, state, part, grads):
            rate = dataclasses.replace(self.optimiser[part], lr=1e-3 / (1 + self.updates))
            rate.step(state[part], grads, state[f"{part}.adam"])

    def agent(execution: str) -> Agent:
        config = Careless.Config(hidden=(8,), batch_size=4)
        return Careless(config, OBS_DIM, ACT_DIM, [0], execution=execution)

    graph, eager = train(agent("graph"), 3), train(agent("eager"), 3)
    assert not torch.equal(graph.state["critic"]["w0"], eager.state["critic"]["w0"])


def test_capturing_leaves_no_trace(tape):
    """Warming up runs the function; the state must be as before when the first real call begins."""
    counted = []

    def add_one(state: dict[str, Tensor], x: Tensor) -> Tensor:
        counted.append(1)
        state["sum"].add_(x)
        return state["sum"] * 2

    execution = Execution("graph")
    state, x = {"sum": torch.zeros(2)}, torch.ones(2)
    results = [execution("key", add_one, (state, x), ()).tolist() for _ in range(3)]
    assert results == [[2, 2], [4, 4], [6, 6]]
    assert state["sum"].tolist() == [3, 3]
    assert len(counted) > 1
    calls = len(counted)
    execution("key", add_one, (state, torch.full((2,), 5.0)), ())
    assert state["sum"].tolist() == [8, 8]
    assert len(counted) == calls
    assert execution.preparation_s > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_cuda_graph_computes_what_the_eager_path_computes(name):
    cls = agent_class(name)
    config = cls.Config(hidden=(64, 64), batch_size=32)
    agents = [
        cls(config, OBS_DIM, ACT_DIM, [0, 1], device="cuda", execution=execution)
        for execution in ("eager", "graph")
    ]
    initial = parameters(agents[0])
    for i in range(100):
        for agent in agents:
            batch = random_batch(agent, i)
            agent.update(type(batch)(*(field.cuda() for field in batch)))
        if i in (0, 99):
            compare(*agents, initial, 1e-3 if i else 1e-5)


# -- compiled ----------------------------------------------------------------------------------------------


def compare(reference: Agent, other: Agent, initial: dict[str, Tensor], rtol: float) -> None:
    """Per leaf, relative to the distance it has moved since `initial`."""
    theirs, ours = parameters(reference), parameters(other)
    for leaf, value in theirs.items():
        off, moved = (ours[leaf] - value).norm(), (value - initial[leaf]).norm()
        assert off <= rtol * moved, (leaf, off.item(), moved.item())


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("other", [{}, {"batch_size": 21, "T": 3}])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_compiled_pack_computes_what_its_seeds_compute_alone(name, other):
    """As the pack test of the eager path; that compiled updates are the eager ones is the golden tests' part."""
    if name in ("sac", "td3"):
        other = {key: value for key, value in other.items() if key != "T"}
    pack = make(name, [3, 0, 11, 7], execution="compile", **other)
    initial = parameters(pack, 2)
    alone = train(make(name, [11], **other), 20)
    train(pack, 20)
    theirs, ours = parameters(alone), parameters(pack, 2)
    for leaf, value in theirs.items():
        assert (ours[leaf] - value).norm() <= 1e-8 * (value - initial[leaf]).norm(), leaf


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qsm"])
def test_compiled_actions_equal_eager_ones(name):
    eager, compiled = make(name, [0]), make(name, [0], execution="compile")
    for _ in range(3):
        actions = (agent.act(observations(agent, 1), mode="behaviour") for agent in (eager, compiled))
        torch.testing.assert_close(*actions, rtol=0, atol=1e-12)


# -- the setting -------------------------------------------------------------------------------------------


def test_an_unknown_way_to_run_is_refused():
    with pytest.raises(ValueError, match="'jit': expected one of eager, compile, graph"):
        make("td3", [0], execution="jit")


def test_eager_calls_the_function_itself():
    execution = Execution("eager")
    x = torch.ones(1)
    assert execution("key", lambda tensor, constant: (tensor, constant), (x,), (3,)) == (x, 3)
    assert execution.preparation_s == 0
