"""Where random draws come from: seeded generators, or a recorded list (tests).

An algorithm declares what it needs as an ordered list of `Draw`s and never makes a random number itself, so the
same update runs on generated noise, on the noise of another implementation, and inside a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: One stream per seed and purpose, so that for instance evaluating more often never changes training.
PURPOSES = (
    "initialisation",
    "environment reset",
    "random actions",
    "behaviour",
    "batch indices",
    "update",
    "evaluation environment",
    "evaluation noise",
)


@dataclass(frozen=True)
class Draw:
    """One array of random numbers for one seed.

    kind: "normal" (standard) and "uniform" (in [0, 1)) come in the agent's precision, "uniform64" (in [0, 1)) in
    float64, "randint" as int64 in [0, high). shape: without the seed axis.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    high: int = 0


class Draws:
    """The random numbers of one call, by name. The draws may depend on the phase or mode, never on values.

    Every method declares a draw and returns it with the seed axis S in front. A name can be declared once per call.
    """

    def __init__(self, values: Mapping[str, Tensor] | Recorder, prefix: str = ""):
        self._values, self._prefix = values, prefix

    def normal(self, name: str, *shape: int) -> Tensor:
        """Standard normal, (S, *shape), in the agent's precision."""
        return self._take(name, "normal", shape)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Uniform in [0, 1), (S, *shape), in the agent's precision."""
        return self._take(name, "uniform", shape)

    def uniform64(self, name: str, *shape: int) -> Tensor:
        """Uniform in [0, 1), (S, *shape), in float64: where 2^24 different values are too few."""
        return self._take(name, "uniform64", shape)

    def integers(self, name: str, high: int, *shape: int) -> Tensor:
        """Uniform integers in [0, high), (S, *shape), int64."""
        return self._take(name, "randint", shape, high)

    def scope(self, name: str) -> Draws:
        """The same draws with `name` before theirs, for a function that is called at several places."""
        return Draws(self._values, f"{self._prefix}{name}.")

    def _take(self, name: str, kind: str, shape: tuple[int, ...], high: int = 0) -> Tensor:
        full = self._prefix + name
        if isinstance(self._values, Recorder):
            return self._values.declare(Draw(full, kind, shape, high))
        if full not in self._values:
            raise RuntimeError(
                f"draw {full!r} was not declared in the recording call: draws may depend on phase and mode only"
            )
        return self._values[full]


class Recorder:
    """Notes which draws a call declares, in their order, and answers with zeros (numbers between 0 and 1: one half)."""

    def __init__(self, seeds: int, device: torch.device, dtype: torch.dtype):
        self.draws: list[Draw] = []
        self._seeds, self._device, self._dtype = seeds, device, dtype

    def declare(self, draw: Draw) -> Tensor:
        """Raises ValueError: the name is taken."""
        if any(draw.name == other.name for other in self.draws):
            raise ValueError(
                f"draw {draw.name!r} is declared twice: keep its tensor, or name the second otherwise"
            )
        self.draws.append(draw)
        dtype = {"uniform64": torch.float64, "randint": torch.int64}.get(draw.kind, self._dtype)
        value = 0.5 if draw.kind.startswith("uniform") else 0
        return torch.full((self._seeds, *draw.shape), value, device=self._device, dtype=dtype)


def stream_seed(seed: int, purpose: str, *more: int) -> int:
    """A 63-bit seed for the stream of `purpose`; independent of the streams of other purposes and seeds."""
    entropy = (seed, PURPOSES.index(purpose), *more)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


#: The normals, the uniforms, the draws by name, and the uniforms that some of them are converted from.
_Plan = tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]
BELOW_ONE = 1 - 2**-24  # the largest float32 below 1, to which a float64 just below 1 would be rounded up


class Noise:
    """Fills declared draws, one generator per seed, in place and always into the same memory.

    All normals of a call lie in one buffer of shape (S, total), the uniforms and integers in another, so that a
    call costs two generator launches per seed; the draws are views of shape (S, *shape).
    """

    def __init__(self, seeds: Sequence[int], purpose: str, device: torch.device, dtype: torch.dtype):
        self.device, self.dtype = device, dtype
        self.generators = [torch.Generator(device).manual_seed(stream_seed(seed, purpose)) for seed in seeds]
        self._plans: dict[tuple[Draw, ...], _Plan] = {}

    def fill(self, specs: Sequence[Draw]) -> dict[str, Tensor]:
        """Fresh numbers for every draw of `specs`; the tensors are overwritten by the next call."""
        key = tuple(specs)
        if key not in self._plans:
            self._plans[key] = self._plan(key)
        normals, uniforms, views, sources = self._plans[key]
        for k, generator in enumerate(self.generators):
            if normals.shape[1]:
                normals[k].normal_(generator=generator)
            if uniforms.shape[1]:
                uniforms[k].uniform_(generator=generator)
        for spec in key:
            if spec.kind == "randint":
                flat = sources[spec.name]
                views[spec.name].copy_(torch.mul(flat, spec.high))  # float to int64 truncates
            elif spec.kind == "uniform" and self.dtype != torch.float64:
                views[spec.name].copy_(sources[spec.name]).clamp_(max=BELOW_ONE)
        return views

    def _plan(self, specs: tuple[Draw, ...]) -> _Plan:
        S = len(self.generators)
        size = {
            kind: sum(math.prod(s.shape) for s in specs if (s.kind == "normal") == (kind == "normal"))
            for kind in ("normal", "uniform")
        }
        normals = torch.empty(S, size["normal"], device=self.device, dtype=self.dtype)
        # float64: a float32 uniform has 2^24 values, too few to choose fairly among a million transitions
        uniforms = torch.empty(S, size["uniform"], device=self.device, dtype=torch.float64)
        views: dict[str, Tensor] = {}
        sources: dict[str, Tensor] = {}  # float64 uniforms from which others are made
        offset = {"normal": 0, "uniform": 0}
        for spec in specs:
            kind = "normal" if spec.kind == "normal" else "uniform"
            buffer = normals if kind == "normal" else uniforms
            n = math.prod(spec.shape)
            view = buffer[:, offset[kind] : offset[kind] + n].view(S, *spec.shape)
            offset[kind] += n
            dtype = {"randint": torch.int64, "uniform": self.dtype}.get(spec.kind, view.dtype)
            if dtype != view.dtype:
                sources[spec.name] = view
                view = torch.empty(view.shape, device=self.device, dtype=dtype)
            views[spec.name] = view
        return normals, uniforms, views, sources

    def state(self, k: int) -> Tensor:
        """The generator state of the k-th seed (a uint8 tensor)."""
        return self.generators[k].get_state()

    def set_state(self, k: int, state: Tensor) -> None:
        self.generators[k].set_state(state)
