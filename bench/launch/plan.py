"""The unfinished jobs of a grid as packs, the same for every launcher."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.errors import UserError
from bench.runs import (
    FINISHED,
    Run,
    check_configuration,
    check_resumable,
    checkpoint_step,
    read_run,
    untrained,
)
from bench.studies.job import Job

#: Below this many updates compiling takes longer than it saves (about 30 s against 2 to 10 ms an update).
UPDATES_WORTH_COMPILING = 20_000


@dataclass
class Plan:
    """A grid's jobs, sorted into those to run and those not to."""

    packs: list[list[Job]] = field(default_factory=list)  # to run, in this order
    done: list[Job] = field(default_factory=list)  # finished, diverged ones included
    failed: list[tuple[Job, str]] = field(default_factory=list)  # with their reason; run again when asked


def make_plan(
    root: Path,
    jobs: Sequence[Job],
    *,
    device: str = "cpu",
    pack_size: int = 1,
    checkpoint_root: Path | None = None,
    retry_failed: bool = False,
) -> Plan:
    """Sorts `jobs`. Seeds of a cell share a pack where they stand at the same step.

    Raises:
        UserError: a run on disk is damaged, has another configuration than its job or was half trained on another kind
            of device than `device`, or a run would never update its policy; nothing was written.
    """
    plan = Plan()
    pending: dict[int, list[Job]] = {}  # by the step that they stand at
    damaged: list[str] = []
    for job in jobs:
        check_configuration(root, job)
    for job in jobs:
        run: Run = read_run(root / job.path, job_hash=job.hash)
        if run.state in FINISHED:
            plan.done.append(job)
        elif run.state == "damaged":
            damaged.append(f"{run.path}: {run.reason}")
        elif why := untrained(job.algo, asdict(job.settings), job.config):
            raise UserError(f'{job.path}: {why}: raise STEPS or lower random_steps (SET="random_steps=...")')
        elif run.state == "failed" and not retry_failed:
            plan.failed.append((job, run.reason or ""))
        else:
            check_resumable(root, job, run, device, checkpoint_root)
            step = checkpoint_step(root, job, checkpoint_root) if pack_size > 1 else 0
            pending.setdefault(step, []).append(job)
    if damaged:
        more = f"; damaged runs: {len(damaged)}, listed by make figures" if damaged[1:] else ""
        raise UserError(f"{damaged[0]}; restore that folder, or delete it to run it again{more}")
    order = {job.path: i for i, job in enumerate(jobs)}
    packs = [pack for group in pending.values() for pack in make_packs(group, pack_size)]
    plan.packs = sorted(packs, key=lambda pack: order[pack[0].path])
    return plan


def make_packs(jobs: Sequence[Job], size: int) -> list[list[Job]]:
    """Cuts jobs into packs of at most `size` seeds of one cell; packs stand in the order of their first jobs."""
    cells: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        cells.setdefault((*job.cell, str(job.seed)) if size == 1 else job.cell, []).append(job)
    return [cell[i : i + size] for cell in cells.values() for i in range(0, len(cell), size)]


def choose_execution(job: Job, device: str, asked: str = "auto") -> str:
    """ "auto": the execution that finishes first, compile time included."""
    if asked != "auto":
        return asked
    if device == "cuda":
        return "graph"
    updates = (job.settings.steps - job.settings.random_steps) // job.settings.action_repeat
    return "compile" if updates >= UPDATES_WORTH_COMPILING and has_compiler() else "eager"


def has_compiler() -> bool:
    """Whether torch.compile finds what it needs to build code for the CPU."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))
