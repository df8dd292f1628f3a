"""Disks that fill up, refuse and come back: one line each, whole lines on disk, and no result lost or changed."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from bench.runs import TABLES, DamagedRun
from tests.faults.disks import Disk
from tests.faults.harness import Grid, Launch, no_traceback, note, wait_for

pytestmark = [pytest.mark.usefixtures("stubs"), pytest.mark.faults]

CHECKPOINTS = {"BENCH_TEST_CHECKPOINT_S": "0.1"}
ALGOS = "stub stub:tau=0.1 td3 stub:tau=0.2"


def whole_lines(grid: Grid) -> None:
    """Every table on disk can be read, and none ends in the middle of a line."""
    for run in grid.runs():
        for table in TABLES:
            path = run.path / table
            try:
                run.columns(table)
            except DamagedRun as error:
                raise AssertionError(str(error)) from None
            assert not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")


@pytest.fixture
def wanted(tmp_path: Path) -> dict[str, dict[str, object]]:
    grid = Grid(tmp_path / "undisturbed").define(ALGOS, steps=3000, eval_every=1000)
    code, out = grid.run()
    assert code == 0, out
    return grid.substance()


def test_a_full_disk(tmp_path: Path, small_disk: Disk, wanted: dict[str, dict[str, object]]) -> None:
    # Less than the results alone, however few checkpoints there are at a time.
    small_disk.remount("size=200k")
    grid = Grid(tmp_path / "g", results=str(small_disk.path / "results")).define(
        ALGOS, steps=3000, eval_every=1000
    )
    code, out = grid.run(**CHECKPOINTS)
    assert code in (1, 2), out
    no_traceback(out)
    assert "No space left on device" in out
    whole_lines(grid)
    failed = [line for line in out.splitlines() if line.startswith("failed: ")]
    finished = {run.path: (run.path / "done.json").read_bytes() for run in grid.runs() if run.state == "done"}
    for name in ("status", "figures"):  # reading needs no space, writing says what it lacks
        done = grid.told(name)
        no_traceback(done.stderr)
        assert done.returncode in (0, 2)
    small_disk.remount("size=20m")
    code, out = grid.run("--retry", "1")
    assert code == 0, out
    assert grid.substance() == wanted
    assert grid.leftovers() == []
    for path, seal in finished.items():
        assert (path / "done.json").read_bytes() == seal
    note(
        "disk full",
        tried=1,
        failed=len(failed),
        finished_before=len(finished),
        says=failed[0][:160] if failed else "",
    )


def test_no_more_files_may_be_made(
    tmp_path: Path, disk_of_few_files: Disk, wanted: dict[str, dict[str, object]]
) -> None:
    """As a quota on files does it: what exists can grow, nothing new can be made."""
    results = disk_of_few_files.path / "results"
    grid = Grid(tmp_path / "g", results=str(results)).define(ALGOS, steps=3000, eval_every=1000)
    code, out = grid.run(**CHECKPOINTS)
    assert code in (1, 2), out
    no_traceback(out)
    assert "No space left on device" in out
    whole_lines(grid)
    disk_of_few_files.remount("nr_inodes=10000")
    code, out = grid.run("--retry", "1")
    assert code == 0, out
    assert grid.substance() == wanted
    note("quota on files hit", tried=1)


def training_on(disk: Disk, tmp_path: Path) -> tuple[Grid, Launch]:
    """A grid that trains with its results on the disk."""
    grid = Grid(tmp_path / "g", results=str(disk.path / "results")).define(ALGOS, steps=3000, eval_every=1000)
    disk.remount("size=20m")
    since = time.time()
    launch = grid.start(**CHECKPOINTS)
    wait_for(lambda: grid.training(since), what="training")
    return grid, launch


@pytest.mark.parametrize("room", [2, 6, 20])
def test_a_disk_that_fills_up_in_the_middle_of_a_write(
    tmp_path: Path, small_disk: Disk, room: int, wanted: dict[str, dict[str, object]]
) -> None:
    """Another user's file takes all but `room` kB while the runs train: the next writes are cut short."""
    grid, launch = training_on(small_disk, tmp_path)
    with (small_disk.path / "theirs").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(4096, (small_disk.free_kilobytes() - room) * 1024))
    code, out = launch.ends()
    no_traceback(out)
    assert code in (1, 2)
    assert "No space left on device" in out
    whole_lines(grid)
    (small_disk.path / "theirs").unlink()
    code, out = grid.run("--retry", "1")
    assert code == 0, out
    assert grid.substance() == wanted
    note(f"quota hit mid-write, {room} kB left", tried=1)


def test_results_that_become_read_only(
    tmp_path: Path, small_disk: Disk, wanted: dict[str, dict[str, object]]
) -> None:
    grid, launch = training_on(small_disk, tmp_path)
    # a bind mount over it, since a disk with open files cannot be made read-only
    subprocess.run(["mount", "--bind", small_disk.path, small_disk.path], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", small_disk.path], check=True)
    try:
        code, out = launch.ends()
        assert code in (1, 2), out
        no_traceback(out)
        assert "Read-only file system" in out or "cannot be written" in out
        code, again = grid.run()
        assert code == 2
        assert again.count("\n") == 1, again
        assert "cannot be written" in again
        assert grid.told("status").returncode == 0
        figures = grid.told("figures")
        no_traceback(figures.stderr)
        assert (figures.returncode, figures.stderr.count("\n")) == (2, 1), figures.stderr
    finally:
        subprocess.run(["umount", small_disk.path], check=True)
    code, done = grid.run("--retry", "1")
    assert code == 0, done
    assert grid.substance() == wanted
    says = next((line for line in out.splitlines() if line.startswith("failed: ")), "")
    note("read-only while it trains", tried=1, says=says[:160])


def test_checkpoints_on_a_disk_of_their_own_that_is_full(
    tmp_path: Path, small_disk: Disk, wanted: dict[str, dict[str, object]]
) -> None:
    grid = Grid(tmp_path / "g").define(ALGOS, steps=3000, eval_every=1000)
    scratch = ("--checkpoints", str(small_disk.path / "scratch"))
    small_disk.remount("size=60k")
    code, out = grid.run(*scratch, **CHECKPOINTS)
    no_traceback(out)
    assert code == 1, out
    assert "No space left on device" in out
    small_disk.remount("size=20m")
    code, out = grid.run(*scratch, "--retry", "1", **CHECKPOINTS)
    assert code == 0, out
    assert grid.substance() == wanted
    assert not list((small_disk.path / "scratch").iterdir())
    note("scratch disk full", tried=1)
