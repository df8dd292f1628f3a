"""The page over all studies: what, when, how many runs, state, best; the same bytes from the same reports."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from bench.__main__ import main
from bench.analysis import build
from bench.analysis.report import index
from tests.analysis import helpers

pytestmark = pytest.mark.slow


def rows(root) -> dict[str, list[str]]:
    """The cells of the page's table, by study."""
    text = (root / "index.html").read_text()
    body = re.search(r"<tbody>(.*)</tbody>", text, re.S)
    assert body is not None
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", body[1])]
    return {re.sub("<.*?>", "", row[0]): row for row in found}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two studies with a report and one without."""
    tmp_path = tmp_path_factory.mktemp("results")
    helpers.study(tmp_path, envs=["a-run", "b-walk"], algos=["qsm", "sac", "random"], seeds=3, name="first")
    folder = helpers.study(
        tmp_path, envs=["Pendulum-v1", "Hopper-v5", "Ant-v5"], algos=["qsm", "sac"], seeds=2, name="second"
    )
    (folder / "Hopper-v5/sac/seed-0/done.json").unlink()
    for name in ("first", "second"):
        build(tmp_path, name)
    helpers.study(tmp_path, seeds=1, name="undrawn")
    return tmp_path


@pytest.fixture
def root(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "results")


def test_every_report_has_a_row(root):
    found = rows(root)
    assert set(found) == {"first", "second"}
    link, what, when, runs, state, best = found["first"]
    assert 'href="first/report/index.html"' in link
    assert what == "A study: QSM, SAC on a-run, b-walk, 10,000 steps"
    assert (when, runs, state) == ("2026-01-01", "18", "18 done")
    assert re.fullmatch(r"SAC: IQM 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] n = 3", best)
    assert found["second"][4] == "11 done, 1 stale"
    assert found["second"][5] == "SAC: highest mean on 3 of 3 tasks"


def test_the_best_is_what_the_report_says(root):
    table = (root / "first/report/tables/aggregates.csv").read_text().splitlines()
    iqm = {row.split(",")[0]: float(row.split(",")[3]) for row in table[1:] if ",IQM," in row}
    learners = {label: value for label, value in iqm.items() if label != "random"}
    assert max(iqm, key=lambda label: iqm[label]) == "random"  # here; but nothing was learned
    assert f"IQM {max(learners.values()):.3f}" in rows(root)["first"][5]


def test_a_report_drawn_again_changes_nothing_else(root):
    before, second = (root / "index.html").read_bytes(), rows(root)["second"]
    helpers.change_study(root / "first", title="Another title")
    build(root, "first")
    assert rows(root)["first"][1].startswith("Another title: ")
    assert rows(root)["second"] == second
    helpers.change_study(root / "first", title="A study")
    build(root, "first")
    assert (root / "index.html").read_bytes() == before
    assert str(root).encode() not in before


def test_a_report_that_is_gone_is_left_out(root):
    (root / "second/report/index.html").unlink()
    index.refresh(root, "report")
    assert set(rows(root)) == {"first"}


def test_reports_of_a_choice_have_a_row_too(root):
    shutil.copytree(root / "second/report", root / "reports/chosen")
    index.refresh(root, "report")
    assert 'href="reports/chosen/index.html"' in rows(root)["chosen"][0]


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"title": 1}', b"[]"])
def test_a_row_that_cannot_be_read_says_what_to_do(root, data):
    (root / "second/report/entry.json").write_bytes(data)
    index.refresh(root, "report")
    assert "draw it again with make figures" in rows(root)["second"][1]


def test_texts_are_escaped(root):
    entry = json.loads((root / "second/report/entry.json").read_text())
    (root / "second/report/entry.json").write_text(json.dumps(entry | {"title": "<script>alert(1)</script>"}))
    index.refresh(root, "report")
    assert "<script>alert" not in (root / "index.html").read_text()


def test_a_single_task_outside_dm_control_shows_the_highest_mean(tmp_path):
    helpers.study(tmp_path, envs=["Pendulum-v1"], seeds=2)
    build(tmp_path, "made-up")
    assert re.fullmatch(r"SAC: [\d,]+ \[[\d,]+, [\d,]+\] n = 2", rows(tmp_path)["made-up"][5])


def test_nothing_is_best_where_nothing_is_scored(tmp_path):
    folder = helpers.study(tmp_path, seeds=1)
    for done in folder.glob("*/*/*/done.json"):
        done.unlink()
    build(tmp_path, "made-up")
    assert rows(tmp_path)["made-up"][5] == "–"


def test_status_names_it(root, capsys):
    assert main(["status", f"--results={root}", "--study=first"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"reports of all studies: {root / 'index.html'}"
    assert main(["status", f"--results={root}", "--study=first", "--json=1"]) == 0
    assert json.loads(capsys.readouterr().out)["studies"][0]["study"] == "first"
    (root / "index.html").unlink()
    assert main(["status", f"--results={root}", "--study=first"]) == 0
    assert "index.html" not in capsys.readouterr().out
