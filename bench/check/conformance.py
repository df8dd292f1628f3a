"""The rules that every algorithm must follow to train in this suite: `python -m bench check my-algo`.

docs/adding-an-algorithm.md explains the rules. A check is a function of an `Algorithm`. It raises AssertionError,
whose message says what is wrong, or whatever the algorithm raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.check import interface, reproducible
from bench.check.algorithm import Algorithm
from bench.check.outcomes import outcomes

CHECKS: dict[str, Callable[[Algorithm], None]] = {
    "settings are plain values": interface.settings,
    "actions have their shape and lie in [-1, 1]": interface.actions,
    "actions at large observations lie in [-1, 1]": interface.large_observations,
    "an update changes the state and reports one number per seed": interface.updates,
    "the state is tensors with a seed axis, at fixed addresses": interface.state,
    "seeds in a pack compute what they compute alone": reproducible.independent_seeds,
    "seeds differ": reproducible.seeds_differ,
    "the same seed gives the same, however often it is evaluated": reproducible.deterministic,
    "it goes on from a state as if it had not stopped": reproducible.goes_on,
    "a run that is stopped and resumed ends the same": reproducible.resumes,
    "its policy can be stored": interface.policy,
    "it leaves the batch as it is": interface.batch_unchanged,
    "it makes no random numbers itself": interface.random_numbers,
    "its update is a function of tensors": interface.function_of_tensors,
    "compiled, it computes the same": reproducible.compiles,
    "captured as a CUDA graph, it computes the same (where there is a GPU)": reproducible.captures,
}
_COMPILING = (reproducible.compiles, reproducible.captures)
SLOW = {what for what, check in CHECKS.items() if check in _COMPILING}


def run(spec: str, slow: bool) -> Iterator[tuple[str, str | None]]:
    """(rule, fault or None), one after the other."""
    yield from outcomes({k: v for k, v in CHECKS.items() if slow or k not in SLOW}, Algorithm(spec))
