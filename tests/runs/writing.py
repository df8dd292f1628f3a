"""A stand-in for a trainer that writes a run, and damage to its files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench import disk as files
from bench.runs import (
    Checkpoint,
    Writer,
)
from tests.synthetic import StubJob

JOB = StubJob()


EXECUTION = {"mode": "eager", "device": "cpu", "threads": 1, "dtype": "float32", "pack": [0]}


def open_writer(root: Path, job: StubJob = JOB, **options: object) -> Writer:
    return Writer.open(root, job, **({"execution": EXECUTION, "provenance": {}} | options))  # type: ignore[arg-type]


def eval_row(step: int, value: float = 1.5) -> dict[str, float]:
    return {"env_step": step, "episode": 0, "return": value, "length": 5, "wall_s": 0.5 * step}


def rows(first: int, last: int) -> np.ndarray:
    return np.repeat(np.arange(first, last, dtype=np.float32)[:, None], 3, axis=1)


def train(root: Path, steps: int = 4, checkpoint_root: Path | None = None) -> None:
    """A stand-in for the trainer: deterministic, a checkpoint every second step, a ring of three rows."""
    run = open_writer(root, checkpoint_root=checkpoint_root)
    start = run.load_checkpoint() or Checkpoint(0, b"", rows(0, 0), 0)
    assert start.state == (b"state %d" % start.env_step if start.env_step else b"")
    if start.env_step:
        assert start.rows[:, 0].tolist() == list(range(start.first_row, start.env_step))
    stored = start.env_step
    for step in range(start.env_step + 1, steps + 1):
        run.append("eval.csv", [eval_row(step, step / 7), eval_row(step, -step / 7)])
        run.append(
            "train.csv", [{"env_step": step, "kind": "loss", "name": "critic_loss", "value": step / 3}]
        )
        run.heartbeat(env_step=step)
        if step % 2 == 0:
            run.save_checkpoint(step, b"state %d" % step, rows(stored, step), stored, keep_from_row=step - 3)
            stored = step
    run.finish("done", steps, policy=b"policy")


def in_child(work: Callable[[], object], **environment: str) -> int:
    """The exit status of `work` in a forked process: 0, 1 for an exception, minus the signal it died of."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.environ.update(environment)
            files._crossed.clear()
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def results(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in ("eval.csv", "train.csv", "policy.pt")}


def flip(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
