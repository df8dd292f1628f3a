"""The experiments' report, results/experiments/report/, in the form of a study's, from their data alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.analysis import style
from bench.analysis.report.index import IndexEntry
from bench.analysis.report.output import write_report
from bench.analysis.report.page import Heading
from bench.analysis.report.sections import Section
from bench.analysis.scores.results import REPORT
from bench.analysis.table import MISSING, Entry, Table, number
from bench.analysis.verdicts import Verdict
from bench.disk import DamagedFile, read_json
from bench.errors import UserError
from bench.paper.claims import judge as claims
from bench.paper.claims.rules import Claim
from bench.paper.experiments.cqsm import show as experiment_cqsm
from bench.paper.experiments.exploration import show as experiment_exploration
from bench.paper.experiments.multimodality import show as experiment_multimodality
from bench.paper.experiments.parts import PartRecord
from bench.paper.experiments.theorem import show as experiment_theorem
from bench.runs.records import check
from bench.text import one_line

NAME = "experiments"  # the folder below the root of all results
EXPERIMENTS: dict[str, ModuleType] = {
    "multimodality": experiment_multimodality,
    "exploration": experiment_exploration,
    "theorem": experiment_theorem,
    "cqsm": experiment_cqsm,
}


def build_experiments(root: Path) -> list[Path]:
    """Write root/experiments/report; the paths written. The same data, the same bytes.

    Raises:
        UserError: there are no experiments at all, their data cannot be read, or the folder cannot be written.
    """
    if not (root / NAME).is_dir():
        raise UserError(f"no {root / NAME} yet; `make experiments` makes it")
    top = Heading("experiments", "Multi-modality, exploration, the step of QSM's loss", facts(root))
    records = [record for name in EXPERIMENTS for record in _records(root, name)]
    entry = IndexEntry(
        top.title,
        ", ".join(name for name in EXPERIMENTS if name not in missing(root)),
        (*_days(records),),
        {"done": len(records)},
        "",
    )
    with style.drawing():
        return write_report(root / NAME / REPORT, top, sections(root), entry, {})


def missing(root: Path) -> list[str]:
    """The experiments that have not been run to their end."""
    return [name for name in EXPERIMENTS if not (root / NAME / name / "scores.csv").is_file()]


def facts(root: Path) -> list[str]:
    """The line under the title: parts and days."""
    records = [record for name in EXPERIMENTS for record in _records(root, name)]
    days = _days(records)
    return [f"{len(records)} parts", *([f"run {' to '.join(days)}"] if days else [])]


def _days(records: Sequence[dict[str, Any]]) -> list[str]:
    """The first and the last day on which a part was run."""
    days = sorted({str(record["started"])[:10] for record in records})
    return list(dict.fromkeys((*days[:1], *days[-1:])))


def sections(root: Path) -> list[Section]:
    """One section per experiment, then where their numbers come from. Call it inside `style.drawing`.

    Raises:
        UserError: data that are there cannot be read.
    """
    return [*(_section(root, name, module) for name, module in EXPERIMENTS.items()), _origin(root)]


def _section(root: Path, name: str, module: ModuleType) -> Section:
    folder = root / NAME / name
    if name in missing(root):
        return Section(name, module.TITLE, text=[module.ASKS, "Not run yet: make experiments"])
    try:
        pictures, tables = module.pictures(folder), module.tables(folder)
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(
            f"{folder}: its tables do not fit together ({one_line(error)}); restore them, or delete the folder to "
            "run it again"
        ) from None
    verdicts = claims.judge_experiment(root, f"{NAME}/{name}")
    return Section(name, module.TITLE, [module.ASKS], verdicts, pictures, [_judged(name, verdicts), *tables])


def _judged(name: str, verdicts: Sequence[Verdict[Claim]]) -> Table:
    """The claims that the experiment decides: each as a whole, and the findings behind it."""
    table = claims.table(verdicts)
    whole = [f"Claim {each.claim.id} as a whole: {each.verdict}." for each in verdicts]
    return replace(table, name=f"{name}_claims", notes=[*whole, *table.notes])


def _origin(root: Path) -> Section:
    return Section(
        "provenance",
        "Provenance and how to reproduce",
        text=["Run missing parts of the experiments, and make this page from their data alone:"],
        tables=[_provenance(root)],
        commands=["make experiments", f"make figures STUDY={NAME}"],
    )


def _provenance(root: Path) -> Table:
    """Per experiment, commit and hardware: how many parts, and the seconds that they took."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for name in EXPERIMENTS:
        count: Counter[tuple[str, ...]] = Counter()
        seconds: Counter[tuple[str, ...]] = Counter()
        for record in _records(root, name):
            origin: dict[str, Any] = record["provenance"]
            git = origin["git"]
            commit = (git["commit"] or MISSING)[:10] + " with changes" * bool(git["dirty"])
            machine = f"{origin['hardware']['cpu']}, {origin['hardware']['cores']} cores"
            key: tuple[str, ...] = (
                commit,
                origin["code_digest"][:8],
                machine,
                f"torch {origin['versions']['torch']}",
            )
            count[key] += 1
            seconds[key] += record["seconds"]
        for key in sorted(count):
            rows.append([name, *key, number(count[key]), number(seconds[key])])
            columns = dict(zip(("commit", "code_digest", "hardware", "versions"), key))
            records.append({"experiment": name, **columns, "parts": count[key], "seconds": seconds[key]})
    return Table(
        "provenance",
        "Where the numbers come from",
        ["Experiment", "Commit", "Code digest", "Hardware", "Versions", "Parts", "Seconds"],
        rows,
        records,
        ["Seconds: of all parts together, each on one thread."],
    )


def _records(root: Path, name: str) -> list[dict[str, Any]]:
    """parts/*.json of one experiment, sorted by name. Raises UserError for one that is damaged."""
    found = []
    for path in sorted((root / NAME / name / "parts").glob("*.json")):
        try:
            found.append(check(read_json(path), path.name, PartRecord))
        except (DamagedFile, OSError) as error:
            raise UserError(f"{path}: {one_line(error)}; delete it to run that part again") from None
    return found
