"""Jobs that hang, eat memory, do not load or cannot start: shown, bounded, and the others unharmed."""

from __future__ import annotations

import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import Grid, no_traceback, note, wait_for
from tests.launching import REPO, STUBS

pytestmark = [pytest.mark.usefixtures("stubs"), pytest.mark.faults]

GOOD = "stub stub:tau=0.1 stub:tau=0.2"


@pytest.fixture
def wanted(stubs: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return undisturbed(tmp_path_factory.getbasetemp() / "undisturbed")


@cache
def undisturbed(folder: Path) -> dict[str, dict[str, Any]]:
    """The good jobs alone, run once; not a fixture of the module's, which would come before that of the stubs."""
    grid = Grid(folder).define(GOOD)
    code, out = grid.run()
    assert code == 0, out
    return grid.substance()


def unharmed(grid: Grid, wanted: dict[str, dict[str, Any]]) -> None:
    """The good jobs are done, to the numbers that they have without the bad one."""
    from tests.launching import substance

    done = {f"{run.env}/{run.label}/{run.seed}": run for run in grid.runs() if run.state == "done"}
    assert {name: substance(run.path) for name, run in done.items()} == wanted


def failure(out: str) -> str:
    (line,) = [line for line in out.splitlines() if line.startswith("failed: ")]
    return line


@pytest.mark.parametrize("at", [0, 100])
def test_a_job_that_hangs(tmp_path: Path, wanted: dict[str, dict[str, Any]], at: int) -> None:
    """From its first update on, or in the middle: killed a minute after its last step."""
    grid = Grid(tmp_path).define(f"stub:fault=hang,fault_at={at} {GOOD}")
    began = time.monotonic()
    code, out = grid.run("--hang-minutes", "1")
    seconds = time.monotonic() - began
    no_traceback(out)
    assert code == 1, out
    assert "no progress for 1 minutes" in failure(out)
    unharmed(grid, wanted)
    (failed,) = [run for run in grid.runs() if run.state == "failed"]
    assert failed.reason == "no progress for 1 minutes"
    note(f"hang in update {at}", tried=1, ended_after_s=round(seconds), says=failure(out))


def test_a_job_that_hangs_and_ignores_signals_is_killed(tmp_path: Path) -> None:
    """^C while a job hangs: the launcher waits as long as it says, and no longer."""
    grid = Grid(tmp_path).define("stub:fault=hang,fault_at=0")
    launch = grid.start()
    wait_for(lambda: grid.training(launch.began), what="training")
    launch.process.send_signal(2)
    time.sleep(1)
    launch.process.send_signal(2)
    code, out = launch.ends()
    assert code == 130
    no_traceback(out)
    assert [run.state for run in grid.runs()] == ["stale"]


@pytest.mark.parametrize(
    ("fault", "kind"), [("memory", "one huge allocation"), ("leak", "grows until its limit")]
)
def test_a_job_that_needs_more_memory_than_it_may_have(
    tmp_path: Path, wanted: dict[str, dict[str, Any]], fault: str, kind: str
) -> None:
    grid = Grid(tmp_path).define(f"stub:fault={fault} {GOOD}")
    code, out = grid.run("--job-memory-mb", "4000")
    no_traceback(out)
    assert code == 1
    if fault == "memory":
        assert "memory" in failure(out)
    unharmed(grid, wanted)
    note(f"memory: {kind}", tried=1, says=failure(out))


def test_a_limit_too_small_to_start_in(tmp_path: Path) -> None:
    grid = Grid(tmp_path).define("stub", seeds=2)
    code, out = grid.run("--job-memory-mb", "100")
    no_traceback(out)
    assert code == 1, out
    assert out.count("failed: s/stubs") >= 2
    code, out = grid.run("--retry", "1")
    assert code == 0, out
    grid.substance()
    note("memory limit too small to start", tried=1)


def plugin(folder: Path, code: str) -> str:
    """A user's package with the algorithm `mine`, as PYTHONPATH finds it."""
    package = folder / "mine-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[qsm_bench.algorithms]\nmine = my_algorithm:Mine\n")
    (folder / "my_algorithm.py").write_text(code)
    return ":".join((str(REPO), str(STUBS), str(folder)))


SOUND = "from stub_agents import Stub\n\nclass Mine(Stub):\n    name = 'mine'\n"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import nothing_of_this_name\n", "No module named 'nothing_of_this_name'"),
        ("def broken(:\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "mine"),
        ("class Other: pass\n", "Mine"),
        ("1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_an_algorithm_that_does_not_load(tmp_path: Path, code: str, says: str) -> None:
    """Told in one line before anything runs."""
    path = plugin(tmp_path / "site", code)
    grid = Grid(tmp_path / "g").define("stub mine")
    status, out = grid.run(PYTHONPATH=path)
    assert status == 2
    assert says in out
    assert out.count("\n") == 1, out
    assert not grid.root.exists()
    note("algorithm that does not load", tried=1, says=out.strip())


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import nothing_of_this_name\n", "No module named 'nothing_of_this_name'"),
        ("def broken(:\n", "SyntaxError"),
        ("import os\nos._exit(9)\n", "exit code 9"),
        ("import os\nos.abort()\n", "SIGABRT"),
        ("import sys\nsys.exit('leaving')\n", "leaving"),
    ],
)
def test_an_algorithm_that_loads_in_the_launcher_alone(
    tmp_path: Path, code: str, says: str, wanted: dict[str, dict[str, Any]]
) -> None:
    """A file that is edited while its grid runs: its jobs fail, one by one, and no others."""
    where = "import sys\nif 'launch.local.child' in ' '.join(sys.orig_argv):\n" + "".join(
        f"    {line}\n" for line in code.splitlines()
    )
    if "SyntaxError" in says:
        where = "import sys\nif 'launch.local.child' in ' '.join(sys.orig_argv):\n"
        where += "    compile('def broken(:', 'x', 'exec')\n"
    path = plugin(tmp_path / "site", where + SOUND)
    grid = Grid(tmp_path / "g").define(f"mine {GOOD}")
    status, out = grid.run(PYTHONPATH=path)
    no_traceback(out)
    assert status == 1, out
    assert says in failure(out)
    unharmed(grid, wanted)
    plugin_path = tmp_path / "site" / "my_algorithm.py"
    plugin_path.write_text(SOUND)
    status, out = grid.run("--retry", "1", PYTHONPATH=path)
    assert status == 0, out
    assert len(grid.substance()) == 4
    note("algorithm that loads in the launcher alone", tried=1, says=failure_or_none(out))


def failure_or_none(out: str) -> str:
    return next((line for line in out.splitlines() if line.startswith("failed: ")), "")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('echo "ImportError: libmujoco.so is missing" >&2; exit 3', "exit code 3 (ImportError: libmujoco.so"),
        ("exit 0", "exit code 0"),
        ("kill -SEGV $$", "SIGSEGV"),
    ],
)
def test_a_worker_that_cannot_start(tmp_path: Path, script: str, says: str) -> None:
    """Its interpreter is broken for workers alone: every job is told of, nothing loops, the next command goes on."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *launch.local.child*) {script};; esac\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    grid = Grid(tmp_path / "g").define("stub", seeds=3)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        f"import sys\nsys.path.insert(0, {str(STUBS)!r})\nfrom stub_envs import register\nregister()\n"
        f"sys.executable = {str(python)!r}\n"
    )
    began = time.monotonic()
    code, out = grid.run(PYTHONPATH=":".join((str(REPO), str(site), str(STUBS))))
    no_traceback(out)
    assert code == 1, out
    assert len([line for line in out.splitlines() if line.startswith("failed: ") and says in line]) == 3, out
    assert time.monotonic() - began < 200
    assert {run.state for run in grid.runs()} == {"missing"}
    code, out = grid.run()
    assert code == 0, out
    note("worker that cannot start", tried=3, says=says)
