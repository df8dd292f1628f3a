"""Packs of seeds: what is timed, what is written, and the table of it."""

from __future__ import annotations

import csv
import json
from argparse import Namespace

import pytest

from bench.analysis.wallclock import cost as cost_tables
from bench.analysis.wallclock import packs as tables
from bench.analysis.wallclock.timings import load_timings
from bench.commands import measure
from bench.errors import UserError
from bench.timing import packs
from bench.timing.packs import PacksProtocol
from tests.timing import evidence

TINY = PacksProtocol(packs=(1, 2, 10), rounds=2, seconds=0.001, most_calls=2)
SPECS = ("td3:hidden=16x16,batch_size=8", "sac:critic=crossq,hidden=16x16,critic_hidden=16x16,batch_size=8")
LABELS = ["td3-batch_size=8-hidden=16x16", "sac-batch_size=8-critic=crossq-critic_hidden=16x16-hidden=16x16"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "PacksProtocol", lambda: TINY)
        evidence.counts(patch, packs)
        packs.run(root, SPECS, ["eager"], quick=False)
    return root


@pytest.mark.slow
def test_every_pack_is_timed_and_some_with_their_environments(measured):
    (folder,) = (measured / "timing").iterdir()
    assert folder.name.endswith("-packs-eager")
    with (folder / "samples.csv").open(newline="") as file:
        samples = list(csv.DictReader(file))
    timed = {(row["algo"], row["what"], row["pack"], row["round"]) for row in samples}
    parts = [("update", "1"), ("update", "2"), ("update", "10"), ("end_to_end", "1"), ("end_to_end", "10")]
    assert timed == {(label, *part, number) for label in LABELS for part in parts for number in "01"}
    assert len(samples) == len(timed)  # one sample a round
    assert json.loads((folder / "provenance.json").read_text())["protocol"]["sizes"] == "packs"


def test_the_table_counts_the_updates_of_all_seeds(measured):
    sets, problems = load_timings(measured)
    assert problems == []
    (table,) = tables.tables(sets)
    assert table.columns == [
        "Algorithm",
        *("updates/s, 1 seed", "updates/s, 2 seeds", "updates/s, 10 seeds"),
        *("steps/s, 1 seed", "steps/s, 10 seeds"),
    ]
    assert [row[0] for row in table.rows] == [
        "TD3 batch_size=8 hidden=16x16",
        "SAC batch_size=8 critic=crossq critic_hidden=16x16 hidden=16x16",
    ]
    (facts,) = measured.glob("timing/*/facts.csv")
    with facts.open(newline="") as file:
        assert [row["title"] for row in csv.DictReader(file)] == [row[0] for row in table.rows]
    a, b = sets[0].seconds(algo=LABELS[0], what="update", pack="10")
    assert table.records[0]["update_per_second_10"] == pytest.approx(10 / ((a + b) / 2))
    assert cost_tables.tables(measured, sets) == []  # whose sizes are others


def test_a_burst_is_timed_as_a_whole(monkeypatch):
    """A sample is a call's share of it: not one more, not one less."""

    class Timer:
        device, period, calls = "cpu", 3, 0
        case = Namespace(parts=("end_to_end",))

        def update_often(self, times):
            pass

        def step(self):
            self.calls += 1

    timer = Timer()
    monkeypatch.setattr(packs, "seconds", lambda burst: burst() or 0.006)
    timed = packs.PackTimer(timer, PacksProtocol(seconds=0.02, most_calls=100))
    assert timed.calls == {
        "end_to_end": 9
    }  # 0.002 s a call in a burst of a period: three whole periods in 0.02 s
    before = timer.calls
    assert timed.sample("end_to_end") == pytest.approx(0.006 / 9)
    assert timer.calls - before == 9


def options(**given):
    return Namespace(
        **{"device": "", "sizes": "", "execution": "", "quick": "", "algos": "", "results": "x"} | given
    )


def test_a_gpu_times_packs_and_nothing_else(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "check_device", lambda device: None)
    asked = []
    monkeypatch.setattr(packs, "run", lambda *given: asked.append(given))
    assert measure.timing(options(device="cuda", results=str(tmp_path))) == 0
    ((_, _, executions, quick, device),) = asked
    assert (executions, quick, device) == (["eager", "graph"], False, "cuda")
    with pytest.raises(UserError, match="only SIZES=packs is timed on a GPU"):
        measure.timing(options(device="cuda", sizes="matched", results=str(tmp_path)))
    with pytest.raises(UserError, match="EXECUTION=compile: expected eager, graph"):
        measure.timing(options(device="cuda", execution="compile", results=str(tmp_path)))
    with pytest.raises(UserError, match="DEVICE=tpu"):
        measure.timing(options(device="tpu", results=str(tmp_path)))


def test_without_a_gpu_it_is_said(tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="DEVICE=cuda: torch sees no GPU here"):
        measure.timing(options(device="cuda", results=str(tmp_path)))
