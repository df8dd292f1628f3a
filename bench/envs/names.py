"""Which task a name means, and how it is made.

- `cheetah-run`: of DM Control's suite; domain, dash, task, spelled as in `dm_control.suite.ALL_TASKS`. The first dash
  separates them, words within them keep their underscores (`ball_in_cup-catch`, `humanoid_CMU-run`).
- `Pendulum-v1`, `namespace/Task-v0`: registered with Gymnasium, by itself or by an installed package under the
  entry-point group `gymnasium.envs` (name: the namespace, or `__root__`; value: a function that registers).
- `my_package:Task-v0`: registered with Gymnasium when the module before the colon is imported.
- any other: offered by an installed package under the entry-point group `qsm_bench.tasks` (value: a function without
  required arguments that returns a Gymnasium or dm_env environment).

A name means the same in every process: what a module registers counts only under the module's name, and replaces
nothing that was registered before it.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points, packages_distributions
from typing import Any, Literal

import gymnasium
from gymnasium.envs.registration import namespace

from bench.envs import suite
from bench.envs.dm import DmEnv
from bench.envs.simulator import mujoco_gl, redirect_warnings
from bench.errors import UserError, suggest
from bench.failures import reason
from bench.names import ENV_NAME, LONGEST_ENV_NAME

TASKS = "qsm_bench.tasks"  # entry points of factories
GYMNASIUM = "gymnasium.envs"  # entry points of functions that register tasks with Gymnasium

Family = Literal["dm_control", "gymnasium"]


@dataclass(frozen=True)
class Task:
    """What a name means. family: "dm_control" for tasks of its suite, whose returns have a known scale."""

    name: str
    family: Family
    build: Callable[[str | None], gymnasium.Env]  # takes the render mode
    module: str | None = None  # that holds the task, if it belongs to a package
    distribution: Distribution | None = None  # that offers it by an entry point


def find(name: str) -> Task:
    """The task of that name.

    Raises:
        UserError: there is none (close names are suggested), the name means two things, or the package that it comes
            from cannot be imported.
    """
    if not re.fullmatch(ENV_NAME, name) or len(name) > LONGEST_ENV_NAME:
        raise UserError(
            f"{name!r} cannot name a task: expected cheetah-run, Pendulum-v1 or my_package:MyEnv-v0, "
            f"at most {LONGEST_ENV_NAME} characters"
        )
    module, colon, id = name.partition(":")
    if colon:
        return _of_module(name, module, id)
    if name in _offered():
        return _of_factory(name)
    if name in gymnasium.registry and name not in _added:
        return _registered(name, gymnasium.registry[name])
    if name in suite.tasks():
        return Task(name, "dm_control", lambda mode: suite.DMControl(*suite.tasks()[name], render_mode=mode))
    registered, failures = _of_entry_points()
    if name in registered:
        spec, point = registered[name]
        return _registered(name, spec, point.module, point.dist)
    known = {*suite.tasks(), *gymnasium.registry, *registered, *_offered()} - _added.keys()
    close = f"; did you mean {_added[name]!r}?" if name in _added else suggest(name, known)
    looks = "; tasks look like cheetah-run, Pendulum-v1 or my_package:MyEnv-v0"
    raise UserError(f"unknown task {name!r}{close or looks}{''.join(f'; {failure}' for failure in failures)}")


# -- tasks that are registered with Gymnasium --------------------------------------------------------------


def _registered(
    name: str, spec: Any, module: str | None = None, distribution: Distribution | None = None
) -> Task:
    def build(render_mode: str | None) -> gymnasium.Env:
        redirect_warnings()
        how: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}  # not all take it
        with mujoco_gl("disable"):
            try:
                known = gymnasium.registry.get(spec.id) is spec  # by name, Gymnasium warns of an old version
                return gymnasium.make(spec.id if known else spec, disable_env_checker=True, **how)
            except Exception as error:  # a task's constructor may raise anything
                raise UserError(f"Gymnasium cannot make {name}: {reason(error)}") from error

    return Task(name, "gymnasium", build, module or _module_of(spec), distribution)


def _module_of(spec: Any) -> str | None:
    """The module that a registered task's class or function is in."""
    entry = spec.entry_point
    return entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", None)


def _of_module(name: str, module: str, id: str) -> Task:
    spec = _import(module).get(id) or gymnasium.registry.get(id)
    if spec is None:
        own = {f"{module}:{other}" for other in _import(module)}
        close = suggest(name, own or {f"{module}:{other}" for other in gymnasium.registry})
        raise UserError(f"unknown task {name!r}: {module} registers no {id!r} with Gymnasium{close}")
    return _registered(name, spec, module)


#: Module -> the tasks that its import registered, or that its package has registered before.
_imported: dict[str, dict[str, Any]] = {}
#: Tasks that these imports added to Gymnasium's registry -> the name under which they count.
_added: dict[str, str] = {}


def _import(module: str) -> dict[str, Any]:
    top = module.partition(".")[0]
    if module not in _imported:
        with _registering() as found:
            try:
                with mujoco_gl("disable"):
                    importlib.import_module(module)
            except (Exception, SystemExit) as error:  # a user's own module may fail in any way
                if isinstance(error, ModuleNotFoundError) and error.name in _parents(module):
                    close = suggest(top, packages_distributions())
                    raise UserError(
                        f"there is no module {error.name!r} here{close} "
                        "(it must be installed in this environment, or lie on PYTHONPATH)"
                    ) from None
                raise UserError(f"{module} cannot be imported: {reason(error)}") from error
        before = {
            id: spec
            for id, spec in gymnasium.registry.items()
            if (_module_of(spec) or "").partition(".")[0] == top
        }
        _imported[module] = before | found
        _added.update({id: f"{module}:{id}" for id in found if gymnasium.registry[id] is found[id]})
    return _imported[module]


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


@contextmanager
def _registering() -> Iterator[dict[str, Any]]:
    """Collects the tasks that are registered with Gymnasium meanwhile, and restores any that they replaced."""
    before = dict(gymnasium.registry)
    found: dict[str, Any] = {}
    try:
        yield found
    finally:
        found |= {id: spec for id, spec in gymnasium.registry.items() if before.get(id) is not spec}
        gymnasium.registry.update(before)


@cache
def _of_entry_points() -> tuple[dict[str, tuple[Any, EntryPoint]], list[str]]:
    """What installed packages register under `gymnasium.envs`, and a clause for each that fails."""
    tasks: dict[str, tuple[Any, EntryPoint]] = {}
    failures = []
    for point in entry_points(group=GYMNASIUM):
        with _registering() as found:
            try:
                with mujoco_gl("disable"):
                    _register(point)
            except (Exception, SystemExit) as error:
                whose = point.dist.name if point.dist else point.value
                failures.append(f"{whose} could not register its tasks: {reason(error)}")
        tasks |= {id: (spec, point) for id, spec in found.items()}
    return tasks, failures


def _register(point: EntryPoint) -> None:
    function = point.load()
    if not callable(function):  # a module, which registers when it is imported
        return
    if point.name == "__root__":
        function()
    else:
        with namespace(point.name):
            function()


# -- tasks that packages offer under our own group -----------------------------------------------------------


@cache
def _offered() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=TASKS):
        found.setdefault(point.name, []).append(point)
    return found


def _of_factory(name: str) -> Task:
    points = _offered()[name]
    packages = " and ".join(sorted({point.dist.name if point.dist else point.value for point in points}))
    if len(points) > 1:
        raise UserError(f"task {name!r}: {packages} offer it {len(points)} times: uninstall all but one")
    if name in gymnasium.registry or name in suite.tasks():
        raise UserError(
            f"task {name!r}: {packages} offers a task of this built-in name: rename its entry point"
        )
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise UserError(
            f"task {name!r}: {packages} offers it under a name that has more than letters, digits and . _ -: "
            "rename its entry point"
        )
    (point,) = points

    def build(render_mode: str | None) -> gymnasium.Env:
        redirect_warnings()
        with mujoco_gl("disable"):
            try:
                factory = point.load()
                draws = render_mode is not None and "render_mode" in inspect.signature(factory).parameters
                made = factory(render_mode=render_mode) if draws else factory()
            except (Exception, SystemExit) as error:
                raise UserError(f"{packages} cannot make {name}: {reason(error)}") from error
        return _as_gymnasium(made, name, render_mode)

    return Task(name, "gymnasium", build, point.module, point.dist)


def _as_gymnasium(made: Any, name: str, render_mode: str | None) -> gymnasium.Env:
    import dm_env

    if isinstance(made, gymnasium.Env):
        return made
    if isinstance(made, dm_env.Environment):
        return DmEnv(made, name, render_mode)
    kind = type(made)
    raise UserError(
        f"{name} is made as a {kind.__module__}.{kind.__qualname__}; expected a Gymnasium or dm_env environment"
    )
