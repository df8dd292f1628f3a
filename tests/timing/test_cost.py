"""What an update costs: which sizes are timed, and what is written."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import algos
from bench.analysis.wallclock import cost as tables
from bench.analysis.wallclock.timings import load_timings
from bench.errors import UserError
from bench.studies.overrides import default_config, parse_overrides
from bench.timing import cost
from bench.timing.case import CaseTimer
from bench.timing.cost import CostProtocol, case
from tests.timing import evidence

TINY = CostProtocol(warm_up=1, rounds=2, calls=2, seconds=0.01, warm_up_seconds=0.01, memory_updates=1)
SPECS = ("td3:hidden=16x16,batch_size=8", "sac:critic=crossq,hidden=16x16,critic_hidden=16x16,batch_size=8")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_algorithm_of_the_suite_is_timed():
    timed = {parse_overrides(spec)[0] for spec in cost.ALGOS}
    own = {name for name, where in algos.registry().items() if where.startswith("algos.")}
    assert timed == own - {"random"}


@pytest.mark.parametrize("spec", cost.ALGOS)
def test_the_authors_size_is_the_algorithm_s_defaults(spec):
    algo, own = parse_overrides(spec)
    config = default_config(algo, own.get("critic"))
    found = case(spec, "authors")
    assert (list(found.hidden), found.batch, found.T) == (
        config["hidden"],
        config["batch_size"],
        config.get("T"),
    )
    assert dict(found.overrides) == {key: config[key] for key in own}


@pytest.mark.parametrize("spec", cost.ALGOS)
def test_the_matched_size_is_one_for_all(spec):
    found = case(spec, "matched")
    config = found.jobs()[0].config
    assert (found.hidden, found.batch) == ((256, 256), 256)
    assert {config[name] for name in ("T", "flow_steps") if name in config} <= {5}
    assert config.get("critic_hidden", []) in ([], [256, 256])
    assert config.get("critic", "mlp") == "mlp" or config["critic_hidden"] == [256, 256]


def test_names_show_the_overrides_that_were_asked_for():
    found = case("sac:critic=crossq", "matched")
    assert found.label == "sac-critic=crossq"
    assert found.name("SAC") == "SAC critic=crossq"
    with pytest.raises(UserError, match="no algorithm 'sca'"):
        case("sca", "authors")


def test_what_takes_long_is_called_a_few_times_only():
    protocol = CostProtocol()
    assert protocol.calls_per_round(reference=False, seconds=1e-3) == protocol.calls
    assert protocol.calls_per_round(reference=False, seconds=10.0) == 1
    timer = CaseTimer(case(SPECS[0], "authors"), "eager")
    timer.prepare(calls=5, at_most=0.0, cold=True)
    taken = timer.warm_up_s
    timer.prepare(calls=20, at_most=60.0, cold=True)
    assert timer.warm_up_s > 3 * taken


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The results of a measurement of two small algorithms that counts as evidence."""
    root = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "CostProtocol", lambda: TINY)
        evidence.counts(patch, cost)
        patch.setattr(cost, "SGEMM", ((1, 16), (2, 8)))
        in_turn = lambda call, given: (call(*each) for each in given)  # noqa: E731
        patch.setattr("bench.timing.protocol.in_fresh_processes", in_turn)
        cost.run(root, SPECS, ["authors"], ["eager"], quick=False)
    return root


@pytest.mark.seconds
def test_a_measurement_is_written_and_shown(measured):
    (folder,) = (measured / "timing").iterdir()
    assert folder.name.endswith("-authors-eager")
    samples, facts, bound = (read(folder / f"{name}.csv") for name in ("samples", "facts", "bound"))
    labels = [
        "td3-batch_size=8-hidden=16x16",
        "sac-batch_size=8-critic=crossq-critic_hidden=16x16-hidden=16x16",
    ]
    assert {row["algo"] for row in samples} == set(labels) == {row["algo"] for row in facts}
    assert {row["what"] for row in samples} == {"update", "act_1", "products", "warmup"}
    alone = [float(row["seconds"]) for row in samples if row["what"] == "products"]
    assert len(alone) >= 4
    assert min(alone) > 0
    assert {(row["count"], row["size"]) for row in bound} == {("1", "16"), ("2", "8")}
    assert json.loads((folder / "provenance.json").read_text())["protocol"]["sizes"] == "authors"

    executions, problems = load_timings(measured)
    assert problems == []
    (table,) = tables.tables(measured, executions)
    assert [row[0] for row in table.rows] == [
        "TD3 batch_size=8 hidden=16x16",
        "SAC batch_size=8 critic=crossq critic_hidden=16x16 hidden=16x16",
    ]
    record = table.records[0]
    assert "Products alone, ms" in table.columns
    assert (
        0
        < record["products_ms"]
        == pytest.approx(
            1e3
            * float(
                np.median(
                    [
                        float(r["seconds"])
                        for r in samples
                        if (r["algo"], r["what"]) == (labels[0], "products")
                    ]
                )
            )
        )
    )
    seconds = sorted(
        float(row["seconds"]) for row in samples if (row["algo"], row["what"]) == (labels[0], "update")
    )
    middle = (seconds[(len(seconds) - 1) // 2] + seconds[len(seconds) // 2]) / 2
    assert record["update_ms_eager"] == pytest.approx(1e3 * middle)
    rate = tables.gflop_per_second(measured, executions[0])
    gflop = float(facts[0]["update_gflop"])
    assert record["update_gflop"] == gflop > 0
    assert record["share_of_bound"] == pytest.approx(gflop / middle / rate)


def test_the_bound_is_the_best_median_of_a_shape(measured, tmp_path):
    shutil.copytree(measured, tmp_path, dirs_exist_ok=True)
    (folder,) = (tmp_path / "timing").iterdir()
    rows = "".join(f"1,1000,eager,0,{s}\n" for s in (0.02, 0.04, 9)) + "2,100,eager,0,1\n"
    (folder / "bound.csv").write_text("count,size,mode,round,seconds\n" + rows)
    (execution,) = load_timings(tmp_path)[0]
    assert tables.gflop_per_second(tmp_path, execution) == pytest.approx(2 * 1000**3 / 1e9 / 0.04)
