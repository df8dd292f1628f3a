"""Entropy of a distribution that is known by samples only: that of a Gaussian mixture fitted to them, on tensors.

DACER (Wang et al. 2024, arXiv 2405.15177, section 4.2) fits one mixture per state with scikit-learn's
`GaussianMixture(3, covariance_type="full", random_state=...)`. Below are the same steps with the same constants for
all states at once: k-means++, Lloyd's iterations, expectation-maximisation. No loop ends early (a fit that has
converged does not move), so that nothing depends on a value and a CUDA graph can hold it; the compiler takes the whole
as one operation, where it would unroll hundreds of steps. Shapes: R rows (states), n
samples, A dimensions, k components.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

KMEANS_STEPS, KMEANS_TOLERANCE = 300, 1e-4  # scikit-learn's defaults, here and below
EM_STEPS, EM_TOLERANCE, RIDGE = 100, 1e-3, 1e-6


@functools.cache
def _uniforms(seed: int, components: int) -> tuple[tuple[float, ...], ...]:
    """The uniforms that k-means++ takes: one for the first centre, 2 + floor(ln k) candidates for each other."""
    trials = 2 + int(math.log(components))
    random = np.random.RandomState(seed).random_sample(1 + (components - 1) * trials).tolist()
    return (random[0],), *(tuple(random[1 + i * trials :][:trials]) for i in range(components - 1))


def _squares(x: Tensor, centres: Tensor) -> Tensor:
    """Squared distances (R, n, c) of x (R, n, A) to centres (R, c, A)."""
    return (x.unsqueeze(2) - centres.unsqueeze(1)).square().sum(-1)


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """Samples number `index` (R, c) of x (R, n, A): (R, c, A)."""
    return x.take_along_dim(index.unsqueeze(-1), 1)


def plus_plus(x: Tensor, components: int, seed: int) -> Tensor:
    """Starting centres (R, k, A): each the best of a few candidates drawn with probability ~ squared distance."""
    (first,), *later = _uniforms(seed, components)
    rows, n = x.shape[:2]
    index = min(int(first * n), n - 1)
    centres = x[:, index : index + 1]
    nearest = _squares(x, centres).squeeze(-1)  # (R, n)
    for uniforms in later:
        total = nearest.sum(-1, keepdim=True)
        levels = torch.cat([u * total for u in uniforms], -1)  # (R, trials)
        candidates = torch.searchsorted(nearest.cumsum(-1), levels).clamp(max=n - 1)
        closer = torch.minimum(nearest.unsqueeze(-1), _squares(x, _pick(x, candidates)))  # (R, n, trials)
        best = closer.sum(1).argmin(-1)  # (R,)
        nearest = closer.take_along_dim(best.view(rows, 1, 1), 2).squeeze(-1)
        centres = torch.cat([centres, _pick(x, candidates.take_along_dim(best.unsqueeze(-1), 1))], 1)
    return centres


def kmeans(x: Tensor, components: int, seed: int) -> Tensor:
    """Memberships (R, n, k), one-hot, after Lloyd's iterations. A centre without samples stays where it is."""
    tolerance = KMEANS_TOLERANCE * x.var(1, correction=0).mean(-1)  # (R,)
    centres = plus_plus(x, components, seed)
    clusters = torch.arange(components, device=x.device)
    moving = torch.ones(len(x), 1, 1, dtype=torch.bool, device=x.device)
    for _ in range(KMEANS_STEPS):
        members = (_squares(x, centres).argmin(-1, keepdim=True) == clusters).to(x.dtype)
        counts = members.sum(1).unsqueeze(-1)  # (R, k, 1)
        means = torch.where(counts > 0, members.mT @ x / counts.clamp(min=1), centres)
        shift = (means - centres).square().sum((1, 2))
        centres = torch.where(moving, means, centres)
        moving = moving & (shift > tolerance).view(-1, 1, 1)
    return (_squares(x, centres).argmin(-1, keepdim=True) == clusters).to(x.dtype)


def _maximise(x: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (R, k), means (R, k, A) and Cholesky factors (R, k, A, A) of the covariances."""
    counts = members.sum(1) + 10 * torch.finfo(x.dtype).eps  # (R, k)
    means = members.mT @ x / counts.unsqueeze(-1)
    off = x.unsqueeze(1) - means.unsqueeze(2)  # (R, k, n, A)
    covariance = (members.mT.unsqueeze(-1) * off).mT @ off / counts[..., None, None]
    ridge = RIDGE * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    factor, _ = torch.linalg.cholesky_ex(covariance + ridge)
    return counts / counts.sum(-1, keepdim=True), means, factor


def _log_density(x: Tensor, weights: Tensor, means: Tensor, factor: Tensor) -> Tensor:
    """ln(weight_k N(x; k)), (R, n, k)."""
    off = (x.unsqueeze(1) - means.unsqueeze(2)).mT  # (R, k, A, n)
    squares = torch.linalg.solve_triangular(factor, off, upper=False).square().sum(2)  # (R, k, n)
    constant = weights.log() - _log_root(factor) - 0.5 * x.shape[-1] * math.log(2 * math.pi)  # (R, k)
    return (constant.unsqueeze(-1) - 0.5 * squares).mT


def _log_root(factor: Tensor) -> Tensor:
    """Half the logarithm of a covariance's determinant."""
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


@torch.library.custom_op("qsm_bench::mixture_entropy", mutates_args=())
def mixture_entropy(x: Tensor, components: int, seed: int) -> Tensor:
    """(R, n, A) -> (R,): -sum_k w_k ln w_k + sum_k w_k (A/2 (1 + ln 2 pi) + 1/2 ln det C_k) of the fitted mixture.

    An upper bound of the mixture's own entropy (Huber et al. 2008), as DACER's `estimate_entropy` computes it.
    """
    dtype, x = x.dtype, x.double()
    weights, means, factor = _maximise(x, kmeans(x, components, seed))
    before = x.new_full((len(x),), -math.inf)
    moving = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for _ in range(EM_STEPS):
        log_density = _log_density(x, weights, means, factor)
        bound = log_density.logsumexp(-1).mean(-1)
        new = _maximise(x, log_density.softmax(-1))
        weights, means, factor = (
            torch.where(moving.view(-1, *[1] * (old.dim() - 1)), value, old)
            for value, old in zip(new, (weights, means, factor))
        )
        moving = moving & ((bound - before).abs() >= EM_TOLERANCE)
        before = bound
    gaussian = 0.5 * x.shape[-1] * (1 + math.log(2 * math.pi)) + _log_root(factor)
    return (weights * (gaussian - weights.log())).sum(-1).to(dtype)


@mixture_entropy.register_fake
def _(x: Tensor, components: int, seed: int) -> Tensor:
    return x.new_empty(x.shape[0])
