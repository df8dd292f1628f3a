"""How an array reaches Slurm: by submitit, with what the profile asks for; and what Slurm refuses."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError

from bench.errors import UserError
from bench.launch.slurm import queue
from bench.launch.slurm.profiles import Profile
from bench.launch.slurm.queue import Array
from bench.text import one_line

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")
DEFAULT_MAX_ARRAY = 1001  # Slurm's own
# Slurm's refusals, and the key of the profile that each is about; the first that matches counts.
REFUSALS = (
    (r"MaxSubmit|MaxJobs", ["jobs_per_task"]),
    (r"MaxWall", ["time"]),
    (r"accounting/QOS policy", ["qos", "account", "time", "cpus", "gpus", "memory"]),
    (r"account", ["account"]),
    (r"\bqos\b", ["qos"]),
    (r"partition", ["partition"]),
    (r"memory|--mem", ["memory"]),
    (r"time limit|--time", ["time"]),
    (r"feature", ["constraint"]),
    (r"gres|generic resource|trackable resource", ["gpus"]),
    (r"cpu count|processors", ["cpus"]),
    (r"node configuration", ["cpus", "gpus", "memory", "constraint"]),
    (r"node name|reservation|licen[sc]e|unrecognized option|--[a-z]", ["sbatch"]),
)


def need_slurm() -> None:
    """UserError where Slurm's commands are missing."""
    for command in COMMANDS:
        if shutil.which(command) is None:
            raise UserError(f"there is no {command} here: is this the login node of a Slurm cluster?")


def largest_array() -> int:
    """Tasks that one array may have; Slurm's default where there is no Slurm to ask."""
    try:
        config = queue.run_slurm(["scontrol", "show", "config"])
    except UserError:
        return DEFAULT_MAX_ARRAY
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    return max(1, int(found[1])) if found else DEFAULT_MAX_ARRAY  # 0: this cluster has no arrays


class _Executor(submitit.SlurmExecutor):
    """Submitit's, that also shows its script where there is no Slurm."""

    @classmethod
    def affinity(cls) -> int:
        return 2

    def script(self, tasks: int) -> str:
        if tasks > 1:
            self.parameters["map_count"] = tasks
        return self._make_submission_file_text(self._submitit_command_str, "")


def _executor(folder: Path, profile: Profile, name: str, **more: Any) -> _Executor:
    # How often a task may be requeued is decided by Task.checkpoint, from what its runs have achieved.
    executor = _Executor(folder / "logs", max_num_timeout=1_000_000)
    asked = {
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "mem": profile.memory,
        "gres": profile.gres,
        "setup": list(profile.setup) or None,
    }
    executor.update_parameters(
        job_name=name,
        time=profile.time_min,
        cpus_per_task=profile.cpus,
        signal_delay_s=profile.signal_delay,
        array_parallelism=profile.array_parallelism,
        stderr_to_stdout=True,
        srun_args=[f"--cpus-per-task={profile.cpus}"],  # which srun no longer takes over from sbatch
        wckey=None,  # submitit's own, which clusters that know their keys refuse
        additional_parameters={"requeue": True, **profile.sbatch, **more},
        **{key: value for key, value in asked.items() if value is not None},
    )
    return executor


def script(folder: Path, profile: Profile, tasks: int) -> str:
    """The batch script of an array of so many tasks."""
    return _executor(folder, profile, queue.new_array(folder, "runs", []).name).script(tasks)


def send(
    folder: Path, profile: Profile, array: Array, work: Sequence[Callable[[], Any]], **more: Any
) -> Array:
    """Submit an array, one callable per task; `more`: options of sbatch. Returns it with Slurm's id.

    Its record is written to `folder` first, so that nothing that Slurm accepted is forgotten. UserError for
    a refusal.
    """
    executor = _executor(folder, profile, array.name, **more)
    queue.write_array(folder, array)
    try:
        # submitit prints what sbatch said, in its many lines, besides raising it
        with redirect_stderr(io.StringIO()), _outside_any_job(), executor.batch():
            jobs = [executor.submit(function) for function in work]
    except FailedJobError as error:
        queue.remove_array(folder, array)
        raise _refusal(str(error), profile) from None
    array = replace(array, job=jobs[0].job_id.split("_")[0])
    queue.write_array(folder, array)
    return array


@contextmanager
def _outside_any_job() -> Iterator[None]:
    """Without the variables of a Slurm job that this command may run in; but the cluster stays the same."""
    cluster = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env():
        if cluster is not None:
            os.environ["SLURM_CONF"] = cluster
        yield


def _refusal(said: str, profile: Profile) -> UserError:
    """Slurm's words on one line, with the line of the profile that they are about."""
    lines = [re.sub(r"^sbatch: (error: )?(Batch job submission failed: )?", "", x) for x in said.splitlines()]
    text = "; ".join(line for line in lines if line and not line.startswith("Try "))
    keys = next((keys for pattern, keys in REFUSALS if re.search(pattern, text, re.IGNORECASE)), [])
    settings = [profile.setting(key) for key in keys]
    about = [setting for setting in settings if "is not set" not in setting] or settings[:1]
    return UserError(f"Slurm refuses: {one_line(text)} [{', '.join(about) or profile.file.name}]")
