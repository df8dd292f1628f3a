"""Where a number comes from: code, versions, hardware, threads, scheduler. Recorded with every attempt.

No user name, no path and no dump of the environment is recorded: results are published.
"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.machine import mkl
from bench.machine.behaviour import BEHAVIOUR
from bench.machine.hardware import available_cores, available_memory, cpu_model
from bench.machine.inherited import for_git
from bench.text import one_line

ROOT = Path(__file__).resolve().parents[2]
NO_CODE = ("results", "slurm/profiles", "docs", "*.md", "bench/studies/*.toml")  # patterns of git
PACKAGES = ("torch", "numpy", "mujoco", "dm-control", "gymnasium")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def provenance(device: str = "cpu") -> dict[str, Any]:
    """A JSON-ready record of all that. On `device` "cuda" it asks CUDA for its names, which initialises it.

    Keys: git (see `git_state`), behaviour (see behaviour.py), code_digest, versions, hardware, os, threads, scheduler
    (see `scheduler_ids`), host.
    """
    return {
        "git": git_state(),
        "behaviour": BEHAVIOUR,
        "code_digest": code_digest(),
        "versions": versions(),
        "hardware": hardware(device),
        "os": {"name": _os_name(), "kernel": platform.release(), "machine": platform.machine()},
        "threads": threads(),
        "scheduler": scheduler_ids(),
        "host": socket.gethostname(),
    }


def code_digest(root: Path = ROOT) -> str:
    """SHA-256 over the modules of algos/, bench/training/ and bench/envs/, with their names.

    It identifies the bytes. The behaviour version, which a comment does not change, identifies their numbers.
    """
    files = [
        path for part in ("algos", "bench/training", "bench/envs") for path in (root / part).rglob("*.py")
    ]
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        code = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(code)}\n".encode() + code)
    return digest.hexdigest()


def git_state(root: Path = ROOT) -> dict[str, Any]:
    """commit (None outside a checkout), dirty, diff_sha256 of the uncommitted changes, untracked_code.

    Only the code counts. Left out are results/, which every run changes, what decides nothing of what is computed
    (cluster profiles, documents), and study files, whose settings are in the run's own configuration. untracked_code:
    whether there are Python files that git neither tracks nor ignores.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    if not top or not commit or Path(os.fsdecode(top.strip())).resolve() != root.resolve():
        return {"commit": None, "dirty": None, "diff_sha256": None, "untracked_code": None}
    own = ("--", ".", *(f":(exclude){place}" for place in NO_CODE))
    diff = _git(root, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--binary", "HEAD", *own)
    others = _git(root, "ls-files", "--others", "--exclude-standard", "--", "*.py", *own[2:])
    return {
        "commit": commit.decode().strip(),
        "dirty": bool(diff),
        "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else None,
        "untracked_code": bool(others),
    }


def _git(root: Path, *arguments: str) -> bytes | None:
    """The output of git; None if it is missing, refuses or hangs."""
    try:
        return _ask_git(root, *arguments)
    except (OSError, subprocess.SubprocessError):
        return None


def _ask_git(root: Path, *arguments: str) -> bytes:
    # git refuses a checkout of another owner ("dubious ownership"), lest its settings run commands. The code that runs
    # here is that checkout's: to trust it is decided already.
    command = ["git", "-c", f"safe.directory={root}", "-C", str(root), *arguments]
    environment = for_git(os.environ)
    return subprocess.run(command, capture_output=True, check=True, timeout=60, env=environment).stdout


def why_no_commit(root: Path = ROOT) -> str | None:
    """Why runs record no commit although this is a git checkout: git's own words. None where all is well."""
    if not (root / ".git").exists():
        return None
    try:
        _ask_git(root, "rev-parse", "HEAD")
    except FileNotFoundError:
        return "there is no git here"
    except subprocess.CalledProcessError as error:
        return (
            one_line(error.stderr.decode(errors="replace"), 200) or f"git ended with code {error.returncode}"
        )
    except (OSError, subprocess.SubprocessError) as error:
        return one_line(error, 200)
    return None


def versions() -> dict[str, str | None]:
    """Python's version and those of the packages that decide a number; None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def hardware(device: str = "cpu") -> dict[str, Any]:
    """The hardware of this process.

    Keys: cpu (model), cores (available to this process), memory_bytes, mkl_avx512 (see mkl.py), gpus (names), cuda
    (version or None).
    """
    gpus, cuda = [], None
    if device.startswith("cuda"):
        import torch  # here, since only processes on a GPU have loaded it already

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        cuda = torch.version.cuda
    return {
        "cpu": cpu_model(),
        "cores": available_cores(),
        "memory_bytes": available_memory(),
        "mkl_avx512": mkl.in_use(),
        "gpus": gpus,
        "cuda": cuda,
    }


def threads() -> dict[str, int | None]:
    """Threads that the linear algebra may use: the environment's word, and torch's own where it is loaded."""
    found = {name: _number(os.environ.get(name, "")) for name in THREAD_VARIABLES}
    torch = sys.modules.get("torch")
    return found | {"torch": torch.get_num_threads() if torch is not None else None}


def scheduler_ids() -> dict[str, Any] | None:
    """Slurm's ids of the job this process belongs to, restart_count (0 at first) included; None outside."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    return {
        "name": "slurm",
        "job_id": job,
        "array_job_id": os.environ.get("SLURM_ARRAY_JOB_ID"),
        "array_task_id": os.environ.get("SLURM_ARRAY_TASK_ID"),
        "restart_count": _number(os.environ.get("SLURM_RESTART_COUNT", "")) or 0,
        "nodelist": os.environ.get("SLURM_JOB_NODELIST"),
    }


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
