"""The suite around the algorithms: runs, launchers, timing, analysis.

From Python: `bench.load` reads studies into data frames, `bench.policy` makes a run's policy a function, and both raise
`bench.UserError` with one line that says what is wrong. They are imported when first used: `import bench` alone loads
neither torch nor pandas.
"""

from typing import TYPE_CHECKING

from bench.errors import UserError as UserError

if TYPE_CHECKING:
    from bench.analysis.data import load as load
    from bench.trained_policy import policy as policy

_FROM = {"load": "bench.analysis.data", "policy": "bench.trained_policy"}


def __getattr__(name: str) -> object:
    if name not in _FROM:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM})
