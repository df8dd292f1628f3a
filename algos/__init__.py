"""What is compared: tensors in, tensors out. The registry of algorithms; a file in this folder adds one.

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
    entries = {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    stems = sorted(path.stem for path in Path(__file__).parent.glob("[A-Za-z]*.py"))
    modules = [stem for stem in stems if stem.isidentifier()]
    files = {stem.replace("_", "-"): f"algos.{stem}" for stem in modules}
    return {**entries, **files}


def agent_class(name: str) -> type[Agent]:
    """The Agent class of an algorithm; its `Config` is the algorithm's settings.

    Raises:
        KeyError: no algorithm of that name.
        ImportError, AttributeError, or whatever else the module behind it raises: it does not load.
    """
    module_name, _, attribute = registry()[name].partition(":")
    module = importlib.import_module(module_name)
    return getattr(module, attribute) if attribute else _class_named(name, module)


def _class_named(name: str, module: ModuleType) -> type[Agent]:
    from algos.core.agent import Agent

    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Agent) and getattr(value, "name", None) == name:
            return value
    raise ImportError(f"{module.__name__} has no subclass of Agent with name = {name!r}")
