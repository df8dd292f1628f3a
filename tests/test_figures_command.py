"""`make figures` with choices: a report of its own beside the study's, refusals that write nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.analysis import load_chosen
from bench.analysis.external import others
from bench.analysis.style import named
from bench.studies.report import read_figures_file
from tests.analysis import helpers


@pytest.fixture
def root(tmp_path: Path) -> Path:
    helpers.study(tmp_path / "results", ("cheetah-run",), ("qsm", "sac", "td3"), 2)
    return tmp_path / "results"


def figures(root: Path, *words: str) -> int:
    return main(["figures", f"RESULTS={root}", *words])


@pytest.mark.slow
def test_a_choice_has_a_report_of_its_own(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    helpers.study(root, ("cheetah-run",), ("dql",), 2, name="other")
    assert (
        figures(
            root,
            "STUDY=made-up other",
            "ALGOS=dql qsm sac",
            "BASELINE=sac",
            "STEPS=5000",
            "METRIC=critic_loss",
        )
        == 0
    )
    report = root / "reports" / "made-up+other"
    assert (
        f"report: {os.path.relpath(report)}/index.html" in capsys.readouterr().out
        or (report / "index.html").is_file()
    )
    assert not (root / "made-up" / "report").exists()
    table = (report / "tables" / "final_return.md").read_text()
    assert "| Task | DQL (n = 2†) | QSM (n = 2†) | SAC (n = 2†) |" in table
    assert "| Task | DQL − SAC | QSM − SAC |" in (report / "tables" / "differences_by_task.md").read_text()
    assert (report / "figures" / "metric-critic_loss.png").is_file()
    assert not (report / "tables" / "claims.md").exists()  # a part of a study decides no claim
    page = (report / "index.html").read_text()
    assert "make bench STUDY=made-up" in page
    assert "make bench STUDY=other" in page
    assert "make figures STUDY=&#34;made-up other&#34; ALGOS=&#34;dql qsm sac&#34; BASELINE=sac" in page
    link = "../../made-up/cheetah-run/qsm/seed-0/"
    assert link in page
    assert (report / link).is_dir()


@pytest.mark.slow
def test_a_figures_file_and_variables_over_it(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('studies = ["made-up"]\nalgos = ["sac", "qsm"]\n[names]\nsac = "Soft"\ntd3 = "Twin"\n')
    assert figures(root, f"STUDY={file}") == 0
    table = root / "reports" / "mine" / "tables" / "final_return.md"
    assert "| Task | Soft (n = 2†) | QSM (n = 2†) |" in table.read_text()
    assert str(tmp_path) not in (root / "reports" / "mine" / "index.html").read_text()
    assert figures(root, f"STUDY={file}", "ALGOS=td3 sac") == 0
    assert "| Task | Twin (n = 2†) | Soft (n = 2†) |" in table.read_text()


@pytest.mark.slow
def test_a_studys_own_table_is_in_its_own_report(root: Path, tmp_path: Path) -> None:
    helpers.change_study(root / "made-up", report={"algos": ["td3", "qsm"]})
    assert figures(root, "STUDY=made-up") == 0
    table = root / "made-up" / "report" / "tables" / "final_return.md"
    assert "| Task | TD3 (n = 2†) | QSM (n = 2†) |" in table.read_text()
    file = tmp_path / "made-up.toml"  # what stands in the file now goes before what was recorded
    file.write_text('algos = ["qsm"]\nenvs = ["cheetah-run"]\nseeds = 2\n[report]\nalgos = ["sac"]\n')
    assert figures(root, f"STUDY={file}") == 0
    assert "| Task | SAC (n = 2†) |" in table.read_text()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("STUDY=made-up", "ALGOS=qsmm"), "no algorithm 'qsmm' here; did you mean 'qsm'?"),
        (("STUDY=made-up mad-up",), "no study 'mad-up' in"),
        (("ALGOS=qsm",), "ALGOS needs STUDY="),
        (("STUDY=made-up", "STEPS=some"), "STEPS=some: expected a whole number"),
        (
            ("STUDY=made-up", "STEPS=1500"),
            "STEPS=1500: no evaluation there; next to it are those at 1000 and 2000",
        ),
        (("STUDY=made-up", "NORMALISE=random"), "NORMALISE=random: expected the lowest and the highest"),
        (("STUDY=made-up", "WIDTH=wide"), "WIDTH=wide: expected column, page"),
        (("STUDY=made-up", "METRIC=critic"), "no metric 'critic' was logged here"),
        (("STUDY=made-up", "OTHERS=dime"), "others: no curves are named 'dime'"),
        (("STUDY=made-up", "SUBJET=qsm"), "figures does not take --subjet; did you mean '--subject'?"),
    ],
)
def test_refusals_leave_nothing(
    root: Path, words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert figures(root, *words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"bench: {complaint}")
    assert said.count("\n") == 1
    assert not list(root.glob("**/index.html"))
    assert not list(root.glob("**/*.tmp"))


@pytest.mark.seconds
def test_the_figures_file_in_the_documentation_works(tmp_path: Path) -> None:
    """On the results that come with the suite."""
    repo = Path(__file__).parents[1]
    text = (repo / "docs" / "analysis.md").read_text()
    example = next(part for part in re.findall(r"```toml\n(.*?)```", text, re.S) if "studies = [" in part)
    (tmp_path / "comparison.toml").write_text(example)
    choice = read_figures_file(tmp_path / "comparison.toml")
    assert choice is not None
    results = load_chosen(repo / "results", choice.studies, choice, "make figures", "comparison")
    assert [named(results, label) for label in results.labels] == ["QSM", "SAC, as published", "SAC"]
    assert len(others.chosen(results, others.load_curves(repo / "results"))[0]) == len(choice.others)
