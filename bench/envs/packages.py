"""Where a task's code comes from, if it is neither this suite's nor that of a library whose version is recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium

from bench.envs import names, tasks
from bench.envs.dm import DmEnv
from bench.errors import UserError
from bench.machine.plugins import distribution_of, package_record, place
from bench.machine.provenance import ROOT

#: Top modules that `provenance` records by version or by digest.
RECORDED = frozenset({"bench", "gymnasium", "dm_control", "dm_env"})


@cache
def packages(name: str) -> list[dict[str, Any]]:
    """A record of each package that a task is made of: the one that its name leads to, and those of its wrappers.

    As `bench.machine.plugins.package_record` gives it, with `files_sha256`, since a task is models and data too; empty
    for DM Control's suite and Gymnasium's own tasks.

    Raises:
        UserError: as `bench.envs.tasks.make`.
    """
    task = names.find(name)
    env = tasks.make(name)
    modules = [module for module in (task.module, *_layers(env)) if module]
    env.close()
    own = None if task.module is None else task.module.partition(".")[0]
    tops = dict.fromkeys(module.partition(".")[0] for module in modules)
    return [
        package_record(f"task {name}", top, task.distribution if top == own else None, files=True)
        for top in tops
        if top not in RECORDED
    ]


def check_reachable(name: str) -> None:
    """Check that a process started in another folder, as on a cluster, finds the module of a task.

    Raises:
        UserError: it lies in the current folder, and neither is installed nor has that folder on PYTHONPATH.
    """
    module = names.find(name).module
    top = (module or "bench").partition(".")[0]
    if top in RECORDED:
        return
    folder = place(top).parent
    elsewhere = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(path)]
    found = folder != Path.cwd().resolve() or folder in [ROOT, *(Path(path).resolve() for path in elsewhere)]
    if not found and distribution_of(top) is None:
        raise UserError(
            f"the tasks of a job array start in {ROOT} and would not find the module {top} of this folder: "
            f"install it, or put its folder on PYTHONPATH (export PYTHONPATH={folder})"
        )


def _layers(env: gymnasium.Env) -> Iterator[str]:
    """The modules of the classes that an environment is made of, outermost first."""
    while isinstance(env, gymnasium.Wrapper):
        yield type(env).__module__
        env = env.env
    yield type(env).__module__
    if isinstance(env, DmEnv):
        yield type(env.native).__module__
        if (task := getattr(env.native, "task", None)) is not None:
            yield type(task).__module__
