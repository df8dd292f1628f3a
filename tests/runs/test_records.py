"""The declared shapes of our JSON files: what they refuse, in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.disk import DamagedFile
from bench.runs import records
from tests.runs.writing import open_writer, rows

ATTEMPT = {"attempt": 1, "started": "now", "resumed_at_step": 0, "execution": {}, "provenance": {}}
RUN: dict[str, Any] = {
    "format": 1,
    "study": "s",
    "env": "ns/Env-v0",
    "algo": "qsm",
    "label": "qsm-M_q=5",
    "seed": 0,
    "hash": "0" * 64,
    "config": {},
    "settings": {"steps": 5, "eval_mode": "authors", "share": 0.5},
    "attempts": [ATTEMPT],
}
DONE: dict[str, Any] = {"format": 1, "outcome": "done", "env_step": 3, "files": {}}


def test_a_sound_record_comes_back_as_it_is() -> None:
    later = RUN | {"a field of newer code": [1]}
    assert records.check(later, "run.json") is later


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": -1}, "'seed' must be a whole number from 0 on, not -1"),
        ({"seed": True}, "'seed' must be a whole number from 0 on, not True"),
        ({"seed": 2**63}, "'seed' must be a whole number from 0 on"),
        ({"study": ".."}, "'study' must be a valid name, not '..'"),
        ({"label": "a.tmp"}, "'label' must be a valid name"),
        ({"env": "a//b"}, "'env' must be a valid name of a task"),
        ({"hash": "x"}, "'hash' must be a SHA-256, not 'x'"),
        ({"config": []}, r"'config' must be an object, not \[\]"),
        ({"settings": {"..": 1}}, "'settings' has the key '..', which is not a valid name"),
        ({"settings": {"a": [1]}}, r"'settings.a' must be true or false or a number or text, not \[1\]"),
        ({"attempts": []}, "'attempts' must not be empty"),
        ({"attempts": [3]}, r"'attempts\[0\]' must be an object, not 3"),
        (
            {"attempts": [ATTEMPT | {"attempt": "1"}]},
            r"'attempts\[0\].attempt' must be a whole number from 0 on",
        ),
        ({"format": 2}, "has format 2; this code reads up to 1"),
        ({"format": True}, "'format' must be a version number, not True"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_field(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(DamagedFile, match=rf"run\.json:? {reason}"):
        records.check(RUN | change, "run.json")


def test_a_missing_and_an_unknown_field_are_named() -> None:
    with pytest.raises(DamagedFile, match=r"run\.json: 'seed' is missing"):
        records.check({key: value for key, value in RUN.items() if key != "seed"}, "run.json")
    with pytest.raises(DamagedFile, match=r"done\.json: 'extra' is an unknown key"):
        records.check(DONE | {"extra": 1}, "done.json")


def test_what_a_run_writes_is_declared(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    run.heartbeat(env_step=2)
    run.save_checkpoint(2, b"", rows(0, 2), 0)
    written = {path.name: path.read_bytes() for path in run.path.rglob("*.json")}
    run.fail("Traceback\nValueError: no")
    written["failure.json"] = (run.path / "failure.json").read_bytes()
    run = open_writer(tmp_path)
    run.finish("done", 2, policy=b"")
    written["done.json"] = (run.path / "done.json").read_bytes()
    assert {*written} == {*records.FILES} - {"study.json"}
    for name, data in written.items():
        assert {*json.loads(data)} <= {*records.FILES[name].__struct_fields__, "format"}, name
