"""The cost of an update in counts: floating-point operations, network calls, parameters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from algos.core.agent import Agent
from algos.core.gaussian import Gaussian

_aten = torch.ops.aten
PRODUCTS = (_aten.mm, _aten.bmm, _aten.addmm, _aten.baddbmm)
LONGEST_PERIOD = 60  # updates
#: Updates after which every delay has begun, and just behind a round number: work done every 10,000 updates or so
#: (DACER's entropy) is too rare for the 60 updates that are timed at most, and would count far too much in them.
LATE = 10_000_001


def period(agent: Agent) -> int:
    """After how many updates their phases repeat (TD3's delay, an averaged actor), well into training."""
    phases = [agent.phase(LATE + i) for i in range(2 * LONGEST_PERIOD)]
    return next(p for p in range(1, LONGEST_PERIOD + 1) if phases[p:] == phases[:-p] or p == LONGEST_PERIOD)


def gflop(call: Callable[[], Any]) -> float:
    """Floating-point operations, in 1e9, of the matrix products that `call` executes; a multiply-add counts two.

    Elementwise work is not counted, and neither is what an algorithm avoids (a gradient that it does not take).
    Eager execution only: compiled code is not seen.
    """
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


@contextmanager
def counted_networks(agent: Agent) -> Iterator[list[int]]:
    """Counts forward evaluations of a network on a batch, in the one entry of the list; each critic counts.

    Counted are the critics (`forward` where they have one, else `q`), the agent's network (of noise, of a velocity,
    or a Gaussian policy's), and the `mlp`s that the algorithm's own module calls; not the embedding of the time,
    whose T rows are computed once for all.
    """
    counts = [0]

    def counting(function: Callable[..., Any], networks: int) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[0] += networks
            return function(*args, **kwargs)

        return call

    with ExitStack() as patches:
        critics = agent.config.critics
        values = "forward" if hasattr(agent.critic, "forward") else "q"
        targets: list[tuple[Any, str, int]] = [(type(agent.critic), values, critics)]
        network = getattr(agent, "network", None)
        if isinstance(network, Gaussian):
            targets.append((type(network), "heads", 1))
        elif callable(network):
            targets.append((type(network), "__call__", 1))
        modules = {sys.modules[cls.__module__] for cls in type(agent).__mro__ if issubclass(cls, Agent)}
        targets += [(module, "mlp", 1) for module in modules if hasattr(module, "mlp")]
        for owner, name, networks in targets:
            function = getattr(owner, name)
            patches.enter_context(mock.patch.object(owner, name, counting(function, networks)))
        yield counts


def network_calls(agent: Agent, call: Callable[[], Any]) -> int:
    """Forward evaluations of a network in `call`; see `counted_networks`."""
    with counted_networks(agent) as counts:
        call()
    return counts[0]


class _Operands(TorchDispatchMode):
    """Notes the two factors of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._overloadpacket in PRODUCTS:
            self.pairs.append(args[-2:])
        return func(*args, **(kwargs or {}))


def products(call: Callable[[], Any]) -> Callable[[], None]:
    """A function that does the matrix products which `call` executes eagerly, on operands of the same memory layout.

    This is a lower bound with the same library; the rest of `call` could at best be saved.
    """
    with _Operands() as noted:
        call()
    pairs = [(_batched(a), _batched(b)) for a, b in noted.pairs]
    results = [torch.bmm(a, b) for a, b in pairs]

    def do() -> None:
        for (a, b), result in zip(pairs, results):
            torch.bmm(a, b, out=result)

    return do


def _batched(operand: Tensor) -> Tensor:
    """Random numbers of the same shape and strides, with a batch axis."""
    last = sum((size - 1) * stride for size, stride in zip(operand.shape, operand.stride()))
    like = torch.randn(last + 1).as_strided(operand.shape, operand.stride())
    return like if like.dim() == 3 else like.unsqueeze(0)


def parameters(agent: Agent, part: str) -> int:
    """Numbers that training changes in the actor or in both critics, of one seed."""
    return sum(p[0].numel() for p in agent.state.get(part, {}).values())
