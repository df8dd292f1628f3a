"""Turns in random order, and a look at who else computes."""

from __future__ import annotations

import os
import time
from collections import Counter
from itertools import groupby

import pytest

from bench.timing import stopwatch
from bench.timing.stopwatch import Quiet, Watch, chunks, machine_name, pin, timed

HARDWARE = {"cpu": "AMD EPYC 7B13 64-Core Processor", "cores": 2, "gpus": []}


def test_everything_takes_its_turn_once_a_round_in_an_order_of_its_own() -> None:
    keys = list("abcdefgh")
    turns = list(chunks(keys, 30, seed=1))
    rounds = [[key for _, key in turn] for _, turn in groupby(turns, key=lambda turn: turn[0])]
    assert len(rounds) == 30
    assert all(sorted(order) == keys for order in rounds)
    firsts = Counter(order[0] for order in rounds)
    assert len({tuple(order) for order in rounds}) > 20
    assert len(firsts) > 4
    assert list(chunks(keys, 30, seed=1)) == turns
    assert list(chunks(keys, 30, seed=2)) != turns


def test_the_call_after_a_change_of_turns_is_not_counted() -> None:
    answers = iter([9.0, 1.0, 2.0])
    assert timed(2, lambda: next(answers)) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("quiet", "problem"),
    [
        (Quiet(own_core=0.99, others=0.01), None),
        (Quiet(own_core=0.99, others=0.06), "other processes used 6% of the machine"),
        (Quiet(own_core=0.90, others=0.01), "the timed processes had their core for 90% of the time only"),
    ],
)
def test_a_machine_that_was_shared_is_told(quiet: Quiet, problem: str | None) -> None:
    assert quiet.problem == problem


def test_the_share_of_a_core_is_processor_time_over_wall_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that sleeps for nine tenths of the time has a tenth of its core, however busy the machine is."""
    now = {"_wall": 100.0, "_own_seconds": 7.0, "_all_seconds": 50.0}
    monkeypatch.setattr(stopwatch.time, "monotonic", lambda: now["_wall"])
    for name in ("_own_seconds", "_all_seconds"):
        monkeypatch.setattr(stopwatch, name, lambda name=name: now[name])
    monkeypatch.setattr(stopwatch.psutil, "cpu_count", lambda: 4)
    watch = Watch()
    now |= {"_wall": 110.0, "_own_seconds": 8.0, "_all_seconds": 55.0}
    assert watch.quiet() == Quiet(
        own_core=pytest.approx(0.1), others=pytest.approx(0.1)
    )  # 4 of 40 core seconds


def test_the_processor_time_of_this_process_is_counted() -> None:
    before, own = stopwatch._own_seconds(), time.process_time()
    while time.process_time() - own < 0.3:
        pass
    assert stopwatch._own_seconds() - before == pytest.approx(time.process_time() - own, abs=0.05)


def test_the_name_of_a_machine_tells_machines_apart() -> None:
    name = machine_name(HARDWARE)
    assert name.startswith("amd-epyc-7b13-2c-")
    assert name == machine_name(dict(HARDWARE))
    assert machine_name(HARDWARE | {"cores": 4}) != name
    assert machine_name(HARDWARE | {"gpus": ["NVIDIA H100"]}) != name


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity masks here")
def test_pinning_leaves_one_core() -> None:
    before = os.sched_getaffinity(0)
    try:
        core = pin()
        assert os.sched_getaffinity(0) == {core} <= before
    finally:
        os.sched_setaffinity(0, before)
