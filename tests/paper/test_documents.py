"""Generated parts of the documents: made from results alone, replaced as a whole, and current in this repository."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from bench.analysis import coverage
from bench.errors import UserError
from bench.paper import documents
from tests.analysis import helpers

README = """# Title

<!-- generated: made-up facts learning_curves final_return -->
of yesterday
<!-- end generated -->

After.
"""


@pytest.fixture
def folder(tmp_path):
    """A checkout with a README that shows a study, and its results."""
    helpers.study(tmp_path / "results", seeds=2)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(README)
    return tmp_path


@pytest.mark.seconds
def test_a_part_is_replaced_and_nothing_else(folder):
    changed = documents.refresh(folder / "results", folder)
    picture = folder / "docs/figures/made-up-learning_curves.png"
    assert changed == [folder / "README.md", picture]
    text = (folder / "README.md").read_text()
    assert text.startswith("# Title\n\n<!-- generated: made-up facts learning_curves final_return -->\n")
    assert text.endswith("\n<!-- end generated -->\n\nAfter.\n")
    assert "of yesterday" not in text
    assert (
        "Study `made-up`: 1 task, 2 algorithms, 4 runs: 4 done, 10,000 environment steps, run 2026-01-01."
        in text
    )
    assert "](docs/figures/made-up-learning_curves.png)" in text
    assert "\n\n*Return against environment steps: " in text  # the caption, to be read under the picture
    assert "| Task | QSM (n = 2†) | SAC (n = 2†) |" in text
    assert text.index(coverage.FEW) < text.index("[how far](docs/analysis.md#statistics)")
    assert text.count(coverage.FEW) == text.count("analysis.md#statistics") == 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert documents.refresh(folder / "results", folder) == []  # and again changes nothing


@pytest.mark.seconds
def test_what_is_outdated_is_told_without_writing(folder):
    documents.refresh(folder / "results", folder)
    before = (folder / "README.md").read_bytes()
    helpers.set_returns(folder / "results/made-up/cheetah-run/qsm/seed-0", [999.0] * 10)
    assert set(documents.outdated(folder / "results", folder)) == {
        folder / "README.md",
        folder / "docs/figures/made-up-learning_curves.png",
    }
    assert (folder / "README.md").read_bytes() == before


def test_an_example_of_a_part_is_left_alone(folder):
    example = "".join("    " + line for line in README.splitlines(keepends=True))
    (folder / "README.md").write_text(example)
    assert documents.refresh(folder / "results", folder) == []
    assert (folder / "README.md").read_text() == example


@pytest.mark.seconds
def test_a_document_in_docs_finds_the_figure_beside_it(folder):
    (folder / "README.md").rename(folder / "docs/page.md")
    documents.refresh(folder / "results", folder)
    text = (folder / "docs/page.md").read_text()
    assert "](figures/made-up-learning_curves.png)" in text
    assert "](analysis.md#statistics)" in text


def test_a_study_without_runs_says_so(folder):
    (folder / "README.md").write_text(README.replace("made-up", "paper"))
    documents.refresh(folder / "results", folder)
    assert (
        "No runs of the study `paper` are here yet: `make bench STUDY=paper`."
        in (folder / "README.md").read_text()
    )


@pytest.mark.seconds
def test_a_figures_file_shows_its_choice_of_several_studies(folder):
    (folder / "README.md").write_text(README.replace("made-up facts", "docs/both.toml facts"))
    file = folder / "docs/both.toml"
    file.write_text('studies = ["made-up", "more"]\nalgos = ["sac", "td3"]\n')
    documents.refresh(folder / "results", folder)
    assert "No runs of the study `more` are here yet" in (folder / "README.md").read_text()
    helpers.study(folder / "results", algos=("td3",), seeds=2, name="more")
    picture = folder / "docs/figures/both-learning_curves.png"
    assert documents.refresh(folder / "results", folder) == [folder / "README.md", picture]
    text = (folder / "README.md").read_text()
    assert "Of the studies `made-up`, `more`: 1 task, 2 algorithms, 4 runs: 4 done" in text
    assert "| Task | SAC (n = 2†) | TD3 (n = 2†) |" in text
    file.write_text('algos = ["sac"]\nenvs = ["cheetah-run"]\nseeds = 1\n')
    with pytest.raises(
        UserError, match=r"^README\.md: .*both\.toml is a study file; expected a figures file"
    ):
        documents.refresh(folder / "results", folder)


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        (README.replace("final_return", "final_retrun"), "did you mean 'final_return'"),
        (README.replace("<!-- end generated -->", ""), "has no '<!-- end generated -->'"),
        (
            README.replace("of yesterday", "<!-- generated: made-up facts -->"),
            "has no '<!-- end generated -->'",
        ),
        (README.replace(" facts learning_curves final_return", ""), "expected a study or a figures file"),
        (
            README.replace("made-up facts", "gates\n<!-- generated: gates -->\nx").replace(
                "gates\n", "gates -->\n"
            ),
            "bands",
        ),
    ],
)
def test_a_wrong_part_is_refused_in_one_line_and_nothing_is_written(folder, part, complaint):
    (folder / "README.md").write_text(part)
    with pytest.raises(UserError, match=r"^README\.md: ") as refused:
        documents.refresh(folder / "results", folder)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (folder / "README.md").read_text() == part
    assert not (folder / "docs/figures").exists()


@pytest.fixture
def tracked(tmp_path):
    """The results that git tracks, as they stand here: what a user ran beside them is not what documents show."""
    listed = subprocess.run(
        ["git", "-C", documents.HERE, "ls-files", "-z", "results"], capture_output=True, text=True
    )
    if listed.returncode or not listed.stdout:
        return documents.HERE / "results"  # an archive: nothing else is there
    for name in listed.stdout.rstrip("\0").split("\0"):
        if (documents.HERE / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(documents.HERE / name, tmp_path / name)
    return tmp_path / "results"


@pytest.mark.slow
def test_the_documents_of_this_repository_are_current(tracked, monkeypatch):
    """Figures are only looked for: another machine may round a pixel otherwise."""
    monkeypatch.setattr(documents.style, "png", lambda figure: b"")
    outdated = documents.outdated(tracked)
    stale = [path.name for path in outdated if path.suffix == ".md" or not path.is_file()]
    assert stale == [], "run `make docs`"
