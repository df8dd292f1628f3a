"""Reading a run directory in whatever state, damaged or hostile."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from bench.errors import UserError
from bench.runs import (
    TABLES,
    DamagedRun,
    read_run,
)
from bench.runs.reader import SEALED, seal
from tests.runs.writing import eval_row, flip, open_writer
from tests.synthetic import StubJob, make_study


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    (job,) = make_study(tmp_path, "s", ["walker-run"], ["sac"], [3], 3, np.random.default_rng(0), origin={})
    assert read_run(tmp_path / job.path).verified
    return tmp_path / job.path


@pytest.mark.parametrize("name", SEALED)
def test_a_changed_byte_in_a_finished_run_is_caught(finished: Path, name: str) -> None:
    flip(finished / name, -3)
    found = read_run(finished)
    assert (found.state, found.verified) == ("damaged", False)
    assert name in found.reason
    with pytest.raises(DamagedRun, match=name):
        found.table("eval.csv")


def test_a_changed_end_in_the_seal_itself_is_caught(finished: Path) -> None:
    text = (finished / "done.json").read_text()
    for old, new in (("3000", "2000"), ("null", '"n"'), ('"done"', '"diverged"'), ('"sha256"', '"sha255"')):
        assert old in text
        (finished / "done.json").write_text(text.replace(old, new))
        found = read_run(finished)
        assert (found.state, "done.json" in found.reason) == ("damaged", True)
    (finished / "done.json").write_text(json.dumps(json.loads(text), indent=3))  # no change of content
    assert read_run(finished).state == "done"


def test_a_file_changed_after_verification_is_caught_too(finished: Path) -> None:
    found = read_run(finished)
    text = (finished / "eval.csv").read_text()
    (finished / "eval.csv").write_text(text.replace("1000,0,", "1001,0,"))
    with pytest.raises(DamagedRun, match=r"eval\.csv has changed"):
        found.columns("eval.csv")
    (finished / "eval.csv").unlink()
    with pytest.raises(DamagedRun, match=r"eval\.csv is missing"):
        found.columns("eval.csv")
    assert read_run(finished).reason == "eval.csv is missing"


def test_a_finished_run_may_be_kept_without_its_policy_but_not_with_another(finished: Path) -> None:
    (finished / "policy.pt").write_bytes(b"another")
    assert read_run(finished).reason == "policy.pt has changed since the run finished (SHA-256)"
    (finished / "policy.pt").unlink()
    found = read_run(finished)
    assert (found.state, found.verified) == ("done", True)
    assert len(found.table("eval.csv"))


DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


LOST = b'{"format": 1, "reason": "\\ud800"}'


@pytest.mark.parametrize("name", ["run.json", "done.json"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"[1]", "no JSON object"),
        (b"{", "is not JSON"),
        (b"\x00" * 50, "is not JSON"),
        (b'{"format": 1\xff}', "is not JSON"),
        (DEEP, "nested too deeply"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nested too deeply"),
        (LOST, "is not JSON"),
        (b'{"format": NaN}', "is not JSON"),
        (b'{"format": 2}', "has format 2; this code reads up to 1: update it"),
        (b'{"format": true}', "'format' must be a version number"),
        (b'{"format": "1"}', "'format' must be a version number"),
        (b'{"format": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> main\n", "unfinished git merge"),
    ],
)
def test_json_that_is_none_of_ours_is_damage(finished: Path, name: str, content: bytes, reason: str) -> None:
    (finished / name).write_bytes(content)
    found = read_run(finished)
    assert (found.state, found.verified) == ("damaged", False)
    assert name in found.reason
    assert reason in found.reason
    assert found.reason.isprintable()


CHANGES: list[tuple[str, dict[str, object]]] = [
    ("run.json", {"env": "../../x"}),
    ("run.json", {"env": "walker-walk"}),
    ("run.json", {"algo": "<script>"}),
    ("run.json", {"label": 7}),
    ("run.json", {"seed": True}),
    ("run.json", {"seed": 10**30}),
    ("run.json", {"seed": 4}),
    ("run.json", {"hash": "abc"}),
    ("run.json", {"config": []}),
    ("run.json", {"settings": {"steps": [1]}}),
    ("run.json", {"settings": {"steps": 1e400}}),
    ("run.json", {"attempts": []}),
    ("run.json", {"attempts": [1]}),
    ("run.json", {"attempts": [{"attempt": "1"}]}),
    ("done.json", {"outcome": "won"}),
    ("done.json", {"reason": 3}),
    ("done.json", {"env_step": -1}),
    ("done.json", {"files": {}}),
    ("done.json", {"files": {"run.json": "0" * 64, "../../etc/passwd": "0" * 64}}),
    ("done.json", {"files": {"run.json": 5}}),
]


@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_a_field_of_another_kind_is_damage(finished: Path, name: str, change: dict[str, object]) -> None:
    path = finished / name
    if name == "run.json":
        (finished / "done.json").unlink()  # whose SHA-256 would catch every change alike
    record = json.loads(path.read_text()) | change
    if name == "done.json":
        record["sha256"] = seal(record)
    path.write_text(json.dumps(record).replace("Infinity", "1e999"))
    found = read_run(finished)
    assert found.state == "damaged"
    assert name in found.reason


def test_what_stands_where_a_file_should_is_not_followed(finished: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    for name in ("eval.csv", "run.json", "done.json"):
        data = (finished / name).read_bytes()
        for put in (
            lambda path: path.symlink_to(secret),
            lambda path: path.mkdir(),
            lambda path: os.mkfifo(path),
        ):
            secret.write_bytes(data)
            (finished / name).unlink()
            put(finished / name)
            found = read_run(finished)
            assert (found.state, name in found.reason) == ("damaged", True)
            (finished / name).rmdir() if (finished / name).is_dir() else (finished / name).unlink()
            (finished / name).write_bytes(data)
    assert read_run(finished).state == "done"


def test_links_may_lead_to_the_results_but_not_out_of_them(finished: Path, tmp_path: Path) -> None:
    strange = tmp_path / "a folder ü with 'spaces'"
    strange.symlink_to(tmp_path)
    assert read_run(strange / finished.relative_to(tmp_path)).state == "done"
    elsewhere = tmp_path / "results" / "s"
    elsewhere.mkdir(parents=True)
    (elsewhere / "walker-run").symlink_to(finished.parents[1])
    found = read_run(elsewhere / "walker-run" / "sac" / "seed-3")
    assert (found.state, "leads out of" in found.reason) == ("damaged", True)
    job = StubJob(seed=3, study="s", env="walker-run", algo="sac", label="sac")
    with pytest.raises(UserError, match="leads out of"):
        open_writer(tmp_path / "results", job)


def test_an_added_table_is_damage(finished: Path) -> None:
    record = json.loads((finished / "done.json").read_text())
    del record["files"]["time.csv"]
    (finished / "done.json").write_text(json.dumps(record | {"sha256": seal(record)}))
    assert read_run(finished).reason == "time.csv was added after the run had finished"


def test_an_unfinished_run_is_unverified_and_its_tables_are_parsed(tmp_path: Path) -> None:
    run = open_writer(tmp_path)
    run.append("eval.csv", [eval_row(1)])
    run.release()
    assert (read_run(run.path).state, read_run(run.path).verified) == ("stale", False)
    with (run.path / "eval.csv").open("ab") as file:
        file.write(b"2,0,one,5,0.5\n")
    found = read_run(run.path)
    assert (found.state, found.reason) == ("damaged", "eval.csv, line 3: return cannot be 'one'")
    assert read_run(run.path, verify=False).state == "stale"


HUGE = b'{"token": "a", "host": "h", "boot_id": "b", "attempt": %d, "pid": %d}' % (10**400, 10**400)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"token": []}', DEEP, HUGE, b'{"env_step": 1e999, "x": [1], "rate": "1"}']
)
def test_damaged_heartbeats_and_owners_count_for_nothing(tmp_path: Path, content: bytes) -> None:
    run = open_writer(tmp_path)
    (run.path / "heartbeat.json").write_bytes(content)
    assert (read_run(run.path).state, read_run(run.path).progress) == ("running", {})
    (run.path / "owner.json").write_bytes(content)
    assert (read_run(run.path).state, len(read_run(run.path).reason) < 100) == ("stale", True)
    assert open_writer(tmp_path).attempt == 2


def mutate(data: bytes, dice: random.Random) -> bytes:
    """One random change: bits, a cut, a copied piece, a number blown up, a line doubled."""
    position = dice.randrange(len(data))
    kind = dice.randrange(6)
    if kind == 0:
        return data[:position] + bytes([data[position] ^ (1 << dice.randrange(8))]) + data[position + 1 :]
    if kind == 1:
        return data[:position]
    if kind == 2:
        return data[:position] + data[dice.randrange(len(data)) :]
    if kind == 3:
        return (
            data[:position]
            + dice.choice([b"9" * 400, b"nan", b"1e999", b"-1", b"\x00", b"\xff"])
            + data[position:]
        )
    if kind == 4:
        lines = data.splitlines(keepends=True)
        return b"".join(lines[:1] + dice.sample(lines, len(lines)))
    return data[:position] + b"\n<<<<<<< HEAD\n" + data[position:]


@pytest.mark.seconds
def test_no_mutated_file_brings_the_reader_down(finished: Path, tmp_path: Path) -> None:
    """A small part of the fuzzing that the fault tests do: finished runs and unfinished ones."""
    dice = random.Random(1)
    names = [path.name for path in finished.iterdir()]
    whole = {name: (finished / name).read_bytes() for name in names}
    for i in range(300):
        name = dice.choice(names)
        changed = mutate(whole[name], dice)
        (finished / name).write_bytes(changed)
        if i % 2:  # the same damage in a run without a seal
            (finished / "done.json").unlink()
        found = read_run(finished)
        assert found.reason.isprintable()
        if changed != whole[name] and name != "done.json" and i % 2 == 0:
            assert found.state == "damaged"
            assert name in found.reason
        if found.state != "damaged":
            assert found.verified == (i % 2 == 0)
            for table in TABLES:
                found.columns(table)
        for restored in {name, "done.json"}:
            (finished / restored).write_bytes(whole[restored])


@pytest.mark.parametrize(
    "path", ["a/b/c/d", "a/b/c/seed-01", "a/b/../seed-1", "a/.b/c/seed-1", "a/b/c\n/seed-1"]
)
def test_a_path_that_is_no_runs_is_the_callers_mistake(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="is not <study>/<env>/<label>/seed-<k>"):
        read_run(tmp_path / path)
