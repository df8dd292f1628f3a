"""Others' curves beside ours: at their own steps, interpolated between them and nowhere else, chosen by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.analysis import style
from bench.analysis.external import others
from bench.analysis.external.scores import load_external
from bench.analysis.report.request import load_chosen
from bench.analysis.scores.load import load
from bench.errors import UserError
from bench.studies.report import read_choice
from tests.analysis import helpers

RESULTS = Path(__file__).parents[2] / "results"
HEADER = "env,algo,source,seed,env_step,return\n"
UNEVEN = HEADER + "".join(
    f"cheetah-run,dime,theirs,{seed},{step},{value}\n"
    for seed, points in {0: [(0, 0), (4000, 40), (8000, 80)], 1: [(0, 10), (6000, 70), (12000, 130)]}.items()
    for step, value in points
)


@pytest.fixture
def root(tmp_path):
    helpers.study(tmp_path, ("cheetah-run", "walker-run"), ("qsm", "sac"), 2)
    folder = tmp_path / "published/curves"
    folder.mkdir(parents=True)
    (folder / "theirs.csv").write_text(
        UNEVEN + "cheetah-run,sac,theirs,0,2000,5\ncheetah-run,sac,theirs,0,9000,12\n"
    )
    (folder / "simba.csv").write_text(
        HEADER + "cheetah-run,sac,simba,0,3000,7\n" + "fish-swim,bro,simba,0,3000,7\n"
    )
    (tmp_path / "published/scores.csv").write_text(
        "env,algo,source,step,mean,std,min,median,max,n\ncheetah-run,sac,paper,3300,340.5,,300,,350,unstated\n"
    )
    return tmp_path


def choice(root, *names):
    return load_chosen(root, ["made-up"], read_choice({"others": list(names)}), "make figures", "mine")


def made(results):
    curves = others.load_curves(results.root)
    points = others.points_beside(results, load_external(results.root)[0], curves)
    keys, _ = others.chosen(results, curves, set(zip(points["algo"], points["source"])))
    with style.drawing():
        return others.figure(results, curves, keys, points), others.table(results, curves, keys)


def test_seeds_meet_at_the_steps_of_any_of_them(root):
    curve = others.load_curves(root)["dime", "theirs"]["cheetah-run"]
    assert curve.env_steps.tolist() == [0, 4000, 6000, 8000]  # to the end of the seed that ends first
    assert curve.returns.tolist() == [[0, 40, 60, 80], [10, 50, 70, 90]]
    assert curve.evaluated.tolist() == [True, False, False, False]
    assert curve.at(7000).tolist() == [70, 80]
    assert curve.at(9000).size == 0
    low, high = curve.band(bounded=True)
    assert (low >= 0).all()
    assert ((low < curve.returns.mean(axis=0)) & (curve.returns.mean(axis=0) < high)).all()


def test_who_is_shown(root):
    curves = others.load_curves(root)

    def shown(results):
        return others.chosen(results, curves)[0]

    assert shown(load(root, "made-up")) == [("sac", "simba"), ("sac", "theirs")]
    assert shown(choice(root, "dime", "sac@simba")) == [("dime", "theirs"), ("sac", "simba")]
    assert shown(choice(root, "SAC")) == [("sac", "simba"), ("sac", "theirs")]
    with pytest.raises(UserError, match="no curves are named 'dimee'; did you mean 'dime'"):
        shown(choice(root, "dimee"))
    with pytest.raises(UserError, match=r"no curves are named 'sac@mine'; .*sac@simba"):
        shown(choice(root, "sac@mine"))
    with pytest.raises(UserError, match="'bro' has no curve on a task shown here; it has fish-swim"):
        shown(choice(root, "bro"))


def test_lines_have_legends_of_their_own_and_stand_at_their_steps(root):
    figure, _ = made(choice(root, "dime", "sac"))
    ours, theirs = ([text.get_text() for text in legend.get_texts()] for legend in figure.legends)
    assert ours == ["QSM (n = 2†)", "SAC (n = 2†)"]
    assert theirs == ["DIME (theirs) (n = 2†)", "SAC (simba) (n = 1†)", "SAC (theirs) (n = 1†)", "paper"]
    ax = figure.axes[0]
    lines = {tuple(line.get_xdata()): line for line in ax.lines}
    dime = lines[0, 4000, 6000, 8000]
    assert dime.get_ydata().tolist() == [5, 45, 65, 85]
    assert dime.get_markevery() == [0]
    assert max(line.get_linewidth() for line in ax.lines if line is not dime) > dime.get_linewidth()
    assert lines[2000, 9000].get_ydata().tolist() == [5, 12]
    assert lines[(3300,)].get_ydata().tolist() == [340.5]  # a single score, at its own step
    assert lines[3300, 3300].get_ydata().tolist() == [300, 350]


def test_a_line_ends_where_ours_do(root):
    for run in (root / "made-up").glob("*/*/seed-*"):
        helpers.set_returns(run, [1.0] * 5)
    (root / "external").mkdir()
    rows = "".join(f"walker-run,xqc,me,0,{step},{step / 100}\n" for step in (0, 4000, 8000))
    (root / "external/me.csv").write_text(HEADER + rows)
    figure, table = made(choice(root, "xqc"))
    (line,) = [line for line in figure.axes[0].lines if line.get_markevery() == [0, 1]]
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([0, 4000, 5000], [0, 40, 50])
    (record,) = [record for record in table.records if record["source"] == "me"]
    assert (record["mean"], record["interpolated"]) == (50, True)


def test_nothing_of_theirs_enters_our_numbers(root):
    plain, with_others = load(root, "made-up"), choice(root, "dime", "sac")
    for key, cell in plain.cells.items():
        assert np.array_equal(cell.returns, with_others.cells[key].returns)


@pytest.mark.seconds
def test_the_published_curves_are_those_that_the_report_of_early_100k_names():
    """A step is a frame, as the README of the curves has it; nobody published QSM or online Diffusion-QL."""
    curves = others.load_curves(RESULTS)
    assert {"dime", "xqc", "simba", "simbav2", "bro", "tdmpc2", "sac", "td3"} <= {algo for algo, _ in curves}
    theirs = {key: tasks for key, tasks in curves.items() if key[1] != "qsm_authors_code"}
    assert not {"qsm", "dql"} & {algo for algo, _ in theirs}
    spans = {
        key: tasks["cheetah-run"].env_steps[-1] for key, tasks in theirs.items() if "cheetah-run" in tasks
    }
    assert spans["xqc", "xqc"] == spans["tdmpc2", "tdmpc2"] == spans["sac", "rl_with_resets"] == 1e6
    assert (spans["simba", "simba"], spans["dime", "dime"]) == (500_000, 984_000)


def test_what_was_interpolated_and_cut_off_stands_under_the_table(root):
    _, table = made(choice(root, "dime", "sac@theirs"))
    said = [note for note in table.notes if note.startswith(("DIME", "SAC"))]
    assert said == [
        "DIME (theirs) on cheetah-run: seeds were evaluated at different steps: 3 of 8 values lie on the line between "
        "a seed's neighbouring evaluations.",
        "DIME (theirs) on cheetah-run: not shown after step 8,000, where the first seed ends: seed 0 at 8,000.",
    ]
