"""Packages installed into a folder of their own, as users install theirs, and the command line with them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.launching import REPO

PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]


def install(package: Path, folder: Path) -> Path:
    """Install the package in the folder `package` (a copy of it). Returns where it lies then."""
    shutil.copytree(package, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    isolation = (
        ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    )  # else pip fetches it
    command = [*PIP, *isolation, "--target", str(folder / "site"), str(folder / "source")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "site"


def bench(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in `cwd`, with what is installed in `site`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(site), str(REPO)))}
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
