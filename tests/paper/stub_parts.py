"""Parts of made-up experiments, which processes of their own can import."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.paper.experiments.parts import Part, Tables


def part(name: str, function: str = "measure", **settings: object) -> Part:
    return Part("made-up", name, f"{__name__}:{function}", settings)


def measure(folder: Path, value: float = 1.0) -> Tables:
    """Also notes that it ran."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "ran").open("a") as file:
        file.write("x")
    row = {"measure": "m", "setting": "s", "algo": "qsm", "seed": 0, "value": value}
    return {"scores": [row], "empty": []}


def fail(folder: Path, unless: str) -> Tables:
    if not Path(unless).exists():
        raise ValueError("no such luck")
    return measure(folder)


def sleep(folder: Path, pid: str) -> Tables:
    Path(pid).write_text(str(os.getpid()))
    time.sleep(60)
    return measure(folder)
