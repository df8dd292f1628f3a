"""Gradients, Adam, Polyak averaging and clipping on dictionaries of stacked parameters, changed in place."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from algos.core.networks import Params

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # Adam's defaults (Kingma & Ba 2015), as in all references


def gradients(loss: Callable[[Params], tuple[Tensor, Params]], params: Params) -> tuple[Params, Params]:
    """Gradient of `loss` in every parameter, and what else it returns.

    loss(params) -> (scalar, extras). Losses are summed over seeds, so that a seed's gradient is its own.
    """
    if torch.compiler.is_compiling():
        return torch.func.grad(loss, has_aux=True)(params)  # the form that traces as one graph
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    with torch.enable_grad():
        value, extras = loss(leaves)
    grads = torch.autograd.grad(value, list(leaves.values()))
    return dict(zip(leaves, grads)), {name: x.detach() for name, x in extras.items()}


def input_gradient(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Gradient of the scalar f(x) in x alone; no parameter's gradient is computed."""
    grads, _ = gradients(lambda leaf: (f(leaf["x"]), {}), {"x": x})
    return grads["x"]


def adam_state(params: Params) -> Params:
    """Zero moments "m.<name>", "v.<name>" of every parameter, and the count "step" (a tensor, for CUDA graphs)."""
    some = next(iter(params.values()))
    moments = {f"{kind}.{name}": torch.zeros_like(p) for kind in "mv" for name, p in params.items()}
    return {"step": torch.zeros((), device=some.device, dtype=torch.float32), **moments}


def adam(params: Params, grads: Params, state: Params, lr: float | Tensor) -> None:
    """One step of Adam (Kingma & Ba 2015, algorithm 1)."""
    step = state["step"].add_(1)
    m = [state[f"m.{name}"] for name in params]
    v = [state[f"v.{name}"] for name in params]
    p, g = list(params.values()), [grads[name] for name in params]
    if torch.compiler.is_compiling():  # written out, the compiler fuses it with the gradient that it consumes
        t = step.double()  # 1 - BETA2^t in float32 would be off by 5e-5 at first
        correction = (1 - BETA2**t).sqrt()
        rate, eps = lr * correction / (1 - BETA1**t), EPS * correction
        for p_i, g_i, m_i, v_i in zip(p, g, m, v):
            m_i.lerp_(g_i, 1 - BETA1)
            v_i.lerp_(g_i * g_i, 1 - BETA2)
            p_i.sub_(rate.to(p_i.dtype) * m_i / (v_i.sqrt() + eps.to(p_i.dtype)))
        return
    torch._fused_adam_(
        p, g, m, v, [], [step] * len(p),
        lr=lr, beta1=BETA1, beta2=BETA2, weight_decay=0.0, eps=EPS, amsgrad=False, maximize=False,
    )  # fmt: skip


def cosine(step: Tensor, decay_steps: int) -> Tensor:
    """Factor of a cosine schedule without restarts: (1 + cos(pi min(step / decay_steps, 1))) / 2, 1 at step 0."""
    return 0.5 * (1 + torch.cos(math.pi * (step / decay_steps).clamp(max=1.0)))


def polyak(target: Params, online: Params, tau: float) -> None:
    """target <- (1 - tau) target + tau online."""
    torch._foreach_lerp_(list(target.values()), list(online.values()), tau)


def clip_by_norm(grads: Params, max_norm: float) -> Params:
    """Scales each seed's gradient to a global norm of at most `max_norm`, as `torch.nn.utils.clip_grad_norm_`."""
    squares = sum(g.square().flatten(1).sum(1) for g in grads.values())
    scale = (max_norm / (torch.as_tensor(squares).sqrt() + 1e-6)).clamp(max=1.0)  # (S,)
    return {name: g * scale.view(-1, *[1] * (g.dim() - 1)) for name, g in grads.items()}
