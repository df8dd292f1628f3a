"""`make figures`: everything that one study's results give, into results/<study>/report/."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.analysis import style
from bench.analysis import table as tables
from bench.analysis.data_files import data_files
from bench.analysis.latex import to_latex
from bench.analysis.report import index
from bench.analysis.report import page as report
from bench.analysis.report.index import IndexEntry
from bench.analysis.report.page import Heading
from bench.analysis.report.request import load_report
from bench.analysis.report.sections import Maker, Section, sections
from bench.analysis.scores import tables as score_tables
from bench.analysis.scores.results import REPORT, Results
from bench.analysis.table import Table
from bench.errors import UserError

SUMMARY = "summary.md"


def build(root: Path, study: str, more: Sequence[Maker] = ()) -> list[Path]:
    """Write the tables, figures and report of results/<study>; the paths written, sorted.

    more: as `sections` takes it. Raises UserError where there is no such study or the folder cannot be written.
    """
    return draw(load_report(root, study), more)


def draw(results: Results, more: Sequence[Maker] = ()) -> list[Path]:
    """`build` for results that are already loaded.

    The report folder is replaced as a whole, or left as it was when anything fails. The same results give
    the same bytes. Raises UserError where the folder cannot be written.
    """
    with style.drawing():
        made = sections(results, more)
        return write_report(
            results.home,
            report.heading(results),
            made,
            index.entry(results, made),
            {SUMMARY: score_tables.summary(results), **data_files(results)},
        )


def write_report(
    target: Path,
    top: Heading,
    made: Sequence[Section],
    entry: IndexEntry,
    more: Mapping[str, str | bytes],
) -> list[Path]:
    """Replace the folder `target` by a page, its figures and tables, and `more` {file name: content}; then bring the
    index over all studies up to date.

    The paths written, sorted. Call it inside `style.drawing`, and alone: what another process left there when it was
    killed is removed. Raises UserError where the folder cannot be written.
    """
    work = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    for suffix in (".tmp", ".old"):
        for left in target.parent.glob(f"{target.name}.*{suffix}"):
            shutil.rmtree(left, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        _write(work, top, made, more)
        index.save(work, entry)
        _replace(work, target)
        index.refresh(target.parents[1], REPORT)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return sorted(path for path in target.rglob("*") if path.is_file())


def _replace(work: Path, target: Path) -> None:
    """Put `work` where `target` is. A crash between the two renames leaves both, under other names."""
    old = work.with_suffix(".old")
    if target.exists():
        os.rename(target, old)
    os.rename(work, target)
    shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, top: Heading, made: Sequence[Section], more: Mapping[str, str | bytes]) -> None:
    for name in ("tables", "figures"):
        (folder / name).mkdir()
    for section in made:
        for table in section.tables:
            write_table(table, folder / "tables")
        for picture in section.pictures:
            style.save(picture.figure, folder / "figures" / picture.name)
    for name, content in {"index.html": report.page(top, made, folder), **more}.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write NAME.csv, NAME.md and NAME.tex into `folder`."""
    paths = []
    for suffix, text in (
        (".csv", tables.to_csv(table)),
        (".md", tables.to_markdown(table)),
        (".tex", to_latex(table)),
    ):
        path = folder / (table.name + suffix)
        path.write_text(text, encoding="utf-8", newline="\n")
        paths.append(path)
    return paths
