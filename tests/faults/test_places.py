"""Where and beside whom a grid runs: strange paths, strange clocks, other launchers, other hosts, stale locks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench.runs import STALE_AFTER_S
from tests.faults.harness import Grid, no_traceback, note, wait_for

pytestmark = [pytest.mark.usefixtures("stubs"), pytest.mark.faults]

Substance = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Substance:
    grid = Grid(tmp_path_factory.mktemp("undisturbed")).define("stub td3", seeds=2, steps=1200)
    code, out = grid.run()
    assert code == 0, out
    return grid.substance()


def small(folder: Path, **how: Any) -> Grid:
    return Grid(folder, **how).define("stub td3", seeds=2, steps=1200)


# -- paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["with two  spaces", "Ergebnisse-ü-結果-🙂", "quote'\"$;&|*?[x]", "new\nline", "-rf", "a" * 120],
)
def test_a_results_folder_of_any_name(tmp_path: Path, name: str, wanted: Substance) -> None:
    grid = small(tmp_path / "g", results=str(tmp_path / name / "results"))
    code, out = grid.run("--checkpoints", str(tmp_path / name / "scratch"))
    assert code == 0, out
    no_traceback(out)
    assert grid.substance() == wanted
    assert grid.told("status").returncode == 0
    assert grid.told("figures").returncode == 0
    assert (grid.root / "s" / "report" / "index.html").exists()
    note(f"results on {name[:20]!r}", tried=1)


def test_symbolic_links_on_the_way(tmp_path: Path, wanted: Substance) -> None:
    """To the results folder and, within it, from one study to another; a dangling one is a line."""
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    grid = small(tmp_path / "g", results=str(tmp_path / "near"))
    assert grid.run()[0] == 0
    assert grid.substance() == wanted
    (tmp_path / "far" / "alias").symlink_to("s")
    done = grid.told("status", "--study", "alias")
    assert "4 done" in done.stdout, done.stderr
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "deep")
    code, out = small(tmp_path / "h", results=str(tmp_path / "dangling")).run()
    no_traceback(out)
    assert code in (0, 2), out


def test_a_working_folder_that_is_moved_away(tmp_path: Path, wanted: Substance) -> None:
    """Results named by a relative path, and the folder moved under the running grid: it says so, or goes on."""
    grid = small(tmp_path / "g")
    since = time.time()
    launch = grid.start()
    wait_for(lambda: grid.training(since), what="training")
    (tmp_path / "g").rename(tmp_path / "moved")
    launch.log = tmp_path / "moved" / launch.log.name
    code, out = launch.ends()
    no_traceback(out)
    assert code in (0, 1), out
    moved = Grid(tmp_path / "moved")
    assert moved.run("--retry", "1")[0] == 0
    assert moved.substance() == wanted


# -- clocks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-86400, 86400])
def test_a_clock_that_jumps_while_it_trains(tmp_path: Path, shift: int, wanted: Substance) -> None:
    grid = small(tmp_path / "g")
    code, out = grid.run(BENCH_TEST_CLOCK=f"40:{shift}", BENCH_TEST_CHECKPOINT_S="0.3")
    assert code == 0, out
    no_traceback(out)
    assert grid.substance() == wanted
    note(f"clock set by {shift} s", tried=1)


def test_a_clock_that_was_set_back_between_two_launches(tmp_path: Path, wanted: Substance) -> None:
    grid = small(tmp_path / "g")
    since = time.time()
    launch = grid.start(BENCH_TEST_CHECKPOINT_S="0.3")
    wait_for(lambda: grid.training(since), what="training")
    launch.kill_group()
    tomorrow = time.time() + 86400
    for path in grid.root.rglob("*"):
        os.utime(path, (tomorrow, tomorrow), follow_symlinks=False)
    code, out = grid.run()
    assert code == 0, out
    assert grid.substance() == wanted
    note("clock set back a day between two launches", tried=1)


# -- other processes ---------------------------------------------------------------------------------


def interrupted(folder: Path) -> Grid:
    """A grid whose processes were all killed while they trained."""
    grid = small(folder)
    since = time.time()
    launch = grid.start(BENCH_TEST_CHECKPOINT_S="0.2")
    wait_for(lambda: len(grid.training(since)) == 2, what="training")
    launch.kill_group()
    assert any((run.path / "owner.json").exists() for run in grid.runs())
    return grid


def test_the_lock_of_a_dead_process(tmp_path: Path, wanted: Substance) -> None:
    """Also where another process has its number by now."""
    grid = interrupted(tmp_path / "g")
    for run in grid.runs():
        owner = run.path / "owner.json"
        if owner.exists():
            owner.write_text(json.dumps(json.loads(owner.read_text()) | {"pid": os.getpid()}))
    code, out = grid.run()
    assert code == 0, out
    assert "waiting" not in out
    assert grid.substance() == wanted
    note("lock of a dead process, its number taken", tried=1)


def test_the_lock_of_a_living_process_on_another_host(tmp_path: Path, wanted: Substance) -> None:
    """It is waited for, beside the rest of the grid; once its heartbeat is five minutes old, it is succeeded."""
    grid = interrupted(tmp_path / "g")
    held = next(run for run in grid.runs() if (run.path / "owner.json").exists())
    owner = held.path / "owner.json"
    owner.write_text(json.dumps(json.loads(owner.read_text()) | {"host": "elsewhere"}))
    heartbeat = held.path / "heartbeat.json"
    os.utime(heartbeat)
    before = {path.name: path.read_bytes() for path in held.path.iterdir() if path.is_file()}
    launch = grid.start()
    wait_for(lambda: "another process writes it; waiting" in launch.out(), what="waiting")
    wait_for(lambda: sum(run.state == "done" for run in grid.runs()) == 3, what="the rest of the grid")
    assert {name: (held.path / name).read_bytes() for name in before} == before  # untouched
    status = grid.told("status")
    assert "3 done" in status.stdout
    assert "1 running" in status.stdout
    past = time.time() - STALE_AFTER_S - 1
    os.utime(heartbeat, (past, past))
    code, out = launch.ends()
    assert code == 0, out
    assert grid.substance() == wanted
    note("lock of a living process on another host", tried=1, says="another process writes it; waiting")


def test_a_heartbeat_from_tomorrow_keeps_nobody_waiting(tmp_path: Path, wanted: Substance) -> None:
    """An owner on another host that died before that file system's clock was set back by a day."""
    grid = interrupted(tmp_path / "g")
    for run in grid.runs():
        owner, heartbeat = run.path / "owner.json", run.path / "heartbeat.json"
        if owner.exists():
            owner.write_text(json.dumps(json.loads(owner.read_text()) | {"host": "elsewhere"}))
            os.utime(heartbeat, (time.time() + 86400,) * 2)
    code, out = grid.run()
    assert code == 0, out
    assert grid.substance() == wanted
    note("heartbeat from tomorrow on another host", tried=1)


@pytest.mark.parametrize("kill", [False, True], ids=["both live", "one is killed"])
def test_two_launchers_on_one_study(tmp_path: Path, kill: bool, wanted: Substance) -> None:
    grid = small(tmp_path / "g")
    since = time.time()
    both = [grid.start(BENCH_TEST_CHECKPOINT_S="0.3") for _ in range(2)]
    if kill:
        wait_for(lambda: len(grid.training(since)) >= 2, what="training")
        both[0].kill_group()
    ended = [launch.ends() for launch in both[kill:]]
    for code, out in ended:
        no_traceback(out)
        assert code == 0, out
    assert grid.substance() == wanted
    assert grid.leftovers() == []
    if not kill:
        assert [len(run.meta["attempts"]) for run in grid.runs()] == [1] * 4
    note(f"two launchers, {'one killed' if kill else 'both alive'}", tried=1)


def test_a_launcher_for_single_seeds_beside_one_for_packs(tmp_path: Path) -> None:
    grid = Grid(tmp_path).define("stub", seeds=4, steps=2500)
    one = grid.start()
    grid.options = ("--jobs", "2", "--pack", "4")
    other = grid.start()
    for launch in (one, other):
        code, out = launch.ends()
        no_traceback(out)
        assert code == 0, out
    assert grid.leftovers() == []

    @cache
    def alone(pack: tuple[int, ...]) -> Substance:
        seeds = ",".join(map(str, pack)) if len(pack) > 1 else "0,1,2,3"
        undisturbed = Grid(tmp_path / f"{seeds} by {len(pack)}").define("stub", seeds=4, steps=2500)
        assert undisturbed.run("--seeds", seeds, "--pack", str(len(pack)))[0] == 0
        return undisturbed.substance()

    found = grid.substance()
    assert len(found) == 4
    for run in grid.runs():
        (pack,) = {tuple(attempt["execution"]["pack"]) for attempt in run.meta["attempts"]}
        name = f"{run.env}/{run.label}/{run.seed}"
        assert found[name] == alone(pack)[name]


def test_a_study_that_grows_under_a_running_launcher(tmp_path: Path) -> None:
    grid = Grid(tmp_path).define("stub:delay=0.002", seeds=2, steps=1500)
    since = time.time()
    launch = grid.start()
    wait_for(lambda: grid.training(since), what="training")
    code, more = grid.run("--seeds", "0,1,2,3")
    assert code == 0, more
    code, out = launch.ends()
    assert code == 0, out
    assert [(run.seed, run.state) for run in grid.runs()] == [(k, "done") for k in range(4)]
    grid.substance()


def test_a_folder_deleted_under_a_running_job(tmp_path: Path, wanted: Substance) -> None:
    grid = small(tmp_path / "g")
    since = time.time()
    launch = grid.start()
    victim = wait_for(lambda: grid.training(since), what="training")[0]
    shutil.rmtree(victim.path, ignore_errors=True)
    code, out = launch.ends()
    no_traceback(out)
    shutil.rmtree(victim.path, ignore_errors=True)  # what was written while it was being deleted
    code, out = grid.run("--retry", "1")
    assert code == 0, out
    assert grid.substance() == wanted
    note("run folder deleted while it trains", tried=1)


def test_a_process_that_stands_still_while_its_run_is_taken_over(tmp_path: Path) -> None:
    """A frozen host: another takes the run over after five minutes; the first wakes up, and writes nothing more."""
    grid = Grid(tmp_path / "g").define("stub:delay=0.002", steps=2500)
    since = time.time()
    first = grid.start(BENCH_TEST_CHECKPOINT_S="0.3")
    wait_for(lambda: grid.training(since), what="training")
    os.killpg(first.pid, signal.SIGSTOP)
    (run,) = grid.runs()
    owner = run.path / "owner.json"
    owner.write_text(json.dumps(json.loads(owner.read_text()) | {"host": "elsewhere"}))
    past = time.time() - STALE_AFTER_S - 1
    os.utime(run.path / "heartbeat.json", (past, past))
    second = grid.start()
    wait_for(lambda: len(grid.runs()[0].meta["attempts"]) == 2 and grid.training(since), what="the takeover")
    os.killpg(first.pid, signal.SIGCONT)
    for launch in (first, second):
        code, out = launch.ends()
        no_traceback(out)
        assert code == 0, out
    undisturbed = Grid(tmp_path / "u").define("stub:delay=0.002", steps=2500)
    assert undisturbed.run()[0] == 0
    assert grid.substance() == undisturbed.substance()
    note("frozen process wakes after a takeover", tried=1)
