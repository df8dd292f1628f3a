"""Generated parts of README.md and docs/: figures and tables of results/, made and checked for being current.

A document marks such a part with two comments, and everything between them is replaced:

    <!-- generated: early-100k facts learning_curves final_return -->
    <!-- end generated -->

The first word is a study, the others are the names of tables and figures of its report, in this order; `facts` is
the line under the report's title. A document can also show `overview`, `claims_both_rules` and `learning` of a study.
A figures file in the place of a study, `docs/which-sac.toml`, takes them from the report that it asks for.
`generated: gates` shows the gates (bench/paper/gates.py), `generated: perf` the speed beside other libraries,
`generated: qsm-targets` the size of the target of QSM's loss, `generated: cost` what an update costs, and
`experiments` in the place of a study takes from the experiments' report.
Figures go to docs/figures/<study or file>-<name>.png. The note on † stands once in a document; further ones lead to
docs/analysis.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.analysis import coverage, style
from bench.analysis import table as tables
from bench.analysis.report import page as report
from bench.analysis.report.request import load_chosen, load_report
from bench.analysis.report.sections import Picture, Section, sections
from bench.analysis.scores import learning
from bench.analysis.wallclock import cost, packs, perf, perf_tables
from bench.analysis.wallclock import timings as wallclock
from bench.disk import write_atomic
from bench.errors import UserError, suggest
from bench.paper import gates, targets
from bench.paper.claims import judge as claims
from bench.paper.claims import overview
from bench.paper.experiments import report as experiment_report
from bench.paper.sections import claims as claims_section
from bench.paper.sections import with_subject
from bench.runs import studies
from bench.studies.overrides import default_config
from bench.studies.report import read_figures_file
from bench.text import one_line

HERE = Path(__file__).parents[2]
FIGURES = Path("docs/figures")
STATISTICS = Path("docs/analysis.md#statistics")  # explains the mark †
_BEGIN = re.compile(r"^<!-- generated: ([^\n]*?) -->\n", re.MULTILINE)
_END = "<!-- end generated -->"


def documents(folder: Path = HERE) -> list[Path]:
    """README.md and docs/*.md under `folder` that have a generated part."""
    found = [folder / "README.md", *sorted((folder / "docs").glob("*.md"))]
    return [path for path in found if path.is_file() and _BEGIN.search(path.read_text(encoding="utf-8"))]


def refresh(root: Path, folder: Path = HERE) -> list[Path]:
    """Bring every generated part under `folder` up to date with the results at `root`; the paths that changed.

    Nothing is written where anything is wrong. Raises UserError naming document and part.
    """
    changed = []
    for path, data in outdated(root, folder).items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data, "study")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from None
        changed.append(path)
    return changed


def outdated(root: Path, folder: Path = HERE) -> dict[Path, bytes]:
    """{path: its current content} for every document and figure that is out of date. Raises UserError."""
    made: dict[Path, bytes] = {}
    parts: dict[str, _Part] = {}
    sources: dict[str, _Source] = {}
    for path in documents(folder):
        text = path.read_text(encoding="utf-8")
        text = "".join(_pieces(text, path, root, folder, parts, sources))
        made[path] = _few_once(text, path, folder).encode()
    for part in parts.values():
        made |= {folder / FIGURES / name: data for name, data in part.figures.items()}
    return {path: data for path, data in made.items() if not path.is_file() or path.read_bytes() != data}


class _Part:
    """One generated part: its text, in which {figures} stands for the folder of figures."""

    def __init__(self, lines: Sequence[str], figures: Mapping[str, bytes] | None = None) -> None:
        self.lines, self.figures = lines, figures or {}

    def text(self, document: Path, folder: Path) -> str:
        where = _from(document, folder / FIGURES)
        return "\n\n".join(line.replace("{figures}", where) for line in self.lines) + "\n"


def _from(document: Path, target: Path) -> str:
    """The target of a link in the document."""
    return Path(os.path.relpath(target, document.parent)).as_posix()


def _few_once(text: str, document: Path, folder: Path) -> str:
    """The document with the note on † where it stands first, and after it a short one that says where more stands."""
    note = tables.markdown_escape(coverage.FEW)
    before, first, after = text.partition(note)
    more = (
        f"† With few seeds an interval can be too narrow: [how far]({_from(document, folder / STATISTICS)})."
    )
    return before + first + after.replace(note, more)


def _pieces(
    text: str, path: Path, root: Path, folder: Path, parts: dict[str, _Part], sources: dict[str, _Source]
) -> Iterator[str]:
    """The document with every part made anew. parts, sources: those already made, by their request."""
    at = 0
    for begin in _BEGIN.finditer(text):
        end = text.find(_END, begin.end())
        if begin.start() < at or end < 0:
            raise UserError(f"{path.name}: the part 'generated: {begin[1]}' has no '{_END}'")
        if begin[1] not in parts:
            try:
                parts[begin[1]] = _make(begin[1].split(), root, folder, sources)
            except (UserError, OSError, ValueError, KeyError) as error:
                raise UserError(f"{path.name}: generated: {begin[1]}: {one_line(error)}") from None
        yield text[at : begin.end()] + parts[begin[1]].text(path, folder)
        at = end
    yield text[at:]


@dataclass(frozen=True)
class _Source:
    """The displays of a study, a figures file or the experiments: the line of facts, tables and pictures by name.

    missing: the text in place of all of these if it was not run.
    """

    facts: str = ""
    tables: Mapping[str, tables.Table] = field(default_factory=dict)
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    missing: str = ""


def _make(words: Sequence[str], root: Path, folder: Path, sources: dict[str, _Source]) -> _Part:
    if list(words) == ["qsm-targets"]:
        return _Part(_table(targets.table(root)))
    if list(words) == ["gates"]:
        return _Part(
            [part for table in (gates.published(root), gates.authors(root)) for part in _table(table)]
        )
    if list(words) == ["cost"]:
        return _Part(_costs(root))
    if list(words) == ["packs"]:
        found = packs.tables(wallclock.load_timings(root)[0])
        return _Part([line for table in found for line in _table(table)])
    if list(words) == ["perf"]:
        return _Part(_speed(root))
    if len(words) < 2:
        raise UserError(
            "expected a study or a figures file and names of its report's tables and figures, "
            "gates, perf, packs, qsm-targets or cost"
        )
    source, *names = words
    with style.drawing():
        chosen = source.endswith(".toml")
        if source not in sources:
            sources[source] = _chosen(folder / source, root) if chosen else _source(source, root)
        return _shown(Path(source).stem if chosen else source, sources[source], names)


def _costs(root: Path) -> list[str]:
    """The tables of what an update costs, of every machine and size."""
    found = cost.tables(root, wallclock.load_timings(root)[0])
    if not found:
        return ['*Not measured here yet: `make timing SIZES="authors matched"` on an idle machine.*']
    return [line for table in found for line in _table(table)]


def _speed(root: Path) -> list[str]:
    """The overview of each machine on which ours were timed beside other libraries."""
    found = [perf_tables.overview(each) for each in perf.load(root)[0]]
    return [line for table in found for line in _table(table)] or ["*Not measured here yet: `make perf`.*"]


def _source(study: str, root: Path) -> _Source:
    if study == experiment_report.NAME:
        if experiment_report.missing(root):
            return _Source(missing="*The experiments were not run here yet: `make experiments`.*")
        facts = f"Experiments: {', '.join(experiment_report.facts(root))}."
        return _displays(facts, experiment_report.sections(root))
    if study not in studies(root):
        return _Source(missing=_not_run(study))
    results = with_subject(load_report(root, study))
    facts = f"Study `{study}`: {', '.join(report.facts(results))}."
    judged = claims.judge(results, wallclock.load_timings(root)[0])
    further = [overview.table(judged), claims.both_rules(judged), learning.table(results, default_config)]
    return _displays(facts, sections(results, [claims_section]), further)


def _chosen(file: Path, root: Path) -> _Source:
    """What a figures file asks for."""
    choice = read_figures_file(file)
    if choice is None:
        raise UserError(f"{file.name} is a study file; expected a figures file, or the study's name")
    found = studies(root)
    if absent := [study for study in choice.studies if study not in found]:
        return _Source(missing="\n\n".join(_not_run(study) for study in absent))
    results = load_chosen(root, choice.studies, choice, "make docs", file.stem)
    named = ", ".join(f"`{study}`" for study in choice.studies)
    of = "studies" if len(choice.studies) > 1 else "study"
    return _displays(f"Of the {of} {named}: {', '.join(report.facts(results))}.", sections(results))


def _not_run(study: str) -> str:
    return f"*No runs of the study `{study}` are here yet: `make bench STUDY={study}`.*"


def _displays(facts: str, made: Sequence[Section], further: Sequence[tables.Table] = ()) -> _Source:
    shown = [*(table for section in made for table in section.tables), *further]
    pictures = {picture.name: picture for section in made for picture in section.pictures}
    return _Source(facts, {table.name: table for table in shown}, pictures)


def _shown(prefix: str, source: _Source, names: Sequence[str]) -> _Part:
    """The displays of these names. prefix: of the files of figures."""
    if source.missing:
        return _Part([source.missing])
    lines: list[str] = []
    figures = {}
    for name in names:
        if name == "facts":
            lines.append(source.facts)
        elif name in source.pictures:
            picture = source.pictures[name]
            file = f"{prefix}-{name}.png"
            figures[file] = style.png(picture.figure)
            seen = tables.markdown_escape(f"{prefix}: {name.replace('_', ' ')}")
            lines += [f"![{seen}]({{figures}}/{file})", f"*{tables.markdown_escape(picture.caption)}*"]
        elif name in source.tables:
            lines += _table(source.tables[name])
        else:
            close = suggest(name, [*source.tables, *source.pictures, "facts"])
            raise UserError(f"no table or figure {name!r}{close}")
    return _Part(lines, figures)


def _table(table: tables.Table) -> list[str]:
    """The table's Markdown without its heading, each block an entry."""
    return [
        f"**{tables.markdown_escape(table.title)}**",
        *tables.to_markdown(table).strip().split("\n\n")[1:],
    ]
