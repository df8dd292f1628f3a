"""Where the code of an algorithm comes from that is not part of this suite: recorded with every attempt of its runs."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import algos
from bench.machine.provenance import git_state


def plugins(algo: str, critic: str = "mlp") -> list[dict[str, Any]]:
    """The packages of an algorithm and its critic; empty for the suite's own.

    Keys: offers (an algorithm or critic, by name), title (of the algorithm, in tables), distribution and version
    (of the package; None for files that belong to none), modules_sha256 (see `modules_digest`), git (see
    `git_state`, of the checkout that they lie in).
    """
    from algos.core import critics

    found = [(f"algorithm {algo}", point) for point in algos.offered().get(algo, [])]
    if critic in critics.offered() and critic not in critics.CRITICS:
        found.append((f"critic {critic}", critics.offered()[critic]))
    return [
        {
            "offers": offers,
            "title": _title(algo),
            "distribution": point.dist.name if point.dist else None,
            "version": point.dist.version if point.dist else None,
            "modules_sha256": modules_digest(point.module),
            "git": git_state(_checkout(_place(point.module))),
        }
        for offers, point in found
    ]


def _title(algo: str) -> str:
    try:
        return algos.agent_class(algo).title or algo
    except Exception:  # whoever builds the agent says why
        return algo


def modules_digest(module: str) -> str:
    """SHA-256 over the Python files of the top package of `module` (one file, if it is one), with their names."""
    place = _place(module)
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(place).as_posix() if place.is_dir() else path.name
        code = path.read_bytes()
        digest.update(f"{name} {len(code)}\n".encode() + code)
    return digest.hexdigest()


def _place(module: str) -> Path:
    """The folder of a module's top package, or its file if it is not a package."""
    top = module.partition(".")[0]
    spec = getattr(sys.modules.get(top), "__spec__", None) or importlib.util.find_spec(top)
    if spec is None or not (spec.submodule_search_locations or spec.origin):
        raise ImportError(f"no module named {top!r}")
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(str(spec.origin)).resolve()


def _checkout(folder: Path) -> Path:
    """The root of the git checkout that `folder` lies in; or `folder` itself outside a checkout."""
    for parent in (folder, *folder.parents):
        if (parent / ".git").exists():
            return parent
    return folder
