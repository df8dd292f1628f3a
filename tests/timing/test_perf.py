"""Ours beside the peers': who answers. The tables: tests/analysis/test_speed_tables.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.timing import comparison as perf
from bench.timing.peers import work
from bench.timing.peers.serve import Server, ServerEnded

SERVER = """
import sys
from bench.timing.peers.serve import serve
calls = []
def task():
    print("noise of a library")
    calls.append(1)
    return 0.5 * len(calls)
serve({"a/update": task}, {"fact": [1, 2]})
"""


def server(code: str, tmp_path: Path) -> Server:
    return Server([sys.executable, "-c", code], {}, tmp_path / "errors.log", perf.ROOT)


def test_a_server_times_its_own_work_and_prints_nothing_else(tmp_path: Path) -> None:
    s = server(SERVER, tmp_path)
    assert (s.tasks, s.facts) == (["a/update"], {"fact": [1, 2]})
    assert s.seconds("a/update", 2) == [1.0, 1.5]  # the first call is not counted
    s.close()
    assert s.process.returncode == 0


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerEnded, match=r"^ModuleNotFoundError: No module named 'flux'$"):
        server("import flux", tmp_path)


def test_a_server_that_dies_is_told(tmp_path: Path) -> None:
    s = server(SERVER, tmp_path)
    s.process.kill()
    s.process.wait()
    with pytest.raises(ServerEnded, match="exit code -9"):
        s.seconds("a/update", 1)


def test_without_a_registry_the_peers_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(perf, "VENV", tmp_path / "venv")
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    environments = []

    def run(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        Path(perf.VENV).mkdir(exist_ok=True)
        environments.append(given.get("env") or {})
        return subprocess.CompletedProcess(command, int("install" in command), "", "")

    monkeypatch.setattr(perf.install.subprocess, "run", run)
    assert perf.peers_python() is None
    assert capsys.readouterr().err == (
        "make: left out of pip's settings: target\n"
        "bench: Stable-Baselines3 and SBX are left out: the packages could not be installed, for the reason above; "
        "the same command tries again\n"
    )
    assert "PIP_TARGET" not in environments[-1]
    assert not (tmp_path / "venv/.installed").exists()


def test_the_same_random_transitions_for_everyone() -> None:
    rows = work.transitions(17, 6)
    assert rows.shape == (work.ROWS, 17 + 6 + 2 + 17)
    assert abs(rows[:, 17:23]).max() <= 1
    assert (rows[:, 24] == 1).all()
    assert (rows == work.transitions(17, 6)).all()
