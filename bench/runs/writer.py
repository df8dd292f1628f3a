"""Writing run directories: one process per run, every write whole, everything resumable at any moment.

Import these names from bench.runs. A `Writer` keeps no file open between two writes: a pack of many seeds
costs no descriptors, and a write every few seconds can afford to open, lock and check its right. The fault
hook described in bench/disk.py kills a test's process at any of the writes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bench.disk import (
    DamagedFile,
    crossing,
    read_bytes,
    read_json,
    sha256_file,
    sync,
    write_all,
    write_atomic,
    write_json,
)
from bench.errors import UserError
from bench.runs import checkpoint_places, checkpoints, ownership
from bench.runs.checkpoints import Checkpoint
from bench.runs.checks import AlreadyFinished, JobLike, read_meta, refuse
from bench.runs.cleanup import remove_leftovers, remove_what_runs_need
from bench.runs.ownership import STALE_AFTER_S
from bench.runs.reader import (
    DONE,
    FAILURE,
    FINISHED,
    POLICY,
    RUN,
    SEALED,
    DamagedRun,
    read_run,
    seal,
)
from bench.runs.records import FORMAT, check
from bench.runs.resume import belonging, check_resumable, check_tables
from bench.runs.tables import TABLES, header, parse_table, render_rows
from bench.text import one_line, strerror

HEARTBEAT_EVERY_S = 5.0
NO_CHECKPOINT = "no checkpoint"  # in `restarted`: the run had not come to its first one

_CODE = Path(__file__).resolve().parents[2]


class Superseded(Exception):
    """Another process owns the run now (or its folder is gone): stop, and write nothing more."""


class BeingWritten(UserError):
    """Another process that lives writes this run."""


class Writer:
    """The one process that may write a run. Made by `Writer.open`.

    Every method that writes raises `Superseded` once another process has taken the run over, and OSError
    (disk full, quota, file system gone) with everything on disk left resumable.
    """

    def __init__(self, path: Path, job: JobLike, checkpoint_root: Path | None) -> None:
        self.path = path
        self.attempt = 0
        self._job = job
        self._checkpoint_root = checkpoint_root
        self._root = path.parents[len(job.path.parts) - 1]
        self._checkpoint_folder = checkpoint_places.checkpoint_folder(self._root, job.path, checkpoint_root)
        self._manifest: dict[str, Any] | None = None
        self._meta: dict[str, Any] = {}
        self._token = ""
        self._next_heartbeat = 0.0

    @classmethod
    def open(
        cls,
        root: Path,
        job: JobLike,
        *,
        execution: Mapping[str, Any],
        provenance: Mapping[str, Any],
        about: Mapping[str, str | None] = MappingProxyType({}),
        checkpoint_root: Path | None = None,
        retry_failed: bool = True,
    ) -> Writer:
        """Claim the run of `job` under `root` and prepare it: at its last checkpoint, or new at step 0.

        The tables are cut back to the checkpoint; without a sound one they begin anew.
        `provenance["scheduler"]` (None, or a mapping with "job_id" and "restart_count") identifies the scheduler's
        restart of the owner's job, which takes over. `about`: the fields `family` and `title` of run.json; None
        keeps the value of an earlier attempt.
        Raises AlreadyFinished; UserError where the folder cannot be written or is damaged, the run there has
        another configuration, was half trained on another kind of device, is owned by a living process, or failed and
        `retry_failed` is false.
        """
        path = root / job.path
        refuse(root, job, checkpoint_root, retry_failed)
        run = read_run(path, job_hash=job.hash, verify=False)
        check_resumable(root, job, run, execution.get("device", "cpu"), checkpoint_root)
        try:
            if checkpoint_root is not None:
                checkpoint_places.claim(root)
            writer = cls(path, job, checkpoint_root)
            path.mkdir(parents=True, exist_ok=True)
            with ownership.locked(path):
                # again, since another process may have been faster
                refuse(root, job, checkpoint_root, retry_failed)
                writer._claim(execution, provenance, about)
        except AlreadyFinished:
            remove_leftovers(root, job, checkpoint_root)
            raise
        except OSError as error:
            raise UserError(f"{path} cannot be written: {strerror(error)}") from error
        return writer

    def _claim(
        self,
        execution: Mapping[str, Any],
        provenance: Mapping[str, Any],
        about: Mapping[str, str | None],
    ) -> None:
        scheduler = provenance.get("scheduler")
        owner = ownership.read_owner(self.path)
        if owner is not None and not ownership.restarts(owner, scheduler):
            foreign = owner["host"] != ownership.this_host()
            offset = ownership.clock_offset_s(self.path) if foreign else 0.0
            if ownership.is_alive(owner, ownership.heartbeat_age_s(self.path, offset)):
                raise BeingWritten(
                    f"{self.path} is being written by {ownership.describe(owner)}; wait for it or stop it"
                    + (
                        f" (it counts as gone {STALE_AFTER_S:.0f} s after its last heartbeat)"
                        if foreign
                        else ""
                    )
                )
        meta = read_meta(self.path)
        attempts = meta["attempts"] if meta else []
        self.attempt = max((attempt["attempt"] for attempt in attempts), default=0) + 1
        record = ownership.this_process(self.attempt, dict(scheduler) if scheduler else None)
        self._token = record["token"]
        reached = _reached(self.path)
        self._write_heartbeat({})  # first, so that no owner on another host is ever seen without one
        write_json(self.path / ownership.OWNER, record, "owner")

        reason = None
        if meta is None:
            checkpoints.discard(self._checkpoint_folder)  # of an earlier run, whose folder is gone
        else:
            reason = self._find_checkpoint()
            if reached and reason == NO_CHECKPOINT:
                reason = f"{NO_CHECKPOINT}; the attempt before had come to step {reached}"
        attempt = {
            "attempt": self.attempt,
            "started": record["time"],
            "resumed_at_step": self._manifest["env_step"] if self._manifest else 0,
            "execution": dict(execution),
            "provenance": dict(provenance),
        }
        if reason is not None:
            attempt["restarted"] = reason
        identity = json.loads(json.dumps(self._job.identity(), allow_nan=False))
        names = {"study": self._job.study, "label": self._job.label, "hash": self._job.hash}
        for key in ("family", "title"):
            if value := about.get(key) or (meta or {}).get(key):
                names[key] = value
        self._meta = {"format": FORMAT, **names, **identity, "attempts": [*attempts, attempt]}
        self._write_meta()
        self._cut_tables()
        (self.path / FAILURE).unlink(missing_ok=True)

    @property
    def restarted(self) -> str | None:
        """Why this attempt begins at step 0 though there was an earlier one; None where it goes on, or is the first."""
        why: str | None = self._meta["attempts"][-1].get("restarted")
        return why

    def _find_checkpoint(self) -> str | None:
        """Take up the checkpoint if it and the tables before it are sound; else why the run starts again."""
        folder = self._checkpoint_folder
        if not os.path.lexists(folder / checkpoints.MANIFEST):
            found = belonging(self._root, self._job, self._checkpoint_root)
            if found is not None:
                checkpoint_places.move(found, folder)
        try:
            manifest = checkpoints.read_manifest(folder, self._job.hash)
            checkpoints.verify(folder, manifest)
            check_tables(self.path, manifest)
        except FileNotFoundError:
            checkpoints.discard(folder)
            return NO_CHECKPOINT
        except DamagedFile as error:
            checkpoints.discard(folder)
            return f"damaged checkpoint: {one_line(error)}"
        checkpoints.remove_leftovers(folder, manifest)
        self._manifest = manifest
        return None

    def _cut_tables(self) -> None:
        for table in TABLES:
            length = self._manifest["csv_bytes"][table] if self._manifest else 0
            path = self.path / table
            if length == 0:
                path.unlink(missing_ok=True)
            else:
                os.truncate(path, length)

    def _write_meta(self) -> None:
        write_json(self.path / RUN, self._meta, "run")

    @contextmanager
    def _owned(self) -> Iterator[None]:
        """Hold the run's lock, with the certainty that the run is still ours. Raises Superseded."""
        try:
            with ownership.locked(self.path, create=self._is_ours()):
                if not self._is_ours():
                    raise FileNotFoundError(errno.ENOENT, "no longer ours")
                yield
        except FileNotFoundError:
            if self._is_ours():
                raise
            owner = ownership.read_owner(self.path)
            by = (
                f"now belongs to {ownership.describe(owner)}"
                if owner
                else "was finished or removed meanwhile"
            )
            raise Superseded(f"{self.path} {by}") from None

    def _is_ours(self) -> bool:
        owner = ownership.read_owner(self.path)
        return owner is not None and owner["token"] == self._token

    def append(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Add rows (column -> number or name) to a table such as "eval.csv", all of them or none.

        ValueError for other columns or values than the table has (bench/runs/tables.py).
        """
        if table not in TABLES:
            raise ValueError(f"no table {table!r}; there are {', '.join(TABLES)}")
        lines = render_rows(table, rows)
        if not rows:
            return
        with self._owned():
            crossing("append.before")
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self.path / table, flags, 0o666)
            try:
                before = os.fstat(descriptor).st_size
                try:
                    write_all(descriptor, lines if before else header(table) + lines, "append")
                except OSError:
                    os.ftruncate(descriptor, before)  # the disk is full: whole lines only
                    raise
            finally:
                os.close(descriptor)
            crossing("append.after")

    def heartbeat(self, **progress: float | None) -> None:
        """Say that the process lives, and how far it is: env_step, steps, rate, last_return, eta_s.

        Call it at every step; it writes once in `HEARTBEAT_EVERY_S` seconds and costs nothing in between.
        After `STALE_AFTER_S` seconds without, the run counts as stale.
        """
        if time.monotonic() >= self._next_heartbeat:
            with self._owned():
                self._write_heartbeat(progress)
            self._next_heartbeat = time.monotonic() + HEARTBEAT_EVERY_S

    def touch(self) -> None:
        """Say that the process lives, and nothing of how far it is: while a step takes long, as compiling does."""
        with self._owned():
            os.utime(self.path / ownership.HEARTBEAT)

    def _write_heartbeat(self, progress: Mapping[str, float | None]) -> None:
        finite = {
            key: None if value is None or not np.isfinite(value) else value for key, value in progress.items()
        }
        plain = {
            key: value.item() if isinstance(value, np.generic) else value for key, value in finite.items()
        }
        write_json(self.path / ownership.HEARTBEAT, {"format": FORMAT, **plain}, "heartbeat", durable=False)

    def save_checkpoint(
        self, env_step: int, state: bytes, new_rows: np.ndarray, first_row: int, *, keep_from_row: int = 0
    ) -> None:
        """Make `env_step` the step to resume from, with the trainer's bytes and the replay rows since then.

        new_rows: float32 (rows, width), the rows `first_row`, `first_row` + 1, … of all that the run ever
        stored; they go on where the last checkpoint ended. Rows before `keep_from_row` (those that the ring
        has overwritten) need not be kept. The tables as they are now belong to the checkpoint. ValueError
        for rows of another type or with a gap.
        """
        with self._owned():
            crossing("checkpoint.before")
            lengths, digests = {}, {}
            for table in TABLES:
                path = self.path / table
                try:
                    data = read_bytes(path)
                    sync(path)
                except FileNotFoundError:
                    data = b""
                except DamagedFile as error:
                    raise OSError(errno.EIO, str(error), str(path)) from None
                lengths[table], digests[table] = len(data), hashlib.sha256(data).hexdigest()
            checkpoint_places.mark(self._checkpoint_folder, self._root, self._checkpoint_root)
            self._manifest = checkpoints.save(
                self._checkpoint_folder,
                self._manifest,
                job_hash=self._job.hash,
                env_step=env_step,
                state=state,
                new_rows=new_rows,
                first_row=first_row,
                keep_from_row=keep_from_row,
                csv_bytes=lengths,
                csv_sha256=digests,
            )

    def load_checkpoint(self) -> Checkpoint | None:
        """The checkpoint that the run resumes from (verified by `open`); None at step 0."""
        return None if self._manifest is None else checkpoints.load(self._checkpoint_folder, self._manifest)

    def restart(self, reason: str) -> None:
        """Begin at step 0 after all, saying why in run.json: for a trainer that cannot use the checkpoint."""
        with self._owned():
            self._manifest = None
            checkpoints.discard(self._checkpoint_folder)
            self._meta["attempts"][-1] |= {"resumed_at_step": 0, "restarted": one_line(reason)}
            self._write_meta()
            self._cut_tables()

    def finish(self, outcome: str, env_step: int, *, policy: bytes | None, reason: str | None = None) -> None:
        """End the run as "done" or "diverged" at `env_step`: seal its files, remove those needed only while it ran.

        Raises DamagedRun, and seals nothing, if a table on disk is not what was written.
        """
        if outcome not in FINISHED:
            raise ValueError(f"a run ends as {' or '.join(FINISHED)}, not as {outcome!r}")
        with self._owned():
            if policy is None:
                (self.path / POLICY).unlink(missing_ok=True)
            else:
                write_atomic(self.path / POLICY, policy, "policy")
            try:
                for table in TABLES:
                    with suppress(FileNotFoundError):
                        parse_table(table, read_bytes(self.path / table))
                        sync(self.path / table)
                digests = {}
                for name in SEALED:
                    with suppress(FileNotFoundError):
                        digests[name] = sha256_file(self.path / name)
            except DamagedFile as error:
                raise DamagedRun(f"{self.path}: {error}") from None
            record = {
                "format": FORMAT,
                "outcome": outcome,
                "reason": None if reason is None else one_line(reason),
                "env_step": int(env_step),
                "files": digests,
            }
            write_json(self.path / DONE, record | {"sha256": seal(record)}, "done")
            remove_what_runs_need(self.path, self._checkpoint_folder, self._checkpoint_root)

    def fail(self, traceback: str) -> None:
        """Record a crash (its last line becomes the reason) and give the run up; it can be retried."""
        traceback = self._without_places(traceback)
        lines = traceback.strip().splitlines()
        record = {
            "format": FORMAT,
            "attempt": self.attempt,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "reason": one_line(lines[-1]) if lines else "unknown",
            "traceback": traceback,
        }
        with self._owned():
            try:
                write_json(self.path / FAILURE, record, "failure")
            finally:  # on a full disk too
                (self.path / ownership.OWNER).unlink(missing_ok=True)

    def _without_places(self, text: str) -> str:
        """`text` without the folders of this machine, which may name a person: results are passed on, reasons shown."""
        for folder, name in ((self.path.parents[3].resolve(), "results"), (_CODE, ""), (Path.home(), "~")):
            if folder != Path(folder.anchor):
                text = text.replace(f"{folder}{os.sep}", name and f"{name}{os.sep}")
        return text

    def release(self) -> None:
        """Stop cleanly, resumable from the last checkpoint. No error if the run is no longer ours."""
        with suppress(Superseded), self._owned():
            (self.path / ownership.OWNER).unlink(missing_ok=True)


def record_failure(
    root: Path,
    job: JobLike,
    reason: str,
    *,
    provenance: Mapping[str, Any],
    checkpoint_root: Path | None = None,
) -> None:
    """Record that the run of `job` failed, from another process than its own; raises as `Writer` does."""
    writer = Writer.open(root, job, execution={}, provenance=provenance, checkpoint_root=checkpoint_root)
    writer.fail(reason)


def _reached(path: Path) -> int:
    """The step in the last heartbeat of the run; 0 without one."""
    with suppress(OSError, DamagedFile):
        return int(check(read_json(path / ownership.HEARTBEAT), ownership.HEARTBEAT).get("env_step") or 0)
    return 0
