"""Cases of other people's clusters that only a real Slurm shows."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import REPO, Grid

from bench.launch import status
from bench.launch.slurm import submit as slurm
from bench.runs import read_study

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(1800)]


def test_two_results_folders_share_a_scratch(grid, tmp_path, undisturbed):
    """Both are cancelled in the middle and go on; neither takes or removes the other's checkpoints."""
    keys = {"checkpoints": f'"{tmp_path}/scratch"'}
    one, other = grid(delay=0.04, keys=keys), grid(delay=0.04, keys=keys)
    other.root, other.study = tmp_path / "other", one.study
    for each in (one, other):
        each.submit()
    for each in (one, other):
        each.wait_running()
    for each in (one, other):
        assert slurm.cancel(each.root, each.study.name) == 1
    for each in (one, other):
        each.wait(lambda each=each: not each.entry().active, 60, "the end of the task")
        assert each.submit().runs == 1
    for each in (one, other):
        each.wait_done()
        assert each.attempts()[1]["resumed_at_step"] > 100
        undisturbed(each)
    assert not list((tmp_path / "scratch").iterdir())


def test_a_task_that_dies_before_its_run_shows_why_and_where(grid):
    study = grid(keys={"python": '"echo no suite in this image >&2; exit 3; python"'})
    study.submit()
    study.wait(lambda: not study.entry().active, 60, "the end of the task")
    (run,) = look(study)
    assert run.state == "missing"
    assert run.reason == "its task ended as FAILED: no suite in this image"
    assert run.log is not None
    assert run.log.is_file()
    assert study.run().state == "missing"
    assert study.submit().runs == 1  # at once, with whatever was mended


def look(study: Grid) -> list[status.RunStatus]:
    (found,) = status.look([read_study(study.root, study.study.name)])
    return found.runs


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_cancel_on_a_full_disk(grid, tmp_path, monkeypatch):
    """And whatever the user's shell says about squeue and scancel."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)], check=True)
    try:
        study = grid(keys={"sbatch": "{ hold = true }"})  # one that runs would soon fail, for the same reason
        study.root = disk
        study.submit()
        subprocess.run(["dd", "if=/dev/zero", f"of={disk}/full", "bs=64k"], capture_output=True)
        for name, value in (
            ("SQUEUE_STATES", "SUSPENDED"),
            ("SCANCEL_STATE", "RUNNING"),
            ("SLURM_CLUSTERS", "x"),
        ):
            monkeypatch.setenv(name, value)
        done = subprocess.run(
            [
                REPO / ".venv/bin/python",
                "-m",
                "bench",
                "cancel",
                "--study",
                study.study.name,
                "--results",
                str(disk),
            ],
            cwd=REPO,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (0, "1 tasks cancelled\n"), done.stderr
        assert (
            "not taken over from your environment: SCANCEL_STATE, SLURM_CLUSTERS, SQUEUE_STATES"
            in done.stderr
        )
        assert study.entry().state == "CANCELLED"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert Path(disk).is_dir()
