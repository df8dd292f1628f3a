"""Gradients, Adam, Polyak averaging and clipping on dictionaries of stacked parameters, changed in place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from algos.core.networks import Params


def gradients(loss: Callable[[Params], tuple[Tensor, Params]], params: Params) -> tuple[Params, Params]:
    """Gradient of `loss` in every parameter, and its other results.

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


Schedule = Callable[[Tensor], Tensor]
Clip = Callable[[Params], Params]


@dataclass(frozen=True)
class Adam:
    """How a part of the state is stepped: Adam (Kingma & Ba 2015, algorithm 1) with the steps around it.

    schedule: factor of the rate, a function of the number of steps made (a tensor, 0 at the first).
    weight_decay: decoupled (Loshchilov & Hutter 2019, AdamW), of all leaves. clip: applied to the gradients first.
    """

    lr: float
    schedule: Schedule | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: Clip | None = None

    def step(self, params: Params, grads: Params, state: Params) -> None:
        """Changes `params` and the moments in `state` in place."""
        if self.clip is not None:
            grads = self.clip(grads)
        lr = self.lr if self.schedule is None else self.lr * self.schedule(state["step"])
        (beta1, beta2), eps, decay = self.betas, self.eps, self.weight_decay
        step = state["step"].add_(1)
        m = [state[f"m.{name}"] for name in params]
        v = [state[f"v.{name}"] for name in params]
        p, g = list(params.values()), [grads[name] for name in params]
        # written out, the compiler fuses it with the gradient that it consumes
        if torch.compiler.is_compiling():
            t = step.double()  # 1 - beta2^t in float32 would be off by 5e-5 at first
            correction = (1 - beta2**t).sqrt()
            rate, eps_t = lr * correction / (1 - beta1**t), eps * correction
            for p_i, g_i, m_i, v_i in zip(p, g, m, v):
                m_i.lerp_(g_i, 1 - beta1)
                v_i.lerp_(g_i * g_i, 1 - beta2)
                if decay:
                    p_i.mul_(1 - lr * decay)
                p_i.sub_(rate.to(p_i.dtype) * m_i / (v_i.sqrt() + eps_t.to(p_i.dtype)))
            return
        fused = torch._fused_adamw_ if decay else torch._fused_adam_
        fused(
            p, g, m, v, [], [step] * len(p),
            lr=lr, beta1=beta1, beta2=beta2, weight_decay=decay, eps=eps, amsgrad=False, maximize=False,
        )  # fmt: skip


def cosine_decay(steps: int) -> Schedule | None:
    """Cosine schedule to zero without restarts: (1 + cos(pi min(n / steps, 1))) / 2 after n steps; None for 0 steps."""
    if not steps:
        return None
    return lambda step: 0.5 * (1 + torch.cos(math.pi * (step / steps).clamp(max=1.0)))


def linear_fall(hold: int, fall: int, end: float) -> Schedule:
    """1 for `hold` steps, then linear to `end` within `fall` steps, then `end`."""
    return lambda step: 1 + (end - 1) * ((step - hold) / fall).clamp(0.0, 1.0)


def polyak(target: Params, online: Params, tau: float) -> None:
    """target <- (1 - tau) target + tau online."""
    torch._foreach_lerp_(list(target.values()), list(online.values()), tau)


def clip_by_norm(max_norm: float, apart: int = 1) -> Clip | None:
    """Scales a gradient to a global norm of at most `max_norm`, as `torch.nn.utils.clip_grad_norm_`; None for 0.

    apart: the number of leading axes clipped separately: 1 the seeds, 2 also the critics of every seed.
    """
    if not max_norm:
        return None

    def clip(grads: Params) -> Params:
        squares = sum(g.square().flatten(apart).sum(apart) for g in grads.values())
        scale = (max_norm / (torch.as_tensor(squares).sqrt() + 1e-6)).clamp(max=1.0)  # (S,) or (S, K)
        return {name: g * scale.view(*scale.shape, *[1] * (g.dim() - apart)) for name, g in grads.items()}

    return clip


def clip_entries(bound: float) -> Clip:
    """Each entry of a gradient clipped to [-bound, bound]; nan becomes 0."""
    return lambda grads: {name: g.nan_to_num(nan=0.0).clamp(-bound, bound) for name, g in grads.items()}
