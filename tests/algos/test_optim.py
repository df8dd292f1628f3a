"""Gradients, Adam, the learning-rate schedule, Polyak averaging and clipping, against torch's own."""

from __future__ import annotations

import math

import pytest
import torch

from algos.core.optim import (
    Adam,
    adam_state,
    clip_by_norm,
    clip_entries,
    cosine_decay,
    gradients,
    input_gradient,
    polyak,
)


def parameters(dtype: torch.dtype, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {"w0": (2, 7, 5), "b0": (2, 1, 5), "log": (2, 1)}
    return {
        name: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)
        for name, shape in shapes.items()
    }


def gradient(dtype: torch.dtype, step: int) -> dict[str, torch.Tensor]:
    """Of very different sizes, as between rewards of 1 and of 1000; some are exactly zero."""
    grads = parameters(dtype, seed=100 + step)
    grads["w0"] *= 10.0 ** (step % 5 - 6)
    grads["b0"][0] = 0.0
    return grads


# -- Adam --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["fused", "written out"])
def our_adam(request, monkeypatch):
    """Both forms: torch's fused kernel, and the formula that the compiler sees."""

    def step(params, grads, state, lr, **settings) -> None:
        with monkeypatch.context() as patch:  # for our call alone: torch's own Adam asks the same question
            patch.setattr(torch.compiler, "is_compiling", lambda: request.param == "written out")
            Adam(lr, **settings).step(params, grads, state)

    return step


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("theirs_is", "settings"),
    [
        (torch.optim.Adam, {}),
        (torch.optim.Adam, {"betas": (0.5, 0.99), "eps": 1e-5}),
        (torch.optim.AdamW, {"weight_decay": 0.01}),
    ],
)
def test_adam_takes_the_steps_of_torch_s_adam(our_adam, dtype, theirs_is, settings):
    ours, state = parameters(dtype), adam_state(parameters(dtype))
    initial = {name: p.clone() for name, p in ours.items()}
    theirs = {name: p.clone().requires_grad_() for name, p in ours.items()}
    reference = theirs_is(theirs.values(), lr=3e-4, **settings)
    for step in range(1, 51):
        grads = gradient(dtype, step)
        our_adam(ours, grads, state, 3e-4, **settings)
        for name, p in theirs.items():
            p.grad = grads[name].clone()
        reference.step()
        if step in (1, 2, 10, 50):
            for name, p in ours.items():
                off, moved = (p - theirs[name]).norm(), (theirs[name] - initial[name]).norm()
                # a parameter of order one keeps seven digits of a step of 3e-4
                assert off <= (2e-4 if dtype == torch.float32 else 1e-11) * moved, (name, step)
    assert state["step"].item() == 50


def test_adam_s_constants_are_the_references():
    assert Adam(1.0) == Adam(1.0, None, (0.9, 0.999), 1e-8, 0.0, None)


def test_adam_takes_its_rate_from_a_schedule_and_keeps_all_memory_in_place(our_adam):
    ours, state = parameters(torch.float64), adam_state(parameters(torch.float64))
    other, other_state = parameters(torch.float64), adam_state(parameters(torch.float64))
    where = {name: x.data_ptr() for name, x in (ours | state).items()}
    for step in range(3):
        our_adam(ours, gradient(torch.float64, step), state, 2e-3, schedule=lambda n: 0.5 + 0 * n.double())
        our_adam(other, gradient(torch.float64, step), other_state, 1e-3)
    for name, p in ours.items():
        torch.testing.assert_close(p, other[name], rtol=1e-13, atol=0)
    assert where == {name: x.data_ptr() for name, x in (ours | state).items()}


# -- the learning-rate schedule ----------------------------------------------------------------------------


def test_the_cosine_follows_its_closed_form_over_two_million_updates():
    decay = 2_000_000
    for count in (0, 1, 4, 10_000, 500_000, 1_000_000, 1_999_999, 2_000_000, 2_000_001, 5_000_000):
        factor = cosine_decay(decay)(torch.tensor(float(count))).item()
        assert factor == pytest.approx(0.5 * (1 + math.cos(math.pi * min(count / decay, 1.0))), abs=2e-7)
    assert cosine_decay(decay)(torch.tensor(0.0)).item() == 1.0
    assert cosine_decay(decay)(torch.tensor(1_000_000.0)).item() == pytest.approx(0.5, abs=1e-6)
    assert cosine_decay(decay)(torch.tensor(2_000_000.0)).item() == 0.0


def test_the_cosine_is_torch_s_annealing_within_its_period():
    p = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([p], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=40)
    for count in range(40):
        assert cosine_decay(40)(torch.tensor(float(count))).item() == pytest.approx(
            schedule.get_last_lr()[0], abs=1e-6
        )
        optimiser.step()
        schedule.step()


# -- Polyak averaging --------------------------------------------------------------------------------------


def test_polyak_moves_the_target_by_tau_and_leaves_the_online_network():
    target, online = parameters(torch.float64), parameters(torch.float64, seed=1)
    expected = {name: 0.995 * target[name] + 0.005 * online[name] for name in target}
    kept = {name: p.clone() for name, p in online.items()}
    where = {name: p.data_ptr() for name, p in target.items()}
    polyak(target, online, 0.005)
    for name in target:
        torch.testing.assert_close(target[name], expected[name], rtol=1e-14, atol=1e-15)
        assert torch.equal(online[name], kept[name])
    assert where == {name: p.data_ptr() for name, p in target.items()}


@pytest.mark.parametrize(("tau", "source"), [(0.0, "target"), (1.0, "online")])
def test_polyak_s_ends_are_exact(tau, source):
    target, online = parameters(torch.float32), parameters(torch.float32, seed=1)
    expected = {name: p.clone() for name, p in {"target": target, "online": online}[source].items()}
    polyak(target, online, tau)
    assert all(torch.equal(target[name], expected[name]) for name in target)


# -- clipping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_norm", [0.5, 3.0, 1e6])
def test_each_seed_is_clipped_as_torch_clips_it_alone(max_norm):
    grads = parameters(torch.float64)
    grads = {name: g * torch.tensor([0.1, 10.0]).view(2, *[1] * (g.dim() - 1)) for name, g in grads.items()}
    clipped = clip_by_norm(max_norm)(grads)
    scaled = []
    for k in range(2):
        leaves = [torch.nn.Parameter(g[k].clone()) for g in grads.values()]
        for leaf in leaves:
            leaf.grad = leaf.detach().clone()
        norm = torch.nn.utils.clip_grad_norm_(leaves, max_norm)
        scaled.append(bool(norm > max_norm))
        for name, leaf in zip(grads, leaves):
            torch.testing.assert_close(clipped[name][k], leaf.grad, rtol=1e-12, atol=0)
    assert scaled == {0.5: [True, True], 3.0: [False, True], 1e6: [False, False]}[max_norm]


def test_clipping_keeps_a_seed_s_nan_to_itself():
    grads = parameters(torch.float64)
    free = clip_by_norm(1.0)(grads)
    grads["w0"][0, 3, 2] = math.nan
    clipped = clip_by_norm(1.0)(grads)
    assert all(torch.equal(clipped[name][1], free[name][1]) for name in grads)
    assert all(clipped[name][0].isnan().any() for name in grads)


def test_critics_can_be_clipped_each_on_its_own():
    grads = {
        "w": torch.randn(2, 3, 4, 5, dtype=torch.float64),
        "b": torch.randn(2, 3, 1, 5, dtype=torch.float64),
    }
    clipped = clip_by_norm(0.7, apart=2)(grads)
    for k in range(2):
        for critic in range(3):
            alone = clip_by_norm(0.7)({name: g[k : k + 1, critic] for name, g in grads.items()})
            for name in grads:
                torch.testing.assert_close(clipped[name][k, critic], alone[name][0])
    assert clip_by_norm(0.0) is None


def test_entries_are_clipped_and_what_is_no_number_is_zero():
    clipped = clip_entries(1.0)({"w": torch.tensor([[math.nan, math.inf, -3.0, 0.5]])})
    assert clipped["w"].tolist() == [[0.0, 1.0, -1.0, 0.5]]


# -- gradients ---------------------------------------------------------------------------------------------


def squared(params: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    per_seed = sum((i + 1) * p.square().flatten(1).sum(1) for i, p in enumerate(params.values()))
    return per_seed.sum(), {"loss": per_seed}


def test_gradients_are_those_of_the_loss_with_its_extras_detached():
    params = parameters(torch.float64)
    with torch.no_grad():  # as inside an update
        grads, extras = gradients(squared, params)
    for i, (name, p) in enumerate(params.items()):
        torch.testing.assert_close(grads[name], 2 * (i + 1) * p)
        assert not p.requires_grad
    assert extras["loss"].shape == (2,)
    assert not extras["loss"].requires_grad


def test_gradients_are_the_same_in_the_form_that_is_compiled(monkeypatch):
    params = parameters(torch.float64)
    eager, _ = gradients(squared, params)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    traced, extras = gradients(squared, params)
    assert all(torch.equal(eager[name], traced[name]) for name in params)
    assert not extras["loss"].requires_grad


def test_the_input_gradient_asks_for_no_other():
    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    x = torch.tensor([[1.0, -1.0]])
    g = input_gradient(lambda a: (a.square() * weight).sum(), x)
    assert g.tolist() == [[4.0, -6.0]]
    assert weight.grad is None
    assert not g.requires_grad
