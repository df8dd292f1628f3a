"""What a report shows: the keys of a `[report]` table and of a figures file, checked before anything is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.shape import Mismatch
from bench.studies.file import load_study
from bench.studies.report import Choice, read_choice, read_figures_file

STUDY = 'algos = ["qsm"]\nenvs = ["cheetah-run"]\nseeds = 1\n'


def test_a_table_is_read_as_it_is_meant() -> None:
    choice = read_choice(
        {"algos": ["a", "b"], "steps": 50_000, "normalise": {"*": ["random", 3]}, "names": {"a": "A"}}
    )
    assert (choice.algos, choice.steps, choice.normalise, choice.names) == (
        ("a", "b"),
        50_000,
        {"*": ("random", 3.0)},
        {"a": "A"},
    )
    assert read_choice({}) == Choice()


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"widht": "page"}, "'widht' is an unknown key; did you mean 'width'?"),
        ({"algos": "qsm sac"}, "'algos' must be a list of names such as [\"qsm\", \"sac\"], not 'qsm sac'"),
        ({"envs": [1]}, "'envs[0]' must be text, not 1"),
        ({"names": {"a": 1}}, "'names.a' must be text, not 1"),
        ({"normalise": {"a": [1]}}, "'normalise.a' must be"),
        ({"width": "wide"}, "'width' must be"),
        ({"steps": 1.5}, "'steps' must be a whole number of environment steps, not 1.5"),
        ({"steps": True}, "'steps' must be a whole number of environment steps"),
        ({"steps": -1}, "'steps' must be a whole number of environment steps"),
        ([], "must be a table, not []"),
    ],
)
def test_a_mistake_is_refused_with_its_key(table: Any, complaint: str) -> None:
    with pytest.raises(Mismatch) as refused:
        read_choice(table)
    assert str(refused.value).startswith(complaint)


def test_a_study_file_may_have_one_and_study_json_records_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(STUDY + '[report]\nsubject = "qsm"\n')
    study = load_study(str(file))
    assert study.to_dict()["report"] == {"subject": "qsm"}
    (job,) = study.jobs()
    file.write_text(STUDY)
    plain = load_study(str(file))
    assert "report" not in plain.to_dict()
    assert plain.jobs()[0].hash == job.hash  # what is shown changes no run
    file.write_text(STUDY + '[report]\nsubjects = "qsm"\n')
    with pytest.raises(
        UserError, match=r"mine\.toml: report: 'subjects' is an unknown key; did you mean 'subject'\?"
    ):
        load_study(str(file))


def test_a_figures_file_is_told_from_a_study_file(tmp_path: Path) -> None:
    file = tmp_path / "figures.toml"
    file.write_text('studies = ["a", "b"]\nsubject = "qsm"\n')
    assert read_figures_file(file) == Choice(studies=("a", "b"), subject="qsm")
    file.write_text(STUDY)
    assert read_figures_file(file) is None
    for text, complaint in (
        ('subject = "qsm"\n', "figures.toml: studies: missing"),
        (
            'studies = ["a"]\nsubjct = "qsm"\n',
            "figures.toml: 'subjct' is an unknown key; did you mean 'subject'?",
        ),
        ("studies = [\n", "figures.toml: not valid TOML"),
    ):
        file.write_text(text)
        with pytest.raises(UserError) as refused:
            read_figures_file(file)
        assert str(refused.value).startswith(complaint)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('algos = ["sac"]', "no algorithm 'sac' here; there are qsm, qsm-T=20"),
        ('envs = ["cheetah_run"]', "no task 'cheetah_run' in mine; did you mean 'cheetah-run'?"),
        ('subject = "qsmm"', "subject: no algorithm 'qsmm' here; did you mean 'qsm'?"),
        ('algos = ["qsm"]\nbaselines = ["qsm:T=20"]', "baselines: 'qsm-T=20' is not among the algorithms"),
        ('subject = "qsm"\nbaselines = ["qsm"]', "subject: 'qsm' is a baseline too"),
        ('names = { sac = "SAC" }', "names: no algorithm 'sac' here"),
        ('colors = { qsm = "bluish" }', "colors: qsm: 'bluish' is not a colour"),
        ('normalise = { "*" = ["random", 1] }', "normalise: no algorithm 'random' here"),
        ('normalise = { "*" = [5, 5] }', "normalise: *: the lowest, 5, is not below the highest, 5"),
    ],
)
def test_names_in_a_study_file_s_table_are_checked_before_anything_runs(
    tmp_path: Path, line: str, complaint: str
) -> None:
    file = tmp_path / "mine.toml"
    text = STUDY.replace('["qsm"]', '["qsm", "qsm:T=20"]')
    file.write_text(f"{text}[report]\n{line}\n")
    with pytest.raises(UserError) as refused:
        load_study(str(file))
    assert str(refused.value).startswith(f"mine.toml: report: {complaint}")


def test_unless_they_may_be_of_a_study_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(STUDY + '[report]\nstudies = ["early-100k"]\nalgos = ["qsm", "sac"]\n')
    assert load_study(str(file)).report["algos"] == ["qsm", "sac"]
    file.write_text(STUDY + '[report]\nalgos = ["qsm*"]\nnames = { "qsm" = "Ours" }\n')
    assert load_study(str(file)).report["names"] == {"qsm": "Ours"}
