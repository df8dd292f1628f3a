"""Where code comes from that is not part of this suite, such as an algorithm's: recorded with every attempt."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import algos
from bench.machine.provenance import git_state

SUITE = "qsm-bench"  # our own distribution
_CACHES = {"__pycache__", ".git"}


def plugins(algo: str, critic: str = "mlp") -> list[dict[str, Any]]:
    """The packages of an algorithm and its critic, each as `package_record` gives it; empty for the suite's own."""
    from algos.core import critics

    found = [(f"algorithm {algo}", point) for point in algos.offered().get(algo, [])]
    if critic in critics.offered() and critic not in critics.CRITICS:
        found.append((f"critic {critic}", critics.offered()[critic]))
    return [package_record(offers, point.module, point.dist) for offers, point in found]


def package_record(
    offers: str, module: str, distribution: Distribution | None = None, files: bool = False
) -> dict[str, Any]:
    """Of the package that `module` belongs to.

    Keys: offers (what a run uses of it: "algorithm my-algo"), distribution and version (None for files that belong to
    no installed package), modules_sha256 (see `modules_digest`), with `files` files_sha256 (the same over its models
    and data too), git (see `git_state`, of the checkout that they lie in).

    Raises:
        ImportError: there is no such module.
    """
    distribution = distribution or distribution_of(module)
    return {
        "offers": offers,
        "distribution": distribution.name if distribution else None,
        "version": distribution.version if distribution else None,
        "modules_sha256": modules_digest(module),
        **({"files_sha256": _digest(module, lambda path: True)} if files else {}),
        "git": git_state(_checkout(place(module))),
    }


def distribution_of(module: str) -> Distribution | None:
    """The installed package that brings a module; None for a file that belongs to none."""
    top = module.partition(".")[0]
    for name in metadata.packages_distributions().get(top, []):
        return metadata.distribution(name)
    where = place(module)
    for found in metadata.distributions():  # one that is installed in place may list no files
        origin = json.loads(found.read_text("direct_url.json") or "{}")
        folder = Path(unquote(urlsplit(origin.get("url", "")).path))
        if "dir_info" in origin and found.name != SUITE and where.is_relative_to(folder.resolve()):
            return found
    return None


def modules_digest(module: str) -> str:
    """SHA-256 over the Python files of the top package of `module` (one file, if it is one), with their names."""
    return _digest(module, lambda path: path.suffix == ".py")


def _digest(module: str, wanted: Callable[[Path], bool]) -> str:
    folder = place(module)
    files = [path for path in sorted(folder.rglob("*")) if wanted(path)] if folder.is_dir() else [folder]
    digest = hashlib.sha256()
    for path in files:
        if path.is_file() and not _CACHES.intersection(path.relative_to(folder).parts):
            name = path.relative_to(folder).as_posix() if folder.is_dir() else path.name
            code = path.read_bytes()
            digest.update(f"{name} {len(code)}\n".encode() + code)
    return digest.hexdigest()


def place(module: str) -> Path:
    """The folder of a module's top package, or the file of one that is no package."""
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
