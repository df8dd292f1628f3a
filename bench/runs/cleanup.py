"""Removing the files that only a running process needs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from bench.disk import crossing
from bench.names import TEMPORARY
from bench.runs import checkpoint_places, checkpoints, ownership
from bench.runs.checks import JobLike
from bench.runs.reader import DONE, FAILURE


def remove_leftovers(root: Path, job: JobLike, checkpoint_root: Path | None = None) -> None:
    """Remove the files that a run left because it was killed between writing done.json and tidying up."""
    path = root / job.path
    with suppress(OSError):
        if not os.path.lexists(path / DONE):
            return
        folder = checkpoint_places.checkpoint_folder(root, job.path, checkpoint_root)
        present = (
            path / ownership.OWNER,
            path / ownership.HEARTBEAT,
            path / ownership.LOCK,
            path / FAILURE,
            folder,
        )
        if any(map(os.path.lexists, present)):
            with ownership.locked(path):
                remove_what_runs_need(path, folder, checkpoint_root)


def remove_what_runs_need(path: Path, checkpoint_folder: Path, checkpoint_root: Path | None) -> None:
    """Tidy up after done.json. An error here costs only space and is left to `remove_leftovers`."""
    crossing("cleanup.before")
    checkpoints.discard(checkpoint_folder)
    checkpoint_places.tidy(checkpoint_folder, checkpoint_root)
    crossing("cleanup.middle")
    for leftover in (
        *path.glob("*" + TEMPORARY),
        path / FAILURE,
        path / ownership.HEARTBEAT,
        path / ownership.OWNER,
    ):
        with suppress(OSError):
            leftover.unlink()
    with suppress(OSError):
        (path / ownership.LOCK).unlink()  # last: a process that waits for it checks that it still exists
    crossing("cleanup.after")
