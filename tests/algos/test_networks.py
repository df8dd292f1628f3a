"""Networks with a seed axis: initial values, layers, activations, time features."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from algos.core.critics import q_networks
from algos.core.kernels import ACTIVATIONS, NARROW, affine, mish
from algos.core.networks import INITIALISERS, init_mlp, mlp
from algos.core.noise import Noise
from algos.core.score_network import fourier_features, sinusoidal_features

SEEDS = (3, 0, 11)


def generators(seeds=SEEDS):
    return Noise(seeds, "initialisation", torch.device("cpu"), torch.float64).generators


# -- mish --------------------------------------------------------------------------------------------------

EXTREMES = [-1e4, -100.0, -88.0, -20.5, -1e-30, -0.0, 0.0, 1e-30, 19.5, 20.0, 20.5, 44.0, 88.0, 100.0, 1e4]


def ordinary(dtype: torch.dtype) -> torch.Tensor:
    return torch.linspace(-30, 30, 4001, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("extreme", [False, True])
def test_mish_and_its_slope_equal_torch_s(dtype, extreme):
    z = torch.tensor(EXTREMES, dtype=dtype) if extreme else ordinary(dtype)
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    y, reference = mish(ours), F.mish(theirs)
    # above 20 we take tanh(softplus(z)) for 1; it is 1 - 8e-18
    tolerance = {"rtol": 1e-6, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 1e-13, "atol": 1e-15}
    torch.testing.assert_close(y, reference, **tolerance)
    grad = torch.linspace(0.5, 2, len(z), dtype=dtype)
    y.backward(grad)
    reference.backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad, **(tolerance | {"rtol": 4 * tolerance["rtol"]}))


def test_mish_s_backward_pass_is_the_derivative_of_its_forward_pass():
    z = torch.cat([torch.linspace(-12, 12, 31), torch.tensor([-100.0, 18.9, 21.0, 100.0])]).double()
    assert torch.autograd.gradcheck(mish, z.requires_grad_(), eps=1e-6, atol=1e-8, rtol=1e-6)


def test_mish_is_the_same_written_out_for_the_compiler(monkeypatch):
    z = torch.cat([ordinary(torch.float64), torch.tensor(EXTREMES, dtype=torch.float64)])
    eager, written_out = z.clone().requires_grad_(), z.clone().requires_grad_()
    y = mish(eager)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    plain = mish(written_out)
    torch.testing.assert_close(plain, y, rtol=1e-13, atol=1e-15)
    y.sum().backward()
    plain.sum().backward()
    torch.testing.assert_close(written_out.grad, eager.grad, rtol=1e-12, atol=1e-15)


# -- initial values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "gain"), [("xavier_uniform", None), ("torch", 1.0)])
def test_initial_weights_fill_their_bounds_and_no_more(scheme, gain):
    params = init_mlp(generators(), (100, 300, 40), scheme)
    for i, (fan_in, fan_out) in enumerate(((100, 300), (300, 40))):
        bound = 1 / math.sqrt(fan_in) if gain else math.sqrt(6 / (fan_in + fan_out))
        w, b = params[f"w{i}"], params[f"b{i}"]
        assert w.shape == (3, fan_in, fan_out)
        assert b.shape == (3, 1, fan_out)
        assert 0.99 * bound < w.abs().max() < bound
        assert w.mean().abs() < 0.02 * bound
        assert w.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)  # uniform
        if scheme == "torch":
            assert 0.8 * bound < b.abs().max() < bound
        else:
            assert (b == 0).all()


@pytest.mark.parametrize(
    ("scheme", "variance", "largest"),
    [
        ("lecun_normal", 1.0, 2 / 0.87962566),
        ("he_normal", 2.0, 2 / 0.87962566),
        ("haiku", 0.87962566**2, 2.0),
    ],
)
def test_truncated_normal_weights_have_their_variance_and_end(scheme, variance, largest):
    w, b = INITIALISERS[scheme](generators(), (2, 100, 300))
    assert w.shape == (3, 2, 100, 300)
    assert b.shape == (3, 2, 1, 300)
    assert (b == 0).all()
    z = w * math.sqrt(100)
    assert z.var().item() == pytest.approx(variance, rel=0.02)
    end = largest * (math.sqrt(2) if scheme == "he_normal" else 1)
    assert 0.99 * end < z.abs().max() < end
    assert z.mean().abs() < 0.02
    # of a normal truncated at 2 deviations
    assert z.div(z.std()).pow(4).mean() == pytest.approx(2.37, abs=0.05)


@pytest.mark.parametrize("shape", [(2, 30, 20), (20, 30), (8, 8)])
@pytest.mark.parametrize(("scheme", "square"), [("orthogonal", 1.0), ("orthogonal_sqrt2", 2.0)])
def test_orthogonal_weights_are_orthogonal(shape, scheme, square):
    w, b = INITIALISERS[scheme](generators(), shape)
    assert w.shape == (3, *shape)
    product = w @ w.mT if shape[-2] <= shape[-1] else w.mT @ w
    torch.testing.assert_close(
        product, square * torch.eye(product.shape[-1], dtype=w.dtype).expand_as(product)
    )
    assert (b == 0).all()


@pytest.mark.parametrize("scheme", INITIALISERS)
def test_every_initialiser_gives_a_seed_the_same_in_every_pack(scheme):
    pack, alone = (INITIALISERS[scheme](generators(s), (2, 6, 4)) for s in (SEEDS, SEEDS[1:2]))
    assert all(torch.equal(mine[1], theirs[0]) for mine, theirs in zip(pack, alone))


def test_initial_weights_have_the_bounds_of_torch_s_own_layer():
    ours = init_mlp(generators([0]), (64, 5000), "torch")
    torch.manual_seed(0)
    theirs = torch.nn.Linear(64, 5000)
    assert ours["w0"].abs().max().item() == pytest.approx(theirs.weight.abs().max().item(), rel=1e-3)
    assert ours["b0"].abs().max().item() == pytest.approx(theirs.bias.abs().max().item(), rel=1e-2)


def test_a_seed_starts_the_same_in_every_pack_and_unlike_any_other():
    pack = init_mlp(generators(), (7, 8, 8, 1), "torch", 2)
    for k, seed in enumerate(SEEDS):
        alone = init_mlp(generators([seed]), (7, 8, 8, 1), "torch", 2)
        assert all(torch.equal(pack[name][k], p[0]) for name, p in alone.items())
    for name, p in pack.items():
        assert not torch.equal(p[0], p[1]), name
        assert not torch.equal(p[:, 0], p[:, 1]), f"the twins share {name}"


# -- layers ------------------------------------------------------------------------------------------------


THEIRS = {
    "relu": F.relu,
    "mish": F.mish,
    "gelu": lambda z: 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
    "elu": F.elu,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(7, 9, 11, 3), (7, 9, 1), (4, 2)])
def test_an_mlp_is_torch_s_layers_seed_by_seed(activation, sizes):
    params = init_mlp(generators(), sizes, "torch")
    x = torch.randn(3, 6, sizes[0], dtype=torch.float64)
    y = mlp(params, x, activation)
    assert y.shape == (3, 6, sizes[-1])
    for k in range(3):
        h = x[k]
        for i in range(len(sizes) - 1):
            h = F.linear(h, params[f"w{i}"][k].T, params[f"b{i}"][k, 0])
            if i < len(sizes) - 2:
                h = THEIRS[activation](h)
        torch.testing.assert_close(y[k], h, rtol=1e-12, atol=1e-13)


def test_the_gradient_of_an_mlp_is_autograd_s():
    params = {name: p.requires_grad_() for name, p in init_mlp(generators([1]), (3, 4, 1), "torch").items()}
    x = torch.randn(1, 5, 3, dtype=torch.float64, requires_grad=True)
    w0, b0, w1, b1 = (params[name] for name in ("w0", "b0", "w1", "b1"))
    function = lambda x, w0, b0, w1, b1: mlp({"w0": w0, "b0": b0, "w1": w1, "b1": b1}, x, "mish")  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, w0, b0, w1, b1))


def test_twin_critics_are_two_networks_on_state_and_action():
    params = init_mlp(generators(), (7, 8, 6, 1), "torch", 2)
    obs, action = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(3, 4, 2, dtype=torch.float64)
    q = q_networks(params, obs, action, "relu")
    assert q.shape == (3, 2, 4)
    for twin in range(2):
        own = {name: p[:, twin] for name, p in params.items()}
        alone = mlp(own, torch.cat([obs, action], -1), "relu").squeeze(-1)
        torch.testing.assert_close(q[:, twin], alone, rtol=1e-12, atol=1e-13)


# -- time features -----------------------------------------------------------------------------------------


def test_fourier_features_are_cosines_then_sines():
    kernel = torch.tensor([[[0.25], [0.1]]], dtype=torch.float64)
    x = fourier_features(kernel, torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64))
    assert x.shape == (1, 3, 4)
    for row, t in enumerate((0, 1, 3)):
        phases = [2 * math.pi * t * w for w in (0.25, 0.1)]
        expected = [math.cos(p) for p in phases] + [math.sin(p) for p in phases]
        assert x[0, row].tolist() == pytest.approx(expected, abs=1e-12)


def test_sinusoidal_features_are_sines_then_cosines_of_falling_frequencies():
    x = sinusoidal_features(8, torch.tensor([0.0, 2.0], dtype=torch.float64))
    rates = [10_000 ** (-i / 3) for i in range(4)]
    assert x[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    expected = [math.sin(2 * r) for r in rates] + [math.cos(2 * r) for r in rates]
    assert x[1].tolist() == pytest.approx(expected, abs=1e-12)


# -- narrow layers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 2, 6, 21, NARROW, 40])
def test_a_layer_of_any_width_is_a_product_and_a_sum(columns):
    x, w, b = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in _layer(columns))
    y, plain = affine(x, w, b), x @ w + b
    torch.testing.assert_close(y, plain, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(y)
    for mine, theirs in zip(*(torch.autograd.grad(out, (x, w, b), upstream) for out in (y, plain))):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
        assert mine.is_contiguous()  # fused Adam reads gradients in the order of memory


def test_a_narrow_layer_s_backward_pass_is_the_derivative_of_its_forward_pass():
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in _layer(6, rows=5)]
    assert torch.autograd.gradcheck(affine, inputs, eps=1e-6, atol=1e-8, rtol=1e-6)


def _layer(columns: int, rows: int = 9) -> tuple[tuple[int, ...], ...]:
    """Shapes of input, weight and bias, two seeds."""
    return (2, rows, 7), (2, 7, columns), (2, 1, columns)
