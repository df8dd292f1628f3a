"""What docs/findings.md says in words, outside of its generated parts, held to the results and to the code."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from algos.core.diffusion import vp_schedule
from algos.q_langevin import QLangevinConfig
from algos.qsm import QSMConfig
from bench.analysis.report.request import load_chosen
from bench.analysis.scores.efficiency import sample_efficiency
from bench.analysis.scores.estimates import difference
from bench.analysis.scores.load import load
from bench.analysis.wallclock.timings import load_timings
from bench.paper.claims import judge as claims
from bench.paper.claims.rules import load_claims
from bench.paper.documents import HERE
from bench.paper.experiments.data import read_scores, read_table, values
from bench.paper.experiments.exploration import run as exploration
from bench.paper.experiments.multimodality import problem as bandit
from bench.paper.experiments.multimodality import run as multimodality
from bench.paper.experiments.theorem import run as theorem
from bench.studies.file import load_study
from bench.studies.overrides import default_config
from bench.studies.report import read_figures_file

RESULTS = HERE / "results"
TEXT = (HERE / "docs/findings.md").read_text(encoding="utf-8")
PROSE = re.sub(r"<!-- generated:.*?<!-- end generated -->", "", TEXT, flags=re.DOTALL)


@pytest.fixture(scope="module")
def early():
    return load(RESULTS, "early-100k")


@pytest.fixture(scope="module")
def judged(early):
    """Claim -> what the rules say of it."""
    return {v.claim.id: v for v in claims.judge(early, load_timings(RESULTS)[0])}


@pytest.fixture(scope="module")
def scores():
    """(experiment, measure, setting, algo) -> one value per seed."""
    frames = {
        name: read_scores(RESULTS / "experiments" / name)
        for name in ("multimodality", "exploration", "theorem")
    }
    return lambda name, measure, setting, algo="qsm": values(frames[name], measure, setting, algo)


def test_every_number_in_prose_is_one_of_the_code_or_of_a_source():
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", PROSE)
    found = set(re.findall(r"(?<![\w.])\d[\d,.]*\d|(?<![\w.])\d", prose))
    early, paper = load_study("early-100k"), load_study("paper")
    own = {
        early.settings.steps,
        early.settings.steps // 2,
        paper.settings.steps,  # as many as the authors ran
        load_study("qsm-knobs").settings.steps,
        exploration.POINT.settings.steps,
        exploration.SWINGUP.settings.steps,
        *early.config["hidden"],
        *QSMConfig().hidden,
        QSMConfig().M_q,
        QSMConfig().T,
        2,  # layers
        0,
        1,  # the bounds of actions
        512,  # AVX-512
    }
    claimed = {claim.id[0] for claim in load_claims()[0].claim}
    # 15,000: below; the others are quoted, and stand in fidelity.md or in the README of the curves with their source
    quoted = {"10", "250", "5", "20", "2605.30056", "3888", "10617", "1024"}
    sources = "".join(
        (HERE / name).read_text() for name in ("docs/fidelity.md", "results/published/curves/README.md")
    )
    assert all(number in sources for number in quoted)
    assert found <= {f"{number:,.0f}" for number in own} | claimed | quoted | {"15,000"}


@pytest.mark.seconds
def test_verdicts_in_prose_are_those_of_the_rules(judged):
    said = re.findall(r"Claim (\w+) is (supported|contradicted|mixed|undecided)", PROSE)
    assert len(said) >= 6
    assert {name: judged[name].verdict for name, _ in said} == dict(said)


def test_a_run_is_evaluated_ten_times(early):
    assert {len(cell.env_steps) for cell in early.cells.values()} == {10}


def test_seeds_of_dql_that_stand_still_on_cheetah_run(early):
    folders = [RESULTS / f"early-100k/cheetah-run/dql/seed-{seed}" for seed in range(5)]
    assert len(early.cells["cheetah-run", "dql"].final) == len(folders)
    still = []
    for seed, folder in enumerate(folders):
        evaluated = pd.read_csv(folder / "eval.csv").groupby("env_step")["return"].mean()
        logged = pd.read_csv(folder / "train.csv")
        bound = logged.loc[(logged["name"] == "at_bound") & (logged["env_step"] > 20_000), "value"]
        if evaluated[evaluated.index > 10_000].max() < 10:
            assert bound.between(0.4, 0.6).all()
            still.append(seed)
        else:
            assert evaluated.iloc[-1] > 100
    assert still == [1, 2, 4]


def test_one_of_the_authors_seeds_and_one_of_ours_stay_at_the_same_return():
    theirs = pd.read_csv(RESULTS / "published/authors_curves.csv")
    theirs = theirs[(theirs["algo"] == "dql") & (theirs["env_step"] >= 15_000)].groupby("seed")["return"]
    low = theirs.max() < 100
    assert low.sum() == 1
    ours = (
        pd.read_csv(RESULTS / "gate-authors/cartpole-swingup/dql/seed-2/eval.csv")
        .groupby("env_step")["return"]
        .mean()
    )
    ours = ours[ours.index >= 15_000]
    assert abs(ours.mean() - theirs.mean()[low].item()) < 5
    assert max(ours.std(), theirs.std()[low].item()) < 5


def of_figures_file(name):
    choice = read_figures_file(HERE / f"docs/{name}.toml")
    assert choice is not None
    return load_chosen(RESULTS, choice.studies, choice, "make docs")


def half_way(results):
    """(task, label) -> its record at half of the steps."""
    records = sample_efficiency(results)[0].records
    return {(r["task"], r["label"]): r for r in records if r["budget"].startswith("50%")}


def overlap(one, other):
    return max(min(one), min(other)) < min(max(one), max(other))


@pytest.fixture(scope="module")
def sacs(early):
    """(task, form) -> its cell: SAC of the QSM authors' code, SAC of its paper, and QSM."""
    found = {(env, "paper"): cell for (env, _), cell in load(RESULTS, "sac-choices").cells.items()}
    found |= {(env, "authors"): early.cells[env, "sac"] for env in early.envs}
    return found | {(env, "qsm"): early.cells[env, "qsm"] for env in early.envs}


def test_neither_form_of_sac_is_ahead_of_the_other_nor_of_qsm(early, sacs):
    assert {env for env, form in sacs if form == "paper"} == set(early.envs)
    for (env, form), cell in sacs.items():
        ten = form != "paper" or env == "cheetah-run"
        assert len(cell.final) == (10 if ten else 5)
    for env in early.envs:
        paper = sacs[env, "paper"]
        for one, other in ((paper, "authors"), (paper, "qsm"), (sacs[env, "qsm"], "authors")):
            found = difference(one, sacs[env, other])
            assert found.low < 0 < found.high


def test_which_sac_decides_the_sign_on_one_task(early, sacs):
    ahead = lambda env, form: sacs[env, form].final.mean() > sacs[env, "qsm"].final.mean()  # noqa: E731
    assert {env: (ahead(env, "authors"), ahead(env, "paper")) for env in early.envs} == {
        "cheetah-run": (True, False),
        "walker-walk": (False, False),
        "walker-run": (True, True),
    }


@pytest.mark.seconds
def test_what_the_front_page_says_is_decided(early, judged):
    seeds = {"qsm": 10, "sac": 10, "td3": 5, "dql": 5, "dql-bc": 5}
    assert {key: len(cell.final) for key, cell in early.cells.items()} == {
        (env, label): n for env in early.envs for label, n in seeds.items()
    }
    ahead, behind = set(), set()
    for env, label in early.cells.keys() - {(env, "qsm") for env in early.envs}:
        found = difference(early.cells[env, "qsm"], early.cells[env, label])
        ahead |= {(label, env)} if found.low > 0 else set()
        behind |= {(label, env)} if found.high < 0 else set()
    assert ahead == {("dql-bc", env) for env in early.envs} | {("dql", "cheetah-run"), ("dql", "walker-walk")}
    assert behind == set()
    assert {finding.verdict for finding in judged["1"].findings} == {"undecided"}


def test_which_form_of_diffusion_ql_is_ahead_and_how_qsm_stands(early):
    ahead = set()
    for env in early.envs:
        published, authors, qsm = (early.cells[env, label] for label in ("dql-bc", "dql", "qsm"))
        assert [len(published.final), len(authors.final)] == [5, 5]
        assert difference(qsm, published).low > 0
        found = difference(authors, published)
        assert found.high > 0
        ahead |= {env} if found.low > 0 else set()
    assert ahead == {"walker-walk", "walker-run"}
    for run in RESULTS.glob("early-100k/walker-run/dql-bc/seed-*/eval.csv"):
        returns = pd.read_csv(run).groupby("env_step")["return"].mean()
        assert (returns - returns.iloc[0]).max() < 25  # of 1000
    config, own = early.config("dql-bc"), default_config("dql-bc")
    assert {key for key in config if config[key] != own[key]} == {"hidden", "init"}
    assert config["T"] == load_study("early-100k").config["T"]


def test_who_is_ahead_half_way_and_at_the_end(early):
    table, _ = sample_efficiency(early)
    found = {(r["task"], r["budget"].split("%")[0], r["label"]): (r["low"], r["high"]) for r in table.records}
    over_tasks = next(task for task, _, _ in found if task.startswith("IQM"))
    others = ("sac", "td3", "dql", "dql-bc")
    below = lambda task, share: {  # noqa: E731
        x for x in others if found[task, share, x][1] <= found[task, share, "qsm"][0]
    }
    assert below(over_tasks, "50") == set(others)
    assert found[over_tasks, "50", "qsm"][0] - found[over_tasks, "50", "td3"][1] < 0.01
    assert below(over_tasks, "100") == {"dql-bc"}
    overlapping = {x for x in others if overlap(found[over_tasks, "100", x], found[over_tasks, "100", "qsm"])}
    assert overlapping == {"sac", "td3", "dql"}
    assert [env for env in early.envs if "sac" in below(env, "50")] == ["walker-walk", "walker-run"]
    assert not [env for env in early.envs if "td3" in below(env, "50")]


def test_half_way_qsm_is_ahead_of_both_forms_of_sac():
    half = half_way(of_figures_file("which-sac")).values()
    lows = {record["task"]: record["low"] for record in half if record["label"] == "qsm"}
    forms = {record["label"] for record in half} - {"qsm"}
    below = {(r["task"], r["label"]) for r in half if r["high"] < lows[r["task"]]}
    assert len(forms) == 2
    behind = {task for task in lows if all((task, form) in below for form in forms)}
    assert behind == {next(task for task in lows if task.startswith("IQM")), "walker-run"}


def test_neither_change_of_sac_is_shown_to_matter_alone(sacs):
    default = sacs["walker-walk", "authors"]
    alone = {label: cell for (_, label), cell in load(RESULTS, "sac-one-choice").cells.items()}
    found = {label: difference(cell, default) for label, cell in alone.items()}
    assert [len(cell.final) for cell in alone.values()] == [5, 5]
    assert all(each.low < 0 < each.value and each.high > 0 for each in found.values())
    minimum, entropy = (alone[x] for x in ("sac-actor_q=min", "sac-target_entropy_per_dim=-1"))
    between = difference(entropy, minimum)
    assert between.low < 0 < between.high
    assert default.final[5:].mean() > default.final[:5].mean()  # of seeds 5 to 9, and of those before them


def test_no_knob_of_qsm_is_shown_to_matter_and_how_diffusion_ql_stands():
    cells = {label: cell for (_, label), cell in load(RESULTS, "qsm-knobs").cells.items()}
    qsm = cells.pop("qsm")
    found = {label: difference(qsm, cell) for label, cell in cells.items()}
    assert {each.n for each in found.values()} == {3}
    assert min(each.p for each in found.values()) == pytest.approx(0.1)
    without_0 = {label: each for label, each in found.items() if not each.low < 0 < each.high}
    variants = {label for label in found if label.startswith("qsm")}
    assert len(variants) == 9
    assert set(without_0) == {"qsm-M_q=120", "dql-bc"}
    assert -1 < without_0["qsm-M_q=120"].high < 0
    assert without_0["dql-bc"].low > 0
    for form in ("dql", "dql-bc"):
        assert qsm.final.min() > cells[form].final.max()
    cells["qsm"] = qsm
    order = ["qsm-M_q=5", "qsm-M_q=20", "qsm", "qsm-M_q=120"]
    means = [cells[label].final.mean() for label in order]
    longer = [cells[f"{label}-T=20"].final.mean() for label in order]
    assert longer == sorted(longer, reverse=True)
    assert means != sorted(means, reverse=True)


def test_how_qsm_does_without_its_actor(early):
    results = of_figures_file("which-critic")
    assert set(results.envs) == {"cheetah-run", "walker-walk"}
    for env in results.envs:
        without, qsm = results.cells[env, "q-langevin"], results.cells[env, "qsm"]
        assert [len(without.final), len(qsm.final)] == [5, 10]
        found = difference(without, qsm)
        assert found.low < 0 < found.high
        assert abs(found.value) < 0.05 * qsm.final.mean()
        assert found.high - found.low > 0.25 * qsm.final.mean()
    half = half_way(results)
    lows = [half["walker-walk", algo]["low"] for algo in ("q-langevin", "qsm")]
    assert min(lows) > half["walker-walk", "sac"]["high"]
    without, qsm = results.config("q-langevin"), early.config("qsm")
    shared = set(qsm) & set(without) - set(QLangevinConfig.unused)
    assert {key for key in shared if qsm[key] != without[key]} == set()


def test_what_simbas_critic_does_for_qsm_and_sac():
    results = of_figures_file("better-critic")
    new, simba, qsm, sac = results.algos
    assert [len(results.cells["cheetah-run", algo].final) for algo in results.algos] == [5, 5, 10, 10]

    def sign(env, a, b):
        found = difference(results.cells[env, a], results.cells[env, b])
        return (found.low > 0) - (found.high < 0), found.value > 0

    walker, cheetah = "walker-walk", "cheetah-run"
    assert [sign(walker, new, qsm)[0], sign(walker, simba, sac)[0]] == [1, 1]
    assert [sign(cheetah, new, qsm), sign(cheetah, simba, sac)] == [(0, False), (0, True)]
    assert [sign(cheetah, new, simba), sign(walker, new, simba)] == [(-1, False), (0, True)]
    assert sign(cheetah, simba, qsm) == (1, True)
    assert [sign(env, qsm, sac)[0] for env in results.envs] == [0, 0]
    assert 950 < results.cells[walker, new].final.mean() < 1000
    half = half_way(results)
    assert half[walker, new]["low"] > half[walker, qsm]["high"]
    assert half[cheetah, simba]["low"] > half[cheetah, sac]["high"]


def test_modes_and_optima_of_the_bandit(scores):
    for M_q in multimodality.AT_PRODUCTS:
        network, exact = (
            scores("multimodality", "modes", f"products-M_q={M_q:g}-T=5", algo).mean()
            for algo in ("qsm", "qsm-exact")
        )
        assert network >= 2
        assert abs(network - exact) < 1  # about as many
    for setting, algo in (("products-T=5", "dql"), ("products", "sac")):
        assert set(scores("multimodality", "modes", setting, algo)) == {1}
    covered = lambda algo: scores("multimodality", "modes_covered", "products-M_q=22-T=5", algo).mean()  # noqa: E731
    assert (covered("qsm-exact"), covered("qsm") < 1) == (4, True)


def test_a_corner_goes_to_one_point_and_by_coincidence_to_the_opposite_optimum():
    """The last step of the chain with eps = -M_q grad Q, by hand, against the sampled chain."""
    schedule = vp_schedule(5)
    alpha = schedule.alpha[0]
    # of Q at (1, 1), each coordinate
    slope = -np.exp(-(0.5**2 + 0.5**2) / (2 * bandit.SIGMA**2)) * 0.5 / bandit.SIGMA**2
    ends = {M: (1 + np.sqrt(1 - alpha) * M * slope) / np.sqrt(alpha) for M in multimodality.AT_PRODUCTS}
    assert ends[22.0] == pytest.approx(-0.5, abs=0.05)
    counts = read_table(RESULTS / "experiments/multimodality", "density")
    for M, end in ends.items():
        mine = counts[counts["part"] == f"products-equal-qsm-exact-M_q={M:g}-T=5"]
        cell = int((min(end, 1) + 1) / 2 * multimodality.DRAWN)
        near = mine[(mine["i"] - cell).abs().le(1) & (mine["j"] - cell).abs().le(1)]
        assert near["count"].sum() > 0.02 * multimodality.SAMPLES


def test_the_first_grid_of_the_bandit(scores):
    for algo in ("qsm", "qsm-exact"):
        assert scores("multimodality", "modes_covered", "equal-M_q=1-T=20", algo).mean() == 4
    for M_q, T in ((m, t) for m in multimodality.M_Q for t in multimodality.T if (m, t) != (1, 20)):
        assert scores("multimodality", "modes_covered", f"equal-M_q={M_q}-T={T}").max() == 0
    fitted = scores("multimodality", "alpha", "equal-M_q=1-T=20")
    assert (fitted > 1.5 * multimodality.last_temperature(1, 20)).all()
    shares = [scores("multimodality", f"share_{k}", "unequal-M_q=1-T=20").mean() for k in range(4)]
    assert max(shares) - min(shares) < 0.05


def test_first_actions_of_cartpole_swingup():
    actions = read_table(RESULTS / "experiments/exploration", "actions")
    last = actions[actions["env_step"] == actions["env_step"].max()]
    left = last[last["cell"] < 10].groupby(["label", "seed"])["count"].sum() / 500
    rarer = {
        algo: np.minimum(
            own := left.get(algo, pd.Series(dtype=float)).reindex(range(5), fill_value=0.0), 1 - own
        )
        for algo in ("qsm", "dql", "sac", "td3")
    }
    assert 0 < (rarer["qsm"] > 0.02).sum() < 5
    assert rarer["dql"].max() == rarer["td3"].max() == 0
    assert rarer["sac"].min() > 0.4


def test_exploration_comes_from_the_policy(scores):
    for with_noise, without in (("authors", "no-noise"), ("swingup-authors", "swingup-no-noise")):
        ratio = (
            scores("exploration", "coverage", without).mean()
            / scores("exploration", "coverage", with_noise).mean()
        )
        assert 0.85 < ratio < 1.15
    assert scores("exploration", "near_goal", "authors", "dql").sum() == 0
    assert scores("exploration", "far_goal", "authors", "dql").sum() == 0


def test_the_step_of_the_loss(scores):
    small = [step for step in theorem.STEP if step <= 0.1]
    share = lambda move, step: scores(  # noqa: E731
        "theorem", "share_of_steps_up", f"linear-quadratic-{move}-step={step:g}-M_q=1-T=5"
    ).mean()
    assert min(share("add", step) for step in small) > 0.5
    own = [share("match", step) for step in small]
    assert max(own) - min(own) < 0.02
    assert scores("theorem", "always_up_to=0.1", "path-linear-quadratic").min() == 1
    assert scores("theorem", "above_start_at=2", "path-linear-quadratic").max() == 0
    assert scores("theorem", "above_start_at=2", "path-gridworld").min() == 1
