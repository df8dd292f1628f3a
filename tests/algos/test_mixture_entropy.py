"""The entropy of a fitted mixture: scikit-learn's numbers, known distributions, and what must not break it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from algos.core.mixture_entropy import kmeans, mixture_entropy

GOLDEN = Path(__file__).parents[1] / "golden" / "dacer.npz"


def samples(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_scikit_learn_s_for_every_state_of_the_reference():
    with np.load(GOLDEN) as arrays:
        actions = torch.as_tensor(arrays["update0/info/entropy_actions"])
        theirs = torch.as_tensor(arrays["update0/info/entropy_rows"])
    torch.testing.assert_close(mixture_entropy(actions, 3, 42), theirs, rtol=0, atol=1e-6)


def test_one_component_has_the_entropy_of_the_normal_distribution_with_its_covariance():
    x = samples(4, 100, 3)
    covariance = torch.stack([torch.cov(rows.T, correction=0) for rows in x])
    expected = 0.5 * torch.linalg.slogdet(2 * math.pi * math.e * covariance)[1]
    torch.testing.assert_close(mixture_entropy(x, 1, 42), expected, rtol=0, atol=1e-4)


def test_clusters_far_apart_are_found_and_add_the_entropy_of_the_choice():
    label = torch.arange(300) % 3
    x = 0.1 * samples(2, 300, 2) + 10.0 * torch.stack([label == 1, label == 2], -1)
    members = kmeans(x, 3, 42)
    assert all(len(set(row.argmax(-1)[label == k].tolist())) == 1 for row in members for k in range(3))
    expected = math.log(3) + 1 + math.log(2 * math.pi) + 2 * math.log(0.1)
    torch.testing.assert_close(
        mixture_entropy(x, 3, 42), torch.full((2,), expected).double(), rtol=0, atol=0.1
    )


def test_rows_do_not_mix():
    x = samples(5, 40, 2)
    alone = torch.cat([mixture_entropy(row[None], 3, 42) for row in x])
    torch.testing.assert_close(mixture_entropy(x, 3, 42), alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "x", [torch.ones(2, 10, 2), samples(2, 10, 2).sign(), samples(1, 3, 1)], ids=["equal", "signs", "few"]
)
def test_few_different_points_give_a_number(x, dtype):
    entropy = mixture_entropy(x.to(dtype), 3, 42)
    assert entropy.dtype == dtype
    assert bool(entropy.isfinite().all())


def test_another_seed_of_the_first_centres_may_end_elsewhere():
    x = samples(20, 60, 2)
    assert not torch.equal(mixture_entropy(x, 3, 42), mixture_entropy(x, 3, 43))


def test_the_compiler_takes_it_as_one_operation():
    x = samples(2, 12, 2)
    compiled = torch.compile(
        lambda y: mixture_entropy(2 * y, 3, 42).mean(), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(x), mixture_entropy(2 * x, 3, 42).mean())
