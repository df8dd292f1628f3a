"""The short part of the cluster tests, about a minute: what CI runs where it can have a cluster."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.errors import UserError
from bench.launch.slurm import submit as slurm

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(1800)]


def test_two_terminals_submit_every_run_once(grid, undisturbed):
    study = grid(seeds=4)
    with ThreadPoolExecutor() as terminals:
        first, second = terminals.map(lambda _: study.submit(), range(2))
    assert {first.runs, second.runs} == {0, 4}
    assert first.queued + second.queued == 4
    study.wait_done()
    assert study.tasks() == 4
    assert [len(study.attempts(seed)) for seed in range(4)] == [1] * 4
    undisturbed(study)
    again = study.submit()
    assert (again.runs, again.finished) == (0, 4)
    assert study.tasks() == 4


def test_warned_task_checkpoints_goes_back_and_ends_as_if_undisturbed(grid, undisturbed):
    study = grid(delay=0.02)
    study.submit()
    study.wait_running()
    subprocess.run(["scancel", "--signal=USR2", study.entry().job], check=True)
    study.wait(lambda: len(study.attempts()) == 2, 60, "a second attempt")
    assert study.attempts()[1]["resumed_at_step"] > 100
    study.wait_done()
    scheduler = [attempt["provenance"]["scheduler"] for attempt in study.attempts()]
    assert scheduler[0]["job_id"] == scheduler[1]["job_id"]
    assert [s["restart_count"] for s in scheduler] == [0, 1]
    undisturbed(study)


def test_cancel_takes_this_study_and_no_other(grid, undisturbed):
    study, other = grid(seeds=2, delay=0.04), grid(delay=0.02)
    study.submit()
    other.submit()
    study.wait_running(0)
    other.wait_running(0, step=1)
    assert slurm.cancel(study.root, study.study.name) == 2
    assert str(study.entry(0)).startswith("CANCELLED")
    assert study.submit().runs == 2  # at once: the new tasks wait until the old ones are gone
    study.wait(lambda: len(study.attempts()) == 2, 60, "a second attempt")
    assert study.attempts()[1]["resumed_at_step"] > 100
    assert slurm.cancel(study.root, study.study.name) == 2
    other.wait_done()
    undisturbed(other)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"partition": '"nope"'}, r'invalid partition.*changed.toml: partition = "nope"'),
        ({"memory": '"90G"'}, r'Memory specification can not be satisfied.*changed.toml: memory = "90G"'),
        ({"cpus": "3"}, r"CPU count per node can not be satisfied.*changed.toml: cpus = 3"),
        ({"gpus": "9"}, r"Requested node configuration is not available.*changed.toml: .*gpus = 9"),
        ({"constraint": '"fast"'}, r'Invalid feature specification.*changed.toml: constraint = "fast"'),
        ({"partition": '"urgent"', "time": '"9-00:00:00"'}, r"time limit is invalid.*time = \"9-00:00:00\""),
    ],
)
def test_what_slurm_refuses_is_said_in_one_line_with_the_profile_s_key(grid, keys: dict[str, str], said: str):
    study = grid(keys=keys)
    with pytest.raises(UserError) as error:
        study.submit()
    assert re.search(said, str(error.value))
    assert "\n" not in str(error.value)
    assert study.tasks() == 0  # nothing is taken for queued
