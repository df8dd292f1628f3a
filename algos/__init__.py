"""The compared algorithms: tensors in, tensors out. The registry of algorithms; a file in this folder adds one.

`algos/<stem>.py` is the algorithm named <stem>, dashes for underscores: the Agent subclass in it whose `name` is that.
A package of your own adds algorithms under the entry-point group "qsm_bench.algorithms":
`my-algo = "my_package.my_module:MyAgent"`. See docs/adding-an-algorithm.md.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from algos.core.agent import Agent

ENTRY_POINTS = "qsm_bench.algorithms"


@functools.cache
def registry() -> dict[str, str]:
    """Name -> "module:class" of every algorithm there is (a file in this folder: "module"); nothing is imported yet."""
    return {**{name: points[0].value for name, points in offered().items()}, **_files()}


@functools.cache
def offered() -> dict[str, list[importlib.metadata.EntryPoint]]:
    """Name -> the entry points under which installed packages offer an algorithm of that name."""
    found: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, []).append(point)
    return found


def _files() -> dict[str, str]:
    stems = sorted(path.stem for path in Path(__file__).parent.glob("[A-Za-z]*.py"))
    return {stem.replace("_", "-"): f"algos.{stem}" for stem in stems if stem.isidentifier()}


def _check_name(name: str) -> None:
    """Raises ImportError if a name means more than one algorithm, since records could not say which one ran."""
    points = offered().get(name, [])
    packages = " and ".join(sorted({point.dist.name if point.dist else point.value for point in points}))
    if points and name in _files():
        raise ImportError(f"{packages} offers an algorithm of this built-in name: rename its entry point")
    if len(points) > 1:
        raise ImportError(f"{packages} offer it {len(points)} times: uninstall all but one")


def agent_class(name: str) -> type[Agent]:
    """The Agent class of an algorithm; its `Config` is the algorithm's settings.

    Raises:
        KeyError: no algorithm of that name.
        ImportError, AttributeError, or whatever else the module behind it raises: it does not load, or its name
            means something else too.
    """
    module_name, _, attribute = registry()[name].partition(":")
    _check_name(name)
    module = importlib.import_module(module_name)
    if not attribute:
        return _class_named(name, module)
    cls = getattr(module, attribute)
    if getattr(cls, "name", None) != name:
        raise ImportError(
            f"{module_name}:{attribute} is named {getattr(cls, 'name', None)!r}: expected {name!r}"
        )
    return cls


def _class_named(name: str, module: ModuleType) -> type[Agent]:
    from algos.core.agent import Agent

    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Agent) and getattr(value, "name", None) == name:
            return value
    raise ImportError(f"{module.__name__} has no subclass of Agent with name = {name!r}")
