"""The Makefile: it only forwards, and says what there is to forward."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.__main__ import _parser
from tests.launching import REPO, python_path

TEXT = (REPO / "Makefile").read_text(encoding="utf-8")
COMMANDS = re.search(r"^COMMANDS := (.*)", TEXT, re.M)[1].split()  # type: ignore[index]
CHECKS = re.search(r"^CHECKS := (.*)", TEXT, re.M)[1].split()  # type: ignore[index]
TARGETS = ["help", "setup", *COMMANDS, *CHECKS]
TARGETS_WITH_RECIPES = re.findall(r"^([a-z$][^:=\n]*):.*\n((?:\t.*\n)+)", TEXT, re.M)

#: Stands in for the environment's Python: tells its arguments.
RECORDER = "#!/usr/bin/env python3\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"


def copy(folder: Path) -> None:
    """What make reads of a checkout."""
    (folder / "bench" / "machine").mkdir(parents=True)
    for name in ("Makefile", "constraints.txt", "pyproject.toml", "bench/machine/install.py"):
        shutil.copy(REPO / name, folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout whose environment is there, with a Python that tells its arguments."""
    copy(tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(RECORDER)
    python.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def bare() -> dict[str, str]:
    """A shell that sets no variable of the Makefile's."""
    return {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}


def make(folder: Path, *arguments: str, **shell: str) -> subprocess.CompletedProcess[str]:
    """make in a bare environment and what `shell` sets."""
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=bare() | shell,
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
    named = set(re.findall(r"\b([A-Z_]{3,})\b", done.stdout))
    assert {name for taken in taken_by().values() for name in taken} <= named
    assert "make bench ALGOS=" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def taken_by() -> dict[str, set[str]]:
    """Target -> the variables that it takes."""
    grid = re.search(r"^GRID := (.*)", TEXT, re.M)[1]  # type: ignore[index]
    found = re.findall(r"^TAKES_([a-z]+) := (.*)", TEXT, re.M)
    return {target: set(names.replace("$(GRID)", grid).split()) for target, names in found}


def test_a_target_takes_what_its_command_has_an_option_for() -> None:
    commands = next(a for a in _parser()._actions if hasattr(a, "choices") and a.choices).choices
    assert set(taken_by()) == set(COMMANDS)
    for target, names in taken_by().items():
        parser = commands["run" if target == "bench" else target]
        options = {option for action in parser._actions for option in action.option_strings} - {
            "-h",
            "--help",
        }
        assert {f"--{name.lower().replace('_', '-')}" for name in names} == options, target


@pytest.mark.seconds
def test_variables_are_passed_on(folder: Path) -> None:
    assert forwarded(folder, "bench") == ["run"]
    given = [
        "STUDY=paper", "ALGOS=qsm qsm:M_q=120,T=20", "ENVS=cheetah-run Pendulum-v1", "SEEDS=0,3,7", "STEPS=1e5",
        "SET=eval_every=5 eval_episodes=3", "RESULTS=my results/é", "DEVICE=cpu", "EXECUTION=eager", "PACK=4",
        "RETRY=1", "JOBS_PER_GPU=2", "DRY=1", "JOBS=2", "HANG_MINUTES=5", "JOB_MEMORY_MB=4000",
        "CHECKPOINTS=/scratch/x y",
    ]  # fmt: skip
    assert forwarded(folder, "bench", *given) == ["run", *given]
    assert forwarded(folder, "status", "STUDY=paper") == ["status", "STUDY=paper"]
    assert forwarded(folder, "video", "RUN=a b") == ["video", "RUN=a b"]
    theirs = ["FILES=a.csv b.csv", "SOURCE=lab", "COLUMNS=return=reward", "ACTION_REPEAT=2"]
    assert forwarded(folder, "import", *theirs) == ["import", *theirs]


@pytest.mark.seconds
def test_what_is_passed_on_is_read_by_neither_make_nor_the_shell(folder: Path) -> None:
    for text in (
        "-1",
        "a;b",
        "a|b",
        "a > b",
        "*",
        "~",
        "$HOME/x",
        "$(HOME)",
        "`ls`",
        "it's",
        'a "b"',
        "a\\b",
        "#1",
        "",
    ):
        assert forwarded(folder, "bench", f"SEEDS={text}") == ["run", f"SEEDS={text}"], text
    assert forwarded(folder, "bench", "STUDY=$(shell touch seen)") == ["run", "STUDY=$(shell touch seen)"]
    assert not (folder / "seen").exists()  # nor on its way into the environment of a recipe


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", "ALGO=sac"), "make bench does not take ALGO: did you mean ALGOS?"),
        (("bench", "algos=sac"), "make bench does not take algos: did you mean ALGOS?"),
        (("bench", "SEED=3"), "make bench does not take SEED: did you mean SEEDS"),
        (("bench", "STUDY=quick", "RESULT=x"), "make bench does not take RESULT: did you mean RESULTS"),
        (("bench", "FIGURES=1"), "make bench does not take FIGURES (slurm does)"),
        (("status", "STEPS=5"), "make status does not take STEPS (bench figures slurm do)"),
        (("slurm", "JOBS=2"), "(bench experiments do): did you mean JOBS_PER_GPU or JOBS_PER_TASK?"),
        (("video", "RUNS=x"), "make video does not take RUNS: did you mean RUN?"),
        (("lint", "STUDY=x"), "It takes no variables"),
        (("figures", "status", "JOBS=1"), "make figures status does not take JOBS"),
        (("help", "FOO=1"), "make help does not take FOO"),
        (("bench", "a'b=1"), "make bench does not take a'b"),
    ],
)  # fmt: skip
def test_a_variable_that_the_target_does_not_take(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = make(folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "?" not in done.stderr or "?." not in done.stderr


@pytest.mark.parametrize(
    ("goals", "message"),
    [
        (("bench", "quick"), "there is no target quick: `make help` lists them; a study is named as in make"),
        (("status", "paper"), "there is no target paper: `make help` lists them."),
        (("Bench",), "there is no target Bench: `make help` lists them."),
    ],
)
def test_a_target_that_there_is_not_stops_the_others(
    folder: Path, goals: tuple[str, ...], message: str
) -> None:
    done = make(folder, *goals)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["~/e", "$HOME/e"])
def test_the_environment_s_folder_is_expanded(folder: Path, text: str) -> None:
    (folder / ".venv").rename(folder / "e")
    done = make(folder, "bench", f"VENV={text}", HOME=str(folder))
    assert json.loads(done.stdout) == ["-m", "bench", "run"]
    assert not (folder / "~").exists()


@pytest.mark.parametrize("text", ["", "my e"])
def test_an_environment_s_folder_that_make_cannot_name(folder: Path, text: str) -> None:
    done = make(folder, "bench", f"VENV={text}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected a folder" in done.stderr


@pytest.mark.seconds
def test_variables_of_the_shell_count_and_are_said(folder: Path) -> None:
    done = make(folder, "bench", STEPS="500", SEED="3", ENV="/etc/profile")
    assert json.loads(done.stdout)[3:] == ["STEPS=500"]
    assert "from the environment: STEPS=500" in done.stderr
    assert "in the environment, but not used: SEED; meant may be SEEDS" in done.stderr
    assert "ENV" not in done.stderr
    assert make(folder, "lint", STUDY="x").stderr == make(folder, "lint").stderr  # none of its business


def test_the_width_of_a_terminal_names_no_columns(folder: Path) -> None:
    done = make(folder, "import", "FILES=a.csv", COLUMNS="80")
    assert json.loads(done.stdout)[2:] == ["import", "FILES=a.csv"]
    assert done.stderr == ""


def test_a_python_home_of_another_environment_is_not_passed_on(folder: Path) -> None:
    (folder / ".venv/bin/python").write_text('#!/bin/sh\necho "home: $PYTHONHOME"\n')
    done = make(folder, "status", PYTHONHOME="/nowhere")
    assert done.stdout == "home: \n"
    assert "PYTHONHOME is not passed on" in done.stderr


def test_every_recipe_is_one_process() -> None:
    """So that a signal sent to make alone, as by `kill` or `docker stop`, reaches what it started."""
    assert {target for target, _ in TARGETS_WITH_RECIPES} >= {*TARGETS} - {"setup"}
    for target, recipe in TARGETS_WITH_RECIPES:
        assert re.fullmatch(r"\t@exec [^\n]*\n", recipe), target


def test_a_signal_to_make_reaches_the_command(folder: Path) -> None:
    (folder / ".venv/bin/python").write_text(
        f"#!{sys.executable}\nimport os, signal, sys, time\n"
        "def stop(*_):\n    os.write(1, b'saved\\n'); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, stop)\nos.write(1, b'ready\\n')\ntime.sleep(60)\n"
    )
    process = subprocess.Popen(
        ["make", "bench"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=bare(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.stdout.read() == "saved\n"  # make waits for it
    process.wait(timeout=10)


def test_tools_are_modules_of_the_environments_python() -> None:
    """A console script names the folder in which it was installed, and breaks when the checkout moves."""
    assert re.findall(r"\$\(VENV\)/bin/(?!python\b)\w+|\bbin/(?:ruff|mypy|pytest|pip)\b", TEXT) == []


@pytest.mark.slow
def test_mistakes_end_with_an_error(tmp_path: Path) -> None:
    copy(tmp_path)
    if not (REPO / ".venv" / "bin" / "python").exists():
        pytest.skip("no environment in .venv")
    (tmp_path / ".venv").symlink_to(REPO / ".venv")
    for variables, message in ((["SEEDS=-1"], "seeds = -1: expected"), (["ALGOS=qsn"], "did you mean 'qsm'")):
        done = subprocess.run(
            ["make", "-o", ".venv/.installed", "bench", *variables],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=bare() | {"PYTHONPATH": python_path()},
        )
        assert done.returncode != 0
        told = [line for line in done.stderr.splitlines() if not line.startswith("make")]
        assert len(told) == 1
        assert message in told[0]
        assert not (tmp_path / "results").exists()


FAKE_PYTHON = r"""#!/bin/sh
test "$1" != --version || { echo "Python VERSION"; exit; }
test "$2" = bench/machine/install.py || exit
echo made >> LOG
rm -rf "$3"; mkdir -p "$3/bin"; cp $0 "$3/bin/python"
echo "Python VERSION" > "$3/.installed"
"""


@pytest.fixture
def pythons(folder: Path) -> Callable[[str], Path]:
    """Interpreters of given versions, which note that they made an environment."""

    def python(version: str) -> Path:
        path = folder / f"python{version}"
        path.write_text(FAKE_PYTHON.replace("VERSION", version).replace("LOG", str(folder / "log")))
        path.chmod(0o755)
        return path

    shutil.rmtree(folder / ".venv")
    return python


def test_when_the_environment_is_made(folder: Path, pythons: Callable[[str], Path]) -> None:
    def made(*arguments: str) -> bool:
        done = make(folder, "setup", *arguments)
        assert done.returncode == 0, done.stderr
        found = (folder / "log").exists()
        (folder / "log").unlink(missing_ok=True)
        return found

    old, new = f"PYTHON={pythons('3.11.7')}", f"PYTHON={pythons('3.13.1')}"
    assert made(old)
    assert not made(old)
    assert not made()  # whatever made it
    later = time.time() + 5
    for name in ("constraints.txt", "pyproject.toml", "bench/machine/install.py"):
        os.utime(folder / name, (later, later))
        assert made(old), name
        os.utime(folder / name, (1, 1))
    assert made(new)
    assert not made(new)
    (folder / ".venv/.installed").unlink()  # interrupted
    assert made(new)
    (folder / ".venv/bin/python").unlink()
    (folder / ".venv/bin/python").symlink_to(folder / "gone")  # the machine's Python was renewed
    assert made(new)
    assert made(new, f"VENV={folder / 'elsewhere'}")
    assert not made(new, f"VENV={folder / 'elsewhere'}")
