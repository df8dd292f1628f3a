"""The experiments' report: from data alone, the same bytes each time, and what is missing or damaged is told."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.paper import documents
from bench.paper.experiments import report as experiment_report
from bench.paper.experiments.report import build_experiments
from tests.paper import made_experiments

HERE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The root of results with every experiment, and no report. Not to be changed."""
    root = tmp_path_factory.mktemp("results")
    made_experiments.make(root)
    return root


@pytest.fixture
def root(data, tmp_path):
    """Data to be changed at will."""
    shutil.copytree(data, tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """The same with its report."""
    root = tmp_path_factory.mktemp("made") / "results"
    shutil.copytree(data, root)
    build_experiments(root)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


BUILD = """
import sys
from pathlib import Path
from bench.paper.experiments import report
report.EXPERIMENTS = {name: report.EXPERIMENTS[name] for name in sys.argv[2:]}
report.build_experiments(Path(sys.argv[1]))
print([name for name in sys.modules if name.split(".")[0] in ("torch", "mujoco", "dm_control")])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [["theorem"], pytest.param([*experiment_report.EXPERIMENTS], marks=pytest.mark.full)],
    ids=["one", "all"],
)
def test_the_same_data_give_the_same_bytes_without_torch(made, root, names):
    """In another process; of one experiment the figures and tables, of all of them the page too."""
    process = subprocess.run(
        [sys.executable, "-c", BUILD, root, *names], cwd=HERE, check=True, capture_output=True, text=True
    )
    assert process.stdout.strip() == "[]"
    again, before = contents(root / "experiments/report"), contents(made / "experiments/report")
    if len(names) == 1:
        again = {path: data for path, data in again.items() if Path(path).name.startswith(names[0])}
        before = {path: data for path, data in before.items() if Path(path).name.startswith(names[0])}
    assert len(again) > 5
    assert again.keys() == before.keys()
    assert [name for name in before if again[name] != before[name]] == []


@pytest.mark.slow
def test_every_figure_and_table_is_there(made):
    report = made / "experiments/report"
    names = {path.stem for path in (report / "figures").glob("*.png")}
    assert names == {
        "multimodality_densities",
        "multimodality_unequal_densities",
        "multimodality_modes",
        "multimodality_products_densities",
        "exploration_coverage",
        "exploration_ends",
        "exploration_first_actions",
        "theorem_share",
        "theorem_paths",
    }
    page = (report / "index.html").read_text()
    for claim in ("3a", "3b", "4a", "4b", "5a", "5b"):
        assert f"Claim {claim} as a whole: " in page
    assert "Not run yet" not in page


@pytest.fixture
def only(monkeypatch):
    """Make the report of one experiment alone, which takes a third of the time."""

    def choose(name: str) -> None:
        monkeypatch.setattr(experiment_report, "EXPERIMENTS", {name: experiment_report.EXPERIMENTS[name]})

    return choose


@pytest.mark.slow
def test_an_experiment_that_was_not_run_says_so(root):
    shutil.rmtree(root / "experiments/multimodality")
    (root / "experiments/exploration/scores.csv").unlink()  # cut off before the end
    build_experiments(root)
    page = (root / "experiments/report/index.html").read_text()
    assert page.count("Not run yet") == 2


def one_line(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def figures(root: Path) -> int:
    return main(["figures", "--study", "experiments", "--results", str(root)])


def test_without_experiments(tmp_path, capsys):
    assert figures(tmp_path) == 2
    assert "make experiments" in one_line(capsys)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("theorem/parts/gridworld-match-step=1-M_q=1-T=5.json", "{"),
        ("multimodality/scores.csv", "measure,setting\n\x00"),
        ("multimodality/scores.csv", "measure,setting\nm,s\n"),
        ("exploration/coverage/point-qsm.csv", ""),
        ("theorem/steps/gridworld-match-step=1-M_q=1-T=5.csv", "seed\n1\n"),
    ],
)
def test_what_is_damaged_is_named_in_one_line(path, text, root, capsys, only):
    only(path.partition("/")[0])
    (root / "experiments" / path).write_text(text)
    assert figures(root) == 2
    assert Path(path).name in one_line(capsys)
    assert not (root / "experiments/report").exists()


@pytest.mark.seconds
@pytest.mark.parametrize(
    "gone", ["theorem/steps", "exploration/coverage/point-random.csv", "multimodality/density/equal-sac.csv"]
)
def test_a_table_that_is_gone_is_told(gone, root, capsys, only):
    only(gone.partition("/")[0])
    path = root / "experiments" / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert figures(root) == 2
    assert gone.partition("/")[0] in one_line(capsys)


@pytest.mark.slow
def test_a_document_takes_figures_and_tables_of_it(root, tmp_path, only):
    only("theorem")
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs/page.md"
    page.write_text("<!-- generated: experiments facts theorem_share theorem -->\n<!-- end generated -->\n")
    documents.refresh(root, tmp_path)
    text = page.read_text()
    assert "2026-01-02" in text
    assert "](figures/experiments-theorem_share.png)" in text
    assert "| Problem | Step |" in text
    assert documents.outdated(root, tmp_path) == {}


def test_a_document_without_experiments_says_so(tmp_path):
    (tmp_path / "README.md").write_text(
        "<!-- generated: experiments facts theorem_share theorem -->\n<!-- end generated -->\n"
    )
    documents.refresh(tmp_path / "results", tmp_path)
    assert "make experiments" in (tmp_path / "README.md").read_text()
