"""Which task of this suite is meant by the name that others give it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

#: DM Control's domain ball_in_cup as TD-MPC2 and others write it.
DOMAINS = {"cup": "ball_in_cup"}
_PREFIX = re.compile(r"^(dmc|dm_control|dmcontrol|gym|gymnasium)[-_:/ ]+", re.I)


def plain(name: str) -> str:
    """A name without what spellings differ in: case, separators and the suite's own name ("dmc_cheetah_run")."""
    bare = re.sub(r"[-_ /.:]+", "-", _PREFIX.sub("", name)).lower()
    domain, dash, task = bare.partition("-")
    return (DOMAINS.get(domain, domain) + dash + task).replace("-", "").replace("_", "")


@cache
def every_task() -> tuple[str, ...]:
    """All tasks of DM Control and Gymnasium (imports both: a second)."""
    import gymnasium

    from bench.envs.tasks import task_names

    return (*task_names(), *gymnasium.registry)


def our_names(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """{their name: ours} for every name of `names` that means exactly one task of `known`."""
    known = dict.fromkeys(known)
    by_plain: dict[str, set[str]] = {}
    for task in known:
        by_plain.setdefault(plain(task), set()).add(task)
    found = {}
    for name in names:
        meant = {name} if name in known else by_plain.get(plain(name), set())
        if len(meant) == 1:
            found[name] = next(iter(meant))
    return found
