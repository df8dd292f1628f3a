"""A read-only image: the checkout and its environment cannot be written, the results lie elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.runs import read_run
from tests.launching import REPO, STUBS

STUDY = """algos = ["td3"]
envs = ["Pendulum-v1"]
seeds = 1
[run]
steps = 120
random_steps = 40
eval_every = 60
eval_episodes = 1
replay_size = 1000
final_episodes = 1
[config]
hidden = [8, 8]
batch_size = 8
"""


def run_read_only(folder: Path, *arguments: str, home: str) -> subprocess.CompletedProcess[str]:
    """The command line from `folder` with the checkout mounted read-only, in a mount namespace of its own."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can mount the checkout read-only")
    mount = f'mount --bind "{REPO}" "{REPO}" && mount -o remount,bind,ro "{REPO}" && ! touch "{REPO}/x" 2>/dev/null'
    script = f'{mount} && exec "$0" -m bench "$@"'
    # without the bytecode switch, to see that Python's own caches stop nothing either
    shell = {"PATH": os.environ["PATH"], "HOME": home, "PYTHONPATH": f"{REPO}:{STUBS}"}
    command = ["unshare", "--mount", "sh", "-c", script, sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=shell, capture_output=True, text=True)


def train(folder: Path, mode: str, home: str) -> None:
    (folder / "s.toml").write_text(STUDY)
    done = run_read_only(folder, "run", "STUDY=s.toml", "RESULTS=runs", f"EXECUTION={mode}", home=home)
    if "unshare failed" in done.stderr or "permission denied" in done.stderr:
        pytest.skip("no mount namespaces here")
    assert done.returncode == 0, done.stdout + done.stderr
    run = read_run(folder / "runs/s/Pendulum-v1/td3/seed-0")
    assert run.state == "done"
    assert run.meta["attempts"][0]["execution"]["mode"] == mode
    assert (folder / "runs/s/report/index.html").is_file()


@pytest.mark.slow
def test_the_suite_trains_and_draws_from_a_read_only_checkout(tmp_path: Path) -> None:
    train(tmp_path, "eager", home="/nonexistent")


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
def test_compiled_updates_lie_outside_a_read_only_checkout(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    train(tmp_path, "compile", home=str(tmp_path / "home"))
    assert any((tmp_path / "home/.cache/qsm-bench/torchinductor").iterdir())


def test_both_definitions_make_the_same_image() -> None:
    apptainer = (REPO / "container/apptainer.def").read_text(encoding="utf-8")
    docker = (REPO / "container/Dockerfile").read_text(encoding="utf-8")
    (base,) = re.findall(r"^From: (.*)", apptainer, re.M)
    assert re.findall(r"^FROM (.*)", docker, re.M) == [base]
    (post,) = re.findall(r"^%post\n((?:    .*\n)+)", apptainer, re.M)
    assert [line.strip() for line in post.splitlines()] == re.findall(r"^RUN (.*)", docker, re.M)
    (start,) = re.findall(r"^%runscript\n    exec (.*)", apptainer, re.M)
    entry = re.findall(r"^ENTRYPOINT \[(.*)\]", docker, re.M)[0].replace('"', "").replace(",", "")
    assert start == f'{entry} "$@"'
