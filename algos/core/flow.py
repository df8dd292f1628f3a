"""Flow policies: a velocity network and the ordinary differential equation that carries noise to a latent action.

A latent y moves from N(0, I) at t = 0 to the policy's own at t = 1 with dy/dt = v(s, y, t), and the action is tanh(y).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from algos.core.kernels import affine, gelu
from algos.core.networks import Generators, Params, init_linear, init_mlp


def sinusoids(dim: int, value: Tensor) -> Tensor:
    """(...,) -> (..., dim): sin and cos of value 1000^(-j/(dim/2 - 1)), j < dim/2 (RFM authors' embedding)."""
    half = dim // 2
    j = torch.arange(half, device=value.device, dtype=value.dtype)
    phase = value.unsqueeze(-1) * 1000.0 ** (-j / max(half - 1, 1))
    return torch.cat([phase.sin(), phase.cos()], -1)


@dataclass(frozen=True)
class VelocityNetwork:
    """v(s, y, t; temperature): a residual network on the concatenated state, latent and two embedded numbers.

    One layer with GELU, then x + GELU(W x + b) for every width of `hidden`, which are all the same, then a linear
    layer. The first weight is kept in parts, as in the score network: "w0s" (state), "w0a" (latent), "w0t" (time,
    then temperature).
    """

    obs_dim: int
    act_dim: int
    hidden: tuple[int, ...]
    embedding: int
    init: str

    def initial(self, generators: Generators) -> Params:
        width = self.hidden[0]
        sizes = [self.obs_dim, self.act_dim, 2 * self.embedding]
        w0, b0 = init_linear(generators, sum(sizes), width, self.init)
        parts = dict(zip(("w0s", "w0a", "w0t"), w0.split(sizes, dim=1)))
        body = init_mlp(generators, (*self.hidden, width, self.act_dim), self.init)
        later = {f"{name[0]}{int(name[1:]) + 1}": p for name, p in body.items()}
        return {name: p.contiguous() for name, p in parts.items()} | {"b0": b0} | later

    def condition(self, params: Params, obs: Tensor) -> Tensor:
        """(S, n, O) -> (S, n, H): the state's share of the first layer's input."""
        return torch.bmm(obs, params["w0s"])

    def time_share(self, params: Params, t: Tensor, temperature: Tensor) -> Tensor:
        """t (S, n), temperature () -> (S, n, H): their share of the first layer's input, bias included."""
        fixed = sinusoids(self.embedding, temperature).expand(*t.shape, -1)
        embedded = torch.cat([sinusoids(self.embedding, t), fixed], -1)
        return torch.baddbmm(params["b0"], embedded, params["w0t"])

    def __call__(self, params: Params, condition: Tensor, latent: Tensor) -> Tensor:
        """Velocity (S, n, A); `condition` (S, n, H) carries the shares of the state, time and temperature."""
        h = gelu(torch.baddbmm(condition, latent, params["w0a"]))
        last = len(self.hidden) + 1
        for i in range(1, last):
            h = h + gelu(affine(h, params[f"w{i}"], params[f"b{i}"]))
        return affine(h, params[f"w{last}"], params[f"b{last}"])


Velocity = Callable[[float, Tensor], Tensor]


def euler(v: Velocity, t: float, dt: float, y: Tensor) -> Tensor:
    return y + dt * v(t, y)


def heun(v: Velocity, t: float, dt: float, y: Tensor) -> Tensor:
    """The trapezoidal rule with Euler's step as its guess."""
    start = v(t, y)
    return y + 0.5 * dt * (start + v(t + dt, y + dt * start))


INTEGRATORS = {"euler": euler, "heun": heun}
