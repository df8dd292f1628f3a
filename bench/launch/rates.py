"""How long a run will take, from runs that have finished: for estimates, never for comparisons."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from statistics import median

from bench.errors import UserError
from bench.runs import DamagedRun, Run, read_study, studies
from bench.studies.job import Job

SECONDS = ("env_s", "act_s", "update_s", "eval_s", "compile_s", "other_s")

#: The seconds that a job, or its whole pack, takes on a device ("cpu", "cuda"); None: not known.
Rate = Callable[[Job, str], float | None]


def measured_rates(root: Path) -> Rate:
    """`Rates` of the runs of all studies below `root`."""
    rates = Rates()
    for name in studies(root):
        with suppress(UserError):
            rates.add(read_study(root, name, verify=False).runs)
    return rates


class Rates:
    """A `Rate` from finished runs on the same device.

    Runs of the same task and configuration count; where there are none, those of the same configuration on other
    tasks; without either it is not known.
    """

    def __init__(self) -> None:
        self._exact: dict[str, list[float]] = defaultdict(list)  # seconds per step
        self._rough: dict[str, list[float]] = defaultdict(list)

    def add(self, runs: Iterable[Run]) -> None:
        """Count those of `runs` that are done."""
        for run in runs:
            pace = _seconds_per_step(run) if run.state == "done" else None
            if pace is not None:
                device = run.meta["attempts"][-1]["execution"].get("device", "cpu")
                key = f"{device} {_key(run.algo, run.meta['config'])}"
                self._exact[f"{run.env} {key}"].append(pace)
                self._rough[key].append(pace)

    def __call__(self, job: Job, device: str) -> float | None:
        key = f"{device} {_key(job.algo, dict(job.config))}"
        paces = self._exact.get(f"{job.env} {key}") or self._rough.get(key)
        return median(paces) * job.settings.steps if paces else None


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
