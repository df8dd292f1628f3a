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

from bench.launch.slurm import submit as slurm

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(1800)]


def test_time_limit_requeues_until_the_run_is_done(grid, undisturbed):
    """The warning comes 30 to 60 s after the start, so 130 s of work need two requeues or more."""
    study = grid(steps=1400, delay=0.1, keys={"time": '"00:02:00"', "signal_delay": "60"})
    study.submit()
    study.wait_done(300)
    assert study.tasks() == 1
    scheduler = [attempt["provenance"]["scheduler"] for attempt in study.attempts()]
    assert len(scheduler) >= 3
    restarts = [s["restart_count"] for s in scheduler]
    assert restarts == sorted(set(restarts))  # a busy machine may not get as far as the run in one of them
    starts = [attempt["resumed_at_step"] for attempt in study.attempts()]
    assert starts == sorted(set(starts))  # each attempt went on further
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
    study = grid(delay=0.2, checkpoint_every=3.0)
    study.submit()
    study.wait_running(step=200)
    folder = Path(os.environ.get("DEV_CLUSTER_DIR", "/tmp/slurm-dev-cluster"))
    slurmd = folder / "pid" / f"slurmd-{study.entry().node}.pid"
    os.kill(int(slurmd.read_text()), signal.SIGKILL)
    yield study
    subprocess.run([CLUSTER, "up"], check=True)


def processes(study: Grid) -> list[psutil.Process]:
    """Everything that runs on a node for the study's task: Slurm's own processes first."""
    job = study.attempts()[0]["provenance"]["scheduler"]["job_id"]
    slurms, ours = [], []
    for process in psutil.process_iter():
        try:
            if process.name() == "slurmstepd" and f"[{job}." in " ".join(process.cmdline()):
                slurms.append(process)
            elif process.environ().get("SLURM_JOB_ID") == job:
                ours.append(process)
        except psutil.Error:
            continue
    return slurms + ours


def test_node_dies_with_everything_on_it(node, undisturbed):
    for process in processes(node):
        process.kill()
    node.wait_done(200)
    assert [attempt["provenance"]["scheduler"]["restart_count"] for attempt in node.attempts()] == [0, 1]
    assert node.attempts()[1]["resumed_at_step"] > 100  # the last periodic checkpoint
    undisturbed(node)


def test_lost_node_lives_on_beside_its_rerun(node, undisturbed):
    old = [process for process in processes(node) if "python" in process.name()]
    assert old
    node.wait(lambda: len(node.attempts()) == 2, 90, "the rerun")
    assert any(alive(process) for process in old)
    node.wait(lambda: not any(map(alive, old)), 60, "the end of the old processes")
    assert node.run().state == "running"
    node.wait_done(200)
    assert [attempt["provenance"]["scheduler"]["restart_count"] for attempt in node.attempts()] == [0, 1]
    undisturbed(node)


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_out_of_memory_is_shown_and_the_run_goes_on_with_more(grid, profile, undisturbed):
    study = grid(delay=0.1, checkpoint_every=2.0, hog=1600, keys={"memory": '"1300M"'})
    study.submit()
    study.wait(lambda: not study.entry().active, 60, "the end of the task")
    assert "Exceeded job memory limit" in str(study.entry())
    assert study.run().state == "stale"
    study.profile = profile()
    assert study.submit().runs == 1
    study.wait_done()
    assert study.attempts()[1]["resumed_at_step"] > 100  # the last periodic checkpoint
    undisturbed(study)


def test_given_up_after_three_attempts_without_a_checkpoint(grid):
    """Updates so slow that no warning leaves the time for a checkpoint: back into the queue twice, then an end."""
    study = grid(delay=100.0, keys={"signal_delay": "6"})
    study.submit()
    log = study.root / study.study.name / "logs" / "Pendulum-v1-slow-seed-0.log"
    for attempt in range(1, 4):
        begun = lambda: log.exists() and log.read_text().count("a long update") == attempt  # noqa: B023, E731
        study.wait(begun, 120, f"attempt {attempt}")
        subprocess.run(["scancel", "--signal=USR2", study.entry().job], check=True)
    study.wait(lambda: study.run().state == "failed", 60, "the end")
    assert "3 attempts brought no new checkpoint" in study.run().reason
    study.wait(lambda: not study.entry().active, 30, "the end of the task")
    scheduler = [attempt["provenance"]["scheduler"] for attempt in study.attempts()[:3]]
    assert [s["restart_count"] for s in scheduler] == [0, 1, 2]
    again = study.submit()
    assert (again.runs, again.failed) == (0, 1)  # only RETRY=1 runs it again


def test_crash_of_one_run_leaves_the_rest_of_its_task(grid):
    study = grid(seeds=2, keys={"jobs_per_task": "2"})
    broken = grid(crash=True, keys={"jobs_per_task": "2"})
    packs = [[broken.jobs[0]], [study.jobs[1]]]
    slurm.submit(study.root, study.study, packs, study.profile, execution=EAGER)
    study.wait(lambda: study.run(1).state == "done", 90, "the end of the other run")
    assert broken.run().state == "failed"
