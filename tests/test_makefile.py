"""The Makefile: it only forwards, and says what there is to forward."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from bench.__main__ import _parser
from tests.launching import REPO, environment

TARGETS = ("setup", "bench", "status", "figures", "docs", "slurm", "cancel", "timing", "perf", "test", "test-all",
           "test-faults", "test-slurm", "lint", "format", "help")  # fmt: skip

#: Stands in for the environment's Python: tells its arguments.
RECORDER = "#!/usr/bin/env python3\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout whose environment is there, with a Python that tells its arguments."""
    shutil.copy(REPO / "Makefile", tmp_path)
    shutil.copy(REPO / "constraints.txt", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(RECORDER)
    python.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {
        key: value for key, value in os.environ.items() if not key.isupper() or key in ("PATH", "HOME")
    }
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=variables,
    )


def forwarded(folder: Path, *arguments: str) -> list[str]:
    done = make(folder, *arguments)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    assert found[:2] == ["-m", "bench"]
    return found[2:]


def test_plain_make_lists_every_target_and_variable(folder: Path) -> None:
    done = make(folder)
    assert done.returncode == 0
    assert done.stdout == make(folder, "help").stdout
    for target in TARGETS:
        assert re.search(rf"^make {target} +\S", done.stdout, re.M), target
    used = set(re.findall(r"call option,([A-Z_]+),", (folder / "Makefile").read_text())) - {"NAME"}
    told = set(re.findall(r"\b([A-Z_]{3,})\b", done.stdout))
    assert used - told <= {"QUICK"}
    assert "make bench ALGOS=" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_every_option_of_a_command_has_its_variable() -> None:
    text = (REPO / "Makefile").read_text()
    forwarded = {option for _, option in re.findall(r"call option,([A-Z_]+),(--[a-z-]+)", text)} | {
        "--results"
    }
    commands = next(a for a in _parser()._actions if hasattr(a, "choices") and a.choices).choices
    for command in ("run", "slurm", "status", "figures", "cancel"):
        options = {o for action in commands[command]._actions for o in action.option_strings} - {
            "-h",
            "--help",
        }
        assert options <= forwarded, command


def test_variables_become_options(folder: Path) -> None:
    assert forwarded(folder, "bench") == ["run", "--results", "results"]
    assert forwarded(
        folder, "bench", "ALGOS=qsm qsm:M_q=120,T=20", "ENVS=cheetah-run Pendulum-v1", "SEEDS=0,3,7", "STEPS=1e5",
        "STUDY=paper", "RESULTS=my results/é", "JOBS=2", "DEVICE=cpu", "SET=eval_every=5 eval_episodes=3", "PACK=4",
        "EXECUTION=eager", "RETRY=1", "CHECKPOINTS=/scratch/x y", "HANG_MINUTES=5", "JOB_MEMORY_MB=4000",
        "JOBS_PER_GPU=2",
    ) == [
        "run", "--study=paper", "--algos=qsm qsm:M_q=120,T=20", "--envs=cheetah-run Pendulum-v1", "--seeds=0,3,7",
        "--steps=1e5", "--set=eval_every=5 eval_episodes=3", "--results", "my results/é", "--device=cpu",
        "--execution=eager", "--pack=4", "--retry=1", "--jobs=2", "--jobs-per-gpu=2", "--hang-minutes=5",
        "--job-memory-mb=4000", "--checkpoints=/scratch/x y",
    ]  # fmt: skip
    assert forwarded(folder, "status", "STUDY=paper") == ["status", "--study=paper", "--results", "results"]
    assert forwarded(folder, "figures", "RESULTS=r") == ["figures", "--results", "r"]


def test_what_is_forwarded_is_not_read_by_the_shell(folder: Path) -> None:
    for text in ("-1", "a;b", "a|b", "a > b", "*", "~"):
        assert f"--seeds={text}" in forwarded(folder, "bench", f"SEEDS={text}")


def test_mistakes_end_with_an_error(tmp_path: Path) -> None:
    shutil.copy(REPO / "Makefile", tmp_path)
    shutil.copy(REPO / "constraints.txt", tmp_path)
    if not (REPO / ".venv" / "bin" / "python").exists():
        pytest.skip("no environment in .venv")
    (tmp_path / ".venv").symlink_to(REPO / ".venv")
    for variables, message in ((["SEEDS=-1"], "seeds = -1: expected"), (["ALGOS=qsn"], "did you mean 'qsm'")):
        done = subprocess.run(
            ["make", "-o", ".venv/.installed", "bench", *variables],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=environment(),
        )
        assert done.returncode != 0
        told = [line for line in done.stderr.splitlines() if not line.startswith("make")]
        assert len(told) == 1
        assert message in told[0]
        assert not (tmp_path / "results").exists()


def test_the_environment_is_made_once_and_again_when_the_versions_change(folder: Path) -> None:
    shutil.rmtree(folder / ".venv")
    log = folder / "log"
    python = folder / "python3.11"
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n'
        f'if [ "$1 $2" = "-m venv" ]; then mkdir -p $3/bin && cp $0 $3/bin/python; fi\n'
    )
    python.chmod(0o755)

    def calls() -> list[str]:
        assert make(folder, "setup", f"PYTHON={python}").returncode == 0
        found = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line for line in found if not line.startswith("-c")]

    install = "-m pip install --quiet --constraint constraints.txt --editable .[dev]"
    assert calls() == ["-m venv .venv", install]
    assert calls() == []
    later = time.time() + 5
    os.utime(folder / "constraints.txt", (later, later))
    assert calls() == [install]
