"""Networks as functions of parameters. Every parameter has a seed axis S in front; products are batched over it.

Shapes: S seeds, B rows, O observation and A action dimensions, H hidden units. Weights are (S, in, out) and biases
(S, 1, out), so that a layer is one `baddbmm`; the twin critics are one network with a second axis of length two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from algos.core.kernels import ACTIVATIONS, affine

Params = dict[str, Tensor]
Generators = Sequence[torch.Generator]


# -- initialisation --------------------------------------------------------------------------------


def _uniform(generators: Generators, shape: Sequence[int], bound: float) -> Tensor:
    """(S, *shape), uniform in [-bound, bound), drawn on each seed's own generator (on the CPU, in float64)."""
    rows = [torch.rand(*shape, generator=g, dtype=torch.float64) for g in generators]
    return (2 * torch.stack(rows) - 1) * bound


def init_linear(
    generators: Generators, fan_in: int, fan_out: int, scheme: str, twins: int = 0
) -> tuple[Tensor, Tensor]:
    """Weight (S, [twins,] in, out) and bias (S, [twins,] 1, out).

    scheme "xavier_uniform": U(+-sqrt(6 / (in + out))), bias 0 (the QSM authors' code).
    scheme "torch": U(+-1/sqrt(in)) for both, PyTorch's default (the Diffusion-QL authors' code).
    """
    lead = (twins,) if twins else ()
    if scheme == "xavier_uniform":
        w = _uniform(generators, (*lead, fan_in, fan_out), math.sqrt(6 / (fan_in + fan_out)))
        return w, torch.zeros(len(generators), *lead, 1, fan_out, dtype=w.dtype)
    bound = 1 / math.sqrt(fan_in)
    return (
        _uniform(generators, (*lead, fan_in, fan_out), bound),
        _uniform(generators, (*lead, 1, fan_out), bound),
    )


def init_mlp(generators: Generators, sizes: Sequence[int], scheme: str, twins: int = 0) -> Params:
    """Parameters w0, b0, w1, b1, ... of a multi-layer perceptron with the given layer sizes."""
    params: Params = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        params[f"w{i}"], params[f"b{i}"] = init_linear(generators, fan_in, fan_out, scheme, twins)
    return params


# -- multi-layer perceptrons -----------------------------------------------------------------------


def depth(params: Params) -> int:
    """How many layers w0, w1, ... a network has."""
    return sum(name.startswith("w") for name in params)


def mlp(params: Params, x: Tensor, activation: str) -> Tensor:
    """x (S, B, in) -> (S, B, out); the activation follows every layer but the last."""
    act = ACTIVATIONS[activation]
    last = depth(params) - 1
    for i in range(last):
        x = act(affine(x, params[f"w{i}"], params[f"b{i}"]))
    return affine(x, params[f"w{last}"], params[f"b{last}"])


def init_twin_q(
    generators: Generators, obs_dim: int, act_dim: int, hidden: Sequence[int], scheme: str
) -> Params:
    """Parameters of two critics Q(s, a), weights (S, 2, in, out)."""
    return init_mlp(generators, (obs_dim + act_dim, *hidden, 1), scheme, twins=2)


def twin_q(params: Params, obs: Tensor, action: Tensor, activation: str) -> Tensor:
    """All critics that `params` hold (two, or one of them) at (S, B, O) and (S, B, A) -> (S, critics, B)."""
    S, B = obs.shape[:2]
    critics = params["w0"].shape[1]
    x = torch.cat([obs, action], -1)
    x = x.unsqueeze(1).expand(S, critics, B, x.shape[-1]).flatten(0, 1)  # (S critics, B, O + A)
    stacked = {name: p.flatten(0, 1) for name, p in params.items()}
    return mlp(stacked, x, activation).view(S, critics, B)


# -- time features ---------------------------------------------------------------------------------


def fourier_features(kernel: Tensor, t: Tensor) -> Tensor:
    """cos and sin of 2 pi t w: t (T,), learnable w (S, F, 1) -> (S, T, 2F) (QSM authors' `FourierFeatures`)."""
    phase = 2 * math.pi * t[:, None] * kernel.transpose(1, 2)  # (S, T, F)
    return torch.cat([phase.cos(), phase.sin()], -1)


def sinusoidal_features(dim: int, t: Tensor) -> Tensor:
    """Fixed sinusoids, frequencies 10000^(-i/(dim/2 - 1)): t (T,) -> (T, dim).

    As in the Diffusion-QL authors' `SinusoidalPosEmb`.
    """
    half = dim // 2
    rate = torch.exp(torch.arange(half, device=t.device, dtype=t.dtype) * -(math.log(10000) / (half - 1)))
    phase = t[:, None] * rate
    return torch.cat([phase.sin(), phase.cos()], -1)
