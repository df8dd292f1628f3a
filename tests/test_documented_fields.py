"""Every declared record is documented, field by field, and so is every field of the records that we publish.

The shapes are found by themselves: one that is declared later must get its place in DOCUMENTED and its fields there.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from bench.machine import plugins, provenance
from bench.runs import tables
from tests.launching import REPO

RESULTS, CLUSTER, ANALYSIS = "docs/results.md", "docs/cluster.md", "docs/analysis.md"
# shape -> the document, and the text that its part begins with: a heading, else a paragraph or a row of a table
DOCUMENTED = {
    "ArrayRecord": (CLUSTER, "| `array-<token>.json`"),
    "Asked": ("results/published/bands.toml", "# Which published runs"),
    "Attempt": (RESULTS, "An attempt has"),
    "BandsFile": ("results/published/bands.toml", "# Which published runs"),
    "Case": (ANALYSIS, "With two fates"),
    "Cell": (RESULTS, "## study.json"),
    "Choice": (ANALYSIS, "## A comparison of one's own"),
    "Claim": (ANALYSIS, "## Verdicts"),
    "CoverageFile": (ANALYSIS, "With two fates"),
    "Done": (RESULTS, "## done.json"),
    "Failure": (RESULTS, "`failure.json`:"),
    "Heartbeat": (RESULTS, "`heartbeat.json`:"),
    "IndexEntry": (ANALYSIS, "| `entry.json`"),
    "Keys": (CLUSTER, "## Profiles"),
    "Manifest": (RESULTS, "| `checkpoint.json`"),
    "Owner": (RESULTS, "`owner.json` names"),
    "PartRecord": (RESULTS, "| `parts/<part>.json`"),
    "ProfileFile": (CLUSTER, "## Profiles"),
    "RootMark": (RESULTS, "`checkpoint/` is written"),
    "RootRecord": (RESULTS, "`checkpoint/` is written"),
    "Rules": (ANALYSIS, "## Verdicts"),
    "RunRecord": (RESULTS, "## run.json"),
    "StudyFile": ("docs/studies.md", "## A study file"),
    "StudyRecord": (RESULTS, "## study.json"),
    "TaskMemory": (CLUSTER, "| `work-<token>-<index>.memory.json`"),
    "Work": (CLUSTER, "| `work-<token>.json`"),
}
EVERYWHERE = {"format"}  # "Every JSON file has `format`"
PROVENANCE = {*provenance.provenance(), "plugins"}
# whose keys are names of settings, files, packages, variables, states or algorithms
FREE = {"config", "settings", "files", "versions", "threads", "protocol", "peers", "update_gflop", "report"}


def declared() -> dict[str, type[Struct]]:
    """Every shape of the suite, by name."""
    for path in sorted((REPO / "bench").rglob("*.py")):
        if "Struct" in path.read_text():
            importlib.import_module(".".join(path.relative_to(REPO).with_suffix("").parts))
    found = [shape for shape in below(Struct) if shape.__module__.startswith("bench.")]
    assert len({shape.__name__ for shape in found}) == len(found), "two shapes have one name"
    return {shape.__name__: shape for shape in found}


def below(shape: type[Struct]) -> Iterator[type[Struct]]:
    for each in shape.__subclasses__():
        yield each
        yield from below(each)


SHAPES = declared()


def part(document: str, start: str) -> str:
    """The text from `start` on: to the next heading if that is one, one line of a table, else to an empty line."""
    text = (REPO / document).read_text(encoding="utf-8") + "\n#"
    (at,) = [match.start() for match in re.finditer(f"^{re.escape(start)}", text, re.M)]
    ends = {"#": "\n#", "|": "\n", "*": "\n(?=\\*\\*|#)"}  # a heading; a row; a table's name in bold
    end = re.compile(ends.get(start[0], "\n\n") if not start.startswith("# ") else "\n\n")
    return text[at : end.search(text, at + 1).start()]  # type: ignore[union-attr]


def named(text: str) -> set[str]:
    """The names in backticks: `key`, `[table]`, `[table.NAME]`, `{"key", "key"}`."""
    found = re.findall(r"`([^`\n]+)`", text)
    return {name for quoted in found for name in re.findall(r"[A-Za-z_][A-Za-z_0-9]*", quoted)}


def first_cells(text: str) -> set[str]:
    """The names in the first column of the tables of keys."""
    rows = re.findall(
        r"^\| (`[^|]*)\|", "".join(re.findall(r"^\| key \|.*?(?:\n\n|\Z)", text, re.M | re.S)), re.M
    )
    return {name for row in rows for name in re.findall(r"`\[?([A-Za-z_0-9]+)[^`]*`", row)}


def keys(record: Any) -> Iterator[str]:
    """The keys of a record at every depth."""
    for key, value in record.items() if isinstance(record, dict) else ():
        yield key
        if key not in FREE:
            for each in value if isinstance(value, list) else [value]:
                yield from keys(each)


def tracked_results() -> list[Path]:
    """The files of results/ that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z", "results"], cwd=REPO, capture_output=True, text=True)
    return [REPO / name for name in listed.stdout.split("\0") if name]


def test_every_shape_has_its_place_in_the_documents() -> None:
    assert set(SHAPES) == set(DOCUMENTED)


@pytest.mark.parametrize("shape", sorted(DOCUMENTED))
def test_every_field_is_documented(shape: str) -> None:
    fields = set(SHAPES[shape].__struct_fields__)
    assert fields - named(part(*DOCUMENTED[shape])) <= EVERYWHERE


@pytest.mark.parametrize("place", sorted(set(DOCUMENTED.values())), ids=lambda place: place[1])
def test_the_tables_of_keys_name_no_other_field(place: tuple[str, str]) -> None:
    fields = {
        name for shape, at in DOCUMENTED.items() if at == place for name in SHAPES[shape].__struct_fields__
    }
    if place == (RESULTS, "## run.json"):
        fields |= PROVENANCE
    assert first_cells(part(*place)) <= fields


def test_what_a_run_records_of_its_origin_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    record = provenance.provenance() | {"plugins": [plugins.package_record("critic x", "json", files=True)]}
    assert set(record) == PROVENANCE
    assert set(keys(record)) <= named(part(RESULTS, "## run.json"))


def test_what_the_committed_runs_recorded_is_documented() -> None:
    """Those of older code too."""
    run, measurement = (
        named(part(RESULTS, "## run.json")),
        named(part("docs/timing.md", "### provenance.json")),
    )
    known = {
        "run.json": run,
        "done.json": named(part(RESULTS, "## done.json")),
        "study.json": named(part(RESULTS, "## study.json")),
        "provenance.json": run | measurement,
    }
    for path in tracked_results():
        if path.name in known:
            assert set(keys(json.loads(path.read_bytes()))) - EVERYWHERE <= known[path.name], path


@pytest.mark.parametrize("table", tables.TABLES)
def test_the_columns_of_a_run_are_documented_and_no_others(table: str) -> None:
    text = part(RESULTS, f"**{table}**")
    cells = re.findall(r"^\| (`[^|]*)\|", text, re.M)
    assert {name for cell in cells for name in named(cell)} == set(tables.TABLES[table])
