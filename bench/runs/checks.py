"""Conditions for writing a run: of this configuration, undamaged, not finished, inside the results.

A writer asks this first, and again under the run's lock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from bench.disk import DamagedFile, check_inside, parse_json, read_bytes, read_json
from bench.errors import UserError
from bench.runs import checkpoint_places
from bench.runs.reader import DONE, FAILURE, RUN
from bench.runs.records import check
from bench.runs.tables import TABLES
from bench.text import differences, one_line, strerror


class AlreadyFinished(UserError):
    """The run has its done.json: there is nothing to write."""


class JobLike(Protocol):
    """The part of a `bench.studies.job.Job` that bench.runs needs."""

    @property
    def study(self) -> str: ...
    @property
    def env(self) -> str: ...
    @property
    def algo(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def path(self) -> PurePosixPath: ...
    @property
    def hash(self) -> str: ...
    def identity(self) -> Mapping[str, Any]: ...


def refuse(root: Path, job: JobLike, checkpoint_root: Path | None, retry_failed: bool) -> None:
    """Raise for a run that must not be written, before anything is; see `Writer.open`."""
    path = root / job.path
    folder = checkpoint_places.checkpoint_folder(root, job.path, checkpoint_root)
    try:
        check_inside(root, path)
        check_inside(checkpoint_root or root, folder)
        if folder.is_symlink():  # files in it would be deleted
            raise UserError(
                f"{folder} is a symbolic link; delete it, and choose where checkpoints lie by CHECKPOINTS"
            )
        check_configuration(root, job)
        if os.path.lexists(path / DONE):
            read_json(path / DONE)
            raise AlreadyFinished(f"{path} is finished")
        if not retry_failed and os.path.lexists(path / FAILURE):
            reason = one_line(read_json(path / FAILURE).get("reason"))
            raise UserError(f"{path} failed: {reason}")
    except DamagedFile as error:
        raise UserError(f"{path} is damaged: {error}; delete that folder to run it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {strerror(error)}") from None


def check_configuration(root: Path, job: JobLike) -> None:
    """UserError, naming each differing key with both values, if the run on disk is another than `job`."""
    path = root / job.path
    meta = read_meta(path)
    if meta is None or meta["hash"] == job.hash:
        return
    wanted = json.loads(json.dumps(job.identity()))
    differing = differences({key: meta.get(key) for key in wanted}, wanted)
    what = one_line("; ".join(differing) or "its recorded hash is another", 2000)
    raise UserError(
        f"{path} holds a run with another configuration: {what}. "
        "Choose another STUDY name, or delete that folder to run it anew"
    )


def read_meta(path: Path) -> dict[str, Any] | None:
    """run.json in the folder `path`; None if there is neither it nor data. UserError if it is damaged."""
    try:
        return check(parse_json(read_bytes(path / RUN), RUN), RUN)
    except FileNotFoundError:
        orphan = next((name for name in TABLES if os.path.lexists(path / name)), None)
        if orphan is None:
            return None
        problem = f"{RUN} is missing, though {orphan} is there"
    except DamagedFile as error:
        problem = str(error)
    raise UserError(f"{path} is damaged: {problem}; delete that folder to run it again")
