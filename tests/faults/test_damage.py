"""Damaged data: every file of a run, cut, flipped, emptied, half merged, of another version or machine."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.__main__ import main
from bench.analysis.scores.load import load
from bench.analysis.scores.results import Results
from bench.errors import UserError
from bench.runs import TABLES, DamagedRun, StudyResults, Writer, read_run, read_study, write_study
from bench.runs.reader import DONE, POLICY, SEALED, seal
from bench.runs.tables import header
from tests.faults.damage import DAMAGES, empty, flip, half_merged, mutate, truncate, windows
from tests.faults.harness import no_traceback, note
from tests.launching import spec, stub_study, substance
from tests.synthetic import make_study

pytestmark = pytest.mark.usefixtures("stubs")

FILES = (*SEALED, DONE)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four finished runs."""
    root = tmp_path_factory.mktemp("sound")
    # the same bytes everywhere
    origin = {
        "git": {"commit": "c" * 40, "dirty": False},
        "code_digest": "a" * 64,
    }
    make_study(root, "s", ["walker-run"], ["sac", "td3"], [0, 1], 3, np.random.default_rng(0), origin=origin)
    return root


@pytest.fixture
def study(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "results"))


VICTIM = Path("s", "walker-run", "sac", "seed-1")


def left_out(root: Path, name: str) -> str:
    """The line that names the victim, after checking that no number of it is used and all of the others' are."""
    found: Results = load(root, "s")
    scored = {str(score.run.path.relative_to(root)) for score in found.runs if score.scored}
    assert scored == {f"s/walker-run/{algo}/seed-{k}" for algo in ("sac", "td3") for k in (0, 1)} - {
        str(VICTIM)
    }
    (problem,) = [line for line in found.problems if line.startswith(f"{VICTIM}: left out: ")]
    assert name in problem
    assert problem.isprintable()
    return problem


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_a_finished_run(
    study: Path, name: str, damage: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    path = study / VICTIM / name
    path.write_bytes(damage(path.read_bytes()))
    run = read_run(path.parent)
    if name == DONE and damage is windows:  # says the same, which is what its seal is of
        assert run.verified
        return
    assert (run.state, run.verified) == ("damaged", False)
    assert name in run.reason
    with pytest.raises(DamagedRun, match=r"seed-1"):
        run.columns("eval.csv")
    left_out(study, name)
    assert main(["status", "--results", str(study)]) == 2
    out, err = capsys.readouterr()
    no_traceback(out + err)
    assert "1 damaged" in out
    assert err.count("\n") == 1
    assert name in err


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_finished_run_is_missing(study: Path, name: str) -> None:
    (study / VICTIM / name).unlink()
    if name == DONE:  # then it is not finished
        run = read_run(study / VICTIM)
        assert (run.state, run.verified) == ("stale", False)
        assert not next(s for s in load(study, "s").runs if s.run.path == study / VICTIM).scored
    elif name == POLICY:  # no number depends on it
        assert read_run(study / VICTIM).verified
    else:
        left_out(study, name)


@pytest.mark.parametrize("table", [name for name in TABLES if name != "final.csv"])
def test_a_column_is_missing(study: Path, table: str) -> None:
    """Taken out and sealed again, as by code of another version: the columns are what is wrong, not the SHA-256."""
    run = study / VICTIM
    lines = (run / table).read_text().splitlines()
    (run / table).write_text("".join(line.rpartition(",")[0] + "\n" for line in lines))
    reseal(run)
    with pytest.raises(
        DamagedRun, match=f"{table} begins with .*, not with the columns {header(table).decode()[:-1]}"
    ):
        read_run(run).columns(table)
    (run / DONE).unlink()
    assert table in read_run(run).reason


def reseal(run: Path) -> None:
    import hashlib

    done = json.loads((run / DONE).read_text())
    done["files"] = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in done["files"]}
    (run / DONE).write_text(json.dumps(done | {"sha256": seal(done)}))


@pytest.mark.parametrize("version", [0, 2, 99, -1, "1", None, True, 1.0])
@pytest.mark.parametrize("name", ["run.json", DONE])
def test_an_unknown_version(study: Path, name: str, version: Any) -> None:
    path = study / VICTIM / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": version}))
    if name == DONE:
        done = json.loads(path.read_text())
        path.write_text(json.dumps(done | {"sha256": seal(done)}))
    else:
        reseal(path.parent)
    run = read_run(study / VICTIM)
    assert run.state == "damaged"
    assert "format" in run.reason
    if version in (2, 99):
        assert run.reason == f"{name} has format {version}; this code reads up to 1: update it"


def test_a_run_copied_in_from_another_machine(study: Path) -> None:
    """Finished ones count; one that was running there is not taken for running here; one in a wrong place is named."""
    other = study / "s" / "walker-run" / "sac" / "seed-0"
    shutil.copytree(other, study / "s" / "walker-run" / "sac" / "seed-7")
    run = read_run(study / "s" / "walker-run" / "sac" / "seed-7")
    assert run.reason == "run.json is that of walker-run/sac/seed-0, not of this folder"
    shutil.rmtree(run.path)
    shutil.copytree(other, run.path)
    meta = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(meta | {"seed": 7}))
    reseal(run.path)
    found = read_study(study, "s")
    assert found.problems == ["s/walker-run/sac/seed-7: left out: on disk, but not in the grid of study.json"]
    (study / VICTIM / DONE).unlink()
    (study / VICTIM / "owner.json").write_text(
        json.dumps({"format": 1, "token": "a", "attempt": 1, "host": "elsewhere", "boot_id": "b", "pid": 1})
    )
    heartbeat = study / VICTIM / "heartbeat.json"
    heartbeat.write_text("{}")
    past = time.time() - 86400
    os.utime(heartbeat, (past, past))
    run = read_run(study / VICTIM)
    assert (run.state, run.reason) == ("stale", "process 1 on elsewhere has gone; it can be resumed")
    (study / VICTIM / DONE).write_text("x")
    shutil.rmtree(study / VICTIM)
    shutil.copytree(other, study / VICTIM, dirs_exist_ok=True)  # the wrong run over the right one
    assert "run.json is that of walker-run/sac/seed-0" in left_out(study, "run.json")


@pytest.mark.seconds
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_study_file(
    study: Path, damage: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands say which file and what to do; deleting it and asking for the grid again gets everything back."""
    path = study / "s" / "study.json"
    path.write_bytes(damage(path.read_bytes()))
    for command in (["status"], ["figures", "--study", "s"], ["status", "--study", "s"]):
        code = main([*command, "--results", str(study)])
        out, err = capsys.readouterr()
        no_traceback(out + err)
        assert code in (0, 2)  # a flipped bit in a title, or Windows line ends, can leave it whole
        assert code == 0 or ("study.json" in err and err.count("\n") == 1), err


def test_a_changed_setting_of_a_study_is_noticed(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A digit of study.json, which is still JSON: the hashes of its grid tell, and no table shows the false number."""
    path = study / "s" / "study.json"
    record = json.loads(path.read_text())
    changed = record | {"settings": record["settings"] | {"steps": 9 * record["settings"]["steps"]}}
    path.write_text(json.dumps(changed))
    found = load(study, "s")
    assert found.settings == record["settings"]
    says = "s/study.json is damaged: its runs have other settings: steps is 27000 there and 3000 here"
    assert says in found.problems
    assert main(["status", "--results", str(study)]) == 0
    assert says in capsys.readouterr().out
    with pytest.raises(
        UserError, match=r"study\.json is damaged: steps is 27000 there and 3000 here; restore it"
    ):
        write_study(study, record)
    assert json.loads(path.read_text()) == changed
    path.unlink()
    write_study(study, record)
    assert load(study, "s").problems == ()


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("name", ["eval.csv", "train.csv"])
def test_a_table_that_is_larger_than_any(study: Path, name: str, finished: bool) -> None:
    """As a file system gives it back that lost its size: told from the size, for no memory holds it."""
    run = study / VICTIM
    os.truncate(run / name, 2**41)
    if not finished:
        (run / DONE).unlink()
    found = read_run(run)
    assert (found.state, found.verified) == ("damaged", False)
    assert found.reason == f"{name} has {2**41} bytes, more than any file of its kind"
    assert not next(s for s in load(study, "s").runs if s.run.path == run).scored


# -- checkpoints and unfinished runs -----------------------------------------------------------------


def trained(root: Path, stop_at: int | None = None, **given: Any) -> Path:
    """A run of the stub, stopped between two steps or ended."""
    from bench.launch import pack as worker

    (job,) = pack = stub_study(algo="stub", steps=400, eval_every=100, **given).jobs()
    count = iter(range(10**9))
    worker.run(spec(root, pack), lambda: "stop" if stop_at is not None and next(count) >= stop_at else None)
    return root / job.path


CHECKPOINT = ("checkpoint.json", "state-*.pt", "replay-*.npy")


@pytest.mark.seconds
@pytest.mark.parametrize("damage", [flip, truncate, empty, half_merged])
@pytest.mark.parametrize("name", [*CHECKPOINT, "eval.csv", "train.csv"])
def test_a_damaged_checkpoint(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    """It is never used: the run begins again, says why, and ends with the same numbers."""
    wanted = substance(trained(tmp_path / "whole"))
    run = trained(tmp_path / "r", 250)
    folder = run if name.endswith(".csv") else run / "checkpoint"
    (path,) = folder.glob(name)
    path.write_bytes(damage(path.read_bytes()))
    assert trained(tmp_path / "r") == run
    found = read_run(run)
    assert (found.state, found.verified) == ("done", True)
    assert found.meta["attempts"][-1]["resumed_at_step"] == 0
    assert path.name in found.meta["attempts"][-1]["restarted"]
    assert substance(run) == wanted


@pytest.mark.faults
def test_a_run_that_began_again_is_told_of(tmp_path: Path) -> None:
    from bench.launch.local.pool import LocalOptions, Pool
    from bench.launch.plan import make_plan

    path = trained(tmp_path, 250) / "checkpoint" / "checkpoint.json"
    path.write_bytes(flip(path.read_bytes()))
    jobs = stub_study(algo="stub", steps=400, eval_every=100).jobs()
    pool = Pool(tmp_path, make_plan(tmp_path, jobs), LocalOptions(1), lambda pool: None)
    assert pool.run().done == jobs
    why, end = pool.messages
    assert why.startswith(f"{jobs[0].path}: begun again at step 0: damaged checkpoint: checkpoint.json")
    assert end == f"{jobs[0].path}: done"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["owner.json", "heartbeat.json", "failure.json", ".lock"])
def test_what_only_running_needs_is_damaged(tmp_path: Path, name: str) -> None:
    wanted = substance(trained(tmp_path / "whole"))
    dice = random.Random(0)
    for i in range(8):
        root = tmp_path / f"r{i}"
        run = trained(root, 250)
        path = run / name
        path.write_bytes(mutate(path.read_bytes() if path.exists() else b"{}\n", dice))
        assert read_run(run).state in ("stale", "damaged", "failed")
        if read_run(run).state == "damaged":
            path.unlink()
        trained(root)
        assert substance(run) == wanted


def test_an_unfinished_run_is_never_verified(tmp_path: Path) -> None:
    run = read_run(trained(tmp_path, 250))
    assert (run.state, run.verified) == ("stale", False)
    (run.path / "eval.csv").write_bytes(flip((run.path / "eval.csv").read_bytes()))
    again = read_run(run.path)
    assert not again.verified


# -- fuzzing -----------------------------------------------------------------------------------------


def fuzz(root: Path, count: int, dice: random.Random) -> dict[str, int]:
    """Mutates one file at a time, reads everything, and puts it back; how often what was found."""
    run = root / VICTIM
    whole = {path.name: path.read_bytes() for path in run.iterdir()}
    study = root / "s" / "study.json"
    extra = {
        "failure.json": json.dumps(
            {"format": 1, "attempt": 1, "time": "t", "reason": "r", "traceback": "t"}
        ).encode(),
        "owner.json": json.dumps(
            {"token": "a", "attempt": 1, "host": "h", "boot_id": "b", "pid": 1, "scheduler": {"job_id": "1"}}
        ).encode(),
        "heartbeat.json": b'{"format": 1, "env_step": 12, "steps": 100, "rate": 1.5}',
    }
    names = sorted({*whole, *extra, "study.json"})
    tally = {"caught": 0, "unverified": 0, "harmless": 0}
    for i in range(count):
        name = names[i % len(names)]
        path = study if name == "study.json" else run / name
        before = path.read_bytes() if path.exists() else None
        changed = mutate(before if before is not None else extra[name], dice)
        path.write_bytes(changed)
        sealed = name in whole and i // len(names) % 2 == 0
        if name in extra or not (sealed or name == "study.json"):
            (run / DONE).unlink(missing_ok=True)
        found = read_run(run)
        assert found.reason.isprintable()
        assert len(found.reason) <= 301
        if sealed and changed != before and not (name == DONE and same_record(changed, whole[DONE])):
            assert (found.state, found.verified) == ("damaged", False), (name, i)
            assert name in found.reason or "run.json" in found.reason
            tally["caught"] += 1
        elif found.state in ("done", "diverged"):
            assert found.verified
            tally["harmless"] += 1
        else:
            assert not found.verified
            tally["unverified"] += 1
        if found.state != "damaged":
            for table in TABLES:
                found.columns(table)
        elif name in TABLES:
            with pytest.raises(DamagedRun):
                found.columns(name)
        if name == "study.json" or i % 50 == 0:
            _read_whole(root)
        if before is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(before)
        (run / DONE).write_bytes(whole[DONE])
    assert read_run(run).verified
    return tally


def same_record(data: bytes, other: bytes) -> bool:
    """Whether two files hold the same JSON: a done.json is sealed as what it says, not as how it is spaced."""
    try:
        return bool(json.loads(data) == json.loads(other))
    except (ValueError, RecursionError):
        return False


def _read_whole(root: Path) -> StudyResults | None:
    try:
        return read_study(root, "s")
    except UserError as error:
        told = str(error)
    assert told.count("\n") == 0
    assert "study.json" in told
    return None


@pytest.mark.seconds
def test_a_thousand_mutated_files_never_bring_the_reader_down(study: Path) -> None:
    fuzz(study, 1000, random.Random(1))


@pytest.mark.faults
def test_ten_thousand_mutated_files_never_bring_the_reader_down(study: Path) -> None:
    tally = fuzz(study, 10_000, random.Random(2))
    note("reader fuzzed", files=10_000, tracebacks=0, **tally)


@pytest.mark.faults
def test_mutated_records_never_bring_a_command_down(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line over 300 mutated results folders: what it prints is its own."""
    dice = random.Random(3)
    run = study / VICTIM
    files = [*run.iterdir(), study / "s" / "study.json"]
    for i in range(300):
        path = files[i % len(files)]
        before = path.read_bytes()
        path.write_bytes(mutate(before, dice))
        code = main(["status", "--results", str(study)])
        out, err = capsys.readouterr()
        no_traceback(out + err)
        assert code in (0, 2)
        path.write_bytes(before)
    note("status over mutated results", files=300, tracebacks=0)


@pytest.mark.faults
def test_mutated_checkpoints_never_bring_the_writer_down(tmp_path: Path) -> None:
    """Opened for writing, a run with a mutated checkpoint is resumed from what it was, or begins again."""
    from bench.launch import pack as worker

    (job,) = stub_study(algo="stub", steps=400, eval_every=100).jobs()
    sound = trained(tmp_path / "sound", 250)
    dice = random.Random(4)
    restarted = 0
    for i in range(500):
        root = tmp_path / "r"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(sound, root / job.path)
        (path,) = (root / job.path / "checkpoint").glob(CHECKPOINT[i % 3])
        before = path.read_bytes()
        path.write_bytes(mutate(before, dice))
        writer = Writer.open(root, job, execution={}, provenance={})
        checkpoint = writer.load_checkpoint()
        if checkpoint is None:
            restarted += 1
            assert "checkpoint" in read_run(root / job.path).meta["attempts"][-1]["restarted"]
        else:
            assert checkpoint.env_step == 251 or path.read_bytes() != before
        writer.release()
    assert restarted > 300
    assert worker.checkpoint_step(tmp_path / "r", job) in (0, 251)
    note("checkpoints fuzzed", files=500, tracebacks=0, restarted=restarted)
