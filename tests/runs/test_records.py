"""The declared shapes of our JSON files: what they refuse, in which words; docs/results.md lists their fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.disk import DamagedFile
from bench.runs import records

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


@pytest.mark.parametrize(("file", "shape"), records.FILES.items())
def test_the_documents_name_every_field(file: str, shape: type) -> None:
    text = (Path(__file__).parents[2] / "docs/results.md").read_text()
    if file != "owner.json":  # of a run at work: no format of results
        assert [
            name for name in shape.__struct_fields__ if f"`{name}`" not in text and name != "format"
        ] == []
