"""Networks as functions of parameters. Every parameter has a seed axis S in front; products are batched over it.

Shapes: S seeds, B rows, O observation and A action dimensions, H hidden units. Weights are (S, in, out) and biases
(S, 1, out), so that a layer is one `baddbmm`; the twin critics are one network with a second axis of length two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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


def normal(generators: Generators, *shape: int) -> Tensor:
    """(S, *shape), standard normal, drawn on each seed's own generator (on the CPU, in float64)."""
    return torch.stack([torch.randn(*shape, generator=g, dtype=torch.float64) for g in generators])


def _zero_bias(w: Tensor) -> Tensor:
    return torch.zeros(*w.shape[:-2], 1, w.shape[-1], dtype=w.dtype)


def xavier_uniform(generators: Generators, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """U(+-sqrt(6 / (in + out))), bias 0 (the QSM authors' code)."""
    w = _uniform(generators, shape, math.sqrt(6 / (shape[-2] + shape[-1])))
    return w, _zero_bias(w)


def torch_default(generators: Generators, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """U(+-1/sqrt(in)) for both, PyTorch's default (the Diffusion-QL authors' code)."""
    bound = 1 / math.sqrt(shape[-2])
    w = _uniform(generators, shape, bound)
    return w, _uniform(generators, (*shape[:-2], 1, shape[-1]), bound)


def truncated_normal(generators: Generators, shape: Sequence[int], std: float) -> Tensor:
    """N(0, std^2) truncated at two standard deviations of the untruncated one, by its inverse distribution function."""
    edge = math.erf(math.sqrt(2))
    return math.sqrt(2) * std * torch.erfinv(_uniform(generators, shape, edge))


def lecun_normal(generators: Generators, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Truncated normal of variance 1/in, bias 0: flax' default."""
    w = truncated_normal(generators, shape, math.sqrt(1 / shape[-2]) / 0.87962566103423978)
    return w, _zero_bias(w)


def he_normal(generators: Generators, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Truncated normal of variance 2/in, bias 0: flax' `he_normal`."""
    w, b = lecun_normal(generators, shape)
    return math.sqrt(2) * w, b


def haiku_default(generators: Generators, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Normal of standard deviation 1/sqrt(in) truncated at two of them, bias 0: dm-haiku's default."""
    w = truncated_normal(generators, shape, math.sqrt(1 / shape[-2]))
    return w, _zero_bias(w)


def orthogonal(generators: Generators, shape: Sequence[int], gain: float = 1.0) -> tuple[Tensor, Tensor]:
    """Rows or columns of length `gain` at right angles (Saxe et al. 2014), bias 0."""
    *lead, fan_in, fan_out = shape
    longer, shorter = max(fan_in, fan_out), min(fan_in, fan_out)
    q, r = torch.linalg.qr(normal(generators, *lead, longer, shorter))
    q = q * torch.diagonal(r, dim1=-2, dim2=-1).sign().unsqueeze(-2)  # uniform over all orthogonal matrices
    w = gain * (q if fan_in >= fan_out else q.mT).contiguous()
    return w, _zero_bias(w)


def orthogonal_sqrt2(generators: Generators, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Orthogonal with gain sqrt 2."""
    return orthogonal(generators, shape, math.sqrt(2))


#: (generators, (..., in, out)) -> weight (S, ..., in, out) and bias (S, ..., 1, out). A package may add its own.
Initialiser = Callable[[Generators, Sequence[int]], tuple[Tensor, Tensor]]
INITIALISERS: dict[str, Initialiser] = {
    "xavier_uniform": xavier_uniform,
    "torch": torch_default,
    "lecun_normal": lecun_normal,
    "he_normal": he_normal,
    "haiku": haiku_default,
    "orthogonal": orthogonal,
    "orthogonal_sqrt2": orthogonal_sqrt2,
}


def init_linear(
    generators: Generators, fan_in: int, fan_out: int, scheme: str, critics: int = 0
) -> tuple[Tensor, Tensor]:
    """Weight (S, [critics,] in, out) and bias (S, [critics,] 1, out); scheme: one of `INITIALISERS`."""
    lead = (critics,) if critics else ()
    return INITIALISERS[scheme](generators, (*lead, fan_in, fan_out))


def init_mlp(generators: Generators, sizes: Sequence[int], scheme: str, critics: int = 0) -> Params:
    """Parameters w0, b0, w1, b1, ... of a multi-layer perceptron with the given layer sizes."""
    params: Params = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        params[f"w{i}"], params[f"b{i}"] = init_linear(generators, fan_in, fan_out, scheme, critics)
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
