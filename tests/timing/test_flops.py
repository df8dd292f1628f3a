"""What is counted about an update, against counts by hand."""

from __future__ import annotations

import pytest
import torch

from bench.timing import flops
from bench.timing.case import Case, CaseTimer

OBS, A, B, H = 17, 6, 8, 32  # cheetah-run


def timer(algo: str, T: int | None = None) -> CaseTimer:
    return CaseTimer(Case(algo, (H, H), B, T), "eager")


def test_a_product_is_counted_twice_its_multiplications() -> None:
    a, b = torch.randn(3, 4, 5), torch.randn(3, 5, 7)
    assert flops.gflop(lambda: torch.bmm(a, b)) == pytest.approx(2 * 3 * 4 * 5 * 7 / 1e9)


def test_what_happens_every_ten_thousand_updates_is_not_in_the_period():
    class Rare:
        def phase(self, count: int) -> int:
            return 2 * (count % 10_000 == 0) + count % 2

    assert flops.period(Rare()) == 2


@pytest.mark.parametrize(("algo", "period"), [("qsm", 1), ("sac", 1), ("td3", 2), ("dql-bc", 5)])
def test_the_period_of_an_algorithm_s_updates(algo: str, period: int) -> None:
    assert timer(algo).period == period


def test_flops_of_a_td3_update_are_those_counted_by_hand() -> None:
    """With one critic in the actor's loss. Products with one column are sums here, and count nothing."""
    paper = {"actor_q": "first"}
    s = CaseTimer(Case("td3", (H, H), B, None, overrides=paper), "eager")
    actor = OBS * H + H * H + H * A
    critic = (OBS + A) * H + H * H
    critic_backward = critic + H * H  # of the weights; of the inputs of all layers but the first
    actor_backward = actor + H * H + H * A
    through_critic = critic + H * H + H * (OBS + A)  # forward; back to the action, no weights
    critic_half = actor + 2 * (critic + critic + critic_backward)  # target action, target critics, critics
    actor_half = actor + through_critic + actor_backward
    counted = flops.gflop(lambda: s.update_often(2)) / 2
    assert counted == pytest.approx(2 * B * (critic_half + actor_half / 2) / 1e9, rel=1e-6)


@pytest.mark.parametrize(
    ("algo", "T", "calls"),
    [
        ("sac", None, 1 + 2 + 2 + 1 + 2),  # a', target critics, critics; a, critics
        ("qsm", 3, 3 + 2 + 2 + 2 + 1),  # chain of a', target critics, critics; grad Q, one denoising step
        ("dql", 3, 3 + 2 + 2 + 3 + 2),  # as qsm; the chain and the critics behind it
    ],
)
def test_network_calls_of_an_update(algo: str, T: int | None, calls: int) -> None:
    s = timer(algo, T)
    assert flops.network_calls(s.agent, lambda: s.update_often(1)) == calls


def test_network_calls_of_an_action_count_the_chain_and_the_choice() -> None:
    qsm = timer("qsm", 4)
    assert flops.network_calls(qsm.agent, qsm.time("act_1")) == 4
    choosing = timer("dql-bc", 4)
    assert flops.network_calls(choosing.agent, choosing.time("act_1")) == 4 + 2


def test_network_calls_of_a_flow_are_its_steps() -> None:
    own = {"flow_steps": 3, "act_particles": 4, "particles": 4, "samples": 5}
    rfm = CaseTimer(Case("rfm", (H, H), B, None, overrides=own), "eager")
    assert flops.network_calls(rfm.agent, rfm.time("act_1")) == 3 + 2  # and the critics that choose
    # flows of a' and of the endpoint, each with its choice; target critics, critics; critics of the samples; the loss
    assert flops.network_calls(rfm.agent, rfm.update) == 2 * (3 + 2) + 2 + 2 + 2 + 1


def test_parameters_are_those_of_one_seed() -> None:
    s = CaseTimer(Case("td3", (H, H), B, None, pack=2), "eager")
    actor = OBS * H + H + H * H + H + H * A + A
    critic = (OBS + A) * H + H + H * H + H + H + 1
    assert flops.parameters(s.agent, "actor") == actor
    assert flops.parameters(s.agent, "critic") == 2 * critic


def test_products_alone_are_all_products_and_nothing_else() -> None:
    s = timer("qsm", 2)
    alone = flops.products(s.update)
    assert flops.gflop(alone) == pytest.approx(flops.gflop(s.update))
