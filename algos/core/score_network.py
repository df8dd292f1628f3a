"""The noise-prediction network of a diffusion policy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from algos.core.kernels import ACTIVATIONS, affine
from algos.core.networks import Generators, Params, init_linear, init_mlp, mlp, normal


class TimeFeatures(Protocol):
    """The time features that a network gets."""

    def sizes(self, dim: int) -> tuple[int, int, int]:
        """Layer sizes of the time network: features (dim), hidden, embedding."""
        ...

    def initial(self, generators: Generators, dim: int) -> Params:
        """Their learned parameters."""
        ...

    def __call__(self, params: Params, t: Tensor, dim: int) -> Tensor:
        """t (n,), the same for all seeds, or (S, n) -> (S, n, dim) or (n, dim)."""
        ...


class FourierFeatures:
    """cos and sin of 2 pi t w, w learned (QSM authors' `FourierFeatures`)."""

    STD = 0.2  # of the initial frequencies

    def sizes(self, dim: int) -> tuple[int, int, int]:
        return dim, 2 * dim, 2 * dim

    def initial(self, generators: Generators, dim: int) -> Params:
        return {"frequencies": normal(generators, dim // 2, 1) * self.STD}

    def __call__(self, params: Params, t: Tensor, dim: int) -> Tensor:
        return fourier_features(params["frequencies"], t)


@dataclass(frozen=True)
class SinusoidalFeatures:
    """Fixed sinusoids: scale times sin and cos of t base^(-j/(dim/2 - last)), j = 0 ... dim/2 - 1."""

    base: float = 10_000.0
    last: int = 1
    scale: float = 1.0

    def sizes(self, dim: int) -> tuple[int, int, int]:
        return dim, 2 * dim, dim

    def initial(self, generators: Generators, dim: int) -> Params:
        return {}

    def __call__(self, params: Params, t: Tensor, dim: int) -> Tensor:
        features = sinusoidal_features(dim, t, self.base, self.last)
        return features if self.scale == 1.0 else self.scale * features


def fourier_features(kernel: Tensor, t: Tensor) -> Tensor:
    """cos and sin of 2 pi t w: t (n,) or (S, n), learnable w (S, F, 1) -> (S, n, 2F)."""
    phase = 2 * math.pi * t.unsqueeze(-1) * kernel.transpose(1, 2)  # (S, n, F)
    return torch.cat([phase.cos(), phase.sin()], -1)


def sinusoidal_features(dim: int, t: Tensor, base: float = 10_000.0, last: int = 1) -> Tensor:
    """Fixed sinusoids, frequencies base^(-j/(dim/2 - last)): t (..., n) -> (..., n, dim).

    The defaults are the Diffusion-QL authors' `SinusoidalPosEmb`.
    """
    half = dim // 2
    rate = torch.exp(torch.arange(half, device=t.device, dtype=t.dtype) * -(math.log(base) / (half - last)))
    phase = t.unsqueeze(-1) * rate
    return torch.cat([phase.sin(), phase.cos()], -1)


#: A package may add its own.
TIME_FEATURES: dict[str, TimeFeatures] = {
    "fourier": FourierFeatures(),
    "sinusoidal": SinusoidalFeatures(),
    # SDAC's, DPMD's and DACER's: frequencies 10000^(-j/(dim/2)), times 1/4.
    "quarter_sinusoidal": SinusoidalFeatures(last=0, scale=0.25),
}


@dataclass(frozen=True)
class ScoreNetwork:
    """eps(s, a_t, t): a network on the concatenated action, state and embedded time.

    The first layer acts on three inputs of which one alone changes along a chain, so its weight is kept in three parts:
    "w0a" (action), "w0s" (state), "w0t" (time). The state's part is computed once per state (`condition`), the
    time's part once per t (`time_table`).

    features: one of `TIME_FEATURES`, `time_dim` of them. time_hidden, time_out: widths of the time network, 0: as the
    features' authors.
    """

    obs_dim: int
    act_dim: int
    hidden: tuple[int, ...]
    T: int
    features: str
    time_dim: int
    init: str
    activation: str = "mish"
    time_hidden: int = 0
    time_out: int = 0

    @property
    def time_sizes(self) -> tuple[int, int, int]:
        """Layer sizes of the time network: features, hidden, embedding."""
        dim, hidden, out = TIME_FEATURES[self.features].sizes(self.time_dim)
        return dim, self.time_hidden or hidden, self.time_out or out

    def initial(self, generators: Generators) -> Params:
        embedding = self.time_sizes[-1]
        params: Params = dict(TIME_FEATURES[self.features].initial(generators, self.time_dim))
        time = init_mlp(generators, self.time_sizes, self.init)
        params |= {f"time_{name}": p for name, p in time.items()}
        w0, b0 = init_linear(generators, self.act_dim + self.obs_dim + embedding, self.hidden[0], self.init)
        parts = w0.split([self.act_dim, self.obs_dim, embedding], dim=1)
        params |= {name: p.contiguous() for name, p in zip(("w0a", "w0s", "w0t"), parts)} | {"b0": b0}
        body = init_mlp(generators, (*self.hidden, self.act_dim), self.init)
        return params | {f"{name[0]}{int(name[1:]) + 1}": p for name, p in body.items()}

    def time_table(self, params: Params) -> Tensor:
        """(S, T, H): the time's share of the first layer's input, one row per t = 0 ... T-1, bias included."""
        return self.time_share(
            params, torch.arange(self.T, device=params["b0"].device, dtype=params["b0"].dtype)
        )

    def time_share(self, params: Params, t: Tensor) -> Tensor:
        """The same at any times t (n,) or (S, n): (S, n, H)."""
        x = TIME_FEATURES[self.features](params, t, self.time_dim)
        if x.dim() == 2:
            x = x.expand(params["b0"].shape[0], -1, -1)
        time = {name.removeprefix("time_"): p for name, p in params.items() if name.startswith("time_")}
        return torch.baddbmm(params["b0"], mlp(time, x, self.activation), params["w0t"])

    def condition(self, params: Params, obs: Tensor) -> Tensor:
        """(S, B, O) -> (S, B, H): the state's share of the first layer's input."""
        return torch.bmm(obs, params["w0s"])

    def __call__(self, params: Params, condition: Tensor, noisy_action: Tensor) -> Tensor:
        """Predicted noise (S, B, A); `condition` (S, B, H) carries the shares of the state and of the time."""
        act = ACTIVATIONS[self.activation]
        h = act(torch.baddbmm(condition, noisy_action, params["w0a"]))
        last = len(self.hidden)
        for i in range(1, last + 1):
            h = affine(h, params[f"w{i}"], params[f"b{i}"])
            if i < last:
                h = act(h)
        return h


def _score(config: Any, obs_dim: int, act_dim: int) -> ScoreNetwork:
    c = config
    return ScoreNetwork(obs_dim, act_dim, c.hidden, c.T, c.time_features, c.time_dim, c.init)


#: Name -> (config, obs_dim, act_dim) -> a network with the methods of `ScoreNetwork`. A package may add its own.
NETWORKS: dict[str, Callable[[Any, int, int], Any]] = {"mlp": _score}
