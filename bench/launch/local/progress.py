"""How far running jobs are, and how long their grid will still take: estimates, never for comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.launch.estimate import last_end
from bench.launch.local.pool import Pool
from bench.launch.rates import Rates
from bench.runs import Run, read_run
from bench.studies.job import Job

Cell = tuple[str, str]  # task and label


@dataclass(frozen=True)
class Progress:
    """The progress of one running job, from its heartbeat. None: not known yet."""

    job: Job
    step: float
    rate: float | None  # steps per second
    last_return: float | None
    eta: float | None  # seconds


def progress(root: Path, job: Job) -> Progress:
    """What the heartbeat of `job` below `root` says."""
    told = read_run(root / job.path, verify=False).progress
    return Progress(
        job, told.get("env_step") or 0, told.get("rate"), told.get("last_return"), told.get("eta_s")
    )


class TimeLeft:
    """Algorithms differ in pace by a factor of ten, so that each pack counts with its own.

    Its pace is known from runs of its configuration: those that ended in this pool, else those that run now, else
    those that had been done before. Where none tells, the median of the others counts.
    """

    def __init__(self) -> None:
        self._before, self._ended = Rates(), Rates()
        self._seen: tuple[int, int] = (0, 0)  # runs that these are of

    def __call__(self, pool: Pool, running: Sequence[Progress]) -> float | None:
        """Seconds until the last run of `pool` ends; None while no pace is known. running: a run of each pack."""
        jobs = [*(p.job for p in running), *(pack[0] for pack in pool.queue)]
        paces = self._paces(pool, running, {_cell(job): job for job in jobs})
        if not paces:
            return None
        other = median(paces.values())
        whole = [job.settings.steps * paces.get(_cell(job), other) for job in jobs]
        ends = [
            seconds * (1 - p.step / p.job.settings.steps) if p.eta is None else p.eta
            for p, seconds in zip(running, whole)
        ]
        idle = [0.0] * (pool.most - len(running))
        return last_end([*ends, *idle], whole[len(running) :])

    def _paces(self, pool: Pool, running: Sequence[Progress], jobs: Mapping[Cell, Job]) -> dict[Cell, float]:
        """Seconds per step, of each cell of which they are known. jobs: one of each cell."""
        before, ended, device = pool.plan.done, pool.outcome.done, pool.options.device
        self._before.add(_read(pool.root, before[self._seen[0] :]))
        self._ended.add(_read(pool.root, ended[self._seen[1] :]))
        self._seen = len(before), len(ended)
        now = {_cell(p.job): 1 / p.rate for p in running if p.rate}
        found = {}
        for cell, job in jobs.items():
            sources = (_pace(self._ended, job, device), now.get(cell), _pace(self._before, job, device))
            pace = next((p for p in sources if p is not None), None)
            if pace is not None:
                found[cell] = pace
        return found


def _cell(job: Job) -> Cell:
    return job.env, job.label


def _pace(rates: Rates, job: Job, device: str) -> float | None:
    seconds = rates(job, device)
    return None if seconds is None else seconds / job.settings.steps


def _read(root: Path, jobs: Sequence[Job]) -> Iterator[Run]:
    return (read_run(root / job.path, verify=False) for job in jobs)
