"""The claims at a glance: words that the intervals support, and nothing said before it was run."""

from __future__ import annotations

import re

import pytest

from bench.analysis.scores.load import load
from bench.analysis.verdicts import Verdict
from bench.analysis.wallclock.timings import load_timings
from bench.paper import targets
from bench.paper.claims import judge as claims
from bench.paper.claims import overview
from bench.paper.claims.rules import load_claims
from tests.analysis import helpers
from tests.paper.test_claims import ALGOS, at_products, coverage, write_scores


def rows(root) -> dict[str, tuple[str, str, str]]:
    """Of each claim: found, how sure, what would change it."""
    judged = claims.judge(load(root, "made-up"), load_timings(root)[0])
    made = overview.table(judged)
    return {record["claim"]: tuple(row[1:]) for record, row in zip(made.records, made.rows)}


@pytest.fixture
def root(tmp_path):
    levels = dict(zip(ALGOS, (500.0, 200.0, 480.0, 900.0)))
    helpers.study(tmp_path, envs=["a-run", "b-walk"], algos=ALGOS, seeds=5, levels=levels)
    return tmp_path


def test_every_claim_has_a_row_and_words_of_its_own(root):
    rules, _ = load_claims()
    names = [claim.id for claim in rules.claim]
    assert list(rows(root)) == names
    assert list(overview.MEASURED) == list(overview.CHANGES) == names


def test_what_was_not_run_is_said(root):
    found = rows(root)
    assert all(found[name][:2] == ("–", "not run yet") for name in ("2", "3a", "3b", "4a", "4b", "5a", "5b"))


def test_a_difference_is_shown_with_its_interval(root):
    found, sure, _ = rows(root)["1"]
    interval = r"−?0\.\d{3} \[−?0\.\d{3}, −?0\.\d{3}\]"
    expected = "; ".join(f"QSM − {name} {interval}" for name in ("SAC", "TD3", "DQL"))
    assert re.fullmatch(f"IQM of final return / 1000: {expected}", found)
    assert sure == "contradicted, 5 seeds"  # DQL is far above


def test_what_would_decide_a_claim_is_said_once(tmp_path):
    helpers.study(tmp_path, algos=ALGOS, seeds=3)
    change = rows(tmp_path)["1"][2]
    assert change.startswith("To decide it: at least 5 seeds of QSM on every task, not 3; ")
    assert change.count("seeds of QSM") == 1


def test_seeds_that_would_decide_are_given_for_each_comparison(tmp_path):
    """And what they suppose is said once."""
    levels = dict(zip(ALGOS, (500.0, 490.0, 520.0, 100.0)))
    helpers.study(tmp_path, envs=["a-run", "b-walk"], algos=ALGOS, seeds=5, levels=levels)
    change = rows(tmp_path)["1"][2]
    number = r"(about|more than) [\d,]+ seeds"
    supposed = "if value and spread stay as they are"
    assert re.match(f"To decide it: QSM − SAC: {number}; QSM − TD3: {number}, {supposed}\\. ", change)
    assert change.count("seeds") == 2


def test_words_follow_the_intervals(root):
    """Below, not separated from and above; and none of them with fewer seeds than the rules ask for."""
    point = [
        ("coverage", "authors", algo, seed, value)
        for algo, values in {
            "qsm": (1.0, 1.1, 1.2, 1.3, 1.4),
            "sac": (2.0, 2.1, 2.2, 2.3, 2.4),
            "td3": (1.1, 1.3, 0.9, 1.4, 1.2),
            "dql": (0.1, 0.2, 0.3, 0.4, 0.5),
        }.items()
        for seed, value in enumerate(values)
    ]
    few = coverage("swingup-authors", 4, qsm=3.0, sac=1.0, td3=1.0, dql=1.0)
    write_scores(root, "exploration", [*point, *few])
    found, sure, _ = rows(root)["4a"]
    assert found.endswith(
        "point: below SAC, and not separated from TD3, and above DQL; "
        "cartpole-swingup: too few seeds beside SAC, TD3, DQL"
    )
    assert sure == "undecided, 4 to 5 seeds"


def test_ranges_and_shares(root):
    write_scores(root, "multimodality", at_products([5, 9, 8, 7], [0, 0, 0, 1]))
    share = [("always_up_to=0.1", 10), ("above_start_at=2", 3)]
    path = [(m, "path-gridworld", "qsm", seed, int(seed < k)) for m, k in share for seed in range(10)]
    write_scores(root, "theorem", path)
    found = rows(root)
    assert found["3a"][0].endswith("modes 5.0 to 9.0; optima covered 0.0 to 1.0")
    assert found["3a"][1] == "mixed, 5 seeds"
    assert "every step raises Q in 10 of 10 seeds; " in found["5b"][0]
    assert found["5b"][0].endswith("Q is above its start in 3 of 10 seeds")


def test_a_verdict_without_findings_is_not_run():
    claim = load_claims()[0].claim[1]
    (row,) = overview.table([Verdict(claim, "undecided", (), "")]).rows
    assert row[1:3] == ["–", "not run yet"]


def test_targets_are_m_q_times_the_logged_gradient(tmp_path):
    """Only of QSM, with the authors' M_q and the gradient as it is: medians 10 and 20, all values from 5 to 30."""
    folder = helpers.study(tmp_path, algos=["qsm", "sac"], seeds=4)
    configs = [{"M_q": 50.0}, {"M_q": 50.0}, {"M_q": 100.0}, {"M_q": 50.0, "normalise_gradient": True}]
    for seed, config in enumerate(configs):
        for algo in ("qsm", "sac"):
            run = folder / f"cheetah-run/{algo}/seed-{seed}"
            logged = "".join(
                f"{1000 * k},loss,q_gradient,{x * (1 + seed)}\n" for k, x in enumerate((0.1, 0.2, 0.3))
            )
            (run / "train.csv").write_text(f"env_step,kind,name,value\n{logged}1000,loss,q,7.0\n")
            helpers.change_meta(run, config=config)
    (record,) = targets.table(tmp_path).records
    assert (record["env"], record["label"], record["n"]) == ("cheetah-run", "qsm", 2)
    assert (record["low"], record["high"]) == pytest.approx((5.0, 30.0))
    assert record["median"] == pytest.approx((10 + 20) / 2)
