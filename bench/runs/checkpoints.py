"""The checkpoint of one seed: the trainer's bytes, the replay rows in append-only shards, and a manifest.

The manifest, checkpoint.json, is renamed into place last and names everything else with its SHA-256, so that
a checkpoint exists whole or not at all; other files that a crash leaves are removed when the run is next opened.
A row of the replay ring is written once: a checkpoint costs the rows added since the one before.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.disk import (
    DamagedFile,
    crossing,
    open_regular,
    read_bytes,
    read_json,
    sha256_file,
    write_atomic,
    write_json,
)
from bench.names import TEMPORARY
from bench.runs.records import FORMAT, SHARD, STATE, check
from bench.runs.tables import TABLES

MANIFEST = "checkpoint.json"
_SHARD = re.compile(SHARD)
_STATE = re.compile(STATE)


@dataclass(frozen=True)
class Checkpoint:
    """The state from which a run resumes."""

    env_step: int
    state: bytes  # as given to `Writer.save_checkpoint`
    rows: np.ndarray  # float32 (rows, width): row `first_row` of the run's replay and all that follow
    first_row: int


def save(
    folder: Path,
    previous: dict[str, Any] | None,
    *,
    job_hash: str,
    env_step: int,
    state: bytes,
    new_rows: np.ndarray,
    first_row: int,
    keep_from_row: int,
    csv_bytes: dict[str, int],
    csv_sha256: dict[str, str],
) -> dict[str, Any]:
    """Write a checkpoint and remove files that only the `previous` one (its manifest) needed; the new manifest.

    ValueError unless `new_rows` is float32 (rows, width) and goes on where the kept shards end; OSError
    leaves the previous checkpoint in force.
    """
    if new_rows.ndim != 2 or new_rows.dtype != np.float32:
        raise ValueError(f"replay rows must be float32 (rows, width), not {new_rows.dtype} {new_rows.shape}")
    kept = [name for name in (previous["shards"] if previous else []) if _rows(name)[1] >= keep_from_row]
    if kept and _rows(kept[-1])[1] + 1 != first_row:
        raise ValueError(
            f"the checkpoint ends at row {_rows(kept[-1])[1]}; new rows cannot begin at {first_row}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    digests = {name: previous["sha256"][name] for name in kept} if previous else {}
    if len(new_rows):
        buffer = io.BytesIO()
        np.save(buffer, new_rows, allow_pickle=False)
        kept = [*kept, f"replay-{first_row}-{first_row + len(new_rows) - 1}.npy"]
        digests[kept[-1]] = _write(folder / kept[-1], buffer.getvalue(), "shard")
    name, copy = f"state-{env_step}.pt", 1
    while previous and name == previous["state"]:  # never overwrite a file that the valid manifest names
        name, copy = f"state-{env_step}-{copy}.pt", copy + 1
    digests[name] = _write(folder / name, state, "state")
    manifest = {
        "format": FORMAT,
        "hash": job_hash,
        "env_step": env_step,
        "state": name,
        "shards": kept,
        "sha256": digests,
        "csv_bytes": csv_bytes,
        "csv_sha256": csv_sha256,
    }
    write_json(folder / MANIFEST, manifest, "manifest")
    remove_leftovers(folder, manifest)
    return manifest


def _write(path: Path, data: bytes, what: str) -> str:
    write_atomic(path, data, what)
    return hashlib.sha256(data).hexdigest()


def _rows(shard: str) -> tuple[int, int]:
    """The first and the last row in a shard, by its name."""
    match = _SHARD.fullmatch(shard)
    assert match is not None  # `check` has seen the name
    return int(match[1]), int(match[2])


def read_manifest(folder: Path, job_hash: str) -> dict[str, Any]:
    """The manifest in `folder`, checked. Raises FileNotFoundError or DamagedFile."""
    manifest = read_json(folder / MANIFEST)
    if check(manifest, MANIFEST)["hash"] != job_hash:
        raise DamagedFile(f"{MANIFEST} belongs to a run with another configuration")
    shards = manifest["shards"]
    bounds = [_rows(name) for name in shards]
    if any(first > last for first, last in bounds) or any(a[1] + 1 != b[0] for a, b in pairwise(bounds)):
        raise DamagedFile(f"{MANIFEST} names shards with a gap between them")
    if manifest["sha256"].keys() != {*shards, manifest["state"]}:
        raise DamagedFile(f"{MANIFEST} lacks the SHA-256 of a file that it names")
    if manifest["csv_bytes"].keys() != TABLES.keys() or manifest["csv_sha256"].keys() != TABLES.keys():
        raise DamagedFile(f"{MANIFEST} lacks the length of a table")
    return manifest


def verify(folder: Path, manifest: dict[str, Any]) -> None:
    """DamagedFile unless every file that the manifest names is there with its SHA-256. Reads in pieces."""
    for name, digest in manifest["sha256"].items():
        try:
            found = sha256_file(folder / name)
        except FileNotFoundError:
            raise DamagedFile(f"{name} is missing") from None
        if found != digest:
            raise DamagedFile(f"{name} has changed since it was written (SHA-256)")


def load(folder: Path, manifest: dict[str, Any]) -> Checkpoint:
    """The checkpoint of a verified manifest; one copy of the rows in memory. Nothing is unpickled."""
    bounds = [_rows(name) for name in manifest["shards"]]
    first = bounds[0][0] if bounds else 0
    rows = np.empty((0, 0), np.float32)
    for name, (start, last) in zip(manifest["shards"], bounds):
        with open_regular(folder / name) as file:
            shard = np.load(file, allow_pickle=False)
        if start == first:
            rows = np.empty((bounds[-1][1] + 1 - first, shard.shape[1]), np.float32)
        rows[start - first : last + 1 - first] = shard
    state = read_bytes(folder / manifest["state"])
    return Checkpoint(env_step=manifest["env_step"], state=state, rows=rows, first_row=first)


def remove_leftovers(folder: Path, manifest: dict[str, Any]) -> None:
    """Remove files that the manifest does not name from the checkpoint folder: older states, leftovers of a crash."""
    crossing("cleanup.before")
    needed = {MANIFEST, manifest["state"], *manifest["shards"]}
    for path in folder.iterdir():
        if path.name not in needed and _is_ours(path.name):
            with suppress(OSError):  # no reason to stop a run; tried again at the next checkpoint
                path.unlink()
    crossing("cleanup.after")


def _is_ours(name: str) -> bool:
    return name.endswith(TEMPORARY) or bool(_STATE.fullmatch(name) or _SHARD.fullmatch(name))


def discard(folder: Path) -> None:
    """Remove the checkpoint folder, its manifest first: no crash leaves a manifest without its files.

    A link in its place stays, and so does its target.
    """
    if folder.is_symlink():
        return
    with suppress(OSError):
        (folder / MANIFEST).unlink()
    shutil.rmtree(folder, ignore_errors=True)
