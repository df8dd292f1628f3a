"""Submission of an array: the batch script for a profile, made by submitit; one `sbatch`; its answer."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import submitit

from bench.disk import write_atomic, write_json
from bench.errors import UserError
from bench.launch.slurm import arrays, client, refusals
from bench.launch.slurm.arrays import Array
from bench.launch.slurm.profiles import Profile
from bench.machine.provenance import code_digest
from bench.runs.records import FORMAT
from bench.text import one_line, strerror

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")
DEFAULT_MAX_ARRAY = 1001  # Slurm's own
LARGEST_ARRAY = 10_000  # tasks whose work one file holds: 15 MB, which each of them reads
REQUEUE = 75  # exit code of a task that wants to go back into the queue
SUBMIT_TIMEOUT_S = 600.0  # sbatch itself tries for minutes where the queue is full
_CODE = Path(__file__).resolve().parents[3]

# Before the task starts, besides the profile's own lines.
_SETUP = """cd {code} || exit 1
command -v scontrol >/dev/null ||
    echo "warning: no scontrol on $(hostname): a task whose time is over cannot go back into the queue by itself"
"""
# After it has ended: the batch shell asks for the requeue, since the task may run in a container that has no scontrol.
_REQUEUE = """
code=$?
if [ $code -eq {requeue} ] && command -v scontrol >/dev/null; then
    trap '' TERM
    until scontrol requeue "$SLURM_JOB_ID"; do
        echo "$(date '+%F %T') the request to go back into the queue failed; again in 5 s"
        sleep 5
    done
fi
exit $code
"""


class _Executor(submitit.SlurmExecutor):
    """Submitit's, of which only the batch script is used: it is written where there is no Slurm too (DRY=1).

    The work of a task is in a JSON file instead of submitit's pickles, which another Python version cannot read.
    """

    @classmethod
    def affinity(cls) -> int:
        return 2

    def script(self, command: str, tasks: int) -> str:
        """The script that runs `command` as an array of so many tasks, or as one job."""
        if tasks > 1:
            self.parameters["map_count"] = tasks
        return self._make_submission_file_text(command, "")


def need_slurm() -> None:
    """UserError where Slurm's commands are missing."""
    for command in COMMANDS:
        if shutil.which(command) is None:
            raise UserError(f"there is no {command} here: is this the login node of a Slurm cluster?")


def largest_array() -> int:
    """Tasks that one array may have; Slurm's default where there is no Slurm to ask."""
    try:
        config = client.ask(["scontrol", "show", "config"])
    except UserError:
        return DEFAULT_MAX_ARRAY
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    most = max(1, int(found[1])) if found else DEFAULT_MAX_ARRAY  # 0: this cluster has no arrays
    return min(most, LARGEST_ARRAY)


def script(
    folder: Path, profile: Profile, array: Array, tasks: int, more: Mapping[str, Any] | None = None
) -> str:
    """The batch script of an array of so many tasks; `more`: options of sbatch."""
    executor = _Executor(folder / "logs")
    gres = ",".join(str(x) for x in (profile.gres, profile.sbatch.get("gres")) if x)
    asked = {
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "mem": profile.memory,
        "gres": gres or None,
    }
    further = {key: value for key, value in {**profile.sbatch, **(more or {})}.items() if key != "gres"}
    executor.update_parameters(
        job_name=array.name,
        time=profile.time_min,
        cpus_per_task=profile.cpus,
        signal_delay_s=profile.signal_delay,
        array_parallelism=profile.array_parallelism,
        stderr_to_stdout=True,
        # --cpus-per-task: srun no longer takes it over from sbatch
        srun_args=["--open-mode=append", f"--cpus-per-task={profile.cpus}", *profile.srun],
        setup=[*profile.setup, *_SETUP.format(code=shlex.quote(str(_CODE))).splitlines()],
        wckey=None,  # submitit's own, which clusters that know their keys refuse
        additional_parameters={"requeue": True, **further},
        **{key: value for key, value in asked.items() if value is not None},
    )
    python = profile.python or shlex.quote(sys.executable)
    work = shlex.quote(str(arrays.work_file(folder, array.token)))
    written = executor.script(f"{python} -u -m bench.launch.slurm.start {work}", tasks)
    return written.rstrip("\n") + _REQUEUE.format(requeue=REQUEUE)


def send(folder: Path, profile: Profile, array: Array, work: Mapping[str, Any], **more: Any) -> Array:
    """Submit an array. Returns it with Slurm's id.

    work: JSON-ready; the tasks read it. more: options of sbatch.
    Its record is written to `folder` first and stays unless Slurm's words are a refusal, so that nothing that Slurm
    accepted is forgotten.

    Raises:
        Refusal: Slurm has not taken the array, and it is forgotten.
        UserError: it is unknown whether Slurm accepted it, or files cannot be written.
    """
    options = {key.replace("_", "-"): value for key, value in more.items()}
    path = arrays.script_file(folder, array.token)
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        write_json(
            arrays.work_file(folder, array.token),
            {"format": FORMAT, "code_digest": code_digest(), **work},
            "work",
        )
        write_atomic(path, script(folder, profile, array, len(array.tasks), options).encode(), "script")
        arrays.write_array(folder, array)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {strerror(error)}; nothing was submitted") from None
    try:
        printed = client.ask(["sbatch", "--parsable", str(path)], timeout=SUBMIT_TIMEOUT_S)
    except client.Refused as error:
        if refusals.is_refusal(error.said):
            arrays.remove_array(folder, array)
            raise refusals.refusal(error.said, profile) from None
        raise UserError(_uncertain(str(error))) from None
    except client.NoAnswer as error:
        raise UserError(_uncertain(str(error))) from None
    job = re.search(r"^(\d+)(?:;\S*)?\s*$|Submitted batch job (\d+)", printed, re.MULTILINE)
    if job is None:
        raise UserError(_uncertain(f"sbatch printed {one_line(printed, 160)!r}"))
    array = replace(array, job=job[1] or job[2])
    try:
        arrays.write_array(folder, array)
    except OSError as error:  # the record without the id is there, and squeue knows the name
        print(f"bench: {folder}: {strerror(error)}; job {array.job} was submitted", file=sys.stderr)
    return array


def _uncertain(why: str) -> str:
    return (
        f"{why}: Slurm may have taken the job or not; `make status` finds it by its name, "
        "and the same command submits what is missing"
    )
