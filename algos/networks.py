"""Networks as functions of parameters. Every parameter has a seed axis S in front; products are batched over it.

Shapes: S seeds, B rows, O observation and A action dimensions, H hidden units. Weights are (S, in, out) and biases
(S, 1, out), so that a layer is one `baddbmm`; the twin critics are one network with a second axis of length two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

Params = dict[str, Tensor]
Generators = Sequence[torch.Generator]


class _Mish(torch.autograd.Function):
    """Mish with a closed-form backward pass.

    With e = exp(z) and n = e (e + 2): tanh(softplus(z)) = n / (n + 2) =: w and mish = z w. Its derivative is
    w + z (1 - w^2) sigmoid(z). Two to four times faster than `F.mish` and its backward on a CPU.
    """

    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:
        e = torch.exp(z.clamp(max=20.0))  # above 20, w is 1 in float32 and e^2 would overflow
        n = torch.addcmul(e + e, e, e)
        w = n.div_(n + 2)
        ctx.save_for_backward(z, e, w)
        return z * w

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        z, e, w = ctx.saved_tensors
        slope = (1 - w * w).mul_(e).div_(e + 1).mul_(z).add_(w)
        return slope.mul_(grad)


def mish(z: Tensor) -> Tensor:
    """z tanh(softplus(z)) (Misra 2019), elementwise."""
    if torch.compiler.is_compiling():  # the compiler fuses the plain formula and its derivative
        e = torch.exp(z.clamp(max=20.0))
        n = e * (e + 2)
        return z * (n / (n + 2))
    return _Mish.apply(z)


class _Narrow(torch.autograd.Function):
    """x w + b for a w of few columns, the products the other way round: (out, in) @ (in, B).

    MKL takes up to five times as long for a product with few columns as for one with few rows, which matters in a
    chain of small outputs; and with AVX-512 ten times as long where those rows do not lie in order in memory. Written
    out because autograd would hand the layer below a transposed gradient.
    """

    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return torch.baddbmm(b.mT, w.mT.contiguous(), x.mT).mT

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, w = ctx.saved_tensors
        # contiguous: fused Adam reads its gradients in the order of memory
        return torch.bmm(grad, w.mT), torch.bmm(grad.mT, x).mT.contiguous(), grad.sum(1, keepdim=True)


NARROW = 32  # columns from which on the usual order is as fast
REGISTER = 16  # float32 numbers that a register of AVX-512 holds


def affine(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """x (S, B, in), w (S, in, out), b (S, 1, out) -> x w + b (S, B, out)."""
    columns = w.shape[-1]
    if columns == 1:  # a batched product with one column is five times slower than this, either way
        return (x * w.mT).sum(-1, keepdim=True) + b
    if columns >= NARROW:
        return torch.baddbmm(b, x, w)
    if (
        torch.compiler.is_compiling()
    ):  # the compiler lays operands out as it likes: whole registers do as well
        w, b = (F.pad(p, (0, -columns % REGISTER)) for p in (w, b))
        return torch.baddbmm(b, x, w)[..., :columns]
    return _Narrow.apply(x, w, b)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "mish": mish}


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
