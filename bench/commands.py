"""What the commands do. Each takes the parsed command line and returns the exit code."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UserError
from bench.machine.provenance import ROOT, why_no_commit
from bench.runs import (
    FORMAT,
    Run,
    check_configuration,
    read_study,
    read_study_file,
    write_study,
)
from bench.runs import studies as on_disk
from bench.runs.ownership import locked
from bench.studies import file as study_files
from bench.studies.file import load_study
from bench.studies.job import Job
from bench.studies.overrides import agent_class, parse_overrides, whole_number
from bench.studies.request import override
from bench.studies.study import Study

if TYPE_CHECKING:
    from bench.launch.plan import Plan

EXPERIMENTS = "experiments"  # what STUDY names in `make figures`, and their folder


def whole(name: str, text: str, least: int) -> int:
    """A whole number from the command line. Raises UserError."""
    try:
        value = whole_number(text)
    except (ValueError, OverflowError):
        value = least - 1
    if value < least:
        raise UserError(f"{name}={text}: expected a whole number from {least} on")
    return value


def flag(name: str, text: str) -> bool:
    """Whether a switch is on. Raises UserError for anything but 1, 0 and nothing."""
    if text not in ("", "0", "1"):
        raise UserError(f"{name}={text}: expected 1, or nothing")
    return text == "1"


def one_of(name: str, text: str, options: Sequence[str]) -> str:
    """One of `options` from the command line. Raises UserError."""
    if text not in options:
        raise UserError(f"{name}={text}: expected {', '.join(options)}")
    return text


def _requested(options: Namespace) -> tuple[Study, list[Job]]:
    """The study as the command line changes it, and its jobs."""
    study = override(
        load_study(options.study),
        algos=options.algos,
        envs=options.envs,
        seeds=options.seeds,
        steps=options.steps,
        settings=options.set,
    )
    return study, study.jobs()


def _execution(options: Namespace) -> tuple[str, str]:
    """Device and execution mode. Raises UserError for what this machine cannot do."""
    device = one_of("DEVICE", options.device, ("cpu", "cuda"))
    mode = one_of("EXECUTION", options.execution, ("auto", "eager", "compile", "graph"))
    if mode == "graph" and device == "cpu":
        raise UserError("EXECUTION=graph needs DEVICE=cuda")
    return device, _possible(mode) if device == "cpu" else mode


def _possible(mode: str) -> str:
    """The execution mode on a CPU, or eager where it needs a compiler and there is none."""
    from bench.launch.plan import has_compiler

    if mode == "compile" and not has_compiler():
        print("bench: no C++ compiler on this machine: EXECUTION=eager instead of compile", file=sys.stderr)
        return "eager"
    return mode


def _pack_size(options: Namespace, device: str, seeds: int) -> int:
    if options.pack == "auto":
        return seeds if device == "cuda" else 1
    return whole("PACK", options.pack, 1)


def _results(options: Namespace) -> Path:
    """The root of all results, to read from."""
    return Path(options.results)


def _writable(name: str, text: str) -> Path:
    """The folder that a variable names, which need not exist yet. Raises UserError where it cannot be written."""
    folder = Path(text).absolute()
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        usable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except OSError as error:
        raise UserError(f"{name}={text}: {error.strerror}") from None
    if not usable:
        what = "is not a folder" if not there.is_dir() else "cannot be written"
        raise UserError(f"{name}={text}: {there} {what}; name a folder of yours")
    return folder.resolve()


def _check_device(device: str) -> None:
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("DEVICE=cuda: torch sees no GPU here; DEVICE=cpu works everywhere")


def _register(root: Path, study: Study, jobs: Sequence[Job]) -> None:
    """Write down what was asked for, so that "missing" has a meaning; not before every run is known to fit."""
    for job in jobs:
        check_configuration(root, job)
    grid = [
        {"env": job.env, "algo": job.algo, "label": job.label, "seed": job.seed, "hash": job.hash}
        for job in jobs
    ]
    write_study(root, {"format": FORMAT, "study": study.name, **study.to_dict(), "grid": grid})


def run_grid(options: Namespace) -> int:
    """Train what is missing of a grid on this machine, then build its tables and figures."""
    from rich.console import Console

    from bench.launch.local.display import Display
    from bench.launch.local.pool import LocalOptions, Pool, default_workers
    from bench.launch.plan import make_plan
    from bench.machine.hardware import available_cores

    device, execution = _execution(options)
    jobs_per_gpu = whole("JOBS_PER_GPU", options.jobs_per_gpu, 1)
    workers = whole("JOBS", options.jobs, 1) if options.jobs else 0
    hang_minutes = whole("HANG_MINUTES", options.hang_minutes, 1)
    memory = whole("JOB_MEMORY_MB", options.job_memory_mb, 0)
    if memory and device == "cuda":
        raise UserError(
            "JOB_MEMORY_MB bounds address space, of which CUDA reserves more than there is; leave it out"
        )
    retry, dry = flag("RETRY", options.retry), flag("DRY", options.dry)
    study, jobs = _requested(options)
    if not dry:
        _check_device(device)
    root = _writable("RESULTS", options.results)
    checkpoints = _writable("CHECKPOINTS", options.checkpoints) if options.checkpoints else None
    plan = make_plan(
        root,
        jobs,
        pack_size=_pack_size(options, device, len(study.seeds)),
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
        _draw(root, study.name)
    return 1 if failed else 0


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


def _draw(root: Path, study: str) -> list[str]:
    """Build the study's report and print its summary; a line for each damaged run."""
    from bench import analysis
    from bench.paper import sections

    with _alone(root, study):
        results = analysis.load_results(root, study)
        paths = analysis.draw(results, [sections.claims])
        print(analysis.summary(root, study))
    page = next((path for path in paths if path.name == "index.html"), paths[0])
    print(f"report: {_shown(page)}")
    return _damaged(score.run for score in results.runs)


@contextmanager
def _alone(root: Path, study: str) -> Iterator[None]:
    """Hold the study's lock: two grids that end together must not draw into one report."""
    read_study_file(root, study)
    with _locked(root / study):
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror}") from None
        yield


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def figures(options: Namespace) -> int:
    """Tables, figures and report of one study, or of everything that has results; 2 if a run is damaged."""
    root = _results(options)
    damaged = []
    if options.study == EXPERIMENTS or (not options.study and (root / EXPERIMENTS).is_dir()):
        _draw_experiments(root)
        if options.study or not on_disk(root):
            return 0
    for name in _studies_on_disk(root, options.study):
        damaged += _draw(root, name)
    return _report_damaged(damaged)


def status(options: Namespace) -> int:
    """How the runs of one study stand, or of every study that has results; 2 if one is damaged.

    With `exit_code` the code says how they stand (`bench.launch.status.exit_code`).
    """
    from bench.launch import status as status_room
    from bench.launch.slurm import client

    root = _results(options)
    as_json, by_code = flag("JSON", options.json), flag("EXIT_CODE", options.exit_code)
    every = whole("WATCH", options.watch, 10) if options.watch else 0
    if note := client.dropped():
        print(f"bench: {note}", file=sys.stderr)
    while True:
        results = [read_study(root, name) for name in _studies_on_disk(root, options.study)]
        found = status_room.look(results)
        if every:
            print("\033[2J\033[H" if sys.stdout.isatty() else "", end="")
        if as_json:
            print(status_room.as_json(found))
        else:
            for study in found:
                status_room.show(study)
        if not every or not any(run.state in ("running", "queued") for study in found for run in study.runs):
            break
        time.sleep(every)
    damaged = _report_damaged([line for study in results for line in _damaged(study.runs)])
    return status_room.exit_code(found) if by_code else damaged


def _studies_on_disk(root: Path, study: str) -> list[str]:
    found = [Path(study).stem if study.endswith(".toml") else study] if study else on_disk(root)
    if not found:
        raise UserError(f"no results in {root}/ yet; `make bench` makes some")
    return found


def _damaged(runs: Iterable[Run]) -> list[str]:
    """A line for each damaged run: which, what is wrong and what to do."""
    return [
        f"{run.path}: {run.reason}; restore that folder, or delete it to run it again"
        for run in runs
        if run.state == "damaged"
    ]


def _report_damaged(lines: Sequence[str]) -> int:
    for line in lines:
        print(f"bench: damaged: {line}", file=sys.stderr)
    return 2 if lines else 0


def submit(options: Namespace) -> int:
    """Submit what is missing of a grid to a Slurm cluster; 3 if Slurm takes only a part of it for now."""
    from bench.launch.plan import make_packs
    from bench.launch.rates import measured_rates
    from bench.launch.slurm import submit as slurm
    from bench.launch.slurm.profiles import load_profile

    profile = load_profile(options.profile)
    asked = options.device
    options.device = asked or ("cuda" if profile.gpus else "cpu")
    _, execution = _execution(options)
    if options.jobs_per_gpu:
        share = whole("JOBS_PER_GPU", options.jobs_per_gpu, 1)
        profile = profile.each(lambda part: replace(part, jobs_per_gpu=share))
    per_task = whole("JOBS_PER_TASK", options.jobs_per_task, 1) if options.jobs_per_task else None
    study, jobs = _requested(options)
    dry, draw = flag("DRY", options.dry), flag("FIGURES", options.figures)
    root = _results(options) if dry else _writable("RESULTS", options.results)
    for algo in profile.algos:
        agent_class(algo)  # a mistyped name would silently change nothing
    by_device: dict[str, list[Job]] = {}
    for job in jobs:
        by_device.setdefault(asked or ("cuda" if profile.for_algo(job.algo).gpus else "cpu"), []).append(job)
    packs = [
        pack
        for device, group in by_device.items()
        for pack in make_packs(group, _pack_size(options, device, len(study.seeds)))
    ]
    if not dry:
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


def experiments(options: Namespace) -> int:
    """Run what is missing of the experiments, then draw them."""
    from bench.machine.hardware import available_cores
    from bench.paper.experiments import suite

    jobs = whole("JOBS", options.jobs, 1) if options.jobs else available_cores()
    root = _writable("RESULTS", options.results)
    suite.run(root, jobs)
    _draw_experiments(root)
    return 0


def _draw_experiments(root: Path) -> None:
    from bench.paper.experiments.report import build_experiments

    if not (root / EXPERIMENTS).is_dir():
        raise UserError(f"no {_shown(root / EXPERIMENTS)} yet; `make experiments` makes it")
    with _locked(root / EXPERIMENTS):
        pages = [path for path in build_experiments(root) if path.name == "index.html"]
    print(f"report: {_shown(pages[0])}")


def video(options: Namespace) -> int:
    """Show a trained policy: video.mp4 and video.gif in its run directory."""
    from bench import video as video_room

    folder = options.run or options.folder
    if not folder:
        raise UserError("video needs RUN=results/<study>/<env>/<label>/seed-<k>")
    for path in video_room.render(Path(folder)):
        print(_shown(path.absolute()))
    return 0


def cancel(options: Namespace) -> int:
    """Cancel a study's queued and running Slurm jobs, and no others."""
    from bench.launch.slurm import submit as slurm

    if not options.study:
        raise UserError("cancel needs STUDY=…")
    root = _results(options)
    (study,) = _studies_on_disk(root, options.study)
    print(f"{slurm.cancel(root, study)} tasks cancelled")
    return 0


def studies(options: Namespace) -> int:
    """The studies and algorithms that there are."""
    import algos

    for name in study_files.study_names():
        print(f"{name:14} {load_study(name).title}")
    print("algorithms:", " ".join(sorted(algos.registry())))
    return 0


def check(options: Namespace) -> int:
    """Put algorithms to the demands of the interface."""
    from bench.check import conformance

    failed = 0
    for spec in options.specs:
        algo, _ = parse_overrides(spec)
        agent_class(algo)
        print(spec)
        for what, wrong in conformance.run(spec, slow=options.compile):
            print(f"  ok    {what}" if wrong is None else f"  FAIL  {what}: {wrong}", flush=True)
            failed += wrong is not None
    print(f"{failed} demands are not met" if failed else "every demand is met")
    return 1 if failed else 0


def docs(options: Namespace) -> int:
    """Bring the generated parts of README.md and docs/ up to date with the results."""
    from bench.paper.documents import refresh

    changed = refresh(_results(options))
    print("\n".join(f"written: {_shown(path)}" for path in changed) or "everything is up to date")
    return 0


def import_scores(options: Namespace) -> int:
    """Take per-seed scores of others from a CSV file, to lie under ours."""
    from bench import analysis

    print(
        f"imported to {_shown(analysis.import_scores(Path(options.file), _writable('RESULTS', options.results)))}"
    )
    return 0


def timing(options: Namespace) -> int:
    """The wall-clock protocol for our algorithms."""
    from bench.timing import protocol as timing_room

    root, modes, quick = _measuring(options)
    algos = options.algos.split() or list(timing_room.ALGOS)
    for algo in algos:
        agent_class(algo)
        if algo == "random":
            raise UserError("ALGOS=random: it learns nothing, so there is nothing to time")
    timing_room.run(root, algos, modes, quick)
    return 0


def perf(options: Namespace) -> int:
    """Our algorithms beside Stable-Baselines3 and SBX; what the runner and a long run cost."""
    from bench.timing import comparison as perf_room

    root, modes, quick = _measuring(options)
    grids = [whole("GRIDS", text, 1) for text in options.grids.split()]
    perf_room.run(root, modes, quick, grids)
    return 0


def _measuring(options: Namespace) -> tuple[Path, list[str], bool]:
    """The root of all results, the execution modes to time (eager and, unless quick, compile), whether quick."""
    quick = one_of("QUICK", options.quick or "0", ("0", "1")) == "1"
    asked = options.execution.split() or (["eager"] if quick else ["eager", "compile"])
    modes = [_possible(one_of("EXECUTION", mode, ("eager", "compile"))) for mode in asked]
    return _writable("RESULTS", options.results), list(dict.fromkeys(modes)), quick
