"""Where random draws come from: seeded generators, or a recorded list (tests).

An algorithm declares what it needs as an ordered list of `Draw`s and never makes a random number itself, so the
same update runs on generated noise, on the noise of another implementation, and inside a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Draws = dict[str, Tensor]

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

    kind: "normal" (standard), "uniform" (in [0, 1)) or "randint" (int64 in [0, high)).
    shape: without the seed axis.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    high: int = 0


def stream_seed(seed: int, purpose: str, *more: int) -> int:
    """A 63-bit seed for the stream of `purpose`; independent of the streams of other purposes and seeds."""
    entropy = (seed, PURPOSES.index(purpose), *more)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


class Noise:
    """Fills declared draws, one generator per seed, in place and always into the same memory.

    All normals of a call lie in one buffer of shape (S, total), the uniforms and integers in another, so that a
    call costs two generator launches per seed; the draws are views of shape (S, *shape).
    """

    def __init__(self, seeds: Sequence[int], purpose: str, device: torch.device, dtype: torch.dtype):
        self.device, self.dtype = device, dtype
        self.generators = [torch.Generator(device).manual_seed(stream_seed(seed, purpose)) for seed in seeds]
        self._plans: dict[tuple[Draw, ...], tuple[Tensor, Tensor, Draws]] = {}

    def fill(self, specs: Sequence[Draw]) -> Draws:
        """Fresh numbers for every draw of `specs`; the tensors are overwritten by the next call."""
        key = tuple(specs)
        if key not in self._plans:
            self._plans[key] = self._plan(key)
        normals, uniforms, views = self._plans[key]
        for k, generator in enumerate(self.generators):
            if normals.shape[1]:
                normals[k].normal_(generator=generator)
            if uniforms.shape[1]:
                uniforms[k].uniform_(generator=generator)
        for spec in key:
            if spec.kind == "randint":
                flat = views["~" + spec.name]
                views[spec.name].copy_(torch.mul(flat, spec.high))  # float to int64 truncates
        return views

    def _plan(self, specs: tuple[Draw, ...]) -> tuple[Tensor, Tensor, Draws]:
        S = len(self.generators)
        size = {
            kind: sum(math.prod(s.shape) for s in specs if (s.kind == "normal") == (kind == "normal"))
            for kind in ("normal", "uniform")
        }
        normals = torch.empty(S, size["normal"], device=self.device, dtype=self.dtype)
        # float64: a float32 uniform has 2^24 values, too few to choose fairly among a million transitions
        uniforms = torch.empty(S, size["uniform"], device=self.device, dtype=torch.float64)
        views: Draws = {}
        offset = {"normal": 0, "uniform": 0}
        for spec in specs:
            kind = "normal" if spec.kind == "normal" else "uniform"
            buffer = normals if kind == "normal" else uniforms
            n = math.prod(spec.shape)
            view = buffer[:, offset[kind] : offset[kind] + n].view(S, *spec.shape)
            offset[kind] += n
            if spec.kind == "randint":
                views["~" + spec.name] = view
                view = torch.empty(view.shape, device=self.device, dtype=torch.int64)
            views[spec.name] = view
        return normals, uniforms, views

    def state(self, k: int) -> Tensor:
        """The generator state of the k-th seed (a uint8 tensor)."""
        return self.generators[k].get_state()

    def set_state(self, k: int, state: Tensor) -> None:
        self.generators[k].set_state(state)
