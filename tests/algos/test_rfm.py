"""What four updates of the reference do not show of RFM."""

from __future__ import annotations

import math

import pytest
import torch

from algos.core.agent import Batch
from algos.core.flow import euler, heun
from algos.rfm import RFM, RFMConfig

TINY = {"hidden": (8, 8), "batch_size": 6, "samples": 4, "particles": 2, "flow_steps": 2, "embedding": 4}


def make(**settings: object) -> RFM:
    return RFM(RFMConfig(**(TINY | settings)), 3, 2, (0,), dtype=torch.float64)


def batch(seed: int) -> Batch:
    g = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(1, 6, *shape, generator=g, dtype=torch.float64)  # noqa: E731
    return Batch(normal(3), normal(2).tanh(), normal(), torch.ones(1, 6, dtype=torch.float64), normal(3))


def test_heun_s_error_is_of_second_order():
    """dy/dt = y, y(0) = 1."""

    def error(step, n: int) -> float:
        y = torch.ones(())
        for i in range(n):
            y = step(lambda t, y: y, i / n, 1 / n, y)
        return abs(y.item() - math.e)

    assert error(euler, 20) / error(euler, 40) == pytest.approx(2, abs=0.2)
    assert error(heun, 10) / error(heun, 20) == pytest.approx(4, abs=0.4)


def test_the_temperature_is_log_linear_in_the_updates_made_and_then_stays():
    agent = make(temperature=0.1, final_temperature=10.0, temperature_steps=2)
    told = [agent.update(batch(i))["temperature"].item() for i in range(4)]
    assert told == pytest.approx([0.1, 1.0, 10.0, 10.0])
    assert agent.temperature(agent.state).item() == pytest.approx(10.0)


def test_the_target_critics_move_at_every_k_th_update():
    agent, moved = make(target_every=3), []
    for i in range(6):
        before = agent.state["target_critic"]["w0"].clone()
        agent.update(batch(i))
        moved.append(not torch.equal(before, agent.state["target_critic"]["w0"]))
    assert moved == [False, False, True, False, False, True]


@pytest.mark.parametrize("form", ["gradient", "tuned"])
def test_every_control_variate_has_the_same_mean(form):
    """The weighted score is zero on average, so that with many samples the posterior mean is that of the noise form."""
    noise = torch.randn(1, 3, 60_000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    obs, y = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    t = torch.tensor([[[0.4], [0.5], [0.6]]], dtype=torch.float64)
    how = {"temperature": 1.0, "samples": 60_000}
    state = make(**how).state
    plain, _ = make(control_variate="fixed", **how).posterior_mean(state, obs, y[..., :2], t, noise)
    other, _ = make(control_variate=form, **how).posterior_mean(state, obs, y[..., :2], t, noise)
    torch.testing.assert_close(other, plain, rtol=0, atol=0.06)


def test_layers_of_several_widths_are_refused():
    with pytest.raises(ValueError, match="one width"):
        RFMConfig(hidden=(8, 16))
