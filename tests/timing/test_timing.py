"""The wall-clock protocol: what is timed, how often, and what is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.timing import measurement
from bench.timing import protocol as timing
from bench.timing.case import PARTS, Case, CaseTimer
from bench.timing.protocol import ALGOS, CHAINS, FACT_COLUMNS, SAMPLE_COLUMNS, Protocol, cases
from bench.timing.stopwatch import Quiet

SMALL = Case("td3", (16, 16), 8, None, reference=True)
TINY = Protocol(warm_up=1, rounds=2, calls=2, fewest_calls=1, seconds=0.01)
SILENT = Quiet(own_core=1.0, others=0.0)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# -- what is timed -------------------------------------------------------------------------------------------


def test_every_part_of_every_algorithm_is_timed_at_the_reference_size() -> None:
    planned = cases(ALGOS)
    reference = [case for case in planned if case.reference]
    assert {case.algo for case in reference if case.parts == PARTS} == set(ALGOS)
    assert {(case.hidden, case.batch, case.pack) for case in reference} == {((256, 256), 256, 1)}
    for algo in ("qsm", "dql"):
        assert sorted({case.T for case in reference if case.algo == algo}) == list(CHAINS)
    assert len(planned) == len({(c.algo, c.hidden, c.batch, c.T, c.pack) for c in planned})


def test_other_widths_batches_and_packs_are_timed() -> None:
    sizes = {(case.hidden, case.batch, case.pack) for case in cases(("qsm",)) if case.T == 5}
    assert {((512, 512), 256, 1), ((256, 256), 64, 1), ((256, 256), 1024, 1)} < sizes
    assert {pack for _, _, pack in sizes} == {1, 2, 4, 8}


def test_a_part_of_the_reference_is_timed_two_hundred_times() -> None:
    protocol = Protocol()
    assert protocol.rounds * protocol.calls_per_round(reference=True, seconds=1.0) >= 200  # docs/timing.md
    assert protocol.calls_per_round(reference=False, seconds=1e-4) == protocol.calls
    assert protocol.calls_per_round(reference=False, seconds=1.0) == protocol.fewest_calls
    assert protocol.warm_up >= 20


@pytest.mark.parametrize("algo", ["td3", "qsm"])
def test_each_part_of_a_subject_does_what_its_name_says(algo: str) -> None:
    timer = CaseTimer(Case(algo, (16, 16), 8, 2 if algo == "qsm" else None), "eager")
    state = timer.agent.state

    def moved(part: str) -> set[str]:
        before = {name: {k: p.clone() for k, p in state[name].items()} for name in ("actor", "critic")}
        assert timer.time(part)() > 0
        return {
            name
            for name, params in before.items()
            if any((state[name][key] != value).any() for key, value in params.items())
        }

    assert moved("critic_update") == {"critic"}
    assert moved("actor_update") == {"actor"}
    assert moved("update") == {"actor", "critic"}
    assert moved("act_1") == moved("act_10") == moved("env_step") == set()
    step = timer.trainer.env_step
    assert moved("end_to_end") == {"actor", "critic"}
    assert timer.trainer.env_step - step == timer.period


def test_an_algorithm_that_broke_down_is_not_timed() -> None:
    timer = CaseTimer(SMALL, "eager")
    timer.check()
    timer.agent.state["actor"]["w0"].fill_(float("nan"))
    with pytest.raises(UserError, match="td3 16x16 batch 8 pack 1, eager: diverged"):
        timer.check()


# -- what is written -----------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "QUICK", TINY)
    monkeypatch.setattr(timing, "cases", lambda algos, quick: [SMALL])
    monkeypatch.setattr(timing, "pin", lambda: None)  # of the process that runs the other tests
    monkeypatch.setattr(timing, "in_fresh_processes", lambda call, given: (call(*each) for each in given))


@pytest.mark.seconds
def test_a_quick_run_writes_a_draft(small: None, tmp_path: Path) -> None:
    (folder,) = timing.run(tmp_path, ["td3"], ["eager"], quick=True)
    assert folder.name.endswith("-eager")
    assert folder.parent == tmp_path / "timing-draft"
    samples, facts = read(folder / "samples.csv"), read(folder / "facts.csv")
    assert list(samples[0]) == SAMPLE_COLUMNS
    assert list(facts[0]) == FACT_COLUMNS
    timed = [row for row in samples if row["what"] not in ("warmup", "compile")]
    assert {row["what"] for row in timed} == set(PARTS)
    for part in PARTS:
        rows = [row for row in timed if row["what"] == part]
        assert sorted(row["round"] for row in rows) == ["0", "0", "1", "1"]
        assert all(float(row["seconds"]) > 0 for row in rows)
    record = json.loads((folder / "provenance.json").read_text())
    assert record["evidence"] is False
    assert record["protocol"]["rounds"] == TINY.rounds
    assert {"git", "hardware", "versions", "started", "finished", "quiet"} <= set(record)


@pytest.mark.parametrize(
    ("quick", "quiet", "kind"),
    [(False, SILENT, "timing"), (True, SILENT, "timing-draft"), (False, Quiet(1.0, 0.2), "timing-draft")],
)
def test_what_others_disturbed_is_no_evidence(quick: bool, quiet: Quiet, kind: str, tmp_path: Path) -> None:
    origin = {"hardware": {"cpu": "x", "cores": 2, "gpus": []}}
    save = lambda rows: measurement.save(  # noqa: E731
        tmp_path, "timing", {"samples": (["a"], rows)}, origin, quiet, quick
    )
    folder = save([{"a": 1}])
    assert folder.parent.name == kind
    assert save([{"a": 2}]) == folder  # a folder holds one measurement
    assert read(folder / "samples.csv") == [{"a": "2"}]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_update_of_another_order_has_no_halves_to_time():
    assert CaseTimer(Case("td3", (8,), 4, None), "eager").parts == PARTS
    parts = CaseTimer(Case("random", (1,), 4, None), "eager").parts  # its `learn` is its own
    assert set(PARTS) - set(parts) == {"critic_update", "actor_update"}
