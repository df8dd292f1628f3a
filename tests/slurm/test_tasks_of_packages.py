"""A task of a package on the cluster: found there by PYTHONPATH, refused where only the current folder has it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO

PACKAGE = REPO / "tests" / "task_package"
RUN = [
    "--study",
    "quick",
    "--algos",
    "td3:hidden=16x16",
    "--envs",
    "task_package:SlideToGoal-v0",
    "--seeds",
    "1",
]
RUN += ["--steps", "400", "--execution", "eager"]
RUN += ["--set", "random_steps=200 eval_every=200 eval_episodes=1 final_episodes=1"]


def bench(cwd: Path, path: list[Path], *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-m", "bench", *words], cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_a_module_that_the_nodes_do_not_find_is_refused(tmp_path):
    shutil.copytree(PACKAGE / "task_package", tmp_path / "task_package")
    done = bench(tmp_path, [REPO], "slurm", *RUN, "--dry", "1")
    assert done.returncode == 2
    assert "would not find the module task_package of this folder: install it, or put" in done.stderr
    assert done.stderr.count("\n") == 1
    done = bench(tmp_path, [REPO, tmp_path], "slurm", *RUN, "--dry", "1")
    assert done.returncode == 0, done.stderr


@pytest.mark.slurm
@pytest.mark.usefixtures("cluster")
@pytest.mark.timeout(1800)
def test_a_task_of_a_package_runs_on_the_cluster(tmp_path):
    path = [REPO, PACKAGE]
    done = bench(tmp_path, path, "slurm", *RUN)
    assert "submitted 1 run in 1 task" in done.stdout, done.stdout + done.stderr
    (study,) = [folder.name for folder in (tmp_path / "results").iterdir() if folder.is_dir()]
    watched = bench(tmp_path, path, "status", "--study", study, "--watch", "10", "--exit-code", "1")
    assert watched.returncode == 0, watched.stdout + watched.stderr
    (record,) = tmp_path.glob("results/*/task_package+SlideToGoal-v0/*/seed-0/run.json")
    (attempt,) = json.loads(record.read_text())["attempts"]
    assert attempt["provenance"]["scheduler"]["name"] == "slurm"
    assert [plugin["offers"] for plugin in attempt["provenance"]["plugins"]] == [
        "task task_package:SlideToGoal-v0"
    ]
