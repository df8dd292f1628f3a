"""Ours beside the peers': who answers, what the tables say."""

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


# -- the tables ----------------------------------------------------------------------------------------------

GFLOP = {"sac": 0.5, "td3": 0.4, "td3-paper": 0.3, "qsm": 0.6, "dql": 1.2}


def samples(**changed: float) -> list[dict[str, Any]]:
    """Ours take 10 ms each, the peers 20 ms; a product of 2 * 1000^3 operations takes 20 ms: 100 GFLOP/s."""
    seconds = {("ours", "1x1000", "sgemm", ""): 0.02}
    for algo in GFLOP:
        for what in ("update", "end_to_end"):
            seconds["ours", algo, what, "eager"] = 0.012
            seconds["ours", algo, what, "compile"] = 0.010
    for peer in ("sb3", "sbx"):
        for algo in ("sac", "td3"):
            for what in ("update", "end_to_end"):
                seconds[peer, algo, what, ""] = 0.020
    for name, value in changed.items():
        seconds[tuple(name.split("/"))] = value  # type: ignore[index]
    columns = ("who", "algo", "what", "mode")
    return [
        dict(zip(columns, key)) | {"seconds": value * factor, "round": 0}
        for key, value in seconds.items()
        for factor in (0.9, 1.0, 1.3)
    ]


def line(lines: list[str], start: str) -> str:
    return next(text for text in lines if text.startswith(start))


def test_ratios_are_of_medians_and_the_bound_is_the_measured_one() -> None:
    lines = perf.tables(samples(), GFLOP)
    assert max(map(len, lines)) <= 80
    assert line(lines, "The bound") == "The bound is the best of them, 100.0 GFLOP/s."
    block = lines[lines.index(line(lines, "QSM:")) :]
    assert line(block, "ours, compile").split() == [
        "ours,",
        "compile",
        "100.0",
        "78.7",
        "–",
        "–",
        "60.0",
        "60%",
    ]
    block = lines[lines.index(line(lines, "TD3-PAPER:")) :]
    assert line(block, "ours, eager").split()[4:6] == ["1.67", "1.67"]


def test_promises_are_judged_by_the_faster_mode() -> None:
    lines = perf.tables(samples(), GFLOP)
    assert line(lines, "SAC update: at least 1.60").split()[-2:] == ["2.00", "kept"]
    assert line(lines, "QSM update: at least 0.58").split()[-2:] == ["0.60", "kept"]
    slow = perf.tables(samples(**{"ours/sac/update/compile": 0.019, "ours/sac/update/eager": 0.018}), GFLOP)
    assert line(slow, "SAC update: at least 1.60").split()[-2:] == ["1.11", "MISSED"]
    assert line(slow, "SAC end to end: at least 1.10").split()[-2:] == ["2.00", "kept"]


def test_promises_about_peers_that_are_not_there_are_left_out() -> None:
    ours = [row for row in samples() if row["who"] == "ours"]
    lines = perf.tables(ours, GFLOP)
    assert not [text for text in lines if "Stable-Baselines3" in text]
    assert line(lines, "DQL update: at least 0.58").split()[-1] == "kept"
