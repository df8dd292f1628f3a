"""The noise-prediction network of a diffusion policy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from algos.core.kernels import affine, mish
from algos.core.networks import (
    Generators,
    Params,
    fourier_features,
    init_linear,
    init_mlp,
    mlp,
    sinusoidal_features,
)


@dataclass(frozen=True)
class ScoreNetwork:
    """eps(s, a_t, t): a Mish network on the concatenated action, state and embedded time.

    The first layer acts on three inputs of which one alone changes along a chain, so its weight is kept in three parts:
    "w0a" (action), "w0s" (state), "w0t" (time). The state's part is computed once per state (`condition`), the
    time's part once per t (`time_table`).

    features: "fourier" (64 learnable, QSM authors) or "sinusoidal" (`time_dim` fixed, Diffusion-QL authors).
    """

    obs_dim: int
    act_dim: int
    hidden: tuple[int, ...]
    T: int
    features: str
    time_dim: int
    init: str

    FOURIER_STD = 0.2  # of the initial frequencies (QSM authors' `FourierFeatures`)

    @property
    def time_sizes(self) -> tuple[int, int, int]:
        """Layer sizes of the time network: features, hidden, embedding."""
        if self.features == "fourier":
            return self.time_dim, 2 * self.time_dim, 2 * self.time_dim
        return self.time_dim, 2 * self.time_dim, self.time_dim

    def initial(self, generators: Generators) -> Params:
        embedding = self.time_sizes[-1]
        params: Params = {}
        if self.features == "fourier":
            rows = [torch.randn(self.time_dim // 2, 1, generator=g, dtype=torch.float64) for g in generators]
            params["frequencies"] = torch.stack(rows) * self.FOURIER_STD
        time = init_mlp(generators, self.time_sizes, self.init)
        params |= {f"time_{name}": p for name, p in time.items()}
        w0, b0 = init_linear(generators, self.act_dim + self.obs_dim + embedding, self.hidden[0], self.init)
        parts = w0.split([self.act_dim, self.obs_dim, embedding], dim=1)
        params |= {name: p.contiguous() for name, p in zip(("w0a", "w0s", "w0t"), parts)} | {"b0": b0}
        body = init_mlp(generators, (*self.hidden, self.act_dim), self.init)
        return params | {f"{name[0]}{int(name[1:]) + 1}": p for name, p in body.items()}

    def time_table(self, params: Params) -> Tensor:
        """(S, T, H): the time's share of the first layer's input, one row per t, bias included."""
        t = torch.arange(self.T, device=params["b0"].device, dtype=params["b0"].dtype)
        if self.features == "fourier":
            x = fourier_features(params["frequencies"], t)
        else:
            x = sinusoidal_features(self.time_dim, t).expand(params["b0"].shape[0], -1, -1)
        time = {name.removeprefix("time_"): p for name, p in params.items() if name.startswith("time_")}
        return torch.baddbmm(params["b0"], mlp(time, x, "mish"), params["w0t"])

    def condition(self, params: Params, obs: Tensor) -> Tensor:
        """(S, B, O) -> (S, B, H): the state's share of the first layer's input."""
        return torch.bmm(obs, params["w0s"])

    def __call__(self, params: Params, condition: Tensor, noisy_action: Tensor) -> Tensor:
        """Predicted noise (S, B, A); `condition` (S, B, H) carries the shares of the state and of the time."""
        h = mish(torch.baddbmm(condition, noisy_action, params["w0a"]))
        last = len(self.hidden)
        for i in range(1, last + 1):
            h = affine(h, params[f"w{i}"], params[f"b{i}"])
            if i < last:
                h = mish(h)
        return h
