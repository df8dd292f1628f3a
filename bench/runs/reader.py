"""Reading run directories without trusting them. Import these names from bench.runs.

Nothing read here is executed or unpickled, no file is written (but for a moment one that tells a shared file
system's clock), and damaged data is a state with a reason, never an exception. A finished run counts only if
every byte is as its done.json says; an unfinished one has no such record and is `verified=False`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.disk import (
    LARGEST_SEALED,
    DamagedFile,
    check_inside,
    parse_json,
    read_bytes,
    read_json,
    sha256_file,
)
from bench.names import env_folder, is_safe_name
from bench.runs import ownership
from bench.runs.records import Heartbeat, check
from bench.runs.tables import TABLES, header, parse_table
from bench.text import one_line, strerror

if TYPE_CHECKING:
    import pandas as pd

# Every state a run can be in, from disk alone.
FINISHED = ("done", "diverged")
RANDOM = "random"  # the algorithm that acts uniformly at random and has nothing to learn
STATES = (*FINISHED, "running", "failed", "stale", "configuration changed", "missing", "damaged")

RUN, DONE, FAILURE, POLICY = "run.json", "done.json", "failure.json", "policy.pt"
SEALED = (RUN, *TABLES, POLICY)  # the files whose SHA-256 done.json holds, where they exist

_SEED = re.compile(r"seed-(0|[1-9]\d{0,18})")


class DamagedRun(Exception):
    """A table that cannot be trusted. The message is one line and names the run, the file and the reason."""


@dataclass(frozen=True)
class Run:
    """One cell of a study's grid as found on disk."""

    path: Path
    study: str  # the names of the folders, but for env, whose slashes a folder's name lacks
    env: str
    label: str
    seed: int
    algo: str = ""  # as run.json says, or the grid; "" where neither can be read
    state: str = "missing"  # one of STATES
    reason: str = ""  # one printable line: why it failed, diverged, is stale or damaged
    meta: dict[str, Any] = field(default_factory=dict, repr=False)  # run.json
    progress: dict[str, float | None] = field(default_factory=dict)  # the last heartbeat
    env_step: int | None = None  # how far it came: done.json, else the last heartbeat
    verified: bool = False  # the SHA-256 of every file was checked against done.json
    sha256: dict[str, str] = field(default_factory=dict, repr=False)  # done.json's "files"

    @property
    def untrained(self) -> str:
        """Why its evaluations are those of the initial policy; "" where they are not. Older code made such runs."""
        return untrained(self.algo, self.meta.get("settings", {}), self.meta.get("config", {}))

    def columns(self, name: str) -> dict[str, np.ndarray]:
        """The columns of a table such as "eval.csv": name -> array (rows,), int64, float64 or object (str).

        A table that the run has not written has no rows. The last line of an unfinished run may be cut off
        and is then left out. Raises DamagedRun; of a verified run also when the file changed since.
        """
        if self.state == "damaged":
            raise DamagedRun(f"{self.path}: {self.reason}")
        try:
            data = read_bytes(self.path / name, LARGEST_SEALED)
            if self.state in FINISHED and hashlib.sha256(data).hexdigest() != self.sha256.get(name):
                raise DamagedFile(f"{name} has changed since the run finished (SHA-256)")
            return parse_table(name, data, torn=self.state not in FINISHED)
        except FileNotFoundError:
            if name in self.sha256:
                raise DamagedRun(f"{self.path}: {name} is missing") from None
            return parse_table(name, header(name))
        except DamagedFile as error:
            raise DamagedRun(f"{self.path}: {error}") from None
        except OSError as error:
            raise DamagedRun(f"{self.path}: {name} cannot be read: {strerror(error)}") from None

    def table(self, name: str) -> pd.DataFrame:
        """`columns(name)` as a data frame."""
        import pandas as pd  # here, since half a second is long for a status line

        return pd.DataFrame(self.columns(name))


def untrained(algo: str, settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Why a run of these settings leaves a policy as it was initialised; "" where it does not, as for `random`.

    Updates begin after `random_steps`, one per action; an actor that waits `actor_delay` updates needs as many.
    """
    numbers = [settings.get("steps"), settings.get("random_steps"), settings.get("action_repeat", 1)]
    numbers.append(config.get("actor_delay", 1))
    if algo == RANDOM or not all(type(number) is int and number >= 0 for number in numbers):
        return ""
    steps, random_steps, repeat, delay = numbers
    needed = random_steps + delay * repeat
    if steps >= needed:
        return ""
    cause = f" and actor_delay = {delay}" if delay > 1 else ""
    return f"steps = {steps} with random_steps = {random_steps}{cause} never updates the policy; {needed} steps would"


def read_run(path: Path, *, job_hash: str | None = None, verify: bool = True) -> Run:
    """The run in the folder `path` = root/study/env/label/seed-<k>.

    With `job_hash`, a run of a different configuration gets the state 'configuration changed'. `verify=False` skips the
    SHA-256 of a finished run and the tables of an unfinished one, which is enough for a status line.
    Raises ValueError if the name of `path` is not that of a run directory; damage inside it does not raise.
    """
    seed = _SEED.fullmatch(path.name)
    study, env, label = path.parts[-4:-1]
    if seed is None or not all(map(is_safe_name, (study, env, label))):
        raise ValueError(f"{path} is not <study>/<env>/<label>/seed-<k>")
    run = Run(path=path, study=study, env=env, label=label, seed=int(seed[1]))
    try:
        return _read(run, job_hash, verify)
    except DamagedFile as error:
        return replace(run, state="damaged", reason=one_line(error))
    except OSError as error:
        return replace(run, state="damaged", reason=f"cannot be read: {strerror(error)}")


def verified(run: Run) -> Run:
    """A run that was read with `verify=False`, its files checked as `read_run` does. It has a run.json.

    Of a finished run those files alone are read that were not read before.
    """
    if run.state not in FINISHED:
        found = read_run(run.path, job_hash=run.meta["hash"])
        return found if found.meta else replace(found, env=run.env, algo=run.algo)
    try:
        _verify(run.path, run.sha256)
    except (DamagedFile, OSError) as error:
        reason = one_line(error) if isinstance(error, DamagedFile) else f"cannot be read: {strerror(error)}"
        nothing = Run(run.path, run.study, run.env, run.label, run.seed, run.algo)
        return replace(nothing, state="damaged", reason=reason)
    return replace(run, verified=True)


def _read(run: Run, job_hash: str | None, verify: bool) -> Run:
    check_inside(run.path.parents[3], run.path)
    try:
        data = read_bytes(run.path / RUN)
    except FileNotFoundError:
        orphans = [name for name in (DONE, *TABLES, POLICY) if os.path.lexists(run.path / name)]
        if orphans:
            raise DamagedFile(f"{RUN} is missing, though {orphans[0]} is there") from None
        return run
    meta = check(parse_json(data, RUN), RUN)
    if (env_folder(meta["env"]), meta["label"], meta["seed"]) != (run.env, run.label, run.seed):
        named = f"{meta['env']}/{meta['label']}/seed-{meta['seed']}"
        raise DamagedFile(f"{RUN} is that of {one_line(named)}, not of this folder")
    run = replace(run, env=meta["env"], algo=meta["algo"], meta=meta)
    try:
        done = read_json(run.path / DONE)
    except FileNotFoundError:
        run = _unfinished(run, verify)
    else:
        run = _finished(run, done, verify)
    if job_hash is not None and meta["hash"] != job_hash:
        changed = "the run on disk has another configuration than the study's grid"
        return replace(run, state="configuration changed", reason=changed, verified=False, sha256={})
    return run


def seal(done: dict[str, Any]) -> str:
    """The SHA-256 of a done.json's own content, as canonical JSON without this very field."""
    return _canonical_sha256({key: value for key, value in done.items() if key != "sha256"})


def is_what_it_says(meta: dict[str, Any]) -> bool:
    """Whether the `hash` of a run.json is that of the task, algorithm, configuration, settings and seed in it."""
    identity = {key: meta[key] for key in ("env", "algo", "config", "settings", "seed")}
    return _canonical_sha256(identity) == meta["hash"]


def _canonical_sha256(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _finished(run: Run, done: dict[str, Any], verify: bool) -> Run:
    check(done, DONE)
    if done.get("sha256", seal(done)) != seal(done):  # the first runs of format 1 have none
        raise DamagedFile(f"{DONE} has changed since the run finished (SHA-256)")
    files = done["files"]
    if RUN not in files or not files.keys() <= set(SEALED):
        raise DamagedFile(f"{DONE}: 'files' must name run.json and other files of a run alone")
    if verify:
        _verify(run.path, files)
    return replace(
        run,
        state=done["outcome"],
        reason=one_line(done.get("reason") or ""),
        env_step=done["env_step"],
        verified=verify,
        sha256=files,
    )


def _verify(path: Path, files: dict[str, str]) -> None:
    for name in SEALED:
        if name not in files:
            if os.path.lexists(path / name):
                raise DamagedFile(f"{name} was added after the run had finished")
            continue
        try:
            found = sha256_file(path / name, LARGEST_SEALED)
        except FileNotFoundError:
            if name == POLICY:  # megabytes that no number depends on: a repository may leave them out
                continue
            raise DamagedFile(f"{name} is missing") from None
        if found != files[name]:
            raise DamagedFile(f"{name} has changed since the run finished (SHA-256)")


def _unfinished(run: Run, verify: bool) -> Run:
    if verify:
        for name in TABLES:
            try:
                parse_table(name, read_bytes(run.path / name, LARGEST_SEALED), torn=True)
            except FileNotFoundError:
                continue
    progress = _progress(run.path)
    step = progress.get("env_step")
    run = replace(run, progress=progress, env_step=None if step is None else int(step))
    owner = ownership.read_owner(run.path)
    age = ownership.heartbeat_age_s(run.path, clock_offset(run.path, owner))
    if owner is not None and ownership.is_alive(owner, age):
        if age is not None and age < ownership.STALE_AFTER_S:
            return replace(run, state="running")
        silence = "" if age is None or age < 0 else f" for {age / 60:.0f} minutes"  # < 0: a clock set back
        return replace(run, state="stale", reason=f"no heartbeat{silence} from {ownership.describe(owner)}")
    try:
        failure = read_json(run.path / FAILURE)
    except FileNotFoundError:
        gone = f"{ownership.describe(owner)} has gone" if owner else "stopped before its end"
        return replace(run, state="stale", reason=f"{gone}; it can be resumed")
    return replace(run, state="failed", reason=one_line(check(failure, FAILURE)["reason"]))


def _progress(path: Path) -> dict[str, float | None]:
    """The numbers of the last heartbeat; none where it is missing or damaged, since it counts for nothing."""
    try:
        record = check(read_json(path / ownership.HEARTBEAT), ownership.HEARTBEAT)
    except (OSError, DamagedFile):
        return {}
    return {key: record[key] for key in Heartbeat.__struct_fields__ if key != "format" and key in record}


def clock_offset(path: Path, owner: dict[str, Any] | None) -> float:
    """Seconds to add to this host's clock when judging the heartbeat of `owner`: 0 for one on this host."""
    if owner is None or owner["host"] == ownership.this_host():
        return 0.0
    return _study_clock_offset(path.parents[2])


@functools.lru_cache(maxsize=64)
def _study_clock_offset(study: Path) -> float:
    return ownership.clock_offset_s(study)  # one probe per study and process: clocks drift slowly
