"""Critics as a choice: what they bring along and what they compute. Conformance has them with every policy."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from algos.core.agent import Agent
from algos.core.batch_renorm import BatchRenorm, init_renorm_mlp, renorm_mlp
from algos.core.critic_distributional import DistributionalCritic
from algos.core.residual import normalise, observation_statistics, observe
from algos.sac import SAC, SACConfig
from bench.check import algorithm as check
from bench.errors import UserError
from bench.studies.file import load_study
from bench.studies.overrides import (
    agent_class,
    algorithm_config,
    build_config,
    default_config,
    parse_overrides,
)

S, B, H = 2, 64, 5


def build(spec: str, **settings: Any) -> Agent:
    """A small agent of an algorithm with its critic."""
    algorithm = check.Algorithm(spec)
    config = build_config(algorithm.name, algorithm.config() | settings)
    agent: Agent = agent_class(algorithm.name)(config, check.O, check.A, check.SEEDS)
    return agent


# -- settings --------------------------------------------------------------------------------------


def test_a_critic_brings_its_authors_settings_and_the_users_go_over_them():
    simba = algorithm_config("sac", {"critic": "simba"})
    assert (simba["actor_lr"], simba["critics"], simba["hidden"], simba["actor_network"]) == (
        1e-4,
        1,
        [128],
        "simba",
    )
    assert algorithm_config("sac", {"critic": "simba", "actor_lr": 2e-4}) == simba | {"actor_lr": 2e-4}
    assert algorithm_config("sac", simba) == simba
    qsm = algorithm_config("qsm", {"critic": "crossq"})
    changed = {key for key, value in default_config("qsm").items() if qsm[key] != value}
    assert changed == {"critic", "critic_lr", "critic_loss"}  # its policy keeps its own
    assert algorithm_config("dql-bc", {"critic": "simba"})["critics"] == 2  # whose loss exchanges the two


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("sac:critic=crossq,tau=0.1", "the critic crossq makes no use of tau"),
        ("qsm:critic=simba,critic_activation=mish", "the critic simba makes no use of critic_activation"),
        ("qsm:critic=simba,critic_hidden=8x16", "one width for all residual blocks"),
        ("sac:critic=simba,hidden=8x16", "one width for all residual blocks"),
        ("sac:critic=simbas", "mlp, simba, crossq or distributional"),
        ("qsm:distributional_low=300", "below distributional_high"),
    ],
)
def test_a_setting_that_the_critic_cannot_have_is_refused_in_one_line(spec, reason):
    with pytest.raises(UserError, match=reason):
        algorithm_config(*parse_overrides(spec))


@pytest.mark.seconds
def test_what_a_study_sets_for_all_skips_critics_without_use_for_it():
    study = dataclasses.replace(load_study("quick"), algos=("sac", "sac:critic=crossq"), config={"tau": 0.01})
    plain, crossq = (job.config["tau"] for job in study.jobs() if job.seed == 0)
    assert (plain, crossq) == (0.01, SACConfig().tau)


def test_a_label_says_what_differs_from_the_critics_own_defaults():
    variant = "sac:critic=simba,actor_lr=0.0001,critic_hidden=8x8"
    study = dataclasses.replace(load_study("quick"), algos=(variant,), config={})
    assert {job.label for job in study.jobs()} == {"sac-critic=simba-critic_hidden=8x8"}


def test_without_target_networks_the_online_critics_answer_for_them():
    agent = build("qsm:critic=crossq")
    assert "target_critic" not in agent.state
    obs, action = torch.randn(3, 4, check.O), torch.rand(3, 4, check.A)
    assert torch.equal(agent.q(agent.state, obs, action, target=True), agent.q(agent.state, obs, action))


# -- batch renormalisation -------------------------------------------------------------------------


def statistics(mean: float = 0.5, var: float = 0.3, passes: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    full = lambda value, *shape: torch.full((S, 1, *shape), value, dtype=torch.float64)  # noqa: E731
    return full(mean, H), full(var, H), full(passes, 1)


def test_until_warm_up_it_is_batch_normalisation_then_ioffes_renormalisation():
    torch.manual_seed(0)
    # where the authors' eps, which Ioffe's form has elsewhere, is nothing
    norm = BatchRenorm(warm_up=10, eps=1e-12)
    x = 2 * torch.randn(S, B, H, dtype=torch.float64) + 1
    mean, std = x.mean(1, keepdim=True), x.std(1, correction=0, keepdim=True)
    plain, _, _ = norm.batch(x, *statistics(passes=9))
    torch.testing.assert_close(plain, (x - mean) / std)
    running_mean, running_var, passes = statistics(passes=10)
    running_mean[..., 0] = -9.0
    far, _, _ = norm.batch(x, running_mean, running_var, passes)
    r = (std / running_var.sqrt()).clamp(1 / 3, 3)
    d = ((mean - running_mean) / running_var.sqrt()).clamp(-5, 5)
    assert (r == 3).any()
    assert 0 < (d == 5).sum() < d.numel()
    torch.testing.assert_close(far, (x - mean) / std * r + d)


def test_a_feature_that_never_varies_has_a_gradient():
    x = torch.ones(S, B, H, dtype=torch.float64, requires_grad=True)
    for passes in (0.0, 1e6):
        out, _, _ = BatchRenorm().batch(x, *statistics(passes=passes))
        (grad,) = torch.autograd.grad(out.square().sum(), x)
        assert grad.isfinite().all()


def test_statistics_move_in_training_only():
    params, stats = init_renorm_mlp([torch.Generator().manual_seed(k) for k in range(S)], (3, 4, 2), (2,))
    x = torch.randn(2 * S, B, 3, dtype=torch.float64) + 1
    assert renorm_mlp(BatchRenorm(), params, stats, x, "relu")[1] == {}
    after = renorm_mlp(BatchRenorm(momentum=0.9), params, stats, x, "relu", training=True)[1]
    assert {name: p.shape for name, p in after.items()} == {name: p.shape for name, p in stats.items()}
    torch.testing.assert_close(after["mean0"].flatten(0, 1), 0.1 * x.mean(1, keepdim=True))
    assert bool((after["passes"] == 1).all())


# -- statistics of observations --------------------------------------------------------------------


def test_merged_statistics_are_those_of_all_observations():
    torch.manual_seed(1)
    stats = observation_statistics(S, 3)
    obs = 3 * torch.randn(S, 40, 3, dtype=torch.float64) + 5
    for part in obs.split([1, 1, 7, 31], 1):
        observe(stats, part)
    torch.testing.assert_close(stats["mean"], obs.mean(1, keepdim=True), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stats["var"], obs.var(1, correction=0, keepdim=True), rtol=1e-3, atol=0)
    normal = normalise(stats, obs)
    assert normal.mean().abs() < 1e-4
    assert (normal.std(correction=0) - 1).abs() < 1e-3


def test_only_observations_of_training_move_them():
    agent = build("qsm:critic=simba")
    obs = check.observations()
    count = lambda: agent.state["obs_stats"]["count"][0].item()  # noqa: E731
    before = count()
    check.train(agent, 1)
    for mode in ("sample", "greedy"):
        agent.act(obs, mode=mode)
    assert count() == before
    agent.act(obs, mode="behaviour")
    agent.observe(obs)
    assert count() == pytest.approx(before + 2 * obs.shape[1])


def test_the_actor_sees_normalised_observations_too():
    agent = build("td3:critic=simba")
    obs = check.observations()
    raw = agent.act(obs, mode="greedy").clone()
    agent.state["obs_stats"]["mean"].fill_(3.0)
    agent.state["obs_stats"]["var"].fill_(4.0)
    moved = agent.act(3 + 2 * obs, mode="greedy")
    torch.testing.assert_close(moved, raw)


# -- distributional critics ------------------------------------------------------------------------


def test_projection_keeps_mass_and_mean_and_clips():
    config = SACConfig(
        critic="distributional", distributional_atoms=11, distributional_low=-5, distributional_high=5
    )
    critic = DistributionalCritic(config, 3, 2)
    probs = torch.rand(S, 2, B, 11, dtype=torch.float64).softmax(-1)
    z = 3 * torch.rand(S, B, 11, dtype=torch.float64) - 1.5
    projected = critic.project(probs, z)
    torch.testing.assert_close(projected.sum(-1), torch.ones(S, 2, B, dtype=torch.float64))
    torch.testing.assert_close(projected @ critic.atoms(z), (probs * z.unsqueeze(1)).sum(-1))
    beyond = critic.project(probs, z + 100)
    torch.testing.assert_close(beyond[..., -1], torch.ones(S, 2, B, dtype=torch.float64))


# -- SAC's actors ----------------------------------------------------------------------------------


def test_a_delayed_actor_stands_still_in_between():
    agent = build("sac:critic=crossq")
    parts = ("actor", "actor_stats", "temperature")
    for count in range(6):
        before = [agent.state[part][name].clone() for part in parts for name in agent.state[part]]
        check.train(agent, 1, count)
        after = [agent.state[part][name] for part in parts for name in agent.state[part]]
        same = [torch.equal(a, b) for a, b in zip(before, after)]
        assert not any(same) if count % 3 == 2 else all(same)


def test_the_order_of_simba_takes_the_new_actor_and_temperature_into_the_target():
    first = build("sac:critic=simba", temperature_lr=0.5)
    last = build("sac:critic=simba", temperature_lr=0.5, actor_first=False)
    assert isinstance(first, SAC)
    one, other = (check.train(agent, 1)[0] for agent in (first, last))
    assert not torch.equal(one["target_q"], other["target_q"])
    assert torch.equal(one["temperature"], other["temperature"])
