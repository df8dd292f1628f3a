"""The commands that show results, studies and algorithms. Each returns the exit code."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from bench.commands import chosen
from bench.commands.arguments import results_folder, whole, writable
from bench.errors import UserError
from bench.runs import (
    Run,
    read_study_file,
)
from bench.runs import studies as on_disk
from bench.runs.ownership import locked
from bench.studies import file as study_files
from bench.studies.file import load_study
from bench.studies.overrides import agent_class, parse_overrides

if TYPE_CHECKING:
    from bench.analysis.scores.results import Results

EXPERIMENTS = "experiments"  # what STUDY names in `make figures`, and their folder


def figures(options: Namespace) -> int:
    """Tables, figures and report of a study, of a choice, or of everything that has results; 2 if a run is damaged."""
    root = results_folder(options)
    if (asked := chosen.request(root, options)) is not None:
        return report_damaged(_draw_chosen(root, asked))
    damaged = []
    if options.study == EXPERIMENTS or (not options.study and (root / EXPERIMENTS).is_dir()):
        _draw_experiments(root)
        if options.study or not on_disk(root):
            return 0
    file = Path(options.study) if (options.study or "").endswith(".toml") else None
    for name in studies_on_disk(root, options.study):
        damaged += draw_report(root, name, file)
    return report_damaged(damaged)


def draw_report(root: Path, study: str, file: Path | None = None) -> list[str]:
    """Build the study's report and print its summary; a line for each damaged run. file: the study's, if named."""
    from bench import analysis
    from bench.paper import sections

    with _alone(root, study):
        return _draw(sections.with_subject(analysis.load_report(root, study, file)))


def _draw_chosen(root: Path, asked: chosen.Request) -> list[str]:
    """Build a report of its own for what was chosen, as `draw_report`."""
    from bench import analysis

    results = analysis.load_chosen(root, *asked)
    results.home.parent.mkdir(parents=True, exist_ok=True)
    with _locked(results.home.parent):
        return _draw(results)


def _draw(results: Results) -> list[str]:
    from bench import analysis
    from bench.paper import sections

    paths = analysis.draw(results, [sections.claims])
    print((results.home / analysis.SUMMARY).read_text(encoding="utf-8"))
    page = next((path for path in paths if path.name == "index.html"), paths[0])
    print(f"report: {shown(page)}")
    return damaged_lines(score.run for score in results.runs)


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


def shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def studies_on_disk(root: Path, study: str) -> list[str]:
    found = [Path(study).stem if study.endswith(".toml") else study] if study else on_disk(root)
    if not found:
        raise UserError(f"no results in {root}/ yet; `make bench` makes some")
    return found


def damaged_lines(runs: Iterable[Run]) -> list[str]:
    """A line for each damaged run: its path, the fault, and what to do."""
    return [
        f"{run.path}: {run.reason}; restore that folder, or delete it to run it again"
        for run in runs
        if run.state == "damaged"
    ]


def report_damaged(lines: Sequence[str]) -> int:
    for line in lines:
        print(f"bench: damaged: {line}", file=sys.stderr)
    return 2 if lines else 0


def experiments(options: Namespace) -> int:
    """Run the missing parts of the experiments, then draw them."""
    from bench.machine.hardware import available_cores
    from bench.paper.experiments import suite

    jobs = whole("JOBS", options.jobs, 1) if options.jobs else available_cores()
    root = writable("RESULTS", options.results)
    suite.run(root, jobs)
    _draw_experiments(root)
    return 0


def _draw_experiments(root: Path) -> None:
    from bench.paper.experiments.report import build_experiments

    if not (root / EXPERIMENTS).is_dir():
        raise UserError(f"no {shown(root / EXPERIMENTS)} yet; `make experiments` makes it")
    with _locked(root / EXPERIMENTS):
        pages = [path for path in build_experiments(root) if path.name == "index.html"]
    print(f"report: {shown(pages[0])}")


def video(options: Namespace) -> int:
    """Show a trained policy: video.mp4 and video.gif in its run directory."""
    from bench.video import render

    folder = options.run or options.folder
    if not folder:
        raise UserError("video needs RUN=results/<study>/<env>/<label>/seed-<k>")
    for path in render(Path(folder)):
        print(shown(path.absolute()))
    return 0


def docs(options: Namespace) -> int:
    """Bring the generated parts of README.md and docs/ up to date with the results."""
    from bench.paper.documents import refresh

    changed = refresh(results_folder(options))
    print("\n".join(f"written: {shown(path)}" for path in changed) or "everything is up to date")
    return 0


def import_scores(options: Namespace) -> int:
    """Take scores of others into the results, to be shown beside ours, and say what was understood."""
    from bench.analysis.external.importing import Wishes, import_scores, pairs
    from bench.analysis.external.layouts import NAMES_OF

    wishes = Wishes(
        source=options.source,
        columns=pairs("COLUMNS", options.columns, [*NAMES_OF]),
        values=pairs("VALUES", options.values, ["env", "algo", "seed"]),
        names=options.names,
        metric=options.metric,
        rename=pairs("RENAME", options.rename),
        envs=options.envs.split(),
        action_repeat=whole("ACTION_REPEAT", options.action_repeat, 1),
        every=whole("EVERY", options.every, 1) if options.every else None,
    )
    files = [Path(file) for file in (*options.files, *options.file)]
    if not files:
        raise UserError("import needs FILES=, one or several files of others' scores, or a folder of them")
    imported = import_scores(files, writable("RESULTS", options.results), wishes)
    print("\n".join(imported.lines))
    print(f"imported to {shown(imported.path)}")
    return 0


def studies(options: Namespace) -> int:
    """The studies and algorithms that there are."""
    import algos

    names = study_files.study_names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}} {load_study(name).title}")
    print("algorithms:", " ".join(sorted(algos.registry())))
    return 0


def check(options: Namespace) -> int:
    """Test algorithms and tasks against the rules of the interface."""
    from bench.check import conformance, tasks

    failed = 0
    for spec, is_task in [(spec, _is_task(spec)) for spec in options.specs]:
        print(f"{spec}: {tasks.describe(spec)}" if is_task else spec)
        for what, wrong in tasks.run(spec) if is_task else conformance.run(spec, slow=options.compile):
            print(f"  ok    {what}" if wrong is None else f"  FAIL  {what}: {wrong}", flush=True)
            failed += wrong is not None
    broken = "1 rule is broken" if failed == 1 else f"{failed} rules are broken"
    print(broken if failed else "all rules hold")
    return 1 if failed else 0


def _is_task(spec: str) -> bool:
    """Whether a name is a task's and not an algorithm's. Raises UserError: it is neither."""
    import algos
    from bench.envs import names

    algo, _, overrides = spec.partition(":")
    if algo not in algos.registry() and "=" not in overrides:
        try:
            return bool(names.find(spec))
        except UserError:
            if ":" in spec or not get_close_matches(algo, algos.registry()):
                raise
    agent_class(algo)
    parse_overrides(spec)
    return False
