"""The meaning of sbatch's errors: full for now, a refusal (with the line of the profile it is about), or unclear."""

from __future__ import annotations

import re

from bench.errors import UserError
from bench.launch.slurm.profiles import Profile
from bench.text import one_line

# A limit on how much may be queued: a smaller array may be taken, and the rest when tasks have ended.
LIMIT = r"MaxSubmit|SubmitJob|MaxJobs\b|MaxJobsPer|job submit limit|invalid job array|MaxArray"
# The controller's own queue is full.
FULL = r"temporarily un(able|available)|MaxJobCount"
# Which key of the profile a refusal is about; the first that matches counts.
KEYS = (
    (r"MaxSubmit|SubmitJob|MaxJobs", ["jobs_per_task"]),
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


class Refusal(UserError):
    """Slurm has not taken an array. limit: it would take a smaller one, or this one later; full: later."""

    def __init__(self, message: str, *, limit: bool, full: bool):
        super().__init__(message)
        self.limit, self.full = limit, full


def is_refusal(said: str) -> bool:
    """Whether sbatch's words say that the job was not taken. Without them it may have been."""
    return bool(
        re.search(r"submission failed|sbatch: (fatal|error)|unrecognized option|invalid", said, re.IGNORECASE)
    )


def refusal(said: str, profile: Profile) -> Refusal:
    """Slurm's words on one line, with the line of the profile that they are about."""
    lines = [re.sub(r"^sbatch: (error: )?(Batch job submission failed: )?", "", x) for x in said.splitlines()]
    text = "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith("Try ")))
    if re.search(FULL, text, re.IGNORECASE):
        about = "the cluster's queue is full (MaxJobCount), which no profile changes"
        return Refusal(
            f"Slurm takes no more jobs now: {about}: {one_line(text, 160)}", limit=False, full=True
        )
    about = ", ".join(_settings(text, profile)) or profile.file.name
    limit = bool(re.search(LIMIT, text, re.IGNORECASE)) and not re.search(
        r"MaxWall|MaxCpu|MaxMem|MaxGRES|MaxTRES", text
    )
    return Refusal(f"Slurm refuses: {one_line(text)} [{about}]", limit=limit, full=False)


def _settings(text: str, profile: Profile) -> list[str]:
    named = [
        key
        for key in profile.sbatch
        if re.search(rf"--{re.escape(key)}\b|\b{re.escape(key)}\b", text, re.IGNORECASE)
    ]
    if named:
        return [f"{profile.file.name}: [sbatch] {key} = {profile.sbatch[key]!r}" for key in named]
    keys = next((keys for pattern, keys in KEYS if re.search(pattern, text, re.IGNORECASE)), [])
    settings = [profile.setting(key) for key in keys]
    return [setting for setting in settings if "is not set" not in setting] or settings[:1]
