"""Random streams: one per seed and purpose, the same in every pack, saved and restored exactly."""

from __future__ import annotations

import pytest
import torch

from algos.core.noise import PURPOSES, Draw, Noise, stream_seed

CPU = torch.device("cpu")
SPECS = [
    Draw("x", "normal", (8, 2)),
    Draw("t", "randint", (8,), 5),
    Draw("z", "normal", (3,)),
    Draw("coin", "uniform", ()),
    Draw("u", "uniform64", (4, 2)),
]
NAMES = [spec.name for spec in SPECS]


def noise(seeds=(0,), purpose="update", dtype=torch.float32) -> Noise:
    return Noise(seeds, purpose, CPU, dtype)


def filled(source: Noise, specs=tuple(SPECS)) -> dict[str, torch.Tensor]:
    draws = source.fill(specs)
    return {spec.name: draws[spec.name].clone() for spec in specs}


def test_streams_of_seeds_and_purposes_all_differ():
    seeds = [stream_seed(seed, purpose) for seed in range(200) for purpose in PURPOSES]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)
    episodes = {stream_seed(0, "environment reset", episode) for episode in range(200)}
    assert len(episodes) == 200


def test_streams_are_the_same_on_every_machine():
    """A change would silently change all results."""
    assert stream_seed(0, "update") == 6102389744414414618
    assert stream_seed(7, "environment reset", 3) == 7964965305340474863


def test_an_unknown_purpose_is_refused():
    with pytest.raises(ValueError):
        stream_seed(0, "weather")


def test_a_seed_draws_the_same_alone_and_in_a_pack():
    pack, alone = noise((5, 9, 2)), noise((9,))
    for _ in range(3):
        together, single = filled(pack), filled(alone)
        for name in NAMES:
            assert torch.equal(together[name][1], single[name][0]), name
            assert not torch.equal(together["x"][0], together["x"][1])


@pytest.mark.parametrize("purpose", ["behaviour", "evaluation noise"])
def test_purposes_have_streams_of_their_own(purpose):
    mine, theirs = filled(noise()), filled(noise(purpose=purpose))
    assert not torch.equal(mine["x"], theirs["x"])


def test_successive_draws_differ_and_repeat_from_the_start():
    source, again = noise(), noise()
    first, second = filled(source), filled(source)
    assert not torch.equal(first["x"], second["x"])
    for draws in (first, second):
        repeated = filled(again)
        assert all(torch.equal(draws[name], repeated[name]) for name in NAMES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kinds_shapes_and_ranges(dtype):
    draws = filled(noise((0, 1), dtype=dtype))
    assert {name: tuple(d.shape) for name, d in draws.items()} == {
        "x": (2, 8, 2), "t": (2, 8), "z": (2, 3), "coin": (2,), "u": (2, 4, 2)
    }  # fmt: skip
    assert draws["x"].dtype == draws["z"].dtype == dtype
    assert draws["t"].dtype == torch.int64
    assert draws["coin"].dtype == dtype
    assert draws["u"].dtype == torch.float64


def test_draws_do_not_overlap():
    source = noise()
    draws = source.fill(SPECS)
    kept = {name: draws[name].clone() for name in NAMES}
    for name in NAMES:
        draws[name].zero_()
        assert all(torch.equal(draws[other], kept[other]) for other in NAMES if other != name), name
        draws[name].copy_(kept[name])


def test_the_memory_is_the_same_at_every_call():
    source = noise()
    where = [{name: d.data_ptr() for name, d in source.fill(SPECS).items()} for _ in range(3)]
    other = source.fill(SPECS[:2])
    assert where[0] == where[1] == where[2]
    assert other["x"].data_ptr() != where[0]["x"]  # another plan, another buffer
    assert {name: d.data_ptr() for name, d in source.fill(SPECS).items()} == where[0]


def test_normals_are_standard():
    x = filled(noise(), (Draw("x", "normal", (200_000,)),))["x"][0].double()
    assert abs(x.mean()) < 0.01
    assert x.std().item() == pytest.approx(1, abs=0.01)
    assert (x**4).mean().item() == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("high", [1, 5, 120])
def test_integers_are_uniform_below_their_bound(high):
    t = filled(noise(), (Draw("t", "randint", (60_000,), high),))["t"][0]
    counts = t.bincount(minlength=high).double()
    assert len(counts) == high
    assert t.min() >= 0
    expected = 60_000 / high
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_square < high - 1 + 5 * (2 * high) ** 0.5  # mean and five standard deviations


def test_uniforms_are_fine_enough_to_choose_among_a_million_rows():
    """Float32 uniforms take 2^24 values: of 10^6 rows some would be drawn 16 times as often as 17."""
    u = filled(noise(), (Draw("u", "uniform64", (100_000,)),))["u"][0]
    assert u.min() >= 0
    assert u.max() < 1
    assert ((u * 2**24) % 1 != 0).double().mean() > 0.99
    tenths = torch.histc(u.float(), 10, 0, 1)
    assert ((tenths - 10_000) ** 2 / 10_000).sum() < 27.9  # 0.999 quantile, 9 degrees of freedom


def test_a_uniform_in_float32_is_that_of_float64_and_never_one(monkeypatch):
    spec = (Draw("u", "uniform", (1000,)),)
    rough, fine = (filled(noise(dtype=dtype), spec)["u"] for dtype in (torch.float32, torch.float64))
    torch.testing.assert_close(rough.double(), fine, rtol=1e-7, atol=0)
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda x, **_: x.fill_(1 - 2**-53))
    assert (filled(noise(dtype=torch.float32), spec)["u"] < 1).all()


def test_a_restored_stream_goes_on_exactly():
    source = noise((4, 6))
    filled(source, (Draw("odd", "normal", (3,)),))  # leaves half of a pair of normals in the generator
    states = [source.state(k) for k in range(2)]
    assert all(state.dtype == torch.uint8 for state in states)
    expected = [filled(source) for _ in range(2)]
    restored = noise((6, 4))  # the other way round
    for k in range(2):
        restored.set_state(k, states[1 - k])
    for draws in expected:
        again = filled(restored)
        for name in NAMES:
            assert torch.equal(again[name][[1, 0]], draws[name]), name


def test_a_saved_state_is_not_moved_by_later_draws():
    source = noise()
    state = source.state(0)
    kept = state.clone()
    filled(source)
    assert torch.equal(state, kept)
    assert not torch.equal(source.state(0), kept)


def test_no_draws_cost_no_random_numbers():
    source = noise()
    before = source.state(0)
    assert source.fill([]) == {}
    assert torch.equal(source.state(0), before)
