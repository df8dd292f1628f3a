"""Tasks of other packages, installed into a folder of their own: trained, recorded, killed, resumed to the same bytes.

The packages are tests/task_package (a Gymnasium task, one with a goal, a dm_env task, each found by another way) and
Gymnasium-Robotics as PyPI has it.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.faults.harness import Grid, wait_for
from tests.installed import PIP, bench, install
from tests.launching import REPO, python_path

SMALL = "td3:hidden=16x16,critic_hidden=16x16"
SHORT = ["--seeds", "2", "--pack", "2", "--steps", "400"]
SHORT += ["--set", "random_steps=200 eval_episodes=1 final_episodes=1 eval_every=200"]
OURS = "task_package:SlideToGoal-v0 arena/Slide-v1 hover"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that tests/task_package is installed into."""
    return install(REPO / "tests" / "task_package", tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def robotics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that Gymnasium-Robotics is installed into, with the newest MuJoCo that its Fetch tasks run with.

    From MuJoCo 3.12 on they fail where they are made: the library's enums no longer equal NumPy's integers.
    """
    folder = tmp_path_factory.mktemp("robotics") / "site"
    packages = ["gymnasium-robotics==1.4.2", "pettingzoo<2", "mujoco==3.11.0"]
    done = subprocess.run([*PIP, "--target", str(folder), *packages], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"Gymnasium-Robotics cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.mark.slow
def test_a_grid_of_them_says_where_their_code_comes_from(site: Path, tmp_path: Path) -> None:
    done = bench(site, tmp_path, "run", "--algos", SMALL, "--envs", OURS, *SHORT)
    assert "6 of 6 runs done" in done.stdout, done.stdout + done.stderr
    runs = {
        path.parents[2].name: json.loads(path.read_text())
        for path in tmp_path.glob("results/*/*/*/*/run.json")
    }
    assert runs.keys() == {"task_package+SlideToGoal-v0", "arena_Slide-v1", "hover"}
    assert {run["env"] for run in runs.values()} == set(OURS.split())
    for run in runs.values():
        assert run["family"] == "gymnasium"  # whose returns have no known scale
        (package,) = run["attempts"][-1]["provenance"]["plugins"]
        assert package["offers"] == f"task {run['env']}"
        assert (package["distribution"], package["version"]) == ("task-package", "0.3.0")
        assert len(package["files_sha256"]) == 64
        assert package["git"]["commit"] is None  # installed, not in a checkout
    provenance = next(tmp_path.glob("results/*/report/tables/provenance.csv")).read_text()
    assert "task hover.files_sha256" in provenance
    assert "6 runs, 6 done" in bench(site, tmp_path, "run", "--algos", SMALL, "--envs", OURS, *SHORT).stdout


@pytest.mark.slow
def test_they_meet_every_demand(site: Path, tmp_path: Path) -> None:
    done = bench(site, tmp_path, "check", *OURS.split(), "slide-far", "task_package:Slide-v0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 observations (achieved_goal 2, desired_goal 2, observation 4), 2 actions" in done.stdout
    assert "3 observations (velocity 2, height 1), 1 actions, no time limit that is known" in done.stdout
    assert "from task-package 0.3.0 (digest " in done.stdout


@pytest.mark.slow
def test_killed_and_resumed_to_the_same_bytes(site: Path, tmp_path: Path) -> None:
    killed_and_resumed(site, tmp_path, "task_package:SlideToGoal-v0 hover")


@pytest.mark.full
def test_gymnasium_robotics_meets_every_demand(robotics: Path, tmp_path: Path) -> None:
    names = [f"gymnasium_robotics:{name}" for name in ("FetchReach-v4", "AdroitHandDoor-v1")]
    done = bench(robotics, tmp_path, "check", *names)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 observations (achieved_goal 3, desired_goal 3, observation 10), 4 actions" in done.stdout
    assert "from gymnasium-robotics 1.4.2 (digest " in done.stdout


@pytest.mark.full
def test_gymnasium_robotics_killed_and_resumed_to_the_same_bytes(robotics: Path, tmp_path: Path) -> None:
    killed_and_resumed(
        robotics, tmp_path, "gymnasium_robotics:FetchReach-v4 gymnasium_robotics:AdroitHandDoor-v1"
    )


def killed_and_resumed(site: Path, tmp_path: Path, envs: str) -> None:
    """kill -9 of the whole grid once a run has a checkpoint; then the same command to its end."""
    variables = {"PYTHONPATH": os.pathsep.join((str(site), python_path())), "BENCH_TEST_CHECKPOINT_S": "0.2"}
    run = {"steps": 1200, "random_steps": 200, "eval_every": 600, "replay_size": 1200}
    whole, cut = (Grid(tmp_path / name).define("td3", envs=envs, **run) for name in ("whole", "cut"))
    code, out = whole.run(**variables)
    assert code == 0, out
    launch = cut.start(**variables)
    wait_for(
        lambda: (
            launch.process.poll() is not None
            or any((run.path / "checkpoint" / "checkpoint.json").exists() for run in cut.runs())
        ),
        400,
        "a checkpoint",
    )
    launch.kill_group()
    code, out = cut.run(**variables)
    assert code == 0, out
    resumed = {attempt["resumed_at_step"] for run in cut.runs() for attempt in run.meta["attempts"]}
    assert max(resumed) > 0, "no run was stopped in its middle"
    assert cut.substance() == whole.substance()
