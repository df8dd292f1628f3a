"""Whether each algorithm of a study learns: beside the random policy, and with which settings."""

from __future__ import annotations

import pytest

from bench.analysis.scores import learning
from bench.analysis.scores.load import load
from bench.analysis.table import to_markdown
from bench.paper import documents
from tests.analysis import helpers

AUTHORS = {"hidden": [256, 256], "batch_size": 256, "M_q": 50.0, "tau": 0.005}


def defaults(algo: str, critic: str | None) -> dict[str, object]:
    own = {key: value for key, value in AUTHORS.items() if key != "M_q" or algo == "qsm"}
    return own | {"critic": critic or "mlp", "critics": 1 if critic == "simba" else 2}


@pytest.fixture
def folder(tmp_path):
    """Returns of QSM between 300 and 320, of SAC between 90 and 400, of the random policy at most 100."""
    study = helpers.study(tmp_path, algos=("qsm", "sac", "random"))
    finals = {"qsm": (300, 310, 320), "sac": (400, 90, 380), "random": (20, 30, 40)}
    for label, values in finals.items():
        for seed, final in enumerate(values):
            start = 100.0 if (label, seed) == ("random", 1) else 10.0
            helpers.set_returns(study / f"cheetah-run/{label}/seed-{seed}", [start] + [float(final)] * 9)
    return tmp_path


def configure(folder, label, **config):
    for run in (folder / "made-up/cheetah-run" / label).glob("seed-*"):
        helpers.change_meta(run, config=config)


def table(folder):
    return learning.table(load(folder, "made-up"), defaults)


def test_an_algorithm_learns_where_its_lowest_seed_is_above_every_evaluation_of_random(folder):
    configure(folder, "qsm", **AUTHORS)
    rows = {row[1]: row for row in table(folder).rows}
    assert [rows[name][4] for name in ("QSM", "SAC", "Random")] == ["yes", "no", "–"]
    assert rows["SAC"][3] == "400 90 380"
    helpers.set_returns(folder / "made-up/cheetah-run/random/seed-0", [10.0, 301.0] + [20.0] * 8)
    assert {row[1]: row[4] for row in table(folder).rows}["QSM"] == "no"


def test_without_the_random_policy_nothing_is_said(tmp_path):
    helpers.study(tmp_path)
    assert {row[4] for row in table(tmp_path).rows} == {"–"}


def test_settings_are_those_that_differ_from_the_authors(folder):
    configure(folder, "qsm", **AUTHORS | {"M_q": 10.0, "batch_size": 64, "critic": "simba", "critics": 1})
    configure(folder, "sac", hidden=[256, 256], batch_size=64, tau=0.01)
    shown = table(folder)
    rows = {row[1]: row[5] for row in shown.rows}
    assert rows == {
        "QSM": "M_q 10.0",
        "SAC": "tau 0.01",
        "Random": "–",
    }  # another critic has its own defaults
    assert "All that have the setting: batch_size 64. Runs: " in to_markdown(shown).replace("\\", "")


def test_what_a_variant_s_name_tells_is_no_setting_of_it(tmp_path):
    helpers.study(tmp_path, algos=("qsm-M_q=10",))
    configure(tmp_path, "qsm-M_q=10", **AUTHORS | {"M_q": 10.0, "tau": 0.02})
    (row,) = table(tmp_path).rows
    assert row[5] == "–"  # tau is the same in all
    assert "tau 0.02" in table(tmp_path).notes[1]


def test_a_document_can_show_it(folder, tmp_path):
    page = tmp_path / "README.md"
    page.write_text("<!-- generated: made-up learning -->\n<!-- end generated -->\n")
    documents.refresh(folder, tmp_path)
    assert "**Does each algorithm learn?**" in page.read_text()


def test_a_document_says_how_costs_are_measured_where_they_are_not(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("<!-- generated: cost -->\n<!-- end generated -->\n")
    documents.refresh(tmp_path / "results", tmp_path)
    assert 'make timing SIZES="authors matched"' in page.read_text()
