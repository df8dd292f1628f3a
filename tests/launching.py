"""Studies of stub algorithms, the command line in a process of its own, and what a run's result is."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import algos
from bench.studies.job import Job, RunSettings
from bench.studies.study import Study

REPO = Path(__file__).resolve().parents[1]
STUBS = Path(__file__).resolve().parent / "stubs"

#: The suite's own algorithms, whatever packages of others are installed here.
ALGORITHMS = sorted(name for name, where in algos.registry().items() if where.startswith("algos."))

#: Networks so small that only what surrounds them takes time.
TINY = {
    "hidden": (8, 8),
    "critic_hidden": (8, 8),
    "batch_size": 8,
    "T": 2,
    "time_dim": 4,
    "act_candidates": 3,
    "eval_candidates": 3,
}
TINY |= {
    "samples": 5,
    "particles": 3,
    "act_particles": 3,
    "eval_particles": 3,
    "flow_steps": 2,
    "embedding": 4,
}
TINY |= {"log_prob_steps": 2, "log_prob_samples": 3, "entropy_samples": 6, "alpha_delay": 30}


def python_path() -> str:
    return os.pathsep.join((str(REPO), str(STUBS)))


def stub_study(
    name: str = "s", *, algo: str = "stub", seeds: int = 1, env: str = "stubs/Toy-v0", **given: Any
) -> Study:
    """A study of short runs. given: fields of `RunSettings`, or settings of the algorithm."""
    fields = RunSettings.__dataclass_fields__
    run = {
        "steps": 120,
        "random_steps": 20,
        "eval_every": 40,
        "eval_episodes": 2,
        "replay_size": 1000,
        "final_episodes": 1,
    } | {key: value for key, value in given.items() if key in fields}
    config = {key: value for key, value in given.items() if key not in fields}
    return Study(name, name, (algo,), (env,), tuple(range(seeds)), RunSettings(**run), config)


def spec(root: Path, jobs: list[Job], **execution: Any) -> dict[str, Any]:
    """What `bench.launch.pack.run` takes."""
    how = {"mode": "eager", "device": "cpu", "threads": 1, "dtype": "float32"} | execution
    return {
        "root": str(root),
        "jobs": [job.to_dict() for job in jobs],
        "execution": how,
        "checkpoint_root": None,
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench", *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": python_path()}


def bench(*arguments: str, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, stubs included."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(), timeout=timeout, **options
    )


def wait_for(condition: Callable[[], Any], seconds: float = 150.0, what: str = "it") -> Any:
    """The condition's first true value. Fails after so many seconds."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)
    return value


def substance(path: Path) -> dict[str, Any]:
    """What must not depend on when, where and in how many attempts a run was made."""
    import pandas as pd
    import torch

    found: dict[str, Any] = {
        name: (path / name).read_text() for name in ("train.csv", "final.csv") if (path / name).exists()
    }
    evaluations = pd.read_csv(path / "eval.csv", dtype=str)
    found["eval.csv"] = evaluations.drop(columns="wall_s").to_csv(index=False)
    state = torch.load(io.BytesIO((path / "policy.pt").read_bytes()), weights_only=True)["state"]
    found["parameters"] = {
        f"{part}.{name}": x.numpy().tobytes() for part, xs in state.items() for name, x in xs.items()
    }
    return found
