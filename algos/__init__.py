"""What is compared: tensors in, tensors out. The registry of algorithms; entry points of other packages add to it.

A package of your own adds algorithms under the entry-point group "qsm_bench.algorithms":
`my-algo = "my_package.my_module:MyAgent"`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from algos.agent import Agent

ENTRY_POINTS = "qsm_bench.algorithms"

_BUILT_IN = {
    "qsm": "algos.qsm:QSM",
    "dql": "algos.dql:DQL",
    "dql-bc": "algos.dql:DQLBC",
    "sac": "algos.sac:SAC",
    "td3": "algos.td3:TD3",
    "random": "algos.random:Random",
}


@functools.cache
def registry() -> dict[str, str]:
    """Name -> "module:class" of every algorithm there is; nothing is imported yet."""
    found = {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    return {**found, **_BUILT_IN}


def agent_class(name: str) -> type[Agent]:
    """The Agent class of an algorithm; its `Config` is the algorithm's settings.

    Raises:
        KeyError: no algorithm of that name.
        ImportError, AttributeError: the module or class behind it does not load.
    """
    module, _, attribute = registry()[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
