"""The folder of a run's checkpoint: in the run's own folder, or under a checkpoint root that results folders share.

Under a checkpoint root every results folder has a folder of its own, named by an identity that is drawn once and kept
in the results folder (`.checkpoints.json`). A results folder that was moved keeps it; a copy draws another one, so
that the two never touch each other's checkpoints.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from bench.disk import DamagedFile, read_json, write_json
from bench.names import TEMPORARY
from bench.runs import ownership
from bench.runs.records import FORMAT, RootMark, RootRecord, check

IDENTITY = ".checkpoints.json"  # in a results folder
MARK = "results-folder.json"  # under the checkpoint root: which results folder the identity is of
CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class _Identity:
    name: str | None  # None: none has been drawn for this folder
    earlier: tuple[str, ...] = ()  # those of the folders that this one is a copy of, newest first


def checkpoint_folder(root: Path, job: PurePath, checkpoint_root: Path | None) -> Path:
    """Of the run at `root`/`job`. Nothing is there before `claim` has drawn an identity."""
    if checkpoint_root is None:
        return root / job / CHECKPOINT
    return checkpoint_root / (_identity(root).name or "unclaimed") / job / CHECKPOINT


def elsewhere(root: Path, job: PurePath, checkpoint_root: Path | None) -> Iterator[Path]:
    """Folders in which the run's checkpoint may lie besides `checkpoint_folder`. They may hold another run's.

    The run's own folder (before a checkpoint root was given), the checkpoint root itself (older code), and the
    folder of a results folder that this one was moved from.
    """
    if checkpoint_root is None:
        return
    yield root / job / CHECKPOINT
    yield checkpoint_root / job / CHECKPOINT
    for name in _identity(root).earlier:
        if not _lives(checkpoint_root, name):
            yield checkpoint_root / name / job / CHECKPOINT


def claim(root: Path) -> None:
    """Draw the identity of the results folder `root`, unless it has one. Raises OSError."""
    if _identity(root).name is not None:
        return
    root.mkdir(parents=True, exist_ok=True)
    with ownership.locked(root):
        found = _identity(root)
        if found.name is None:
            record = {
                "format": FORMAT,
                "id": secrets.token_hex(8),
                "earlier": list(found.earlier),
                **_place(root),
            }
            write_json(root / IDENTITY, record, "identity")
        (root / ownership.LOCK).unlink(missing_ok=True)


def mark(folder: Path, root: Path, checkpoint_root: Path | None) -> None:
    """Say under the checkpoint root whose checkpoints these are. Raises OSError."""
    if checkpoint_root is not None:
        path = checkpoint_root / folder.relative_to(checkpoint_root).parts[0] / MARK
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"format": FORMAT, "results": str(root.resolve())}, "identity")


def move(source: Path, target: Path) -> None:
    """Move a checkpoint, whole or not at all, also to another file system. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy = target.with_name(f"{target.name}.{secrets.token_hex(4)}{TEMPORARY}")
        try:
            shutil.copytree(source, copy)
            os.rename(copy, target)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        shutil.rmtree(source, ignore_errors=True)


def tidy(folder: Path, checkpoint_root: Path | None) -> None:
    """Remove the empty folders between a removed checkpoint and its root."""
    if checkpoint_root is None:
        return
    for parent in folder.parents:
        if parent == checkpoint_root:
            return
        with suppress(OSError):
            if parent.parent == checkpoint_root and os.listdir(parent) == [MARK]:
                (parent / MARK).unlink()
            parent.rmdir()


def _place(root: Path) -> dict[str, object]:
    return {"path": str(root.resolve()), "inode": root.stat().st_ino}


def _identity(root: Path) -> _Identity:
    """A folder is the one that drew its identity while its path or its inode is the same: paths differ where nodes
    mount it elsewhere or it was moved, inodes on file systems that make them up.
    """
    try:
        record = check(read_json(root / IDENTITY), IDENTITY, RootRecord)
        place = _place(root)
    except (OSError, DamagedFile):
        return _Identity(None)
    if record["path"] == place["path"] or record["inode"] == place["inode"]:
        return _Identity(record["id"], tuple(record["earlier"]))
    return _Identity(None, (record["id"], *record["earlier"]))


def _lives(checkpoint_root: Path, name: str) -> bool:
    """Whether the results folder of an identity still exists at its place; True if that cannot be determined."""
    try:
        results = Path(check(read_json(checkpoint_root / name / MARK), MARK, RootMark)["results"])
    except (OSError, DamagedFile):
        return True
    return _identity(results).name == name
