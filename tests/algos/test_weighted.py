"""SDAC, DPMD, QVPO and DIPO: what their golden files do not see, and each of their settings."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small import ACT_DIM, OBS_DIM, parameters
from torch import Tensor

from algos import agent_class
from algos.core.agent import Agent, Batch
from algos.core.critics import CRITICS
from algos.core.noise import Draws
from tests.golden_maps import reader

NAMES = ("sdac", "dpmd", "qvpo", "dipo")
#: Small, and such that every branch happens within a few updates.
SMALL: dict[str, dict[str, Any]] = {
    "sdac": {"particles": 3, "samples": 4, "temperature_delay": 2, "actor_lr_hold": 0, "actor_lr_fall": 2},
    "dpmd": {"particles": 3, "temperature_delay": 2, "actor_lr_hold": 0, "actor_lr_fall": 2},
    "qvpo": {"train_samples": 5, "chosen": 2, "behaviour_samples": 3, "evaluation_samples": 4},
    "dipo": {"action_steps": 3},
}
ROWS = 6


def make(
    name: str, seeds: tuple[int, ...] = (0,), *, total_updates: int | None = None, **overrides: Any
) -> Agent:
    settings = {"hidden": (8, 8), "batch_size": ROWS, "T": 3, "time_dim": 4, "time_hidden": 8}
    config = agent_class(name).Config(**settings | SMALL[name] | overrides)
    how = {"dtype": torch.float64, "total_updates": total_updates}
    return agent_class(name)(config, OBS_DIM, ACT_DIM, seeds, **how)


def batch(agent: Agent, update: int) -> Batch:
    """Transitions of update number `update`, (S, transitions, ...), each seed's own."""

    def draw(seed: int) -> list[Tensor]:
        g = torch.Generator().manual_seed(1_000 * seed + update)
        obs, next_obs = torch.randn(2, agent.transitions(), OBS_DIM, generator=g, dtype=torch.float64)
        action = 2 * torch.rand(agent.transitions(), ACT_DIM, generator=g, dtype=torch.float64) - 1
        reward, mask = torch.randn(2, agent.transitions(), generator=g, dtype=torch.float64)
        return [obs, action, reward, (mask > -1).double(), next_obs]

    return Batch(*(torch.stack(fields) for fields in zip(*map(draw, agent.seeds))))


def train(agent: Agent, updates: int) -> Agent:
    for _ in range(updates):
        agent.update(batch(agent, agent.updates))
    return agent


def observations(n: int, seeds: int = 1) -> Tensor:
    return torch.randn(seeds, n, OBS_DIM, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


# -- settings ------------------------------------------------------------------------------------------------

#: Another value of each setting, and what must be set beside it to see it.
OTHER: dict[str, dict[str, Any]] = {
    "hidden": {"hidden": (9, 8)},
    "critic_activation": {"critic_activation": "relu"},
    "init": {"init": "torch"},
    "critic_loss": {"critic_loss": "mean"},
    "clip_sampler": {"clip_sampler": "iterate"},
    "time_features": {"time_features": "fourier"},
    "schedule": {"schedule": "vp"},
    "acting_actor": {"acting_actor": "online"},
    "clip_target_action": {"clip_target_action": True},
    "weigh_with": {"weigh_with": "after"},
    "weighted": {"weighted": "sum"},
    "brackets": {"brackets": True},
    "trained_on": {"trained_on": "current"},
    "weights": {"weights": "qexpn"},
    "action_norm_of": {"action_norm_of": "action", "action_norm": 1e-3},
    "weight_clip": {"weight_clip": 1e-3},
    "grad_norm": {"grad_norm": 1e-2},
    "action_norm": {"action_norm": 1e-3},
    "beta": {"beta": 3.0, "weights": "qexpn"},
    "q_neg": {"q_neg": 3.0, "weights": "qrelu"},
    "cut": {"cut": 3.0, "weights": "qcut"},
    "mean_rate": {"mean_rate": 0.5, "weights": "qexpn"},
    "std_rate": {"std_rate": 0.5, "weights": "qexpn"},
    "entropy_floor": {"entropy_floor": 0.01, "total_updates": 4},
    "epsilon": {"epsilon": 1.0},
    "running_rate": {"running_rate": 0.5},
}
COMMON = {"critic", "critics", "critic_hidden", "network"}  # tested for all algorithms elsewhere


def fingerprint(name: str, **overrides: Any) -> dict[str, Tensor]:
    """Everything that training and acting leave behind."""
    agent = train(make(name, **overrides), 4)
    actions = {
        mode: agent.act(observations(3), mode=mode).clone() for mode in ("behaviour", "sample", "greedy")
    }
    return parameters(agent) | actions


@pytest.mark.seconds
@pytest.mark.parametrize("name", NAMES)
def test_every_setting_changes_something(name):
    config = make(name).config
    base: dict[str, dict[str, Tensor]] = {}
    for field in dataclasses.fields(config):
        if field.name in COMMON or field.name in config.unused or field.name.partition("_")[0] in CRITICS:
            continue
        value = getattr(config, field.name)
        numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
        other = OTHER.get(field.name) or (
            {field.name: value + 2 if isinstance(value, int) else value / 2} if numeric else {}
        )
        assert other, f"no other value of {field.name} = {value!r} to try"
        beside = {k: v for k, v in other.items() if k != field.name}
        key = repr(beside)
        if key not in base:
            base[key] = fingerprint(name, **beside)
        changed = fingerprint(name, **other)
        same = changed.keys() == base[key].keys() and all(
            changed[leaf].shape == x.shape and torch.equal(changed[leaf], x) for leaf, x in base[key].items()
        )
        assert not same, f"{other} changes nothing"


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_explained_beside_the_papers(name):
    text = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text()
    assert {
        f.name for f in dataclasses.fields(agent_class(name).Config) if f"`{f.name}`" not in text
    } == set()


#: What the files' authors' settings differ in from their repositories' defaults: sizes.
SIZES = {"hidden", "batch_size", "T", "time_hidden"}
FILES = {
    "sdac": {"particles"},
    "dpmd": {"particles"},
    "qvpo": {"train_samples", "evaluation_samples"},
    "dipo": set(),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_are_those_of_the_authors_own_runs(name):
    golden = reader(Path(__file__).parents[1] / "golden" / f"{name}.npz", torch.float64)
    default = agent_class(name).Config()
    differ = {k for k, v in golden.settings().items() if getattr(default, k) != pytest.approx(v)}
    assert differ <= SIZES | FILES[name]


BAD_SETTINGS = [
    ("sdac", "particles", 0), ("sdac", "samples", 0), ("sdac", "q_scale", 0.0), ("sdac", "weigh_with", "later"),
    ("sdac", "weighted", "max"), ("sdac", "acting_actor", "old"), ("sdac", "start_std", 0.0),
    ("sdac", "noise_scale", -1.0),
    ("sdac", "actor_delay", 0), ("sdac", "temperature_delay", 0), ("sdac", "actor_lr_fall", 0),
    ("sdac", "beta_scale", 1.5),
    ("sdac", "time_hidden", 0), ("sdac", "schedule", "cosine"), ("sdac", "action_noise", 0.1),
    ("sdac", "actor_lr_decay", 9),
    ("dpmd", "critic_steps", 0), ("dpmd", "weight_clip", 0.0), ("dpmd", "trained_on", "past"),
    ("dpmd", "running_rate", 2.0),
    ("qvpo", "chosen", 65), ("qvpo", "weights", "q"), ("qvpo", "epsilon", 1.5), ("qvpo", "entropy_weight", -0.1),
    ("qvpo", "train_samples", 0), ("qvpo", "actor_every", 0), ("qvpo", "target_noise", 0.1), ("qvpo", "adam_eps", 0.0),
    ("dipo", "action_steps", 0), ("dipo", "action_lr", 0.0), ("dipo", "action_norm_of", "seed"),
    ("dipo", "noise_ratio", -0.5), ("dipo", "target_actor_every", 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "field", "value"), BAD_SETTINGS)
def test_a_setting_the_algorithm_cannot_run_with_is_refused(name, field, value):
    with pytest.raises(ValueError, match=f"^{field} = "):
        agent_class(name).Config(**{field: value})


# -- packs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_computes_in_a_pack_what_it_computes_alone(name):
    """In float64 rounding leaves 1e-12 of a step; another seed's number would change it by the order of 1."""
    pack = train(make(name, (3, 0, 11)), 5)
    for k, seed in enumerate((3, 0, 11)):
        alone = parameters(train(make(name, (seed,)), 5))
        for leaf, x in parameters(pack, k).items():
            torch.testing.assert_close(x, alone[leaf], rtol=1e-9, atol=1e-11, msg=f"{seed} {leaf}")


# -- initial weights -----------------------------------------------------------------------------------------


def test_the_weights_of_qvpo_and_dipo_begin_as_a_plain_normal():
    w = make("dipo", hidden=(200, 200)).state["actor"][
        "w1"
    ]  # 40,000 numbers: the share below is known to 0.1%
    scaled = w * 2 * math.sqrt(200)
    assert scaled.std().item() == pytest.approx(1, abs=0.02)
    assert (scaled.abs() > 2).double().mean().item() == pytest.approx(0.0455, abs=0.005)


def test_the_weights_of_sdac_begin_as_haikus():
    scaled = make("sdac", hidden=(200, 200)).state["critic"]["w1"] * math.sqrt(200)
    assert scaled.abs().max() <= 2
    assert scaled.std().item() == pytest.approx(0.8796, abs=0.02)  # of a normal cut at two deviations


# -- schedules -----------------------------------------------------------------------------------------------


def test_the_policys_rate_of_sdac_falls_on_a_line_between_two_counts():
    optimiser = agent_class("sdac")(agent_class("sdac").Config(), OBS_DIM, ACT_DIM, [0]).optimiser["actor"]
    counts = torch.tensor([0.0, 25_000.0, 50_000.0, 75_000.0, 1e6])
    rates = optimiser.lr * optimiser.schedule(counts)
    torch.testing.assert_close(rates, torch.tensor([3e-4, 3e-4, 1.65e-4, 3e-5, 3e-5]))


def test_the_entropy_weight_of_qvpo_falls_with_the_run_down_to_its_floor():
    agent = make("qvpo", total_updates=100, entropy_weight=0.02)
    found = []
    for count in (0, 50, 99, 100):
        agent.count.fill_(count)
        found.append(float(agent.entropy_weight()))
    assert found == pytest.approx([0.02, 0.01, 0.002, 0.002])
    assert float(make("qvpo").entropy_weight()) == 0.02  # a run of unknown length
    low = make("qvpo", total_updates=100, entropy_weight=0.001)
    low.count.fill_(90)
    assert float(low.entropy_weight()) == pytest.approx(0.001)  # never above where it began


@pytest.mark.seconds
def test_actor_targets_and_temperature_move_in_their_phases_only():
    def moved(agent: Agent, part: str) -> bool:
        before = {leaf: p.clone() for leaf, p in agent.state[part].items()}
        train(agent, 1)
        return any(not torch.equal(p, before[leaf]) for leaf, p in agent.state[part].items())

    every, second, third = [1, 1, 1, 1], [1, 0, 1, 0], [1, 0, 0, 1]
    expected = {
        "sdac": {
            "critic": every,
            "actor": second,
            "target_actor": second,
            "target_critic": second,
            "temperature": third,
        },
        "dpmd": {
            "critic": every,
            "actor": second,
            "target_actor": second,
            "target_critic": second,
            "running": every,
        },
        "qvpo": {
            "critic": every,
            "actor": second,
            "target_actor": third,
            "target_critic": every,
            "running": second,
        },
        "dipo": {"critic": every, "actor": every, "target_actor": third, "target_critic": every},
    }
    delays: dict[str, dict[str, Any]] = {
        "sdac": {"temperature_delay": 3},
        "dpmd": {},
        "qvpo": {"actor_every": 2, "target_actor_every": 3},
        "dipo": {"target_actor_every": 3},
    }
    for name, parts in expected.items():
        for part, pattern in parts.items():
            agent = make(name, **delays[name])
            assert [int(moved(agent, part)) for _ in range(4)] == pattern, (name, part)


# -- acting --------------------------------------------------------------------------------------------------


def acted(agent: Agent, mode: str) -> Tensor:
    """Actions at fixed observations with fixed random numbers."""
    obs, selection = observations(4), agent.selection(mode)
    draws = {spec.name: normal(1, *spec.shape) for spec in agent.act_draws(obs, mode, selection)}
    return agent.act_step(agent.state, obs, draws, mode, selection)


@pytest.mark.parametrize("mode", ["behaviour", "sample", "greedy"])
@pytest.mark.parametrize("name", ["sdac", "dpmd", "qvpo"])
def test_the_online_critics_choose_an_action_whatever_the_target_critics_say(name, mode):
    agent = train(make(name), 2)
    action = acted(agent, mode)
    agent.state["target_critic"]["w2"].neg_()
    assert torch.equal(acted(agent, mode), action)
    agent.state["critic"]["w2"].neg_()
    assert not torch.equal(acted(agent, mode), action)


@pytest.mark.parametrize("name", ["sdac", "dpmd"])
def test_the_online_critics_choose_the_target_action_of_sdac_and_dpmd(name):
    agent = train(make(name), 2)
    specs = [spec for spec in agent.update_draws(batch(agent, 0), 3) if spec.name.startswith("target.")]
    draws = Draws({spec.name: normal(1, *spec.shape) for spec in specs}).scope("target")
    action = agent.noisy_best(agent.state, observations(ROWS), draws)
    for part in ("target_critic", "target_actor"):
        agent.state[part]["w2"].neg_()
    assert torch.equal(agent.noisy_best(agent.state, observations(ROWS), draws), action)
    agent.state["critic"]["w2"].neg_()
    assert not torch.equal(agent.noisy_best(agent.state, observations(ROWS), draws), action)


@pytest.mark.parametrize("name", ["qvpo", "dipo"])
def test_the_target_actor_makes_the_target_action_of_qvpo_and_dipo(name):
    agent = train(make(name), 2)
    specs = [spec for spec in agent.update_draws(batch(agent, 0), 3) if spec.name.startswith("target.")]
    draws = Draws({spec.name: normal(1, *spec.shape) for spec in specs})
    action, _ = agent.target_action(agent.state, observations(ROWS), draws)
    agent.state["actor"]["w2"].mul_(-99)
    assert torch.equal(agent.target_action(agent.state, observations(ROWS), draws)[0], action)
    agent.state["target_actor"]["w2"].mul_(-99)  # an untrained chain ends at the bounds
    assert not torch.equal(agent.target_action(agent.state, observations(ROWS), draws)[0], action)


def test_qvpo_chooses_the_target_action_by_the_target_critics():
    agent = train(make("qvpo"), 2)
    specs = [spec for spec in agent.update_draws(batch(agent, 0), 3) if spec.name.startswith("target.")]
    draws = Draws({spec.name: normal(1, *spec.shape) for spec in specs})
    action, _ = agent.target_action(agent.state, observations(ROWS), draws)
    agent.state["critic"]["w2"].neg_()
    assert torch.equal(agent.target_action(agent.state, observations(ROWS), draws)[0], action)
    agent.state["target_critic"]["w2"].neg_()
    assert not torch.equal(agent.target_action(agent.state, observations(ROWS), draws)[0], action)


def test_with_epsilon_one_a_behaviour_action_of_qvpo_is_the_first_sample():
    agent = make("qvpo", epsilon=1.0)
    obs, selection = observations(4), agent.selection("behaviour")
    draws = {spec.name: normal(1, *spec.shape) for spec in agent.act_draws(obs, "behaviour", selection)}
    action = agent.act_step(agent.state, obs, draws, "behaviour", selection)
    k = selection.candidates
    first = {name: x[:, ::k] for name, x in draws.items() if name != "coin"}
    torch.testing.assert_close(action, agent.chain(agent.state["actor"], obs, Draws(first)))


def test_sdac_acts_by_the_target_policy_and_trains_on_the_online_one():
    agent = train(make("sdac"), 2)
    action = acted(agent, "sample")
    agent.state["actor"]["w2"].neg_()
    assert torch.equal(acted(agent, "sample"), action)
    agent.state["target_actor"]["w2"].neg_()
    assert not torch.equal(acted(agent, "sample"), action)


# -- equations -----------------------------------------------------------------------------------------------


def test_sdacs_clean_actions_and_noise_belong_together():
    """x_t = sqrt(abar) x_0 + sqrt(1 - abar) z wherever x_0 is not clipped."""
    agent = make("sdac")
    steps = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 1, 0, 2]].unsqueeze(0)
    noisy, z = 0.1 * normal(1, 6, ACT_DIM), 0.1 * normal(1, 6, 4, ACT_DIM)
    x0 = agent.clean(noisy.unsqueeze(2), steps, z)
    abar = (steps @ agent.alpha_bar)[..., None, None]
    again, inside = abar.sqrt() * x0 + (1 - abar).sqrt() * z, x0.abs() < 1
    assert inside.any()
    torch.testing.assert_close(again[inside], noisy.unsqueeze(2).expand_as(z)[inside])


def test_the_sum_over_sdacs_samples_is_their_number_times_the_mean():
    mean, total = (make("sdac", weighted=how).update(batch(make("sdac"), 0)) for how in ("mean", "sum"))
    torch.testing.assert_close(total["actor_loss"], 4 * mean["actor_loss"])
    torch.testing.assert_close(mean["weight"], torch.full_like(mean["weight"], 1 / 4))


def test_dpmds_critics_step_twice_with_one_gradient():
    first = {n: make("dpmd", critic_steps=n) for n in (1, 2)}
    init = first[1].state["critic"]["w0"].clone()
    moved = {
        n: (train(agent, 1).state["critic"]["w0"] - init).abs().max().item() for n, agent in first.items()
    }
    assert moved[1] == pytest.approx(3e-4, rel=1e-3)
    assert moved[2] == pytest.approx(6e-4, rel=1e-3)


def test_dpmds_weights_are_the_formulas():
    q = torch.tensor([[-9.0, 0.5, 9.0]], dtype=torch.float64)
    for brackets, norm in ((False, q - 2.0 / 4.0), (True, (q - 2.0) / 4.0)):
        agent = make("dpmd", brackets=brackets, weight_clip=1.5, initial_temperature=2.0)
        agent.state["running"]["mean"].fill_(2.0)
        agent.state["running"]["std"].fill_(4.0)
        torch.testing.assert_close(agent.weights(agent.state, q), (norm.clamp(-1.5, 1.5) / 2.0).exp())


def test_qvpos_weights_are_the_formulas():
    from algos.qvpo import WEIGHTS

    q, v = torch.tensor([[[2.0, -1.0]]]), torch.tensor([[[0.5]]])
    running = {"mean": torch.tensor([[1.0]]), "std": torch.tensor([[0.1]])}
    expected = {
        "qadv": [1.5, 0.0],
        "qrelu": [2.75, 0.0],
        "qcut": [2.0, 1.2],
        "qcut0n": [3.0, 0.0],
        "qcut1n": [3.0, 1.0],
        "qexpn": [math.exp(3 * 8), math.exp(-3 * 8)],  # (q - mean)/std is 10 and -20
    }
    assert WEIGHTS.keys() == expected.keys()
    for name, values in expected.items():
        config = agent_class("qvpo").Config(weights=name, beta=3.0, q_neg=0.75, cut=1.2)
        torch.testing.assert_close(WEIGHTS[name](config, q, v, running), torch.tensor([[values]]), msg=name)


def test_qvpo_takes_the_best_of_its_samples():
    agent = make("qvpo", train_samples=7, chosen=2)
    obs = observations(ROWS)
    draws = {name: normal(1, 7 * ROWS, ACT_DIM) for name in ("x", "z0", "z1", "z2")}
    action, weight = agent.best_samples(agent.state, obs, Draws(draws))
    every = agent.chain(agent.state["actor"], obs, Draws(draws), candidates=7)
    q = agent.q(agent.state, obs.repeat_interleave(7, 1), every).amin(1).view(ROWS, 7)
    best = q.sort(-1, descending=True).values[:, :2]
    torch.testing.assert_close(
        agent.q(agent.state, obs.repeat_interleave(2, 1), action).amin(1).view(ROWS, 2), best
    )
    torch.testing.assert_close(weight.view(ROWS, 2), (best - q.mean(-1, keepdim=True)).clamp(min=0))


def test_dipo_moves_actions_uphill_and_not_out_of_the_box():
    agent = make("dipo", action_steps=20)
    obs, action = observations(ROWS), batch(agent, 0).action[:, :ROWS]
    before = action.clone()
    higher = agent.uphill(agent.state, obs, action)
    q = lambda a: agent.q(agent.state, obs, a).amin(1)  # noqa: E731
    assert bool((q(higher) > q(action)).all())
    assert bool((higher.abs() <= 1).all())
    assert torch.equal(action, before)


@pytest.mark.seconds
@pytest.mark.parametrize("of", ["batch", "action"])
def test_dipos_gradient_is_clipped_as_one_vector_or_action_by_action(of):
    """With a norm far below Adam's epsilon the first step is lr g / epsilon, so that the norms can be read off it."""
    agent = make(
        "dipo", action_steps=1, action_norm=1e-6 / ACT_DIM, action_norm_of=of, action_lr=1e-4, adam_eps=1.0
    )
    obs, action = observations(ROWS), 0.5 * batch(agent, 0).action[:, :ROWS]
    gradient = (agent.uphill(agent.state, obs, action) - action) / 1e-4
    norm = gradient.norm() if of == "batch" else gradient.norm(dim=-1)
    # Adam's first step divides by |g| + epsilon, which is 1 here
    torch.testing.assert_close(norm, torch.full_like(norm, 1e-6), rtol=1e-3, atol=0)
