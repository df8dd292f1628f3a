"""How long a run will take, from runs that have finished: for estimates, never for comparisons."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.errors import UserError
from bench.runs import DamagedRun, Run, read_study, studies
from bench.studies.job import Job

SECONDS = ("env_s", "act_s", "update_s", "eval_s", "compile_s", "other_s")


def measured_rates(root: Path) -> Callable[[Job, str], float | None]:
    """A function that gives the seconds that a job, or its whole pack, takes on a device ("cpu", "cuda").

    From the finished runs below `root` on the same device: runs of the same task and configuration count; where there
    are none, those of the same configuration on other tasks; without either it gives None.
    """
    exact: dict[str, list[float]] = defaultdict(list)
    rough: dict[str, list[float]] = defaultdict(list)
    for name in studies(root):
        try:
            found = read_study(root, name, verify=False)
        except UserError:
            continue
        for run in found.runs:
            pace = _seconds_per_step(run) if run.state == "done" else None
            if pace is not None:
                device = run.meta["attempts"][-1]["execution"].get("device", "cpu")
                key = f"{device} {_key(run.algo, run.meta['config'])}"
                exact[f"{run.env} {key}"].append(pace)
                rough[key].append(pace)

    def rate(job: Job, device: str) -> float | None:
        key = f"{device} {_key(job.algo, dict(job.config))}"
        paces = exact.get(f"{job.env} {key}") or rough.get(key)
        return median(paces) * job.settings.steps if paces else None

    return rate


def _key(algo: str, config: dict) -> str:
    return f"{algo} {json.dumps(config, sort_keys=True)}"


def _seconds_per_step(run: Run) -> float | None:
    """Of the whole pack, over the whole run, evaluation and compiling included."""
    try:
        table = run.columns("time.csv")
    except DamagedRun:
        return None
    steps = run.meta["settings"].get("steps")
    if not isinstance(steps, int) or steps < 1:
        return None
    return float(sum(table[name].sum() for name in SECONDS)) / steps
