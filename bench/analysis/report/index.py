"""The page over all studies that have a report: results/index.html.

Each report leaves its row beside it (entry.json), so that drawing one study reads no run of another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from bench.analysis.report.page import index_page
from bench.analysis.report.sections import Section
from bench.analysis.scores.results import REPORTS, Results
from bench.analysis.scores.runs import STATES, days
from bench.analysis.style import named
from bench.analysis.table import MISSING, Entry, Link, Table, number, within
from bench.disk import DamagedFile, check_inside, read_bytes, write_atomic
from bench.names import INDEX, is_safe_name
from bench.runs.ownership import locked

PAGE = "index.html"  # in a report's folder
FILE = "entry.json"  # in a report's folder
LARGEST = 2**20  # bytes of such a file; ours have hundreds
NAMES = 5  # algorithms or tasks that a row names before it counts


class IndexEntry(msgspec.Struct, frozen=True):
    """What the index says of one report. when: the first and the last day of its runs; runs: {state: how many}."""

    title: str
    what: str
    when: tuple[str, ...]
    runs: dict[str, int]
    best: str


def entry(results: Results, made: Sequence[Section]) -> IndexEntry:
    """The row of a study. made: its report's sections."""
    found = Counter(score.state for score in results.runs)
    steps = results.settings.get("steps")
    learners = [named(results, label) for label in results.learners]
    what = f"{_named(learners)} on {_named(results.envs)}" if learners else _named(results.envs)
    if isinstance(steps, int):
        what += f", {steps:,} steps"
    return IndexEntry(
        title=results.title,
        what=what,
        when=days(results),
        runs={state: found[state] for state in STATES if found[state]},
        best=best(results, made),
    )


def best(results: Results, made: Sequence[Section]) -> str:
    """The learner with the highest interquartile mean over tasks and its interval, as its table has them.

    Where there are no aggregates: how many tasks it has the highest mean of, or its mean on the only one.
    """
    records = {table.name: table.records for section in made for table in section.tables}
    name = {label: named(results, label) for label in results.learners}
    iqm = [
        record
        for record in records.get("aggregates", ())
        if record["statistic"] == "IQM" and record["label"] in name
    ]
    if iqm:
        top = max(iqm, key=_value)
        return f"{name[str(top['label'])]}: IQM {_shown(top, 3)}"
    finals = [record for record in records.get("final_return", ()) if record["label"] in name]
    tops = [
        max((record for record in finals if record["env"] == env), key=_value)
        for env in dict.fromkeys(record["env"] for record in finals)
    ]
    if not tops:
        return ""
    if len(tops) == 1:
        return f"{name[str(tops[0]['label'])]}: {_shown(tops[0], 0)}"
    (label, count), *_ = Counter(str(record["label"]) for record in tops).most_common(1)
    return f"{name[label]}: highest mean on {count} of {len(tops)} tasks"


def _value(record: object) -> float:
    return float(record["value"])  # type: ignore[index]


def _shown(record: object, digits: int) -> str:
    value, low, high, n = (record[key] for key in ("value", "low", "high", "n"))  # type: ignore[index]
    return f"{value:,.{digits}f} {within(low, high, digits)} n = {n}".replace("  ", " ")


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES])
    return f"{shown} and {len(names) - NAMES} more" if len(names) > NAMES else shown


def save(folder: Path, made: IndexEntry) -> None:
    """Leave the row in a report's folder. Raises OSError."""
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")


def table(root: Path, report: str) -> Table:
    """One row per report below `root`, the latest first; report: the name of its folder in a study's."""
    folders = {path.parent: path.parents[1].name for path in root.glob(f"*/{report}/{PAGE}")}
    folders |= {path.parent: path.parent.name for path in root.glob(f"{REPORTS}/*/{PAGE}")}
    found = [
        (folder, name, _read(root, folder)) for folder, name in sorted(folders.items()) if is_safe_name(name)
    ]
    found.sort(key=lambda item: item[2].when[-1] if item[2] and item[2].when else "", reverse=True)
    rows: list[list[Entry]] = []
    for folder, name, each in found:
        link = Link(name, quote((folder / PAGE).relative_to(root).as_posix()))
        if each is None:
            rows.append([link, "drawn by other code: draw it again with make figures", *[MISSING] * 4])
            continue
        states = ", ".join(f"{count} {state}" for state, count in each.runs.items())
        row: list[Entry] = [link, f"{each.title}: {each.what}", " to ".join(each.when) or MISSING]
        rows.append([*row, number(sum(each.runs.values())), states or MISSING, each.best or MISSING])
    columns = ["Study", "What", "When", "Runs", "State", "Highest"]
    notes = [
        "State: of the runs when the report was drawn. Highest: the algorithm with the highest interquartile mean "
        "(IQM) of final return / 1000 over tasks and its 95% interval over seeds, else with the highest mean; whether "
        "it is better than the others is in the report."
    ]
    return Table("studies", "All studies", columns, rows, (), notes)


def _read(root: Path, folder: Path) -> IndexEntry | None:
    """None where there is no row that this code can read."""
    try:
        check_inside(root, folder)
        return msgspec.json.decode(read_bytes(folder / FILE, LARGEST), type=IndexEntry)
    except (OSError, DamagedFile, msgspec.DecodeError, UnicodeDecodeError):
        return None


def refresh(root: Path, report: str) -> Path:
    """Write root/index.html anew. report: as in `table`. Raises OSError.

    Under a lock: of two reports that are drawn at once, the later writes both rows.
    """
    with locked(root):
        write_atomic(root / INDEX, index_page(table(root, report)).encode(), "study")
    return root / INDEX
