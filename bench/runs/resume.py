"""Where a run resumes: its checkpoint, also one that lies elsewhere, and whether the tables agree with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.disk import DamagedFile, read_bytes
from bench.errors import UserError
from bench.runs import checkpoint_places, checkpoints
from bench.runs.checks import JobLike
from bench.runs.reader import Run
from bench.runs.tables import TABLES


def checkpoint_step(root: Path, job: JobLike, checkpoint_root: Path | None = None) -> int:
    """The environment step from which the run of `job` would resume; 0 without a checkpoint.

    For grouping seeds into packs. Read from the manifest alone: `Writer.open` may still find damaged files.
    """
    folder = checkpoint_places.checkpoint_folder(root, job.path, checkpoint_root)
    try:
        if not os.path.lexists(folder / checkpoints.MANIFEST):
            folder = belonging(root, job, checkpoint_root) or folder
        return checkpoints.read_manifest(folder, job.hash)["env_step"]
    except (OSError, DamagedFile):
        return 0


def check_resumable(
    root: Path, job: JobLike, run: Run, device: str, checkpoint_root: Path | None = None
) -> None:
    """UserError if `run`, that of `job`, has a checkpoint and was trained on another kind of device than `device`.

    The state of a GPU's random numbers says nothing to a CPU, nor the other way round. A run that a living process
    writes is left to that process.
    """
    attempts = [] if run.state == "running" else run.meta.get("attempts", [])
    before = attempts[-1]["execution"].get("device", "cpu") if attempts else device
    if before != device and (step := checkpoint_step(root, job, checkpoint_root)):
        raise UserError(
            f"{run.path} was trained on {before} up to step {step:,}, and its random numbers cannot go on on "
            f"{device}: finish it with DEVICE={before}, or delete that folder to train it anew"
        )


def belonging(root: Path, job: JobLike, checkpoint_root: Path | None) -> Path | None:
    """A checkpoint in another folder that belongs to this run, as its tables with their times show."""
    for folder in checkpoint_places.elsewhere(root, job.path, checkpoint_root):
        with suppress(OSError, DamagedFile):
            if not folder.is_symlink():
                check_tables(root / job.path, checkpoints.read_manifest(folder, job.hash))
                return folder
    return None


def check_tables(path: Path, manifest: Mapping[str, Any]) -> None:
    """DamagedFile unless the tables in the run's folder begin with the bytes that they had at the checkpoint."""
    for table in TABLES:
        length, digest = manifest["csv_bytes"][table], manifest["csv_sha256"][table]
        try:
            data = read_bytes(path / table)
        except FileNotFoundError:
            data = b""
        if len(data) < length:
            raise DamagedFile(f"{table} is shorter than at the checkpoint")
        if hashlib.sha256(memoryview(data)[:length]).hexdigest() != digest:
            raise DamagedFile(f"{table} has changed since the checkpoint (SHA-256)")
