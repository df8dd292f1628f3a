"""Residual networks with layer normalisation and running statistics of observations, as in SimBa (Lee et al., ICLR
2025)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from algos.core.kernels import affine
from algos.core.networks import Generators, Params, he_normal, orthogonal

EXPANSION = 4  # of a block's width in its hidden layer
LAYER_NORM_EPS = 1e-6  # Flax's default
OBSERVATION_EPS = 1e-8
FIRST_COUNT = 1e-4  # the weight of mean 0 and variance 1 in the running statistics


def init_residual(
    generators: Generators,
    fan_in: int,
    width: int,
    blocks: int,
    heads: Sequence[int],
    lead: Sequence[int] = (),
) -> Params:
    """Parameters of `residual`, (S, *lead, ...), with one linear output layer of each width in `heads` side by side.

    Weights: orthogonal at the input and the output, He-normal in the blocks; biases zero (the authors' code).
    """
    params: Params = {}

    def norm(name: str) -> None:
        params[f"scale{name}"] = torch.ones(len(generators), *lead, 1, width, dtype=torch.float64)
        params[f"shift{name}"] = torch.zeros_like(params[f"scale{name}"])

    params["w_in"], params["b_in"] = orthogonal(generators, (*lead, fan_in, width))
    for i in range(blocks):
        norm(str(i))
        params[f"w{i}"], params[f"b{i}"] = he_normal(generators, (*lead, width, EXPANSION * width))
        params[f"v{i}"], params[f"c{i}"] = he_normal(generators, (*lead, EXPANSION * width, width))
    norm("_out")
    outputs = zip(*(orthogonal(generators, (*lead, width, n)) for n in heads))
    params["w_out"], params["b_out"] = (torch.cat(parts, -1) for parts in outputs)
    return params


def check_widths(name: str, widths: tuple[int, ...]) -> None:
    """Raises ValueError unless the residual blocks have one width."""
    if len(set(widths)) > 1:
        listed = "x".join(map(str, widths))
        raise ValueError(
            f"{name} = {listed}: expected one width for all residual blocks, such as {widths[0]}x{widths[0]}"
        )


def residual(params: Params, x: Tensor) -> Tensor:
    """x (N, B, in) -> (N, B, out); N is the product of the leading axes of `params`.

    h = W x, blocks h <- h + V relu(W LN(h)) with a hidden layer four times as wide, then the output layer on LN(h).
    """
    p = {name: value.flatten(0, -3) for name, value in params.items()}
    h = affine(x, p["w_in"], p["b_in"])
    blocks = sum(name.startswith("v") for name in params)
    for i in range(blocks):
        hidden = torch.relu(affine(_layer_norm(h, p[f"scale{i}"], p[f"shift{i}"]), p[f"w{i}"], p[f"b{i}"]))
        h = h + affine(hidden, p[f"v{i}"], p[f"c{i}"])
    return affine(_layer_norm(h, p["scale_out"], p["shift_out"]), p["w_out"], p["b_out"])


def _layer_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS), scale)


# -- running statistics of observations ------------------------------------------------------------


def observation_statistics(seeds: int, obs_dim: int) -> Params:
    """Mean (S, 1, O), variance (S, 1, O) and count (S, 1, 1) before the first observation."""
    mean = torch.zeros(seeds, 1, obs_dim, dtype=torch.float64)
    return {
        "mean": mean,
        "var": mean + 1,
        "count": torch.full((seeds, 1, 1), FIRST_COUNT, dtype=torch.float64),
    }


def observe(stats: Params, obs: Tensor) -> None:
    """Merge the mean and the (biased) variance of obs (S, n, O) into `stats`, in place (Chan et al. 1979)."""
    n = obs.shape[1]
    var, mean = torch.var_mean(obs, 1, correction=0, keepdim=True)
    total = stats["count"] + n
    delta = mean - stats["mean"]
    share = n / total
    spread = (1 - share) * stats["var"] + share * var + share * (1 - share) * delta.square()
    stats["var"].copy_(spread)
    stats["mean"].add_(delta * share)
    stats["count"].copy_(total)


def normalise(stats: Params, obs: Tensor) -> Tensor:
    """(obs - mean) / sqrt(var + eps) for obs (S, n, O)."""
    return (obs - stats["mean"]) * (stats["var"] + OBSERVATION_EPS).rsqrt()
