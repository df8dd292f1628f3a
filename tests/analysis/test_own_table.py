"""A study's own `[report]` table asks for what its runs will have; its report shows what they have by now."""

from __future__ import annotations

import pytest

from bench.analysis import style
from bench.analysis.report.request import load_chosen, load_report, own_choice
from bench.analysis.report.sections import sections
from bench.analysis.scores.tables import summary
from bench.errors import UserError
from tests.analysis import helpers

TABLE = {
    "studies": ["other"],
    "algos": ["sac@other", "qsm", "dql"],
    "envs": ["walker-run", "cheetah-run"],
    "subject": "dql",
    "baselines": ["qsm", "td3"],
    "names": {"dql": "Theirs", "qsm": "Ours"},
    "colors": {"dql": "navy"},
    "steps": 5500,
    "normalise": {"walker-run": [0, 500], "*": ["random", 700]},
    "metrics": ["q_gradient"],
    "sensitivity": ["M_q"],
    "others": ["dime", "xqc"],
}


@pytest.fixture
def root(tmp_path):
    folder = helpers.study(tmp_path, ("cheetah-run",), ("qsm", "sac"), 2)
    helpers.change_study(folder, report=TABLE)
    return tmp_path


def test_it_shows_what_is_here_and_names_the_rest(root):
    results = load_report(root, "made-up")
    assert (results.labels, results.envs) == (("qsm",), ("cheetah-run",))
    assert (results.choice.subject, results.choice.baselines) == ("", ("qsm",))
    assert (results.choice.names, results.choice.colors) == ({"qsm": "Ours"}, {})
    assert results.choice.normalise == {}
    assert len(results.cell("cheetah-run", "qsm").env_steps) == 10
    said = "\n".join(results.left_out)
    for part in (
        "no study 'other' is here; `make bench STUDY=other` runs it",
        "no algorithm 'sac@other' here",
        "no algorithm 'dql' here",
        "no task 'walker-run' in made-up",
        "subject: no algorithm 'dql' here",
        "baselines: no algorithm 'td3' here",
        "STEPS=5500: no evaluation there",
        "normalise: no task 'walker-run' here",
        "normalise: no algorithm 'random' here",
    ):
        assert f"[report]: left out: {part}" in said
    printed = " ".join(summary(results).split())
    assert "[report]: left out: no study 'other' is here" in printed
    assert "names:" not in said
    assert "colors:" not in said
    assert str(root) not in said


def test_so_do_its_sections(root):
    with style.drawing():
        made = {section.id: section for section in sections(load_report(root, "made-up"))}
    said = [line for name in ("metrics", "sensitivity", "external") for line in made[name].text]
    assert [line.split(";")[0] for line in said] == [
        "Left out: no metric 'q_gradient' was logged here",
        "Left out: sensitivity: no variants of any algorithm here differ in 'M_q'",
        "Left out: others: no curves of others are here: dime, xqc",
    ]


def test_once_everything_is_here_nothing_is_left_out(root):
    helpers.study(root, ("walker-run",), ("sac", "td3", "dql", "random"), 2, name="other")
    helpers.change_study(root / "made-up", report={**TABLE, "algos": [], "steps": 5000})
    results = load_report(root, "made-up")
    assert results.left_out == ()
    assert results.choice.subject == "dql"
    assert len(results.choice.normalise) == 2


def test_a_study_that_cannot_stand_beside_it_is_left_out(root):
    folder = helpers.study(root, ("cheetah-run",), ("dql",), 2, name="other", evaluations=3)
    for run in folder.glob("*/*/seed-*"):
        helpers.set_returns(run, [1.0, 2.0, 3.0], every=1507)
    helpers.change_study(root / "made-up", report={"studies": ["other"]})
    results = load_report(root, "made-up")
    assert results.labels == ("qsm", "sac")
    (line,) = results.left_out
    assert line.startswith("[report]: left out: these studies share no step at which they were evaluated")


def test_what_a_variable_asks_for_must_be_there_and_what_the_table_asks_for_need_not(root):
    choice = own_choice(root, "made-up")
    assert load_chosen(root, ["made-up"], choice, "make figures", required={"width"}).labels == ("qsm",)
    for key, complaint in (
        ("subject", "subject: no algorithm 'dql' here"),
        ("steps", "STEPS=5500"),
        ("studies", "no study 'other'"),
    ):
        with pytest.raises(UserError, match=complaint):
            load_chosen(root, ["made-up"], choice, "make figures", required={key})
