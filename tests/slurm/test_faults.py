"""What happens to runs on a real Slurm when something goes wrong: nothing is lost, and nothing comes out other."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import CLUSTER, EAGER, Grid

from bench.launch import slurm

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster")]


def test_time_limit_requeues_until_the_run_is_done(grid, undisturbed):
    study = grid(
        seeds=2,
        steps=1500,
        delay=0.06,
        keys={"time": '"00:01:00"', "signal_delay": "15", "jobs_per_task": "2"},
    )
    study.submit()
    study.wait_done(420)
    assert study.tasks() == 1
    starts = [attempt["resumed_at_step"] for seed in (0, 1) for attempt in study.attempts(seed)]
    restarts = study.attempts(1)[-1]["provenance"]["scheduler"]["restart_count"]
    assert restarts >= 2
    assert len(starts) >= 2 + restarts  # each attempt went on at a checkpoint
    assert len(set(starts)) == len(starts) - 1  # and only the two first ones at step 0
    undisturbed(study)


def test_scancel_of_one_task_and_resubmission(grid, undisturbed):
    study = grid(seeds=2, delay=0.03)
    study.submit()
    study.wait_running(0)
    subprocess.run(["scancel", study.entry(0).job], check=True)
    study.wait(lambda: not study.entry(0).active, 30, "the end of the task")
    assert study.run(0).state == "stale"
    again = study.submit()
    assert again.runs == 1
    assert again.finished + again.queued == 1
    study.wait_done()
    assert study.attempts(0)[1]["resumed_at_step"] > 100  # SIGTERM was time enough for a checkpoint
    undisturbed(study)


def test_scontrol_requeue(grid, undisturbed):
    study = grid(delay=0.03)
    study.submit()
    study.wait_running()
    subprocess.run(["scontrol", "requeue", study.entry().job], check=True)
    study.wait_done()
    second = study.attempts()[1]
    assert second["resumed_at_step"] > 100
    assert second["provenance"]["scheduler"]["restart_count"] == 1
    undisturbed(study)


def test_preemption(grid, undisturbed):
    study = grid(delay=0.03)
    study.submit()
    study.wait_running()
    urgent = [
        "sbatch",
        "--partition=urgent",
        "--nodes=2",
        "--ntasks=4",
        "--output=/dev/null",
        "--wrap=sleep 3",
    ]
    subprocess.run(urgent, check=True, capture_output=True)
    study.wait_done()
    assert [attempt["provenance"]["scheduler"]["restart_count"] for attempt in study.attempts()] == [0, 1]
    assert study.attempts()[1]["resumed_at_step"] > 100
    undisturbed(study)


@pytest.fixture
def node(grid) -> Iterator[Grid]:
    """A run in the middle, on a node whose slurmd has just been killed; the node comes back afterwards."""
    study = grid(delay=0.06)
    study.submit()
    study.wait_running()
    slurmd = (
        Path(os.environ.get("DEV_CLUSTER_DIR", "/tmp/slurm-dev-cluster"))
        / "pid"
        / f"slurmd-{study.entry().node}.pid"
    )
    os.kill(int(slurmd.read_text()), signal.SIGKILL)
    yield study
    subprocess.run([CLUSTER, "up"], check=True)


def processes(study: Grid) -> list[psutil.Process]:
    """Everything that runs for the study's first task: those below the first attempt's parent included."""
    job = study.attempts()[0]["provenance"]["scheduler"]["job_id"]
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_JOB_ID") == job:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_node_dies_with_everything_on_it(node, undisturbed):
    for process in processes(node):
        process.kill()
    node.wait_done(150)
    assert [attempt["provenance"]["scheduler"]["restart_count"] for attempt in node.attempts()] == [0, 1]
    undisturbed(node)


def test_lost_node_lives_on_beside_its_rerun(node, undisturbed):
    old = [process for process in processes(node) if "python" in process.name()]
    assert old
    node.wait(lambda: len(node.attempts()) == 2, 90, "the rerun")
    node.wait(
        lambda: not any(p.is_running() and p.status() != "zombie" for p in old), 60, "the end of the old ones"
    )
    node.wait_done(150)
    assert [attempt["provenance"]["scheduler"]["restart_count"] for attempt in node.attempts()] == [0, 1]
    undisturbed(node)


def test_out_of_memory_is_shown_and_the_run_goes_on_with_more(grid, profile, undisturbed):
    study = grid(keys={"memory": '"60M"'})
    study.submit()
    study.wait(lambda: not study.entry().active, 60, "the end of the task")
    assert "Exceeded job memory limit" in str(study.entry())
    assert study.run().state in ("missing", "stale")
    study.profile = profile()
    assert study.submit().runs == 1
    study.wait_done()
    undisturbed(study)


def test_crash_of_one_run_leaves_the_rest_of_its_task(grid):
    study = grid(seeds=2, keys={"jobs_per_task": "2"})
    broken = grid(crash=True, keys={"jobs_per_task": "2"})
    packs = [[broken.jobs[0]], [study.jobs[1]]]
    slurm.submit(study.root, study.study, packs, study.profile, execution=EAGER)
    study.wait(lambda: study.run(1).state == "done", 90, "the end of the other run")
    assert broken.run().state == "failed"
