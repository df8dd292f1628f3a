"""Scores from outside: two kinds of CSV, clear refusals, and nothing of them in our own numbers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bench.analysis.external import beside, others
from bench.analysis.external.curves import COLUMNS, common_steps, curves, load_curves
from bench.analysis.external.importing import import_scores
from bench.analysis.external.scores import load_external
from bench.analysis.report.sections import sections
from bench.analysis.scores.load import load
from bench.errors import UserError
from tests.analysis import helpers

PER_SEED = """env,algo,seed,env_step,return
cheetah-run,SAC,0,1000,10.0
cheetah-run,SAC,1,1000,20.0
cheetah-run,SAC,0,2000,30
"""
SUMMARISED = """env,algo,source,step,mean,std,min,median,max,n
cheetah-run,SAC,paper,1000,340.5,,,,,unstated
cheetah-run,SAC,other,1000,300.0,1.0,250.0,299.0,350.0,5
"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_both_kinds_come_out_alike(tmp_path):
    write(tmp_path / "published/a.csv", SUMMARISED)
    imported = import_scores([write(tmp_path / "in/mine.csv", PER_SEED)], tmp_path)
    assert imported.path == tmp_path / "external/mine.csv"
    frame, problems = load_external(tmp_path)
    assert problems == []
    found = {(row["source"], row["env_step"]): row for row in frame.to_dict("records")}
    assert set(frame["algo"]) == {"sac"}
    assert (found["mine", 1000]["mean"], found["mine", 1000]["low"], found["mine", 1000]["high"]) == (
        15,
        10,
        20,
    )
    assert found["mine", 2000]["n"] == 1
    assert np.isnan(found["paper", 1000]["n"])
    assert np.isnan(found["paper", 1000]["low"])
    assert found["other", 1000]["high"] == 350


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            PER_SEED.replace("env_step", "when"),
            "lacks env_step; it has the columns env, algo, seed, when, return. COLUMNS=",
        ),
        (
            PER_SEED.replace("env_step", "when").replace("env,algo", "a,b"),
            "lacks env_step, env, algo; it has the columns a, b, seed, when, return",
        ),
        (PER_SEED.replace("20.0", "twenty"), "line 3: return cannot be 'twenty'"),
        (PER_SEED.replace("20.0", "nan"), "line 3: return"),
        (
            PER_SEED.replace("1,1000", "0,1000"),
            "line 3: seed 0 of sac on cheetah-run has another return at step 1,000 already",
        ),
        (PER_SEED.replace("cheetah-run,SAC,1", "../x,SAC,1"), "../x: no task of this suite"),
        (PER_SEED.replace("cheetah-run,SAC,1", "cheetah-rum,SAC,1"), "did you mean 'cheetah-run'"),
        (PER_SEED.replace("SAC", "/"), "an algorithm cannot be named '/'"),
        (SUMMARISED.replace("340.5", ""), "line 2: mean cannot be ''"),
        (SUMMARISED.replace(",5\n", ",0\n"), "line 3: n cannot be '0'"),
        ("", "no CSV: empty"),
        (PER_SEED.splitlines()[0] + "\n", "no scores below the header"),
        (PER_SEED + "cheetah-run,SAC\n", "line 5 has 2 cells, the header 5"),
        (PER_SEED.replace("seed", "env"), "two columns have the same name"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_and_nothing_is_written(tmp_path, text, complaint):
    file = write(tmp_path / "in/mine.csv", text)
    with pytest.raises(UserError) as refused:
        import_scores([file], tmp_path)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "external").exists()


@pytest.mark.parametrize(
    "text",
    [PER_SEED.replace("\n", "\r\n"), "\ufeff" + PER_SEED, *(PER_SEED.replace(",", mark) for mark in ";\t")],
)
def test_what_a_spreadsheet_writes_is_taken(tmp_path, text):
    (tmp_path / "mine.csv").write_bytes(text.encode())
    import_scores([tmp_path / "mine.csv"], tmp_path / "results")
    frame, problems = load_external(tmp_path / "results")
    assert (len(frame), problems) == (2, [])


def test_other_refusals(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        import_scores([tmp_path / "none.csv"], tmp_path)
    with pytest.raises(UserError, match="a name of"):
        import_scores([write(tmp_path / "in/my scores.csv", PER_SEED)], tmp_path)
    (tmp_path / "in/bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="no CSV"):
        import_scores([tmp_path / "in/bytes.csv"], tmp_path)
    file = write(tmp_path / "in/mine.csv", PER_SEED)
    import_scores([file], tmp_path)
    import_scores([file], tmp_path)  # the same again is no conflict
    file.write_text(PER_SEED + "cheetah-run,SAC,1,2000,1.0\n")
    with pytest.raises(UserError, match="already there"):
        import_scores([file], tmp_path)


def test_a_damaged_file_is_named_and_the_rest_is_read(tmp_path):
    write(tmp_path / "published/a.csv", SUMMARISED)
    write(tmp_path / "external/b.csv", "x\n1\n")
    frame, (problem,) = load_external(tmp_path)
    assert len(frame) == 2
    assert problem.startswith("external/b.csv lacks")


def test_what_is_no_file_is_named_and_not_read(tmp_path):
    """A link could lead to anybody's file, a line of which a message would show; a pipe would block for ever."""
    secret = write(tmp_path / "secret.csv", "secret\n")
    folder = tmp_path / "results" / "external"
    folder.mkdir(parents=True)
    (folder / "a.csv").symlink_to(secret)
    os.mkfifo(folder / "b.csv")
    (folder / "c.csv").mkdir()
    (tmp_path / "results" / "published").symlink_to(tmp_path)
    frame, problems = load_external(tmp_path / "results")
    assert frame.empty
    assert [problem[:14] for problem in sorted(problems)] == [
        *(f"external/{name}.csv" for name in "abc"),
        "published/curv",  # a symbolic link above it leads out
        "published: a s",
    ]
    assert "secret" not in " ".join(problems)


def test_laid_under_ours_and_marked(tmp_path):
    write(
        tmp_path / "external/theirs.csv",
        PER_SEED + "walker-run,SAC,0,1000,1.0\ncheetah-run,SAC,0,99000,1.0\n",
    )
    folder = helpers.study(tmp_path)
    helpers.set_returns(folder / "cheetah-run/sac/seed-0", [100.0] * 10)
    results = load(tmp_path, "made-up")
    external, _ = load_external(tmp_path)
    records = beside.table(results, external).records
    assert [(record["env_step"], record["external_mean"]) for record in records] == [(1000, 15), (2000, 30)]
    assert records[0]["ours_n"] == 3
    curves = others.load_curves(tmp_path)
    figure = others.figure(results, curves, others.chosen(results, curves)[0], external[:0])
    names = [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]
    assert names == [["QSM (n = 3†)", "SAC (n = 3†)"], ["SAC (theirs) (n = 2†)"]]
    assert others.figure(results, {}, [], external[:0]) is None


def test_scores_of_an_algorithm_that_the_study_lacks_are_said_to_be_missing(tmp_path):
    write(tmp_path / "external/theirs.csv", PER_SEED.replace("SAC", "REDQ"))
    helpers.study(tmp_path)
    made = {section.id: section for section in sections(load(tmp_path, "made-up"))}["external"]
    assert made.text == [
        'Not shown, as this study has no runs of the same algorithm: redq. OTHERS="redq" shows them.'
    ]
    assert (made.tables, made.pictures) == ([], [])


def test_a_source_is_not_shown_twice(tmp_path):
    """Neither as seeds and as their summary, nor in two files."""
    write(tmp_path / "published/a.csv", SUMMARISED)
    write(tmp_path / "published/curves/paper.csv", PER_SEED)
    write(tmp_path / "external/paper.csv", PER_SEED.replace("10.0", "11.0"))
    frame, problems = load_external(tmp_path)
    assert [(row["source"], row["env_step"], row["mean"]) for row in frame.to_dict("records")] == [
        ("other", 1000, 300.0),
        ("paper", 1000, 15.0),
        ("paper", 2000, 30.0),
    ]
    assert [problem.split(" and ")[0] for problem in problems] == [
        "external/paper.csv: the source paper is in published/curves/paper.csv already",
        "published/a.csv: the source paper is in published/curves/paper.csv already",
    ]


UNEVEN = """env,algo,seed,env_step,return
cheetah-run,sac,0,0,0
cheetah-run,sac,0,1000,100
cheetah-run,sac,0,3000,300
cheetah-run,sac,1,1000,200
cheetah-run,sac,1,2000,400
cheetah-run,sac,1,3000,600
cheetah-run,sac,1,4000,800
walker-run,sac,0,1000,1
"""


def test_curves_of_seeds_with_uneven_steps(tmp_path):
    write(tmp_path / "external/theirs.csv", UNEVEN)
    frame, problems = load_curves(tmp_path)
    assert (tuple(frame.columns), problems) == (COLUMNS, [])
    cheetah, walker = curves(frame)
    assert (cheetah.source, cheetah.algo, cheetah.n, cheetah.seeds) == ("theirs", "sac", 2, (0, 1))
    assert cheetah.env_steps.tolist() == [1000, 2000, 3000]
    assert cheetah.returns.tolist() == [[100, 200, 300], [200, 400, 600]]  # 200: between 100 and 300
    assert cheetah.evaluated.tolist() == [True, False, True]
    assert cheetah.at(1500).tolist() == [150, 300]
    assert not len(cheetah.at(3500))
    low, high = cheetah.band(False)
    assert (low < cheetah.returns.min(axis=0)).all()  # of two seeds, stretched
    assert cheetah.band(True)[0].min() == 0
    assert (high > cheetah.returns.max(axis=0)).all()
    assert cheetah.notes == (
        "seeds were evaluated at different steps: 1 of 6 values lie on the line between a seed's neighbouring "
        "evaluations",
        "not shown before step 1,000, where the last seed begins: seed 1 at 1,000",
        "not shown after step 3,000, where the first seed ends: seed 0 at 3,000",
    )
    assert (walker.notes, walker.returns.tolist()) == ((), [[1.0]])
    assert np.isnan(walker.band(True)).all()  # of a single seed


def test_seeds_that_share_no_span_make_no_curve(tmp_path):
    write(tmp_path / "external/theirs.csv", PER_SEED.replace("SAC,1,1000", "SAC,1,5000"))
    frame, _ = load_curves(tmp_path)
    assert curves(frame) == []


def test_steps_that_no_two_seeds_share_become_equally_spaced(tmp_path):
    rng = np.random.default_rng(0)
    runs = [np.unique(rng.integers(0, 100_000, 50)).astype(float) for _ in range(3)]
    grid = common_steps(runs)
    assert len(grid) == np.median([len(run) for run in runs])
    assert (grid[0], grid[-1]) == (min(run[0] for run in runs), max(run[-1] for run in runs))
    assert np.ptp(np.diff(grid)) <= 1


@pytest.mark.seconds
def test_the_curves_of_published_runs(tmp_path):
    """As the means that results/published/curves gives of them, at a step that all seeds have."""
    frame, _ = load_curves(Path(__file__).parents[2] / "results")
    found = {(curve.source, curve.algo, curve.env): curve for curve in curves(frame)}
    xqc = found["xqc", "xqc", "cheetah-run"]
    assert (xqc.n, xqc.notes, xqc.evaluated.all()) == (10, (), True)
    runs = frame.query("source == 'xqc' and env == 'cheetah-run' and env_step == 500000")["return"]
    assert xqc.returns.mean(axis=0)[xqc.env_steps == 500_000] == pytest.approx(runs.mean())
    assert found["sr_sac", "sr-sac-utd16", "quadruped-walk"].notes == (
        "not shown after step 700,000, where the first seed ends: seed 3 at 700,000",
    )


def test_what_is_published_in_the_repository_reads_well():
    frame, problems = load_external(Path(__file__).parents[2] / "results")
    assert problems == []
    assert not frame.duplicated(["env", "algo", "source", "env_step"]).any()  # no source is listed twice
    assert {"dime", "xqc", "simbav2", "tdmpc2", "rl_with_resets", "jrlzoo"} <= set(frame["source"])
    published = frame[frame["source"] == "qsm_authors_code"]
    assert set(published["algo"]) == {"qsm", "dql"}
    assert not set(frame[frame["algo"].isin(["qsm", "dql"])]["source"]) - {"qsm_authors_code"}
