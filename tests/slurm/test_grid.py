"""A grid as users run it: `make slurm`, the figures after it, and the same results as on this machine."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import EAGER, REPO, substance

from bench.launch.slurm import submit as slurm
from bench.launch.slurm.arrays import folder
from bench.launch.slurm.queue import survey
from bench.runs import read_study

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(1800)]

WORDS = {
    "STUDY": "quick",
    "ALGOS": "sac td3 qsm:hidden=16x16",
    "ENVS": "Pendulum-v1",
    "SEEDS": "4",
    "STEPS": "400",
    "SET": "random_steps=100 eval_every=200 eval_episodes=1 final_episodes=1",
    "EXECUTION": "eager",
}


def command(verb: str, results: Path, **more: str) -> str:
    """What `python -m bench` prints."""
    words = WORDS if verb in ("slurm", "run") else {}
    options = [x for key, value in (words | more).items() for x in (f"--{key.lower()}", value)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", verb, *options, "--results", str(results)],
        cwd=REPO,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_twelve_jobs_through_the_command_line(tmp_path):
    cluster, here = tmp_path / "cluster", tmp_path / "here"
    dry = command("slurm", cluster, DRY="1")
    assert re.search(r"^#SBATCH --array=0-8%2$", dry, re.MULTILINE)  # MaxArraySize is 9
    assert len(re.findall(r"^task \d+: ", dry, re.MULTILINE)) == 12
    assert "core-hours" in dry
    assert not cluster.exists()

    told = command("slurm", cluster, FIGURES="1")
    assert "submitted 12 runs in 12 tasks" in told
    (study,) = [path.name for path in cluster.iterdir()]
    arrays, _ = survey(folder(cluster, study))
    assert [(array.kind, len(array.tasks)) for array in arrays] == [("runs", 9), ("runs", 3), ("figures", 1)]
    again = command("slurm", cluster)
    assert "submitted 0 runs in 0 tasks" in again
    known = re.findall(r"^(\d+) runs? (?:finished|in the queue) already$", again, re.MULTILINE)
    assert sum(map(int, known)) == 12  # the first may have ended by now
    assert "queued" in command("status", cluster)

    command("run", here, JOBS="1")
    wait_for_the_end(cluster, study)
    assert list((cluster / study).rglob("*.png"))  # by the job that waited for both arrays
    assert "12 runs finished already" in command("slurm", cluster)
    assert len(survey(folder(cluster, study))[0]) == 3
    there = {run.path.relative_to(here): substance(run) for run in read_study(here, study).runs}
    assert {run.path.relative_to(cluster): substance(run) for run in read_study(cluster, study).runs} == there
    assert {outcome[0] for outcome in there.values()} == {"done"}


def test_a_pack_of_seeds_with_a_gpu_to_itself(grid):
    study = grid(seeds=2, keys={"gpus": "1", "setup": '["echo GPU $CUDA_VISIBLE_DEVICES of $SLURM_JOB_ID"]'})
    submission = slurm.submit(study.root, study.study, [study.jobs], study.profile, execution=EAGER)
    study.wait_done()
    assert study.tasks() == len(submission.tasks) == 1
    assert [study.attempts(seed)[0]["execution"]["pack"] for seed in (0, 1)] == [[0, 1], [0, 1]]
    log = study.root / study.study.name / "slurm" / "logs" / f"{submission.arrays[0].job}_0_log.out"
    assert re.search(r"^GPU \d of \d+$", log.read_text(), re.MULTILINE)


def wait_for_the_end(root: Path, study: str) -> None:
    end = time.monotonic() + 1200
    while any(entry.active for entry in survey(folder(root, study))[1].values()):
        assert time.monotonic() < end, survey(folder(root, study))[1]
        time.sleep(1)
    ended = {(entry.job, entry.state) for entry in survey(folder(root, study))[1].values()}
    assert {state for _, state in ended} == {"COMPLETED"}, ended
