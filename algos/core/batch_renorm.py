"""Batch renormalisation (Ioffe 2017) and multi-layer perceptrons with it, as in CrossQ (Bhatt et al., ICLR 2024).

Training normalises by the batch's own statistics, corrected towards the running ones by r and d, which are constants
of the gradient; evaluation normalises by the running ones. Until a network has made `warm_up` training passes, r = 1
and d = 0: plain batch normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from algos.core.kernels import ACTIVATIONS, affine
from algos.core.networks import Generators, Params, depth, lecun_normal

TINY = 1e-30  # below every variance that is not zero, where a square root has no slope


@dataclass(frozen=True)
class BatchRenorm:
    """The defaults are the CrossQ authors' (their `BatchRenorm`)."""

    momentum: float = 0.99  # of the running statistics
    warm_up: int = 100_000  # training passes
    r_max: float = 3.0
    d_max: float = 5.0
    eps: float = 1e-3

    def running(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """x (N, B, H) normalised by running statistics (N, 1, H)."""
        return (x - mean) * (var + self.eps).rsqrt()

    def batch(self, x: Tensor, mean: Tensor, var: Tensor, passes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, B, H) normalised by its own statistics, and the running mean and variance after it, (N, 1, H) each.

        With sigma^2 = var + eps: r = clip(sigma_batch / sigma, 1/r_max, r_max), d = clip((mean_batch - mean) / sigma,
        -d_max, d_max). Ioffe's form is (x - mean_batch) / sigma_batch r + d. The authors shift and scale the statistics
        instead: mean* = mean_batch - d sqrt(var_batch) / r, without eps, and var* = var_batch / r^2, with eps after it.
        """
        batch_var, batch_mean = torch.var_mean(x, -2, correction=0, keepdim=True)
        new_mean, new_var = batch_mean.detach(), batch_var.detach()
        sigma = (var + self.eps).sqrt()
        r = ((new_var + self.eps).sqrt() / sigma).clamp(1 / self.r_max, self.r_max)
        d = ((new_mean - mean) / sigma).clamp(-self.d_max, self.d_max)
        renormalise = passes >= self.warm_up
        shifted = batch_mean - d / r * batch_var.clamp(min=TINY).sqrt()
        x = self.running(
            x,
            torch.where(renormalise, shifted, batch_mean),
            torch.where(renormalise, batch_var / r.square(), batch_var),
        )
        return x, mean.lerp(new_mean, 1 - self.momentum), var.lerp(new_var, 1 - self.momentum)


def init_renorm_mlp(
    generators: Generators, sizes: Sequence[int], lead: Sequence[int] = ()
) -> tuple[Params, Params]:
    """Parameters and running statistics of `renorm_mlp`, each (S, *lead, ...); LeCun-normal weights, zero biases."""
    S = len(generators)
    params: Params = {}
    stats: Params = {"passes": torch.zeros(S, *lead, 1, 1, dtype=torch.float64)}
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        params[f"scale{i}"] = torch.ones(S, *lead, 1, fan_in, dtype=torch.float64)
        params[f"shift{i}"] = torch.zeros_like(params[f"scale{i}"])
        params[f"w{i}"], params[f"b{i}"] = lecun_normal(generators, (*lead, fan_in, fan_out))
        stats[f"mean{i}"], stats[f"var{i}"] = params[f"shift{i}"].clone(), params[f"scale{i}"].clone()
    return params, stats


def renorm_mlp(
    norm: BatchRenorm, params: Params, stats: Params, x: Tensor, activation: str, training: bool = False
) -> tuple[Tensor, Params]:
    """x (N, B, in) -> (N, B, out), and the running statistics after it (without `training`: none).

    Every layer acts on its normalised input: norm, layer, [activation, norm, layer] ... N is the product of the leading
    axes of `params` and `stats`; the new statistics have the shapes of the old ones.
    """
    act = ACTIVATIONS[activation]
    flat = lambda p: p.flatten(0, -3)  # noqa: E731
    after: Params = {}
    for i in range(depth(params)):
        if i > 0:
            x = act(x)
        mean, var = flat(stats[f"mean{i}"]), flat(stats[f"var{i}"])
        if training:
            x, *new = norm.batch(x, mean, var, flat(stats["passes"]))
            after |= {f"{name}{i}": p.view_as(stats[f"{name}{i}"]) for name, p in zip(("mean", "var"), new)}
        else:
            x = norm.running(x, mean, var)
        x = torch.addcmul(flat(params[f"shift{i}"]), x, flat(params[f"scale{i}"]))
        x = affine(x, flat(params[f"w{i}"]), flat(params[f"b{i}"]))
    if training:
        after["passes"] = stats["passes"] + 1
    return x, after
