"""The cost of a grid on this machine: `make bench DRY=1`. Estimates, never for comparisons."""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

from bench.launch.plan import Plan
from bench.launch.rates import Rate
from bench.runs import FINISHED, read_run
from bench.studies.job import Job

FLOAT_BYTES = 4


def lines(
    plan: Plan,
    workers: int,
    rates: Sequence[tuple[Path, Rate]],
    root: Path,
    scratch: Path,
    device: str = "cpu",
) -> Iterator[str]:
    """The plan for the terminal: one line for each cell, then hours and disk.

    Args:
        plan: what is left to do.
        workers: packs that run at once.
        rates: functions as `bench.launch.rates.measured_rates` gives them, with the folder whose runs each knows; the
            first that knows a job counts.
        root, scratch: where results and where checkpoints go.
        device: "cpu" or "cuda".
    """
    cells: dict[tuple[str, str], list[Job]] = {}
    for pack in plan.packs:
        for job in pack:
            cells.setdefault((job.env, job.label), []).append(job)
    seconds: dict[tuple[str, str], float | None] = {}
    sources: set[Path] = set()
    for cell, jobs in cells.items():
        found = next(
            ((folder, s) for folder, rate in rates if (s := rate(jobs[0], device)) is not None), None
        )
        seconds[cell] = found[1] if found else None
        if found:
            sources.add(found[0])
            pace = f"{jobs[0].settings.steps / found[1]:,.0f} steps/s, {_duration(found[1])} each"
        else:
            pace = "no rate measured yet"
        runs = f"{len(jobs)} run{'s' * (len(jobs) != 1)}"
        yield f"{' '.join(cell)}: {runs} of {jobs[0].settings.steps:,} steps: {pace}"
    yield _time(plan, workers, seconds, sources)
    yield _disk(plan, workers, root, scratch)


def _time(plan: Plan, workers: int, seconds: dict[tuple[str, str], float | None], sources: set[Path]) -> str:
    packs = [seconds[pack[0].env, pack[0].label] for pack in plan.packs]
    known = [value for value in packs if value is not None]
    if not known:
        return "time: unknown, for no run of these algorithms has finished yet" if packs else "time: none"
    total = last_end([0.0] * workers, known)
    missing = len(packs) - len(known)
    rest = f", without {missing} run{'s' * (missing != 1)} of unknown rate" if missing else ""
    where = " and ".join(str(folder) for folder in sorted(sources))
    return (
        f"time: about {_duration(total)} with {workers} at once, {sum(known) / 3600:.1f} process hours{rest} "
        f"(as fast as the finished runs in {where} were on their machine)"
    )


def last_end(free: Sequence[float], waiting: Iterable[float]) -> float:
    """When the last of the packs ends. Seconds: when each process is `free`, and how long each waiting pack takes.

    A pack goes to the process that is free first.
    """
    ends = list(free)
    heapq.heapify(ends)
    for seconds in waiting:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def _disk(plan: Plan, workers: int, root: Path, scratch: Path) -> str:
    replay = [sum(map(replay_bytes, pack)) for pack in plan.packs]
    running = sum(sorted(replay, reverse=True)[:workers])
    sizes = [_size(root / job.path) for job in plan.done]
    kept = f"{_bytes(median(sizes))} for each finished run, " if sizes else ""
    there = next(path for path in (scratch, *scratch.parents) if path.exists())
    free = shutil.disk_usage(there).free
    short = "; that is too little" if free < running else ""
    buffers = f"at most {_bytes(running)} for replay buffers while runs go on"
    return f"disk: {kept}{buffers}; {_bytes(free)} free in {there}{short}"


def replay_bytes(job: Job) -> int:
    """The size of a run's replay buffer in its checkpoint: rows [obs, action, reward, mask, next obs] of float32."""
    from bench.envs import tasks as envs

    spec = envs.spec(job.env)
    rows = min(job.settings.steps // job.settings.action_repeat, job.settings.replay_size)
    return rows * (2 * spec.obs_dim + spec.act_dim + 2) * FLOAT_BYTES


def _size(folder: Path) -> int:
    if read_run(folder, verify=False).state not in FINISHED:
        return 0
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
