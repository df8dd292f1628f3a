"""How far running jobs are, and how long their grid will still take: estimates, never for comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.launch.estimate import last_end
from bench.launch.local.pool import Pool
from bench.launch.rates import Rate, rates_of
from bench.runs import read_run
from bench.studies.job import Job


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
    those that had been done before. Where none tells, the median of the other packs counts.
    """

    def __init__(self) -> None:
        self._before: Rate | None = None
        self._ended = rates_of([])
        self._seen = 0  # runs that `_ended` is of

    def __call__(self, pool: Pool, running: Sequence[Progress]) -> float | None:
        """Seconds until the last run of `pool` ends; None while no pace is known. running: a run of each pack."""
        rates = self._rates(pool, running)
        jobs = [*(p.job for p in running), *(pack[0] for pack in pool.queue)]
        known = [next(filter(None, (rate(job, pool.options.device) for rate in rates)), None) for job in jobs]
        paces = [seconds / job.settings.steps for seconds, job in zip(known, jobs) if seconds]
        if not paces:
            return None
        whole = [seconds or median(paces) * job.settings.steps for seconds, job in zip(known, jobs)]
        ends = [
            seconds * (1 - p.step / p.job.settings.steps) if p.eta is None else p.eta
            for p, seconds in zip(running, whole)
        ]
        idle = [0.0] * (pool.most - len(running))
        return last_end([*ends, *idle], whole[len(running) :])

    def _rates(self, pool: Pool, running: Sequence[Progress]) -> tuple[Rate, ...]:
        """The first that knows a job counts."""
        if self._before is None:
            self._before = _finished(pool.root, pool.plan.done)
        if len(pool.outcome.done) > self._seen:
            self._seen = len(pool.outcome.done)
            self._ended = _finished(pool.root, pool.outcome.done)
        now = {(p.job.env, p.job.label): 1 / p.rate for p in running if p.rate}

        def current(job: Job, device: str) -> float | None:
            pace = now.get((job.env, job.label))
            return None if pace is None else pace * job.settings.steps

        return self._ended, current, self._before


def _finished(root: Path, jobs: Sequence[Job]) -> Rate:
    return rates_of(read_run(root / job.path, verify=False) for job in jobs)
