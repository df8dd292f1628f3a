"""The code computes what it computed when the traces in tests/traces were recorded (tests/record_traces.py).

A number may differ by a share of the largest value of its kind in the trace. Before the first update there is only the
environment, the same to the last bit on every processor seen here: 1e-6 allows for the eight recorded digits and for
another build of MuJoCo. From the first update on matrix products round differently on other processors, and the loop
through environment and replay makes it grow. Emulated on an AVX-512 processor (MKL_ENABLE_INSTRUCTIONS=AVX2 and SSE4_2,
MKL_CBWR=COMPATIBLE, ATEN_CPU_CAPABILITY=default and avx2, with and without flushing denormals to zero), the largest
difference was 1.1e-5 in training and 1.8e-5 in an evaluation. 2e-4 is ten times that.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import algos
from bench.machine.behaviour import BEHAVIOUR, behaviour_of
from bench.machine.provenance import versions
from tests import record_traces
from tests.record_traces import CASES, SETTINGS, Case, Record, read, write

BEFORE_UPDATES, FROM_UPDATES = 1e-6, 2e-4

#: Of the runs in results/ from before versions were recorded.
OLD_DIGEST = "5cb79156f93f80f8643b97bb5b68c15e3b28d284462c7a5fafd55ceec598d24f"


@pytest.mark.seconds
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.stem)
def test_the_code_behaves_as_recorded(case: Case) -> None:
    head, expected = read(case.path)
    assert head["behaviour"] == BEHAVIOUR, "record the traces anew: python -m tests.record_traces"
    found = differences(expected, list(record_traces.record(case)))
    other = {name: version for name, version in versions().items() if head["versions"][name] != version}
    assert not found, "\n".join(
        [
            f"{case.path.name}: {len(found)} differences, the first ones:",
            *found[:10],
            f"recorded with {head['versions']}, here: {other or 'the same'}",
            "Numbers that are meant to change: docs/results.md, 'When numbers may change'",
        ]
    )


def differences(expected: list[Record], found: list[Record]) -> list[str]:
    """One line for each record that is not as expected, and for the first that is missing or too many."""
    scales: defaultdict[tuple[Any, ...], float] = defaultdict(float)
    for record in expected:
        for name, value in _numbers(record).items():
            if math.isfinite(value):
                scales[_kind(record, name)] = max(scales[_kind(record, name)], abs(value))
    lines = [
        f"{mine} instead of {theirs}"
        for theirs, mine in zip(expected, found)
        if mine.keys() != theirs.keys() or not _agree(theirs, mine, scales)
    ]
    return lines + [f"{len(found)} records instead of {len(expected)}"] * (len(found) != len(expected))


def _agree(expected: Record, found: Record, scales: dict[tuple[Any, ...], float]) -> bool:
    tolerance = (
        BEFORE_UPDATES if expected.get("env_step", math.inf) <= SETTINGS.random_steps else FROM_UPDATES
    )
    for name, value in expected.items():
        if name in _numbers(expected):
            near = abs(found[name] - value) <= tolerance * scales[_kind(expected, name)]
            if not (near or (math.isnan(found[name]) and math.isnan(value))):
                return False
        elif found[name] != value:
            return False
    return True


def _numbers(record: Record) -> dict[str, float]:
    """What may differ in its last digits."""
    exact = ("seed", "env_step", "episode", "length", "candidates", "mask")
    return {n: x for n, x in record.items() if not isinstance(x, str) and n not in exact}


def _kind(record: Record, name: str) -> tuple[Any, ...]:
    """A sum of parameters is as exact as their norm."""
    words = [value for value in record.values() if isinstance(value, str)]
    return (record["seed"], *words, "norm" if "part" in record else name)


def test_every_algorithm_of_this_folder_has_a_trace() -> None:
    ours = {name for name, place in algos.registry().items() if place.startswith("algos.")}
    assert ours <= {case.algo.partition(":")[0] for case in CASES}, "add it to record_traces.CASES"
    assert {case.path for case in CASES} == set(record_traces.FOLDER.iterdir())


@pytest.mark.parametrize(
    ("provenance", "version"),
    [
        ({"behaviour": 7, "code_digest": OLD_DIGEST}, 7),
        ({"code_digest": OLD_DIGEST}, 1),
        ({"code_digest": "a" * 64}, None),
        ({"behaviour": True}, None),
        ({"code_digest": ["a"]}, None),
        ({}, None),
    ],
)
def test_the_version_of_an_attempt(provenance: dict[str, Any], version: int | None) -> None:
    assert behaviour_of(provenance) == version


def test_a_trace_is_recorded_anew_only_for_another_behaviour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record_traces, "FOLDER", tmp_path)
    monkeypatch.setattr(record_traces, "CASES", [Case("random", "pendulum-swingup")])
    monkeypatch.setattr(record_traces, "record", lambda case: [{"seed": 0, "env_step": 1, "reward": 0.1}])
    path = record_traces.CASES[0].path
    write(path, [])
    assert record_traces.main() == 0
    assert "raise BEHAVIOUR first" in capsys.readouterr().out
    assert read(path)[1] == []
    monkeypatch.setattr(record_traces, "BEHAVIOUR", BEHAVIOUR + 1)
    assert record_traces.main() == 0
    assert read(path)[1] == [{"seed": 0, "env_step": 1, "reward": 0.1}]


def test_a_difference_is_found_where_there_is_one() -> None:
    records = [
        {"seed": 0, "env_step": 20, "reward": 1.0},
        {"seed": 0, "env_step": 30, "reward": 2.0},
        {"seed": 0, "part": "actor", "sum": 0.0, "norm": 10.0},
    ]

    def changed(i: int, **by: float) -> list[str]:
        return differences(records, [r | by if j == i else r for j, r in enumerate(records)])

    assert not changed(0, reward=1.000001)
    assert changed(0, reward=1.00001)
    assert not changed(1, reward=2.0003)
    assert changed(1, reward=2.001)
    assert changed(1, reward=math.nan)
    assert changed(1, env_step=31)
    assert not changed(2, sum=0.001)
    assert changed(2, sum=0.01)
    assert changed(1, loss=1.0)
    assert differences(records, records[:2])
