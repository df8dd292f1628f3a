"""The interface all algorithms share: packs, settings, acting, saving, and what each setting changes."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import ACT_DIM, ALGORITHMS, OBS_DIM, make, parameters, random_batch, train

from algos import agent_class, registry
from algos.core.agent import Agent, Selection
from algos.core.critics import CRITICS
from algos.core.noise import Draws
from algos.core.optim import Adam
from tests.launching import ALGORITHMS as EVERY

DIFFUSION = ("qsm", "dql", "dql-bc")
SEEDS = (3, 0, 11, 7)


def other_shape(name: str) -> dict[str, Any]:
    return {"batch_size": 21} | ({"T": 3} if name in DIFFUSION else {})


# -- packs ---------------------------------------------------------------------------------------------------

#: Relative to the distance a leaf has moved. A pack's products may be summed in another order, so parameters differ by
#: rounding: seen 4e-6 (float32) and 8e-15 (float64) after 20 updates. A seed that saw another seed's noise, batch, loss
#: or gradient norm would be off by the order of 1.
PACK_RTOL = {torch.float32: 2e-4, torch.float64: 1e-10}


@pytest.mark.seconds
@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize(
    ("dtype", "other"), [(torch.float32, False), (torch.float64, False), (torch.float64, True)]
)
def test_a_seed_computes_in_a_pack_what_it_computes_alone(name, dtype, other):
    settings = other_shape(name) if other else {}
    pack = make(name, SEEDS, dtype=dtype, **settings)
    initial = [parameters(pack, k) for k in range(4)]
    train(pack, 20)
    for k in (0, 3) if dtype == torch.float64 else range(4):
        alone = parameters(train(make(name, SEEDS[k : k + 1], dtype=dtype, **settings), 20))
        in_pack = parameters(pack, k)
        for leaf, value in alone.items():
            off = (value - in_pack[leaf]).double().norm()
            moved = (value.double() - initial[k][leaf].double()).norm()
            assert off <= PACK_RTOL[dtype] * moved, (SEEDS[k], leaf)
        assert (alone["actor/w0" if "actor/w0" in alone else "actor/w1"] != 0).any()


def test_the_gradient_clipping_of_the_pack_test_is_active():
    """Else the test above would not see a norm taken over all seeds."""
    clipped, free = (parameters(train(make("dql-bc", [0], grad_norm=n), 1)) for n in (0.1, 0.0))
    for part in ("actor", "critic"):
        ratio = clipped[f"{part}.adam/m.b1"].norm() / free[f"{part}.adam/m.b1"].norm()
        assert 0 < ratio < 0.9, part


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_seed_that_becomes_nan_leaves_the_others_alone(name):
    def run(poison: bool) -> Agent:
        agent = make(name, SEEDS)
        for i in range(5):
            batch = random_batch(agent, i)
            if poison and i == 2:
                batch.reward[1, 4] = math.nan
            agent.update(batch)
        return agent

    healthy, ill = run(False), run(True)
    assert healthy.finite() == [True] * 4
    assert ill.finite() == [True, False, True, True]
    for k in (0, 2, 3):
        mine, theirs = parameters(ill, k), parameters(healthy, k)
        assert all(torch.equal(mine[leaf], theirs[leaf]) for leaf in mine), SEEDS[k]


def test_a_seed_once_infinite_stays_marked():
    agent = make("td3", SEEDS)
    saved = {leaf: p.clone() for leaf, p in agent.state["critic"].items()}
    batch = random_batch(agent, 0)
    batch.reward[2] = math.inf
    agent.update(batch)
    for leaf, p in saved.items():  # even if its parameters were finite again
        agent.state["critic"][leaf].copy_(p)
    assert agent.finite() == [True, True, False, True]


def test_a_parameter_that_is_not_finite_is_seen_without_a_loss():
    agent = make("sac", SEEDS)
    agent.state["actor"]["b0"][3, 0, 5] = -math.inf
    assert agent.finite() == [True, True, True, False]


# -- settings ------------------------------------------------------------------------------------------------

OTHER_VALUE: dict[str, Any] = {
    "hidden": (8, 16, 16, 16),
    "critic_activation": {"relu": "mish", "mish": "relu"},
    "init": {"xavier_uniform": "torch", "torch": "xavier_uniform"},
    "critic_loss": {"sum": "mean", "mean": "sum"},
    "clip_sampler": {"iterate": "x0", "x0": "iterate"},
    "time_features": {"fourier": "sinusoidal", "sinusoidal": "fourier"},
    "actor_q": {"mean": {"sac": "min", "td3": "first"}},
    "actor_lr_decay": {0: 3, 2_000_000: 3},
    "grad_norm": {0.0: 0.01, 0.1: 0.01},
    "time_dim": {64: 32, 16: 8},
    "target_noise": {0.0: 0.2, 0.1: 0.2, 0.2: 0.4},
    "target_noise_clip": {0.5: 0.01},
    "action_noise": {0.0: 0.3, 0.1: 0.3},
    "ema_start": {0: 2},
    "critic_hidden": (8,),
    "schedule": {"vp": "cosine"},
    "gradient_critic": "target",
    "actor_weight_decay": 0.1,
    "actor_lr_fall": 2,
}


def other_value(name: str, field: str, value: Any) -> Any:
    change = OTHER_VALUE.get(field)
    if isinstance(change, dict):
        other = change[value]
        return other[name] if isinstance(other, dict) else other
    if change is not None:
        return change
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value / 2


@pytest.mark.seconds
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_setting_changes_what_is_computed(name):
    """A setting without effect would give a variant with a label of its own and the same results."""

    def fingerprint(**overrides: Any) -> dict[str, torch.Tensor]:
        agent = make(name, [0], **overrides)
        for i in range(4):
            batch = random_batch(agent, i)
            # saturates some actions
            agent.update(batch._replace(obs=5 * batch.obs, next_obs=5 * batch.next_obs))
        return parameters(agent) | {"action": agent.act(observations(1, 8), mode="behaviour").clone()}

    base = fingerprint()
    config = make(name, [0]).config
    for field in dataclasses.fields(config):
        if field.name in ("critic", "network", "actor_network"):  # names of code, not numbers
            continue
        # of a falling rate, of evaluation
        if field.name in (
            "actor_lr_hold",
            "actor_lr_end",
            "eval_candidates",
        ):
            continue
        if field.name.partition("_")[0] in CRITICS:  # of a critic that is not asked for (test_critics.py)
            continue
        value = other_value(name, field.name, getattr(config, field.name))
        changed = fingerprint(**{field.name: value})
        same = changed.keys() == base.keys() and all(torch.equal(base[leaf], changed[leaf]) for leaf in base)
        assert not same, f"{field.name} = {value!r} changes nothing"


BAD_SETTINGS = [
    ("qsm", "hidden", ()),
    ("qsm", "hidden", (16, 0)),
    ("td3", "critic_activation", "sigmoid"),
    ("td3", "init", "zeros"),
    ("sac", "critic_loss", "max"),
    ("sac", "actor_lr", 0.0),
    ("sac", "critic_lr", -1.0),
    ("sac", "batch_size", 0),
    ("qsm", "actor_lr_decay", -1),
    ("dql-bc", "grad_norm", -1.0),
    ("sac", "discount", 1.01),
    ("sac", "tau", -0.1),
    ("qsm", "T", 0),
    ("qsm", "clip_sampler", "none"),
    ("qsm", "time_features", "learned"),
    ("qsm", "time_dim", 7),
    ("qsm", "time_dim", 2),
    ("qsm", "action_noise", -0.1),
    ("dql", "target_noise", -0.1),
    ("qsm", "M_q", 0.0),
    ("dql-bc", "ema_decay", 1.5),
    ("dql-bc", "ema_every", 0),
    ("dql-bc", "act_candidates", 0),
    ("sac", "actor_q", "max"),
    ("sac", "temperature_lr", 0.0),
    ("sac", "initial_temperature", 0.0),
    ("td3", "actor_q", "min"),
    ("td3", "actor_delay", 0),
    ("td3", "target_noise_clip", -1.0),
    ("sac", "critic", "forest"),
    ("sac", "critics", 0),
    ("sac", "critic_hidden", (0,)),
    ("qsm", "schedule", "sine"),
    ("qsm", "network", "transformer"),
]


@pytest.mark.parametrize(("name", "field", "value"), BAD_SETTINGS)
def test_a_setting_no_algorithm_can_run_with_is_refused(name, field, value):
    with pytest.raises(ValueError, match=f"^{field} = "):
        agent_class(name).Config(**{field: value})


def test_every_setting_is_explained_beside_the_papers():
    text = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text()
    settings = {field.name for name in ALGORITHMS for field in dataclasses.fields(agent_class(name).Config)}
    assert {name for name in settings if f"`{name}`" not in text} == set()


def test_the_registry_names_every_algorithm_by_its_own_name():
    assert {*ALGORITHMS, "random"} <= registry().keys()
    assert all(agent_class(name).name == name for name in EVERY)
    with pytest.raises(KeyError):
        agent_class("ppo")


# -- the learning rate ---------------------------------------------------------------------------------------


def test_only_the_qsm_authors_diffusion_agents_decay_their_actors_rate():
    decay = {name: agent_class(name).Config().actor_lr_decay for name in ALGORITHMS}
    assert decay == {"qsm": 2_000_000, "dql": 2_000_000, "dql-bc": 0, "sac": 0, "td3": 0}


@pytest.mark.seconds
@pytest.mark.parametrize("name", ["qsm", "dql"])
def test_the_actors_rate_follows_the_cosine_and_the_critics_does_not(name, monkeypatch):
    """Adam by hand on the gradients that the agent used, at lr (1 + cos(pi count/decay))/2, count from 0 (as optax)."""
    used: dict[str, list[dict[str, torch.Tensor]]] = {"actor": [], "critic": []}
    agent = make(name, [0], actor_lr_decay=4, actor_lr=1e-3, critic_lr=2e-3)
    original = Adam.step

    def spy(self, params, grads, moments):
        for part in used:  # the recording call, on a copy of the state, is none of them
            if agent.state[part] is params:
                used[part].append({leaf: g.clone() for leaf, g in grads.items()})
        original(self, params, grads, moments)

    monkeypatch.setattr(Adam, "step", spy)
    initial = {part: {leaf: p.clone() for leaf, p in agent.state[part].items()} for part in used}
    train(agent, 6)
    for part, lr in (("actor", 1e-3), ("critic", 2e-3)):
        assert len(used[part]) == 6
        for leaf, p in initial[part].items():
            m, v = torch.zeros_like(p), torch.zeros_like(p)
            for count, grads in enumerate(used[part]):
                m = 0.9 * m + 0.1 * grads[leaf]
                v = 0.999 * v + 0.001 * grads[leaf] ** 2
                m_hat, v_hat = m / (1 - 0.9 ** (count + 1)), v / (1 - 0.999 ** (count + 1))
                factor = 0.5 * (1 + math.cos(math.pi * min(count / 4, 1))) if part == "actor" else 1.0
                p = p - lr * factor * m_hat / (v_hat.sqrt() + 1e-8)
            # the step counter and thus the factor are float32
            torch.testing.assert_close(agent.state[part][leaf], p, rtol=0, atol=1e-8, msg=f"{part}/{leaf}")


def test_a_decayed_actor_stands_still_and_a_slow_decay_hardly_matters():
    agent = train(make("qsm", [0], actor_lr_decay=2), 2)
    before = parameters(agent)
    after = parameters(train(agent, 1))
    assert torch.equal(after["actor/w1"], before["actor/w1"])
    assert not torch.equal(after["critic/w1"], before["critic/w1"])
    slow, none = (parameters(train(make("qsm", [0], actor_lr_decay=n), 3)) for n in (10**9, 0))
    torch.testing.assert_close(slow["actor/w1"], none["actor/w1"], rtol=0, atol=1e-9)


# -- what the departures from the papers compute -------------------------------------------------------------


def naive_q(agent: Agent, part: str, obs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """The two critics of seed 0 as separate networks, (2, B)."""
    values = []
    for twin in range(2):
        x = torch.cat([obs, action], -1)
        layers = len(agent.state[part]) // 2
        for i in range(layers):
            x = x @ agent.state[part][f"w{i}"][0, twin] + agent.state[part][f"b{i}"][0, twin]
            x = torch.relu(x) if i < layers - 1 else x
        values.append(x.squeeze(-1))
    return torch.stack(values)


def metrics_of(agent: Agent, phase: int) -> tuple[dict[str, float], Any, Any, Agent]:
    """One update: its metrics, batch and draws, and a copy of the agent as it was before."""
    before = copy.deepcopy(agent)
    batch = random_batch(agent, 0)
    draws = {k: v.clone() for k, v in agent.noise["update"].fill(agent.update_draws(batch, phase)).items()}
    metrics = agent.update_step(agent.state, batch, draws, phase)
    return {name: value.item() for name, value in metrics.items()}, batch, draws, before


@pytest.mark.parametrize("actor_q", ["mean", "min"])
def test_sac_losses_are_those_of_the_paper(actor_q):
    """Against torch.distributions, with tanh as a change of variables."""
    agent = make("sac", [5], actor_q=actor_q, initial_temperature=0.3)
    metrics, batch, draws, before = metrics_of(agent, agent.phase(0))

    def sample(actor, obs, z):
        h = obs[0]
        for i in range(2):
            h = torch.relu(h @ actor[f"w{i}"][0] + actor[f"b{i}"][0])
        mean, log_std = (h @ actor["w2"][0] + actor["b2"][0]).split(ACT_DIM, -1)
        std = log_std.clamp(-20, 2).exp()
        u = mean + std * z[0]
        normal = torch.distributions.Normal(mean, std)
        log_prob = normal.log_prob(u) - torch.log(1 - torch.tanh(u) ** 2)
        return torch.tanh(u), log_prob.sum(-1)

    action, log_prob = sample(before.state["actor"], batch.next_obs, draws["target.z"])
    next_q = naive_q(before, "target_critic", batch.next_obs[0], action).amin(0)
    y = batch.reward[0] + 0.99 * batch.mask[0] * (next_q - 0.3 * log_prob)
    assert metrics["target_q"] == pytest.approx(y.mean().item(), rel=1e-9)
    critic_loss = (naive_q(before, "critic", batch.obs[0], batch.action[0]) - y).square().mean()
    assert metrics["critic_loss"] == pytest.approx(critic_loss.item(), rel=1e-9)

    action, log_prob = sample(before.state["actor"], batch.obs, draws["actor.z"])
    q = naive_q(agent, "critic", batch.obs[0], action)  # the critics have already made their step
    q = q.mean(0) if actor_q == "mean" else q.amin(0)
    assert metrics["actor_loss"] == pytest.approx((0.3 * log_prob - q).mean().item(), rel=1e-9)
    surplus = -log_prob.mean().item() + 0.5 * ACT_DIM
    assert metrics["temperature_loss"] == pytest.approx(0.3 * surplus, rel=1e-9)


def test_sac_s_heads_are_initialised_as_layers_of_their_own():
    """Mean and log standard deviation share one weight, whose bound would be smaller for their joint width."""
    agent = make("sac", [0], hidden=(16, 400))
    w = agent.state["actor"]["w2"][0]
    assert w.shape == (400, 2 * ACT_DIM)
    bound = math.sqrt(6 / (400 + ACT_DIM))
    for head in w.split(ACT_DIM, -1):
        assert 0.995 * bound < head.abs().max() < bound


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("actor_q", ["mean", "first"])
def test_td3_losses_are_those_of_the_paper(clip, actor_q):
    agent = make("td3", [5], clip_target_action=clip, actor_q=actor_q, target_noise=0.6)
    agent.state["target_actor"]["b2"] += 1.0  # near the boundary, where clipping matters
    metrics, batch, draws, before = metrics_of(agent, 1)

    def policy(actor, obs):
        h = obs[0]
        for i in range(2):
            h = torch.relu(h @ actor[f"w{i}"][0] + actor[f"b{i}"][0])
        return torch.tanh(h @ actor["w2"][0] + actor["b2"][0])

    action = policy(before.state["target_actor"], batch.next_obs)
    action = action + (0.6 * draws["target.noise"][0]).clamp(-0.5, 0.5)
    assert (action.abs() > 1).any()
    action = action.clamp(-1, 1) if clip else action
    next_q = naive_q(before, "target_critic", batch.next_obs[0], action).amin(0)
    y = batch.reward[0] + 0.99 * batch.mask[0] * next_q
    assert metrics["target_q"] == pytest.approx(y.mean().item(), rel=1e-9)
    q = naive_q(agent, "critic", batch.obs[0], policy(before.state["actor"], batch.obs))
    q = q.mean(0) if actor_q == "mean" else q[0]
    assert metrics["actor_loss"] == pytest.approx(-q.mean().item(), rel=1e-9)


@pytest.mark.parametrize("delay_targets", [False, True])
def test_td3_moves_its_actor_and_target_actor_at_every_second_update_from_the_second_on(delay_targets):
    agent = make("td3", [0], delay_targets=delay_targets)
    moved = []
    for i in range(4):
        before = parameters(agent)
        agent.update(random_batch(agent, i))
        after = parameters(agent)
        changed = {part for part in ("actor", "target_actor", "critic", "target_critic")
                   if not torch.equal(before[f"{part}/w0"], after[f"{part}/w0"])}  # fmt: skip
        moved.append(changed)
    alone = {"critic"} if delay_targets else {"critic", "target_critic"}
    assert moved == [alone, {"critic", "target_critic", "actor", "target_actor"}] * 2


def test_dql_bc_averages_its_actor_every_k_updates_from_the_start_on():
    agent = make("dql-bc", [0], ema_start=3, ema_every=2)
    moved = []
    for i in range(8):
        before = agent.state["ema_actor"]["w1"].clone()
        agent.update(random_batch(agent, i))
        moved.append(not torch.equal(before, agent.state["ema_actor"]["w1"]))
    # the counter before the update is compared, as in the authors' `Diffusion_QL.step_ema`
    assert moved == [False, False, False, False, True, False, True, False]


@pytest.mark.parametrize("score_scale", [False, True])
@pytest.mark.parametrize("normalise_gradient", [False, True])
def test_qsm_matches_the_negative_action_gradient_of_the_updated_mean_critic(score_scale, normalise_gradient):
    agent = make("qsm", [5], score_scale=score_scale, normalise_gradient=normalise_gradient, M_q=7.0)
    metrics, batch, draws, before = metrics_of(agent, 0)
    t, noise = draws["actor.t"][0], draws["actor.noise"][0]
    alpha_bar = torch.tensor(agent.schedule.alpha_bar, dtype=torch.float64)[t].unsqueeze(-1)
    noisy = (alpha_bar.sqrt() * batch.action[0] + (1 - alpha_bar).sqrt() * noise).requires_grad_()
    assert (noisy.abs() > 1).any()  # Q is asked there, unclipped
    q = naive_q(agent, "critic", batch.obs[0], noisy).mean(0).sum()
    gradient = torch.autograd.grad(q, noisy)[0]
    if normalise_gradient:
        gradient = gradient / (gradient.abs().mean() + 1e-6)
    target = -7.0 * gradient * ((1 - alpha_bar).sqrt() if score_scale else 1.0)
    steps = F.one_hot(t, agent.config.T).double()[None]
    eps = before.predicted_noise(before.state["actor"], batch.obs, noisy.detach()[None], steps)[0]
    assert metrics["actor_loss"] == pytest.approx((eps - target).square().mean().item(), rel=1e-9)


def test_dql_bc_takes_the_coin_of_each_seed():
    """> 0.5: -Q1/|Q2|, else -Q2/|Q1|, of the online critics after their step."""
    agent = make("dql-bc", [1, 2], eta=2.5)
    batch = random_batch(agent, 0)
    draws = {k: v.clone() for k, v in agent.noise["update"].fill(agent.update_draws(batch, 0)).items()}
    draws["actor.coin"] = torch.tensor([0.9, 0.1], dtype=torch.float64)
    before = copy.deepcopy(agent.state["actor"])
    metrics = agent.update_step(agent.state, batch, draws, 0)
    action = agent.chain(before, batch.obs, Draws(draws).scope("actor"))
    q = agent.q(agent.state, batch.obs, action)
    expected = [
        (-q[0, 0].mean() / q[0, 1].abs().mean()).item(),
        (-q[1, 1].mean() / q[1, 0].abs().mean()).item(),
    ]
    assert metrics["q_loss"].tolist() == pytest.approx(expected, rel=1e-9)
    total = metrics["bc_loss"] + 2.5 * metrics["q_loss"]
    torch.testing.assert_close(metrics["actor_loss"], total)


# -- acting --------------------------------------------------------------------------------------------------


def observations(seeds: int, n: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(seeds, n, OBS_DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(
        dtype
    )


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'evaluation': expected behaviour, sample or greedy"):
        make("td3", [0]).act(observations(1, 1), mode="evaluation")


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_greedy_repeats_itself_and_behaviour_does_not(name):
    agent = make(name, [0])
    obs = observations(1, 5)
    once, twice = (agent.act(obs, mode="greedy").clone() for _ in range(2))
    assert torch.equal(once, twice)
    once, twice = (agent.act(obs, mode="behaviour").clone() for _ in range(2))
    assert not torch.equal(once, twice)


def test_evaluating_never_changes_behaviour_or_training():
    def run(evaluations: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        agent = make("qsm", [0])
        for i in range(3):
            for _ in range(evaluations):
                agent.act(observations(1, 10), mode="sample")
            agent.act(observations(1, 1), mode="behaviour")
            agent.update(random_batch(agent, i))
        return parameters(agent), agent.act(observations(1, 1), mode="behaviour").clone()

    (once, action), (often, same_action) = run(0), run(3)
    assert torch.equal(action, same_action)
    assert all(torch.equal(once[leaf], often[leaf]) for leaf in once)


def test_behaviour_noise_has_its_standard_deviation_and_is_clipped():
    obs = observations(1, 1).expand(1, 20_000, OBS_DIM)
    agent = make("td3", [0], action_noise=0.1)
    mean = agent.act(obs, mode="greedy").clone()
    noise = agent.act(obs, mode="behaviour") - mean
    assert mean.abs().max() < 0.5  # five standard deviations from the boundary
    assert noise.mean().abs() < 0.004
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)
    wild = make("td3", [0], action_noise=10.0).act(obs, mode="behaviour")
    assert wild.abs().max() == 1.0
    assert (wild.abs() == 1.0).double().mean() > 0.8


CANDIDATE_Q = (0.0, 1.0, 2.5, -1.0)


def with_known_q(agent: Agent, monkeypatch) -> Agent:
    """Candidate j of every row is the action j/10, whose smaller Q is CANDIDATE_Q[j]; the larger one misleads."""

    def candidates(state, obs, k, draws, mode):
        j = torch.arange(k * obs.shape[1], dtype=torch.float64) % len(CANDIDATE_Q)
        return (j / 10).view(1, -1, 1).expand(obs.shape[0], -1, ACT_DIM)

    def q(state, obs, action, target):
        assert target  # as in the Diffusion-QL authors' `sample_action`
        smaller = torch.tensor(CANDIDATE_Q, dtype=torch.float64)[(action[..., 0] * 10).round().long()]
        return torch.stack([smaller, 5.0 - smaller], 1)

    monkeypatch.setattr(agent, "candidates", candidates)
    monkeypatch.setattr(agent, "q", q)
    return agent


def test_argmax_takes_the_candidate_of_largest_q(monkeypatch):
    agent = with_known_q(make("sac", [0, 1]), monkeypatch)
    action = agent.act(observations(2, 6), mode="sample", candidates=4)
    torch.testing.assert_close(action, torch.full_like(action, 0.2))


def test_softmax_takes_candidates_with_the_probabilities_of_softmax_of_q(monkeypatch):
    n = 20_000
    agent = with_known_q(make("dql-bc", [0, 1], act_candidates=4), monkeypatch)
    action = agent.act(observations(2, 1).expand(2, n, OBS_DIM), mode="sample")
    expected = torch.tensor(CANDIDATE_Q, dtype=torch.float64).softmax(0) * n
    for k in range(2):
        counts = (action[k, :, 0] * 10).round().long().bincount(minlength=4)
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert chi_square < 16.27, counts  # 0.999 quantile, 3 degrees of freedom


def test_dql_bc_chooses_among_fifty_by_softmax_and_the_others_draw_one_action():
    config = agent_class("dql-bc").Config(hidden=(8,), batch_size=4)
    agent = agent_class("dql-bc")(config, OBS_DIM, ACT_DIM, [0])
    for mode in ("behaviour", "sample"):
        assert agent.selection(mode) == Selection(50, "softmax")
    drawn = {
        d.name: d.shape
        for d in agent.act_draws(torch.zeros(1, 3, OBS_DIM), "sample", agent.selection("sample"))
    }
    assert drawn["x"] == (150, ACT_DIM)
    assert drawn["choice"] == (3,)
    for name in ("qsm", "dql", "sac", "td3"):
        assert make(name, [0]).selection("behaviour") == Selection(1)


def test_the_authors_evaluate_diffusion_agents_by_samples_and_the_others_by_the_mean():
    modes = {name: agent_class(name).evaluation_mode for name in ALGORITHMS}
    assert modes == {"qsm": "sample", "dql": "sample", "dql-bc": "sample", "sac": "greedy", "td3": "greedy"}


def test_random_actions_are_uniform_and_learn_nothing():
    agent = make("random", [4])
    actions = agent.act(observations(1, 1).expand(1, 20_000, OBS_DIM), mode="behaviour")[0, :, 0]
    counts = torch.histc(actions, 10, -1, 1)
    assert ((counts - 2000) ** 2 / 2000).sum() < 27.9  # 0.999 quantile, 9 degrees of freedom
    before = parameters(agent)
    train(agent, 2)
    assert agent.updates == 2
    assert all(torch.equal(p, before[leaf]) for leaf, p in parameters(agent).items())


# -- saving --------------------------------------------------------------------------------------------------


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_seeds_can_be_regrouped_from_their_own_states():
    whole = train(make("td3", SEEDS), 5)
    states = [through_a_file(whole.state_dict(k)) for k in range(4)]
    pair = make("td3", [SEEDS[3], SEEDS[1]])
    pair.load_state_dict([states[3], states[1]])
    for agent in (whole, pair):
        train(agent, 5)
    for mine, theirs in ((0, 3), (1, 1)):
        one, other = parameters(pair, mine), parameters(whole, theirs)
        for leaf in one:
            torch.testing.assert_close(one[leaf], other[leaf], rtol=1e-10, atol=1e-12, msg=leaf)


def test_a_state_does_not_share_memory_with_the_agent():
    agent = make("sac", [0, 1])
    state = agent.state_dict(1)
    kept = copy.deepcopy(state)
    train(agent, 2)
    for part, leaves in kept["state"].items():
        assert all(torch.equal(value, state["state"][part][leaf]) for leaf, value in leaves.items())
    assert torch.equal(kept["noise"]["update"], state["noise"]["update"])


@pytest.mark.parametrize(
    "damage", ["other updates", "too few", "another shape", "a missing tensor", "a missing part"]
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_is_loaded(damage):
    saved = train(make("td3", [0, 1]), 3)
    states = [saved.state_dict(0), saved.state_dict(1)]
    if damage == "other updates":
        states[1]["updates"] = 4
    elif damage == "too few":
        states.pop()
    elif damage == "another shape":
        states[1]["state"]["target_actor"]["w2"] = torch.zeros(1, 16, ACT_DIM + 1)
    elif damage == "a missing tensor":
        del states[1]["state"]["target_actor"]["w2"]
    else:
        del states[1]["state"]["actor.adam"]
    agent = make("td3", [0, 1])
    before = [parameters(agent, k) for k in range(2)]
    with pytest.raises(ValueError):
        agent.load_state_dict(states)
    assert agent.updates == 0
    for k in range(2):
        assert all(torch.equal(p, before[k][leaf]) for leaf, p in parameters(agent, k).items())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_policy_file_is_enough_to_act_and_to_ask_the_critics(name):
    trained = train(make(name, SEEDS[:2]), 3)
    policy = through_a_file(trained.policy_dict(1))
    cls = agent_class(policy["algo"])
    agent = cls(
        cls.Config(**policy["config"]), policy["obs_dim"], policy["act_dim"], [SEEDS[1]], dtype=torch.float64
    )
    assert not any(part.endswith(".adam") for part in policy["state"])
    for part, leaves in policy["state"].items():
        for leaf, value in leaves.items():
            agent.state[part][leaf].copy_(value)
    obs = observations(2, 3)
    same = agent.act(obs[1:2], mode="sample"), trained.act(obs, mode="sample")[1:2]
    torch.testing.assert_close(*same, rtol=0, atol=1e-12)
    action = torch.zeros(2, 3, ACT_DIM, dtype=torch.float64)
    q = (
        agent.q(agent.state, obs[1:2], action[1:2]),
        trained.q(trained.state, obs, action)[1:2],
    )
    torch.testing.assert_close(*q, rtol=0, atol=1e-12)
