"""How a function of tensors is run: eagerly, compiled, or as a captured CUDA graph. A setting, never an algorithm's."""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch.utils import _pytree as pytree

KINDS = ("eager", "compile", "graph")


class Execution:
    """Runs functions of the form fn(*tensors, *constants), where `tensors` are nested containers of tensors.

    The first call of a key prepares it (compiles, captures); `preparation_s` counts the seconds this took.
    """

    def __init__(self, kind: str):
        if kind not in KINDS:
            raise ValueError(f"execution {kind!r}: expected one of {', '.join(KINDS)}")
        self.kind = kind
        self.preparation_s = 0.0
        self._prepared: dict[Hashable, Callable[..., Any]] = {}

    def __call__(self, key: Hashable, fn: Callable[..., Any], tensors: tuple, constants: tuple) -> Any:
        if self.kind == "eager":
            return fn(*tensors, *constants)
        if key not in self._prepared:
            start = time.perf_counter()
            self._prepared[key] = self._prepare(fn, tensors, constants)
            result = self._prepared[key](*tensors)
            self.preparation_s += time.perf_counter() - start
            return result
        return self._prepared[key](*tensors)

    def seldom(self, key: Hashable, fn: Callable[..., Any], tensors: tuple, constants: tuple) -> Any:
        """The same for functions called too rarely to repay seconds of compiling; capturing takes none."""
        return self(key, fn, tensors, constants) if self.kind == "graph" else fn(*tensors, *constants)

    def _prepare(self, fn: Callable[..., Any], tensors: tuple, constants: tuple) -> Callable[..., Any]:
        if self.kind == "graph":
            return _Graph(fn, tensors, constants)

        def call(*args: Any) -> Any:
            return fn(*args, *constants)

        # torch keeps compiled versions per code object and allows a few for each: one object for every key
        own = types.FunctionType(call.__code__.replace(), call.__globals__, closure=call.__closure__)
        return torch.compile(own, fullgraph=True, dynamic=False)


class _Graph:
    """A captured call. Its inputs are the first call's tensors; later ones are copied into them where they differ."""

    WARM_UP = 3

    def __init__(self, fn: Callable[..., Any], tensors: tuple, constants: tuple):
        self.inputs = pytree.tree_leaves(tensors)
        before = [x.clone() for x in self.inputs]  # warming up and capturing must leave no trace in the state
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self.WARM_UP):
                fn(*tensors, *constants)
        torch.cuda.current_stream().wait_stream(stream)
        for x, value in zip(self.inputs, before):
            x.copy_(value)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = fn(*tensors, *constants)

    def __call__(self, *tensors: Any) -> Any:
        for mine, given in zip(self.inputs, pytree.tree_leaves(tensors)):
            if given.data_ptr() != mine.data_ptr():
                mine.copy_(given)
        self.graph.replay()
        return self.output
