"""Imports run one way: a room imports those below it, never those above."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the top down. docs/architecture.md says what each is for.
ROOMS = (
    ("__main__",),
    ("commands",),
    ("paper",),
    ("timing",),
    ("launch",),
    ("analysis",),
    ("video", "check"),
    ("trained_policy",),
    ("training",),
    ("runs",),
    ("studies",),
    ("envs",),
    ("machine",),
    ("shape",),
    ("disk", "paths", "failures"),
    ("errors", "names", "text"),
)
HEIGHT = {name: -height for height, names in enumerate(ROOMS) for name in names}
MODULES = sorted((ROOT / "bench").rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a module imports, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(ROOT / "bench").with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_its_own_room_and_those_below(path: Path) -> None:
    if path == ROOT / "bench/__init__.py":
        return
    for name in imported(path):
        if name.startswith("bench."):
            other = name.split(".")[1]
            assert other == room(path) or HEIGHT[other] < HEIGHT[room(path)], f"{room(path)} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "algos").rglob("*.py")), ids=lambda path: path.name)
def test_algorithms_import_nothing_of_the_bench(path: Path) -> None:
    assert not [name for name in imported(path) if name.split(".")[0] == "bench"]


def test_the_analysis_never_imports_torch() -> None:
    for path in (ROOT / "bench/analysis").rglob("*.py"):
        assert not [name for name in imported(path) if name.split(".")[0] == "torch"], path


def test_every_room_has_its_place() -> None:
    assert {room(path) for path in MODULES} - {"__init__"} == set(HEIGHT)


def test_the_picture_of_the_packages_is_complete() -> None:
    picture = (ROOT / "docs/architecture.md").read_text().split("```")[1]
    names = {path.stem for path in (ROOT / "bench").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert names - {"__init__", "__pycache__"} <= set(re.findall(r"\w+", picture))
