"""A comparison of one's own: what of one study, or of several, is shown, and that nothing else changes a number."""

from __future__ import annotations

import numpy as np
import pytest

from bench.analysis import style
from bench.analysis.report.request import load_chosen, load_report
from bench.analysis.report.sections import sections
from bench.analysis.scores import comparisons, efficiency, estimates, figures
from bench.analysis.scores.load import load
from bench.analysis.scores.tables import final_return
from bench.errors import UserError
from bench.studies.report import read_choice
from tests.analysis import helpers

ENVS = ("cheetah-run", "walker-run")
ALGOS = ("qsm", "sac", "td3", "random")


@pytest.fixture
def root(tmp_path):
    helpers.study(tmp_path, ENVS, ALGOS, 2)
    return tmp_path


def chosen(root, studies=("made-up",), **table):
    return load_chosen(root, studies, read_choice(table), "make figures", "mine")


def names(figure):
    return [text.get_text().split(" (n")[0] for text in figure.legends[0].get_texts()]


def test_which_algorithms_and_tasks_in_which_order_and_under_which_names(root):
    results = chosen(
        root,
        algos=["td3", "qsm"],
        envs=["walker-run"],
        names={"td3": "Twin"},
        colors={"qsm": "#ff0000", "sac": "#00ff00"},
    )
    table = final_return(results)
    assert table.columns == ["Task", "Twin (n = 2†)", "QSM (n = 2†)"]
    assert [row[0] for row in table.rows] == ["walker-run"]
    figure = figures.learning_curves(results)
    assert names(figure) == ["Twin", "QSM"]
    assert figure.legends[0].legend_handles[1].get_color() == "#ff0000"
    whole = {
        record["label"]: record["value"]
        for record in final_return(load(root, "made-up")).records
        if record["env"] == "walker-run"
    }
    assert {record["label"]: record["value"] for record in table.records} == {
        x: whole[x] for x in ("td3", "qsm")
    }


def test_an_algorithm_that_is_not_the_suite_s_is_named_as_its_code_names_itself(tmp_path):
    def shown():
        results = load(tmp_path, "made-up")
        return [style.named(results, label) for label in results.labels]

    folder = helpers.study(tmp_path, algos=["mine", "sac"], seeds=2)
    assert shown() == ["mine", "SAC"]  # of runs from before it was recorded
    for run in folder.glob("cheetah-run/*/seed-*"):
        helpers.change_meta(run, title="Mine <b>\n" + 50 * "x")
    mine, sac = shown()
    assert mine.startswith("Mine <b> xxx")
    assert len(mine) <= 40
    assert sac == "SAC"


def test_without_a_choice_nothing_is_chosen(root):
    plain, own = load(root, "made-up"), load_report(root, "made-up")
    assert (own.envs, own.labels, own.home, own.whole) == (
        plain.envs,
        plain.labels,
        root / "made-up/report",
        True,
    )
    assert final_return(own).records == final_return(plain).records


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"algos": ["qsmm"]}, "no algorithm 'qsmm' here; did you mean 'qsm'?"),
        ({"envs": ["cheetah_run"]}, "no task 'cheetah_run' in made-up; did you mean 'cheetah-run'?"),
        ({"algos": ["qsm"], "baselines": ["sac"]}, "baselines: 'sac' is not among the algorithms shown: qsm"),
        ({"subject": "sacc"}, "subject: no algorithm 'sacc' here; did you mean 'sac'?"),
        ({"subject": "sac", "baselines": ["sac"]}, "subject: 'sac' is a baseline too"),
        ({"names": {"dql": "x"}}, "names: no algorithm 'dql' here"),
        ({"colors": {"qsm": "bluish"}}, "colors: qsm: 'bluish' is not a colour"),
        ({"steps": 5500}, "STEPS=5500: no evaluation there; next to it are those at 5000 and 6000"),
        ({"normalise": {"hopper": [0, 1]}}, "normalise: no task 'hopper' here"),
        (
            {"normalise": {"*": ["randon", 1]}},
            "normalise: no algorithm 'randon' here; did you mean 'random'?",
        ),
        ({"normalise": {"*": [5, 5]}}, "normalise: *: the lowest, 5, is not below the highest, 5"),
    ],
)
def test_names_that_are_not_there_are_refused(root, table, complaint):
    with pytest.raises(UserError) as refused:
        chosen(root, **table)
    assert str(refused.value).startswith(complaint)


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"metrics": ["critic_los"]}, "no metric 'critic_los' was logged here; did you mean 'critic_loss'"),
        ({"sensitivity": ["M_q"]}, "sensitivity: no variants of any algorithm here differ in 'M_q'"),
        ({"others": ["dime"]}, "others: no curves are named 'dime'"),
    ],
)
def test_so_are_names_that_only_a_figure_can_know(root, table, complaint):
    with style.drawing(), pytest.raises(UserError) as refused:
        sections(chosen(root, **table))
    assert str(refused.value).startswith(complaint)


def test_scores_as_of_a_step(root):
    folder = root / "made-up"
    helpers.set_returns(folder / "cheetah-run/qsm/seed-0", range(10, 110, 10))
    helpers.set_returns(folder / "cheetah-run/qsm/seed-1", range(10, 110, 10))
    helpers.diverge(folder / "cheetah-run/sac/seed-0", 7500, [20.0] * 7)
    helpers.diverge(folder / "cheetah-run/sac/seed-1", 3500, [20.0] * 3)
    results = chosen(root, steps=5000)
    cell = results.cell("cheetah-run", "qsm")
    assert cell.env_steps.tolist() == [1000, 2000, 3000, 4000, 5000]
    assert cell.final.tolist() == [50, 50]
    assert results.cell("cheetah-run", "sac").diverged == 1  # the other did so later
    assert results.settings["steps"] == 5000
    assert not comparisons.final_policies(results).rows  # those are of the end
    assert comparisons.final_policies(chosen(root, steps=10_000)).rows


def test_studies_side_by_side(root):
    helpers.study(root, ENVS, ("qsm", "dql"), 2, name="other", levels={"qsm": 100.0, "dql": 200.0})
    results = chosen(root, ("made-up", "other"))
    assert results.labels == ("qsm@made-up", "sac", "td3", "qsm@other", "dql", "random")
    assert [style.named(results, x) for x in results.labels[:4:3]] == ["QSM (made-up)", "QSM (other)"]
    for study, label in (("made-up", "qsm@made-up"), ("other", "qsm@other"), ("other", "dql")):
        own = load(root, study).cell("walker-run", label.partition("@")[0])
        assert np.array_equal(results.cell("walker-run", label).returns, own.returns)
    assert chosen(root, ("made-up", "other"), algos=["qsm", "dql"]).labels == (
        "qsm@made-up",
        "qsm@other",
        "dql",
    )
    with pytest.raises(UserError, match="qsm@made-up and qsm@other; expected one"):
        chosen(root, ("made-up", "other"), subject="qsm")
    assert chosen(root, ("made-up", "other"), subject="qsm@other").choice.subject == "qsm@other"


def test_runs_of_one_configuration_in_two_studies_are_one_algorithm(root):
    """As further seeds, or further tasks, are; unless a run is in both, or the configuration differs."""
    folder = helpers.study(root, ("cheetah-run",), ("qsm",), 4, name="more")
    for seed in (0, 1):
        for file in (folder / f"cheetah-run/qsm/seed-{seed}").iterdir():
            file.unlink()
    assert chosen(root, ("made-up", "more"), algos=["qsm*"]).labels == (
        "qsm@made-up",
        "qsm@more",
    )  # missing runs too
    cells = [cell for cell in helpers.read_grid(folder) if cell["seed"] > 1]
    helpers.change_study(folder, grid=cells)
    results = chosen(root, ("made-up", "more"), algos=["qsm*"])
    assert results.labels == ("qsm",)
    assert (results.cell("cheetah-run", "qsm").n, results.cell("walker-run", "qsm").n) == (4, 2)
    helpers.change_meta(folder / "cheetah-run/qsm/seed-2", config={"M_q": 1.0})
    assert chosen(root, ("made-up", "more"), algos=["qsm*"]).labels == ("qsm@made-up", "qsm@more")


def test_studies_share_the_steps_at_which_both_were_evaluated(root):
    folder = helpers.study(root, ENVS, ("dql",), 2, name="other", evaluations=3)
    for run in folder.glob("*/*/seed-*"):
        helpers.set_returns(run, [1.0, 2.0, 3.0], every=4000)
    results = chosen(root, ("made-up", "other"))
    assert {tuple(cell.env_steps) for cell in results.cells.values()} == {(4000.0, 8000.0)}
    for run in folder.glob("*/*/seed-*"):
        helpers.set_returns(run, [1.0, 2.0, 3.0], every=1500 + 7)
    with pytest.raises(UserError, match=r"share no step .*: 1,000, 2,000, …, 10,000; 1,507, 3,014, 4,521"):
        chosen(root, ("made-up", "other"))


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, [("qsm", "sac"), ("qsm", "td3")]),
        ({"subject": "td3"}, [("td3", "qsm"), ("td3", "sac")]),
        ({"baselines": ["sac"]}, [("qsm", "sac"), ("td3", "sac")]),
        ({"subject": "td3", "baselines": ["sac", "random"]}, [("td3", "sac"), ("td3", "random")]),
        ({"algos": ["sac", "qsm"]}, [("sac", "qsm")]),
    ],
)
def test_what_is_compared_with_what(root, table, expected):
    results = chosen(root, **table)
    differences = comparisons.by_task(results)
    assert (
        list(dict.fromkeys((record["label"], record["minus"]) for record in differences.records)) == expected
    )
    value = (
        results.cell("walker-run", expected[0][0]).final.mean()
        - results.cell("walker-run", expected[0][1]).final.mean()
    )
    assert next(r["value"] for r in differences.records if r["env"] == "walker-run") == pytest.approx(value)
    with style.drawing():
        figure = figures.probability_of_improvement(results)
    assert len(figure.axes[0].get_yticks()) == len(expected)


def gym_study(tmp_path, algos=("mine", "yours", "random")):
    """Two tasks on other scales: mine 200 and -1, yours 100 and -3, random 0 and -5."""
    folder = helpers.study(tmp_path, ("Hopper-v5", "Pendulum-v1"), algos, 2)
    levels = {"mine": (200.0, -1.0), "yours": (100.0, -3.0), "random": (0.0, -5.0)}
    for run in folder.glob("*/*/seed-*"):
        helpers.set_returns(run, [levels[run.parts[-2]][run.parts[-3] == "Pendulum-v1"]] * 10)
    return tmp_path


def iqm(results):
    table = comparisons.aggregates(results)[0]
    return {
        record["label"]: record["value"] for record in table.records if record["statistic"] == "IQM"
    }, table


def test_gymnasium_tasks_are_normalised_between_random_and_best(tmp_path):
    values, table = iqm(load(gym_study(tmp_path), "made-up"))
    assert values == pytest.approx({"mine": 1.0, "yours": 0.5, "random": 0.0})
    said = " ".join(table.notes)
    assert (
        "Returns on Hopper-v5 are normalised: 0 is the mean final return of Random, 0, 1 is that of"
        not in said
    )
    assert "0 is the mean final return of Random, 0, 1 is the mean final return of mine, 200." in said
    assert "Intervals take these bounds as known." in said


def test_or_between_bounds_that_were_chosen(tmp_path):
    gym_study(tmp_path)
    values, _ = iqm(chosen(tmp_path, normalise={"Hopper-v5": [0, 400], "*": ["yours", "mine"]}))
    assert values == pytest.approx({"mine": (0.5 + 1) / 2, "yours": (0.25 + 0) / 2, "random": (0 - 1) / 2})
    # bounds are of everything that was run, not only of what is shown
    values, _ = iqm(chosen(tmp_path, algos=["yours"], normalise={"*": ["random", "mine"]}))
    assert values == pytest.approx({"yours": 0.5})


def test_without_bounds_there_are_comparisons_but_no_aggregates(tmp_path):
    results = load(gym_study(tmp_path, ("mine", "yours")), "made-up")
    assert not comparisons.aggregates(results)[0].rows
    assert [record["value"] for record in comparisons.improvements(results).records] == [1.0, 0.0]
    with style.drawing():
        made = {section.id: section for section in sections(results)}
    assert "NORMALISE" in made["aggregates"].text[0]
    assert [picture.name for picture in made["aggregates"].pictures] == ["probability_of_improvement"]


def test_dm_control_keeps_its_own_scale_beside_others(tmp_path):
    helpers.study(tmp_path, ("cheetah-run", "Hopper-v5"), ("sac", "random"), 2)
    results = load(tmp_path, "made-up")
    assert results.bounds == {"cheetah-run": (0.0, 1000.0)}
    assert estimates.common_tasks(results).envs == ("cheetah-run",)


def test_sample_efficiency_by_hand(root):
    for seed in (0, 1):
        helpers.set_returns(root / f"made-up/walker-run/sac/seed-{seed}", np.arange(10) * 10.0 + seed)
    results = load(root, "made-up")
    assert efficiency.columns(results) == [
        ("10% (1k)", 0),
        ("25% (2k)", 1),
        ("50% (5k)", 4),
        ("100% (10k)", 9),
    ]
    table, _ = efficiency.sample_efficiency(results)
    found = [r["value"] for r in table.records if (r["task"], r["label"]) == ("walker-run", "sac")]
    assert found == [0.5, 10.5, 40.5, 90.5]
    first = table.records[0]
    assert (first["task"], first["budget"]) == ("IQM of 2 tasks", "10% (1k)")
    cells = [results.cell(env, "qsm") for env in ENVS]
    pooled = np.sort(np.concatenate([cell.returns[:, 0] for cell in cells]) / 1000)[1:-1]
    assert first["value"] == pytest.approx(pooled.mean())


def test_few_evaluations_have_fewer_columns(tmp_path):
    helpers.study(tmp_path, evaluations=3)
    assert efficiency.columns(load(tmp_path, "made-up")) == [("50% (1k)", 0), ("100% (3k)", 2)]
