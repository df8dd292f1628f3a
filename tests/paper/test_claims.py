"""Verdicts: the rules that claims.toml states, on made-up studies whose answer is known."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as distributions

from bench.analysis import verdicts
from bench.analysis.report import page as report
from bench.analysis.report.sections import Section
from bench.analysis.scores.load import load
from bench.analysis.stats import Contrast
from bench.analysis.table import number
from bench.analysis.verdicts import Finding
from bench.analysis.wallclock.timings import load_timings
from bench.paper.claims import judge as claims
from bench.paper.claims.rules import FILE, FIRST, load_claims
from bench.paper.experiments.multimodality import run as multimodality
from bench.paper.experiments.theorem import run as theorem
from bench.paper.sections import claims as claims_section
from bench.shape import Mismatch
from tests.analysis import helpers

ALGOS = ["qsm", "sac", "td3", "dql"]


def judge(root, study="made-up"):
    timing_sets, _ = load_timings(root)
    return {verdict.claim.id: verdict for verdict in claims.judge(load(root, study), timing_sets)}


def contrast(low, high, value=None):
    return Contrast((low + high) / 2 if value is None else value, low, high, 0.95)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.04, "better"),  # better, however little
        (-0.04, -0.01, "worse"),
        (-0.05, 0.05, "as good"),
        (-0.051, 0.05, "undecided"),
        (-0.01, 0.2, "undecided"),
        (0.0, 0.01, "as good"),
    ],
)
def test_verdict_of_a_difference(low, high, expected):
    assert verdicts.difference_verdict(contrast(low, high), 0.05) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(2.0, 3.0, "supported"), (1.0, 1.99, "contradicted"), (1.9, 2.1, "undecided")],
)
def test_verdict_of_a_level(low, high, expected):
    assert verdicts.level_verdict(contrast(low, high), 2.0) == expected


@pytest.mark.parametrize(
    ("found", "needs", "expected"),
    [
        (["better", "as good"], ("better", "as good"), "supported"),
        (["better", "worse", "undecided"], ("better", "as good"), "contradicted"),
        (["better", "undecided"], ("better", "as good"), "undecided"),
        (["as good"], ("better",), "contradicted"),
        ([], ("better",), "undecided"),
    ],
)
def test_a_claim_stands_as_its_contrasts(found, needs, expected):
    assert verdicts.overall([Finding("x", verdict) for verdict in found], needs) == expected


def test_seeds_that_would_decide():
    # half the width is 0.1; with value 0.05 it must halve, so four times the seeds
    assert verdicts.seeds_that_decide(contrast(-0.05, 0.15), 5, 0.05) == 21
    assert verdicts.seeds_that_decide(contrast(-0.1, 0.1), 5, 0.05) == 21  # as good: within the margin
    assert verdicts.seeds_that_decide(contrast(-0.1, 0.1), 5, 0.0) == np.inf


def test_seeds_that_would_decide_count_on_students_t():
    # at 8 degrees of freedom t = 2.306; with 5 -> N seeds they grow to 2 (N - 1): 2.306 / t sqrt(N / 5) must exceed 2
    found = replace(contrast(-0.05, 0.15), degrees_of_freedom=8)
    t = distributions.t.ppf(0.975, [8, 28, 30, 32])
    assert [t[0] / t[i] * np.sqrt(n / 5) > 2 for i, n in ((1, 15), (2, 16), (3, 17))] == [False, True, True]
    assert verdicts.seeds_that_decide(found, 5, 0.05) == 16


@pytest.fixture
def wide_apart(tmp_path):
    """Five seeds on two tasks: QSM above SAC and TD3, below DQL."""
    helpers.study(
        tmp_path,
        envs=["a-run", "b-walk"],
        algos=ALGOS,
        seeds=5,
        levels={"qsm": 500.0, "sac": 200.0, "td3": 300.0, "dql": 900.0},
    )
    return tmp_path


def test_claim_1_by_study(wide_apart):
    verdict = judge(wide_apart)["1"]
    assert [finding.verdict for finding in verdict.findings] == ["better", "better", "worse"]
    assert verdict.verdict == "contradicted"
    assert [finding.n for finding in verdict.findings] == [5, 5, 5]
    assert verdict.findings[0].contrast.value == pytest.approx(0.3, abs=0.05)
    assert sorted(finding.contrast.level for finding in verdict.findings) == pytest.approx(
        [0.95, 0.975, 1 - 0.05 / 3]
    )
    assert "10,000 environment steps" in verdict.conditions
    assert "a-run, b-walk" in verdict.conditions


def test_equal_algorithms_are_as_good(tmp_path):
    folder = helpers.study(tmp_path, envs=["a-run"], algos=ALGOS, seeds=5)
    for run in folder.glob("*/*/seed-*"):
        helpers.set_returns(run, [500.0 + int(run.name[-1])] * 10)
    verdict = judge(tmp_path)["1"]
    assert {finding.verdict for finding in verdict.findings} == {"as good"}
    assert verdict.verdict == "supported"


def test_under_five_seeds_nothing_is_decided(tmp_path):
    helpers.study(tmp_path, algos=ALGOS, seeds=4, levels=dict(zip(ALGOS, (900.0, 100.0, 100.0, 100.0))))
    verdict = judge(tmp_path)["1"]
    assert verdict.verdict == "undecided"
    assert {finding.verdict for finding in verdict.findings} == {"undecided"}
    assert all("at least 5 seeds" in finding.decides for finding in verdict.findings)
    assert all(finding.contrast.low > 0 for finding in verdict.findings)  # shown all the same


def test_a_run_that_is_not_finished_blocks_its_contrast_alone(wide_apart):
    shutil.rmtree(wide_apart / "made-up/a-run/td3/seed-3")
    verdict = judge(wide_apart)["1"]
    assert [finding.verdict for finding in verdict.findings] == ["better", "undecided", "worse"]
    assert verdict.findings[1].decides == "1 unscored run of TD3"


def test_a_diverged_run_counts_as_finished(wide_apart):
    helpers.diverge(wide_apart / "made-up/a-run/td3/seed-3", 3000, [10, 20])
    assert judge(wide_apart)["1"].findings[1].verdict == "better"


def test_a_baseline_that_was_not_run(tmp_path):
    helpers.study(tmp_path, algos=["qsm", "sac"], seeds=5, levels={"qsm": 900.0, "sac": 100.0})
    verdict = judge(tmp_path)["1"]
    assert [finding.verdict for finding in verdict.findings] == ["better", "undecided", "undecided"]
    assert verdict.findings[0].contrast.level == pytest.approx(1 - 0.05 / 3)  # still one of three
    assert verdict.verdict == "undecided"


def test_gymnasium_tasks_decide_nothing(tmp_path):
    helpers.study(tmp_path, envs=["Pendulum-v1"], algos=ALGOS, seeds=5)
    assert {finding.decides for finding in judge(tmp_path)["1"].findings} == {"a DM Control task"}


def test_claim_2_by_timing(wide_apart):
    assert judge(wide_apart)["2"].verdict == "undecided"  # no timing study yet
    helpers.timing(wide_apart, modes=("eager", "compile"))
    verdict = judge(wide_apart)["2"]
    assert verdict.verdict == "supported"
    assert len(verdict.findings) == 2  # one per set of timings, never pooled
    # at T = 5: DQL 8 + 3 x 4 ms, QSM 9 ms
    assert verdict.findings[0].contrast.value == pytest.approx(20 / 9, rel=0.05)
    assert "256x256" in verdict.conditions


def test_few_timed_rounds_decide_nothing(wide_apart):
    helpers.timing(wide_apart, rounds=9)
    (finding,) = judge(wide_apart)["2"].findings
    assert finding.verdict == "undecided"
    assert "at least 10 rounds" in finding.decides


def write_scores(root, name, rows):
    folder = root / "experiments" / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = [",".join(map(str, row)) for row in rows]
    (folder / "scores.csv").write_text("measure,setting,algo,seed,value\n" + "\n".join(lines) + "\n")


def at_products(modes, optima, seeds=5):
    """Rows of claim 3a: both counts at each of its M_q, the same for every seed."""
    return [
        (measure, f"products-M_q={M_q:g}-T=5", "qsm", seed, value)
        for measure, values in (("modes", modes), ("modes_covered", optima))
        for M_q, value in zip((2.5, 6, 11, 22), values)
        for seed in range(seeds)
    ]


def test_claims_by_experiment(wide_apart):
    assert judge(wide_apart)["3a"].verdict == "undecided"
    rows = [
        ("modes_covered", "small-M_q", algo, seed, covered)
        for algo, covered in (("qsm", 4), ("sac", 0), ("dql", 1))
        for seed in range(5)
    ]
    write_scores(wide_apart, "multimodality", [*rows, *at_products([2] * 4, [3] * 4)])
    write_scores(
        wide_apart,
        "exploration",
        [("far_goal", "authors", "qsm", seed, 1) for seed in range(10)]
        + [("far_goal", "authors", "dql", seed, 0) for seed in range(10)],
    )
    judged = judge(wide_apart)
    assert judged["3a"].verdict == "supported"
    assert len(judged["3a"].findings) == 8
    assert judged["3a"].findings[0].contrast.level == pytest.approx(1 - 0.05 / 8)
    assert judged["3b"].verdict == "descriptive"  # whatever its values are
    assert {finding.verdict for finding in judged["3b"].findings} == {"descriptive"}
    assert [finding.contrast.value for finding in judged["3b"].findings] == [4, 0, 1]
    assert judged["4a"].verdict == "undecided"
    assert judged["4b"].verdict == "supported"
    assert judged["4b"].findings[0].contrast.low == pytest.approx(0.6075, abs=1e-3)  # Newcombe, not [1, 1]


@pytest.mark.parametrize(
    ("modes", "optima", "verdict"),
    [
        ([4] * 4, [0] * 4, "mixed"),  # several modes, none of them at an optimum
        ([1] * 4, [1] * 4, "contradicted"),
        ([4, 4, 4, 1], [3] * 4, "mixed"),  # of one size of target it does not hold
        ([2] * 4, [2] * 4, "supported"),
    ],
)
def test_claim_3a_needs_both_counts_at_every_size_of_target(wide_apart, modes, optima, verdict):
    write_scores(wide_apart, "multimodality", at_products(modes, optima))
    assert judge(wide_apart)["3a"].verdict == verdict


def coverage(setting, seeds, **values):
    """Rows of claim 4a in which seeds differ a little."""
    return [
        ("coverage", setting, algo, seed, value + 0.01 * seed)
        for algo, value in values.items()
        for seed in range(seeds)
    ]


POINT_WORSE = coverage("authors", 10, qsm=0.8, sac=1.0, td3=0.5, dql=0.5)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([*POINT_WORSE, *coverage("swingup-authors", 5, qsm=2.0, sac=1.0, td3=1.0, dql=1.0)], "mixed"),
        ([*POINT_WORSE, *coverage("swingup-authors", 5, qsm=0.9, sac=1.0, td3=1.0, dql=1.0)], "contradicted"),
        ([*POINT_WORSE, *coverage("swingup-authors", 4, qsm=2.0, sac=1.0, td3=1.0, dql=1.0)], "undecided"),
        (POINT_WORSE, "undecided"),  # one task of two says nothing of the claim
    ],
)
def test_claim_4a_is_judged_on_both_tasks(wide_apart, rows, verdict):
    write_scores(wide_apart, "exploration", rows)
    found = judge(wide_apart)["4a"]
    assert found.verdict == verdict
    assert [finding.name.partition(", ")[2] for finding in found.findings] == ["point"] * 3 + [
        "cartpole-swingup"
    ] * 3
    # one of six
    assert max(f.contrast.level for f in found.findings if f.contrast) == pytest.approx(1 - 0.05 / 6)


@pytest.mark.parametrize(
    ("first", "end", "verdict"),
    [(10, 10, "supported"), (10, 0, "mixed"), (0, 0, "contradicted"), (10, 5, "undecided")],
)
def test_claims_5_are_shares_of_seeds(wide_apart, first, end, verdict):
    """Of ten: how many rise all along the first 0.1 of the path, and how many end above their start."""
    counts = {"always_up_to=0.1": first, "above_start_at=2": end}
    rows = [
        (measure, "path-gridworld", "qsm", seed, int(seed < count))
        for measure, count in counts.items()
        for seed in range(10)
    ]
    write_scores(wide_apart, "theorem", rows)
    found = judge(wide_apart)["5b"]
    assert found.verdict == verdict
    # 10 of 10 at 97.5% by Clopper and Pearson: at least (0.025 / 2)^(1/10)
    if first == 10:
        assert found.findings[0].contrast.low == pytest.approx(0.0125**0.1)
    assert judge(wide_apart)["5a"].verdict == "undecided"


def test_the_paths_of_the_rules_are_those_that_the_experiment_takes():
    rules, _ = load_claims()
    for claim in rules.claim:
        if claim.data == "experiments/theorem":
            assert {float(measure.partition("=")[2]) for measure in claim.measures} <= set(theorem.LENGTHS)
            assert claim.min_seeds <= 10
    assert (theorem.BASE["step"], theorem.BASE["M_q"], theorem.BASE["T"]) == (0.01, 1, 5)
    (three,) = [claim for claim in rules.claim if claim.id == "3a"]
    assert three.settings == [f"products-M_q={M_q:g}-T=5" for M_q in multimodality.AT_PRODUCTS]


def test_a_single_seed_of_an_experiment_has_no_interval(wide_apart):
    write_scores(
        wide_apart,
        "multimodality",
        [*at_products([3] * 4, [3] * 4, seeds=1), ("modes_covered", "small-M_q", "qsm", 0, 4)],
    )
    for verdict in claims.judge_experiment(wide_apart, "experiments/multimodality"):
        finding = verdict.findings[0]
        assert (finding.n, finding.contrast.value >= 3) == (1, True)
        assert np.isnan([finding.contrast.low, finding.contrast.high]).all()
        assert verdict.verdict in ("undecided", "descriptive")
    write_scores(wide_apart, "exploration", coverage("authors", 1, qsm=1.0, sac=0.5))
    found = judge(wide_apart)["4a"]
    assert {finding.contrast for finding in found.findings} == {None}


def test_as_good_contradicts_a_claim_that_needs_better(wide_apart):
    rows = [("far_goal", "authors", algo, seed, 0) for algo in ("qsm", "dql") for seed in range(200)]
    write_scores(wide_apart, "exploration", rows)
    verdict = judge(wide_apart)["4b"]
    assert verdict.findings[0].verdict == "as good"
    assert verdict.verdict == "contradicted"


def test_the_page_says_of_each_verdict_on_how_many_seeds_and_what_would_decide_it(tmp_path):
    found = Finding("QSM − SAC", "undecided", 4, lacks=("at least 5 seeds of <b>QSM</b>",))
    verdict = verdicts.Verdict(load_claims()[0].claim[0], "undecided", (found,), "1,000 environment steps")
    page = report.page(
        report.Heading("x", "y", []), [Section("claims", "Claims", verdicts=[verdict])], tmp_path
    )
    assert (
        "<b>QSM − SAC:</b> undecided, n = 4†; what would decide it: at least 5 seeds of &lt;b&gt;QSM" in page
    )


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "measure,setting,algo,seed,value\nmodes,products-M_q=6-T=5,qsm,0,many\n", "\0\0"],
)
def test_damaged_experiments_decide_nothing(wide_apart, text):
    folder = wide_apart / "experiments/multimodality"
    folder.mkdir(parents=True)
    (folder / "scores.csv").write_text(text)
    verdict = judge(wide_apart)["3a"]
    assert verdict.verdict == "undecided"
    assert "scores.csv" in verdict.conditions


def test_every_claim_says_what_changed_and_what_is_measured():
    for claim in load_claims()[0].claim:
        assert claim.changed
        assert claim.data in ("study", "timing") or (claim.settings and claim.measures and claim.statistic)


@pytest.mark.parametrize(
    ("line", "other", "said"),
    [
        ("margin = 0.05\n", "", "'claim.0.' must have a margin above 0, as a claim of kind 'contrast'"),
        ("threshold = 2.0\n", "", "'claim.1.' must have a threshold above 0"),
        ("min_seeds = 5", "min_seed = 5", "unknown key; did you mean 'min_seeds'"),
    ],
)
def test_incomplete_rules_are_refused(tmp_path, line, other, said):
    (tmp_path / "rules.toml").write_text(FILE.read_text().replace(line, other, 1))
    with pytest.raises(Mismatch, match=said):
        load_claims(tmp_path / "rules.toml")


def test_the_hash_of_the_rules_is_shown():
    _, digest = load_claims()
    assert digest == hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert any(digest in note for note in claims.table([]).notes)
    assert any("not pre-registered" in note for note in claims.table([]).notes)


def test_the_first_rules_are_kept_byte_for_byte():
    _, digest = load_claims(FIRST)
    assert digest == "5c2db70a3e4874d6922792560462e728f7886cae6d99f2318bc7657189466e1f"


def test_verdicts_under_both_rules_stand_side_by_side(wide_apart):
    timing_sets, _ = load_timings(wide_apart)
    made = claims.both_rules(claims.judge(load(wide_apart, "made-up"), timing_sets))
    found = {record["claim"]: record for record in made.records}
    first = {claim.id for claim in load_claims(FIRST)[0].claim}
    assert found.keys() == first  # no claim was dropped
    assert (found["1"]["first"], found["1"]["now"]) == ("undecided", "contradicted")
    assert (found["3a"]["first"], found["3a"]["now"]) == ("contradicted", "undecided")
    assert made.rows[0][1] == "Return"
    assert made.rows[2][1].endswith(" → Multi-modality at the size of target that tasks have")


def test_a_study_without_the_papers_algorithm_has_no_claims(tmp_path):
    """Its report must make sense to a reader who never heard of the paper."""
    helpers.study(tmp_path, algos=["sac", "td3"], name="others")
    assert not claims_section(load(tmp_path, "others"), []).verdicts
    helpers.study(tmp_path, algos=["qsm", "sac"])
    assert claims_section(load(tmp_path, "made-up"), []).verdicts


def test_timed_rounds_are_not_marked_as_few_seeds(tmp_path):
    few = verdicts.level("DQL / QSM", contrast(2.4, 2.5), 20, 2.0, 10, "rounds")
    verdict = verdicts.Verdict(load_claims()[0].claim[1], few.verdict, (few,), "")
    assert claims.table([verdict]).rows[0][-3] == number(20)
    page = report.page(
        report.Heading("x", "y", []), [Section("claims", "Claims", verdicts=[verdict])], tmp_path
    )
    assert "20 rounds" in page
    assert "20†" not in page
