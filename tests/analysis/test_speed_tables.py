"""`make perf` as tables: rates, ratios and their intervals, the bound, what was promised; data that are damaged."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bench.analysis.table import to_markdown
from bench.analysis.wallclock import perf, perf_tables
from tests.analysis import helpers

GFLOP = {"sac": 0.5, "td3": 0.4, "td3-paper": 0.3, "qsm": 0.6, "dql": 1.2, "own": 0.1}


def measured(root: Path, name: str = "machine", **changed: float) -> Path:
    """Ours take 10 ms each, the peers 20 ms; a product of 2 * 1000^3 operations takes 20 ms: 100 GFLOP/s."""
    seconds = {("ours", "1x1000", "sgemm", ""): 0.02}
    for algo in GFLOP:
        for what in ("update", "end_to_end"):
            seconds["ours", algo, what, "eager"] = 0.012
            seconds["ours", algo, what, "compile"] = 0.010
    for peer in ("sb3", "sbx", "sb3-tuned"):
        for algo in ("sac", "td3"):
            for what in ("update", "end_to_end"):
                seconds[peer, algo, what, ""] = 0.020
    seconds |= {tuple(key.split("/")): value for key, value in changed.items()}  # type: ignore[misc]
    folder = root / "perf" / name
    folder.mkdir(parents=True)
    rows = [
        [*key, number, repr(value * factor)]
        for key, value in seconds.items()
        for number in range(6)
        for factor in (0.9, 1.0, 1.3)
    ]
    _write(folder / "samples.csv", [["who", "algo", "what", "mode", "round", "seconds"], *rows])
    _write(
        folder / "runner.csv",
        [["jobs", "at_once", "seconds", "seconds_nothing_to_do"], [10, 2, 5.0, 3.0]],
    )
    record = helpers.ORIGIN | {"update_gflop": GFLOP, "started": "2026-01-01T00:00:00+00:00"}
    (folder / "provenance.json").write_text(json.dumps(record | {"peers": {"sbx": {"jax": "0.10.2"}}}))
    return folder


def _write(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(rows)


def read(root: Path) -> perf.Comparison:
    found, problems = perf.load(root)
    assert problems == []
    return found[0]


def record(table, **where):
    (row,) = (row for row in table.records if where.items() <= row.items())
    return row


def test_ratios_are_of_medians_and_the_bound_is_the_measured_one(tmp_path):
    measured(tmp_path)
    found = read(tmp_path)
    assert found.bound == pytest.approx(100)
    rows = perf_tables.details(found)
    ours = record(rows, who="ours", algo="qsm", what="update", mode="compile")
    assert ours["per_second"] == pytest.approx(100)
    assert ours["per_second_p95"] == pytest.approx(100 / 1.3)
    assert ours["gflop_per_second"] == pytest.approx(60)
    assert ours["x_sb3"] != ours["x_sb3"]  # they have no QSM
    eager = record(rows, who="ours", algo="td3-paper", what="update", mode="eager")
    assert eager["x_sb3"] == eager["x_sbx"] == pytest.approx(20 / 12)
    tuned = record(rows, who="sb3-tuned", algo="sac", what="update")
    assert tuned["x_sb3"] == pytest.approx(1)


def test_the_overview_has_every_algorithm_that_was_timed_in_its_faster_mode(tmp_path):
    measured(tmp_path)
    table = perf_tables.overview(read(tmp_path))
    assert [row[0] for row in table.rows] == ["QSM", "DQL", "SAC", "TD3", "TD3 as published", "own"]
    sac = record(table, algo="sac")
    assert (sac["update_mode"], sac["update_per_second"]) == ("compile", pytest.approx(100))
    assert sac["update_x_sb3"] == pytest.approx(2)
    assert sac["update_x_sb3_low"] <= 2 <= sac["update_x_sb3_high"]
    assert sac["share_of_bound"] == pytest.approx(0.5)
    assert record(table, algo="own")["share_of_bound"] == pytest.approx(0.1)
    assert (
        table.notes[-1] == "One thread on one core. Some CPU; 2 cores; torch 2.13.0; jax 0.10.2; 2026-01-01."
    )


def test_an_interval_is_over_rounds(tmp_path):
    folder = measured(tmp_path)
    rows = list(csv.reader((folder / "samples.csv").open()))
    for row in rows[1:]:
        if row[:3] == ["sb3", "sac", "update"]:
            row[5] = repr(0.01 * (1 + int(row[4])))  # 10 to 60 ms
    _write(folder / "samples.csv", rows)
    sac = record(perf_tables.overview(read(tmp_path)), algo="sac")
    assert sac["update_x_sb3"] == pytest.approx(3.5)
    assert sac["update_x_sb3_low"] < 2.5
    assert sac["update_x_sb3_high"] > 4.5


def test_promises_are_judged_by_the_faster_mode(tmp_path):
    measured(tmp_path / "a")
    kept = perf_tables.promises(read(tmp_path / "a"))
    assert record(kept, algo="sac", what="update", against="sb3")["value"] == pytest.approx(2)
    assert record(kept, algo="qsm", against="bound")["verdict"] == "kept"
    slow = {"ours/sac/update/compile": 0.019, "ours/sac/update/eager": 0.018}
    measured(tmp_path / "b", **slow)
    missed = perf_tables.promises(read(tmp_path / "b"))
    found = record(missed, algo="sac", what="update", against="sb3")
    assert (found["verdict"], found["value"]) == ("missed", pytest.approx(20 / 18))
    assert record(missed, algo="sac", what="end_to_end", against="sbx")["verdict"] == "kept"


def test_without_peers_their_ratios_and_promises_are_left_out(tmp_path):
    folder = measured(tmp_path)
    rows = list(csv.reader((folder / "samples.csv").open()))
    _write(folder / "samples.csv", [row for row in rows if row[0] in ("who", "ours")])
    found = read(tmp_path)
    assert {row["against"] for row in perf_tables.promises(found).records} == {"bound", "sac"}
    assert "| SAC | 100 compile | – | – | 50 |" in to_markdown(perf_tables.overview(found))


@pytest.mark.seconds
def test_what_the_runner_costs(tmp_path):
    measured(tmp_path)
    tables = {table.name: table for table in perf_tables.all_tables([read(tmp_path)])}
    assert "| 10 | 2 | 5.0 | 0.50 | 3.0 |" in to_markdown(tables["perf_runner-machine"])
    assert "perf_memory-machine" not in tables  # it was not measured


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("seconds\n", "second\n", "samples.csv lacks the column seconds"),
        ("1x1000", "wide", "products are named as 2x256, not 'wide'"),
        (
            "ours,sac,update,eager,0,0.0108",
            "ours,sac,update,eager,0,-1",
            "seconds that are not positive numbers",
        ),
    ],
)
def test_what_is_damaged_is_left_out_with_a_line(tmp_path, old, new, complaint):
    folder = measured(tmp_path)
    measured(tmp_path, "other")
    text = (folder / "samples.csv").read_text()
    (folder / "samples.csv").write_text(text.replace(old, new))
    found, problems = perf.load(tmp_path)
    assert [each.machine for each in found] == ["other"]
    (problem,) = problems
    assert problem.startswith("perf/machine: left out: ")
    assert complaint in problem
