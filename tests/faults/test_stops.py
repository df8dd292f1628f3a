"""Asked to stop: by signals, by ^C once and twice, by a terminal that is closed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest

from bench.disk import read_json
from tests.faults.harness import Grid, Launch, group_is_empty, no_traceback, note, wait_for
from tests.launching import command, environment

pytestmark = [pytest.mark.usefixtures("stubs"), pytest.mark.faults]

ALGOS = "stub:delay=0.005 td3"


def checkpoint_step(path: Path) -> int:
    manifest = path / "checkpoint" / "checkpoint.json"
    return int(read_json(manifest)["env_step"]) if manifest.exists() else 0


def goes_on(grid: Grid, wanted: dict[str, dict[str, object]]) -> None:
    """The same command ends the grid, every run from its checkpoint, with the results of an undisturbed one."""
    saved = [checkpoint_step(run.path) for run in grid.runs()]
    code, out = grid.run()
    assert code == 0, out
    resumed = [run.meta["attempts"][-1]["resumed_at_step"] for run in grid.runs()]
    assert resumed == saved
    assert grid.substance() == wanted
    assert grid.leftovers() == []


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    grid = Grid(tmp_path_factory.mktemp("undisturbed")).define(ALGOS, steps=2000)
    code, out = grid.run()
    assert code == 0, out
    return grid.substance()


@pytest.mark.parametrize(
    "signals", [("SIGTERM",), ("SIGINT",), ("SIGHUP",), ("SIGINT", "SIGINT"), ("SIGTERM", "SIGTERM")]
)
@pytest.mark.parametrize("everyone", [False, True], ids=["launcher", "group"])
def test_signals(
    tmp_path: Path, wanted: dict[str, dict[str, object]], signals: tuple[str, ...], everyone: bool
) -> None:
    grid = Grid(tmp_path).define(ALGOS, steps=2000)
    since = time.time()
    launch = grid.start()
    wait_for(lambda: len(grid.training(since)) == 2, what="training")
    for name in signals:
        (os.killpg if everyone else os.kill)(launch.pid, getattr(signal, name))
        time.sleep(0.1)
    code, out = launch.ends()
    assert code == 130, out
    no_traceback(out)
    assert {run.state for run in grid.runs()} == {"stale"}
    steps = [checkpoint_step(run.path) for run in grid.runs()]
    if signals != ("SIGINT", "SIGINT"):
        assert "stopped: 2 runs are left; the same command goes on where they are" in out
        assert all(steps)
    goes_on(grid, wanted)
    note(
        f"{'+'.join(signals)} to the {'group' if everyone else 'launcher'}",
        tried=1,
        exit_code=code,
        saved=steps,
    )


def test_a_terminal_that_is_closed(tmp_path: Path, wanted: dict[str, dict[str, object]]) -> None:
    """The kernel sends SIGHUP to the foreground group, and every write to the terminal fails from then on."""
    grid = Grid(tmp_path).define(ALGOS, steps=2000)
    since = time.time()
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command(*grid.arguments())],
        cwd=tmp_path,
        env=environment() | {"TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    os.set_blocking(master, False)
    shown = b""

    def training() -> bool:
        nonlocal shown
        try:
            while data := os.read(master, 65536):
                shown += data
        except BlockingIOError:
            pass
        return len(grid.training(since)) == 2

    wait_for(training, what="training")
    os.close(master)
    process.wait(300)
    wait_for(lambda: {run.state for run in grid.runs()} == {"stale"}, what="the end of the workers")
    assert b"\x1b" in shown  # it was a live table
    assert all(checkpoint_step(run.path) for run in grid.runs())
    goes_on(grid, wanted)
    note("terminal closed", tried=1, saved=[2])


def test_a_terminal_that_is_closed_under_nohup(tmp_path: Path, wanted: dict[str, dict[str, object]]) -> None:
    """The shell sends SIGHUP to all of its jobs, and those that it was told to spare go on."""
    grid = Grid(tmp_path).define(ALGOS, steps=2000)
    since = time.time()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited, as nohup does it
    try:
        launch = grid.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(lambda: len(grid.training(since)) == 2, what="training")
    os.killpg(launch.pid, signal.SIGHUP)
    code, out = launch.ends()
    assert code == 0, out
    assert [len(run.meta["attempts"]) for run in grid.runs()] == [1, 1]
    assert grid.substance() == wanted
    note("terminal closed under nohup", tried=1, exit_code=code)


def test_output_that_nobody_reads(tmp_path: Path, wanted: dict[str, dict[str, object]]) -> None:
    """`make bench | head -1`: what it prints has nowhere to go, which is no reason to lose anything."""
    grid = Grid(tmp_path).define(ALGOS, steps=2000)
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            command(*grid.arguments()),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=err,
            start_new_session=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.wait(300)
    wait_for(lambda: group_is_empty(process.pid), what="the end of the workers")
    no_traceback((tmp_path / "err").read_text())
    code, out = grid.run()
    assert code == 0, out
    assert grid.substance() == wanted


def test_a_launcher_that_stands_still_takes_nothing_with_it(
    tmp_path: Path, wanted: dict[str, dict[str, object]]
) -> None:
    """^Z: the workers go on; `fg` finds them where they are."""
    grid = Grid(tmp_path).define(ALGOS, steps=2000)
    since = time.time()
    launch: Launch = grid.start()
    wait_for(lambda: len(grid.training(since)) == 2, what="training")
    os.killpg(launch.pid, signal.SIGSTOP)
    time.sleep(2)
    os.killpg(launch.pid, signal.SIGCONT)
    code, out = launch.ends()
    assert code == 0, out
    assert grid.substance() == wanted
