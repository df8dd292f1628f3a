"""What an algorithm may ask for beyond a policy, a target action and an actor's loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from algos import agent_class
from algos.core.agent import Agent
from algos.core.config import Config
from algos.core.noise import Draw, Draws, Recorder
from tests.algos.small import ACT_DIM, OBS_DIM, make, random_batch

TD3: Any = agent_class("td3")


def small(cls: type[Agent], seeds: tuple[int, ...] = (0, 1), **how: Any) -> Agent:
    config = cls.Config(hidden=(8, 8), batch_size=4)
    return cls(config, OBS_DIM, ACT_DIM, seeds, dtype=torch.float64, **how)


@pytest.mark.parametrize("critic", ["online", "target"])
def test_the_critic_that_is_named_chooses_among_candidates(critic):
    agent = make("sac", [0, 1])
    for p in agent.state["target_critic"].values():
        p.mul_(-1)  # what one critic likes best the other one does not
    obs = torch.randn(2, 3, OBS_DIM, dtype=torch.float64)
    actions = 2 * torch.rand(2, 3 * 8, ACT_DIM, dtype=torch.float64) - 1
    chosen = agent.choose(agent.state, obs, actions, 8, critic=critic)
    other = agent.choose(
        agent.state, obs, actions, 8, critic={"online": "target", "target": "online"}[critic]
    )
    assert not torch.equal(chosen, other)
    for k in range(2):
        for i in range(3):
            mine = actions[:, 8 * i : 8 * i + 8]
            q = agent.q(
                agent.state, obs[:, i : i + 1].expand(-1, 8, -1), mine, target=critic == "target"
            ).amin(1)
            assert torch.equal(chosen[k, i], mine[k, q[k].argmax()])


def test_an_agent_knows_how_far_the_run_is():
    seen = []

    class Counting(TD3):
        def learn(self, state, batch, draws, phase):
            seen.append((self.count.item(), self.progress().item()))
            return super().learn(state, batch, draws, phase)

    agent = small(Counting, total_updates=4)
    for i in range(6):
        agent.update(random_batch(agent, i))
    assert sorted(set(seen)) == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0), (5, 1.0)]
    with pytest.raises(ValueError, match="td3 needs the number of updates to come"):
        small(Counting).update(random_batch(agent, 0))


def test_noise_of_exploration_can_be_a_function_of_the_state():
    class Louder(TD3):
        def exploration_noise(self, state):
            return state["actor"]["b0"].abs().amax((1, 2), keepdim=True)  # (S, 1, 1)

    agent = small(Louder)
    for k, std in enumerate((0.01, 0.03)):
        agent.state["actor"]["b0"][k] = std
    obs = torch.zeros(2, 20_000, OBS_DIM, dtype=torch.float64)
    noise = agent.act(obs, mode="behaviour").clone() - agent.act(obs, mode="greedy")
    assert noise[0].std().item() == pytest.approx(0.01, rel=0.03)
    assert noise[1].std().item() == pytest.approx(0.03, rel=0.03)


def test_a_second_batch_comes_after_the_first():
    class Two(TD3):
        def transitions(self):
            return 2 * self.config.batch_size

    agent = small(Two)
    batch = random_batch(agent, 0)
    both = type(batch)(*(torch.cat([x, x + 1], 1) for x in batch))
    first, second = both.split(agent.config.batch_size)
    for mine, again, given in zip(first, second, batch):
        assert torch.equal(mine, given)
        assert torch.equal(again, given + 1)
    assert agent.transitions() == 8


def test_a_phase_draws_what_it_needs_and_no_more():
    class Half(TD3):
        def actor_step(self, state, batch, draws, phase):
            if phase == 1:
                draws.integers("extra", 5, 3)
            return super().actor_step(state, batch, draws, phase)

    agent = small(Half)
    batch = random_batch(agent, 0)
    noise = Draw("target.noise", "normal", (4, ACT_DIM))
    assert agent.update_draws(batch, 0) == [noise]
    assert agent.update_draws(batch, 1) == [noise, Draw("extra", "randint", (3,), 5)]


def test_listing_the_draws_changes_nothing():
    agent = make("dql-bc", [0])
    before = {name: x.clone() for part in agent.state.values() for name, x in part.items()}
    for phase in (0, 1):
        agent.update_draws(random_batch(agent, 0), phase)
    after = {name: x for part in agent.state.values() for name, x in part.items()}
    assert all(torch.equal(x, after[name]) for name, x in before.items())
    assert agent.updates == 0


def test_a_draw_that_was_not_declared_is_named():
    with pytest.raises(RuntimeError, match=r"'target\.z' was not declared"):
        Draws({}).scope("target").normal("z", 3)
    recorder = Recorder(2, torch.device("cpu"), torch.float32)
    draws = Draws(recorder)
    assert draws.normal("a", 3).shape == (2, 3)
    assert draws.scope("x").integers("a", 4).dtype == torch.int64
    with pytest.raises(ValueError, match=r"'x\.a' is declared twice"):
        draws.normal("x.a", 1)


@dataclass(frozen=True)
class Spare(Config):
    unused: ClassVar[tuple[str, ...]] = ("tau", "critic_lr")


def test_a_setting_that_means_nothing_is_refused():
    assert Spare(actor_lr=1.0).actor_lr == 1.0
    with pytest.raises(ValueError, match=r"^tau = 0.1: this algorithm makes no use of tau$"):
        Spare(tau=0.1)
