"""The commands that carry a grid out, here or on a cluster. Each returns the exit code."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UserError
from bench.machine.provenance import ROOT, why_no_commit
from bench.names import INDEX
from bench.runs import (
    FORMAT,
    check_configuration,
    read_study,
    write_study,
)
from bench.studies.job import Job
from bench.studies.overrides import agent_class
from bench.studies.study import Study

if TYPE_CHECKING:
    from bench.launch.plan import Plan
from bench.commands.arguments import (
    check_device,
    execution_of,
    flag,
    pack_size,
    requested,
    results_folder,
    whole,
    writable,
)
from bench.commands.results import damaged_lines, draw_report, report_damaged, shown, studies_on_disk


def run_grid(options: Namespace) -> int:
    """Train the missing runs of a grid on this machine, then build its tables and figures."""
    from rich.console import Console

    from bench.launch.local.display import Display
    from bench.launch.local.pool import LocalOptions, Pool, default_workers
    from bench.launch.plan import make_plan
    from bench.machine.hardware import available_cores

    device, execution = execution_of(options)
    jobs_per_gpu = whole("JOBS_PER_GPU", options.jobs_per_gpu, 1)
    workers = whole("JOBS", options.jobs, 1) if options.jobs else 0
    hang_minutes = whole("HANG_MINUTES", options.hang_minutes, 1)
    memory = whole("JOB_MEMORY_MB", options.job_memory_mb, 0)
    if memory and device == "cuda":
        raise UserError(
            "JOB_MEMORY_MB bounds address space, of which CUDA reserves more than there is; leave it out"
        )
    retry, dry = flag("RETRY", options.retry), flag("DRY", options.dry)
    study, jobs = requested(options)
    if not dry:
        check_device(device)
    root = writable("RESULTS", options.results)
    checkpoints = writable("CHECKPOINTS", options.checkpoints) if options.checkpoints else None
    plan = make_plan(
        root,
        jobs,
        device=device,
        pack_size=pack_size(options, device, len(study.seeds)),
        checkpoint_root=checkpoints,
        retry_failed=retry,
    )
    count = workers or default_workers(device, jobs_per_gpu)
    if dry:
        return _show_plan(plan, study, jobs, count, root, checkpoints or root, device)
    _register(root, study, jobs)
    pool_options = LocalOptions(
        workers=count,
        device=device,
        execution=execution,
        env_workers=available_cores() // count
        if device == "cuda"
        else 0,  # a GPU waits for them; a core is full
        checkpoint_root=checkpoints,
        hang_after_s=60.0 * hang_minutes,
        job_memory_mb=memory,
    )
    if (reason := why_no_commit()) is not None:
        print(f"bench: these runs record no commit of the code: {reason}", file=sys.stderr)
    console = Console()
    waiting = sum(map(len, plan.packs))
    console.print(
        f"{study.name}: {len(jobs)} runs, {len(plan.done)} done, {waiting} to do, "
        f"{pool_options.workers} at once, results in {options.results}/{study.name}",
        soft_wrap=True,
        highlight=False,
    )
    if not waiting and not plan.failed:
        print("nothing to train: every run is here already; RESULTS=another-folder trains them anew")
    display = Display(len(jobs), console)
    with display as show:
        outcome = Pool(root, plan, pool_options, show).run()
    failed = plan.failed + outcome.failed
    _report_failures(failed, retry=bool(plan.failed))
    if outcome.stopped:
        print(f"stopped: {len(outcome.stopped)} runs are left; the same command goes on where they are")
        return 130
    if len(failed) < len(jobs):
        draw_report(root, study.name)
    return 1 if failed else 0


def _register(root: Path, study: Study, jobs: Sequence[Job]) -> None:
    """Record the requested grid, which defines "missing"; only once every run is known to fit."""
    for job in jobs:
        check_configuration(root, job)
    grid = [
        {"env": job.env, "algo": job.algo, "label": job.label, "seed": job.seed, "hash": job.hash}
        for job in jobs
    ]
    write_study(root, {"format": FORMAT, "study": study.name, **study.to_dict(), "grid": grid})


def _show_plan(
    plan: Plan, study: Study, jobs: Sequence[Job], workers: int, root: Path, scratch: Path, device: str
) -> int:
    from bench.launch import estimate
    from bench.launch.rates import measured_rates

    waiting = sum(map(len, plan.packs))
    print(f"{study.name}: {len(jobs)} runs, {len(plan.done)} done, {waiting} to do, {workers} at once")
    folders = dict.fromkeys([root, ROOT / "results"])  # the runs that came with the suite know rates too
    rates = [(folder, measured_rates(folder)) for folder in folders if folder.is_dir()]
    for line in estimate.lines(plan, workers, rates, root, scratch, device):
        print(line)
    if plan.failed and not waiting:
        print(f"{len(plan.failed)} failed earlier; RETRY=1 runs them again")
    print(f"DRY=1: nothing was run or written; results would go to {root / study.name}")
    return 0


def _report_failures(failed: Sequence[tuple[Job, str]], retry: bool) -> None:
    for job, reason in failed:
        print(f"failed: {job.path}: {reason}", file=sys.stderr)
    if retry:
        print("runs that failed earlier are tried again with RETRY=1", file=sys.stderr)


def status(options: Namespace) -> int:
    """How the runs of one study stand, or of every study that has results; 2 if one is damaged.

    With `exit_code` the code says how they stand (`bench.launch.status.exit_code`).
    """
    from bench.launch import status as run_status
    from bench.launch.slurm import client

    root = results_folder(options)
    as_json, by_code = flag("JSON", options.json), flag("EXIT_CODE", options.exit_code)
    every = whole("WATCH", options.watch, 10) if options.watch else 0
    if note := client.dropped():
        print(f"bench: {note}", file=sys.stderr)
    while True:
        results = [read_study(root, name) for name in studies_on_disk(root, options.study)]
        found = run_status.look(results)
        if every:
            print("\033[2J\033[H" if sys.stdout.isatty() else "", end="")
        if as_json:
            print(run_status.as_json(found))
        else:
            for study in found:
                run_status.show(study)
            if (root / INDEX).is_file():
                print(f"reports of all studies: {shown(root / INDEX)}")
        if not every or not any(run.state in ("running", "queued") for study in found for run in study.runs):
            break
        time.sleep(every)
    damaged = report_damaged([line for study in results for line in damaged_lines(study.runs)])
    return run_status.exit_code(found) if by_code else damaged


def submit(options: Namespace) -> int:
    """Submit the missing runs of a grid to a Slurm cluster; 3 if Slurm accepts only a part of them for now."""
    from bench.envs.packages import check_reachable
    from bench.launch.plan import make_packs
    from bench.launch.rates import measured_rates
    from bench.launch.slurm import submit as slurm
    from bench.launch.slurm.profiles import load_profile

    profile = load_profile(options.profile)
    asked = options.device
    options.device = asked or ("cuda" if profile.gpus else "cpu")
    _, execution = execution_of(options)
    if options.jobs_per_gpu:
        share = whole("JOBS_PER_GPU", options.jobs_per_gpu, 1)
        profile = profile.each(lambda part: replace(part, jobs_per_gpu=share))
    per_task = whole("JOBS_PER_TASK", options.jobs_per_task, 1) if options.jobs_per_task else None
    study, jobs = requested(options)
    dry, draw = flag("DRY", options.dry), flag("FIGURES", options.figures)
    root = results_folder(options) if dry else writable("RESULTS", options.results)
    for env in study.envs:
        check_reachable(env)
    for algo in profile.algos:
        agent_class(algo)  # a mistyped name would silently change nothing
    by_device: dict[str, list[Job]] = {}
    for job in jobs:
        by_device.setdefault(asked or ("cuda" if profile.for_algo(job.algo).gpus else "cpu"), []).append(job)
    packs = [
        pack
        for device, group in by_device.items()
        for pack in make_packs(group, pack_size(options, device, len(study.seeds)))
    ]
    if not dry:
        slurm.check_possible(root)
        _register(root, study, jobs)
    submission = slurm.submit(
        root,
        study,
        packs,
        profile,
        execution={"mode": execution, "device": asked},
        jobs_per_task=per_task,
        dry=dry,
        figures=draw,
        retry_failed=flag("RETRY", options.retry),
        rates=measured_rates(root) if dry else lambda job, device: None,
    )
    for line in submission.lines():
        print(line)
    return 3 if submission.left else 0


def cancel(options: Namespace) -> int:
    """Cancel a study's queued and running Slurm jobs, and no others."""
    from bench.launch.slurm import submit as slurm

    if not options.study:
        raise UserError("cancel needs STUDY=…")
    root = results_folder(options)
    (study,) = studies_on_disk(root, options.study)
    print(f"{slurm.cancel(root, study)} tasks cancelled")
    return 0
