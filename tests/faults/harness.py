"""Grids run by the real command line in process groups of their own, and what happens to them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.errors import UserError
from bench.runs import Run, read_study
from bench.studies.overrides import algorithm_config
from tests.launching import REPO, TINY, bench, command, environment, substance, wait_for

RUN = {
    "steps": 400,
    "random_steps": 20,
    "eval_every": 200,
    "eval_episodes": 2,
    "replay_size": 1000,
    "final_episodes": 1,
}


@dataclass
class Launch:
    """One `python -m bench run` in a process group of its own; what it prints goes to a file."""

    process: subprocess.Popen[bytes]
    log: Path
    began: float = field(default_factory=time.time)

    @property
    def pid(self) -> int:
        return self.process.pid

    def out(self) -> str:
        return self.log.read_text(errors="replace")

    def workers(self) -> list[psutil.Process]:
        """Its pool's processes, oldest first."""
        try:
            children = psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return []
        return sorted(filter(_is_worker, children), key=lambda child: child.create_time())

    def ends(self, seconds: float = 300) -> tuple[int, str]:
        """Exit code and output, once it has ended and every process of its group with it."""
        code = self.process.wait(seconds)
        wait_for(lambda: group_is_empty(self.pid), what="the end of the workers")
        return code, self.out()

    def kill_group(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        self.ends()


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "bench.launch.local.child" in process.cmdline()
    except psutil.Error:
        return False


def group_is_empty(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return True
    return False


@dataclass
class Grid:
    """A study file in `folder`, its results below, and the command line run there."""

    folder: Path
    results: str = "results"
    name: str = "s"
    options: tuple[str, ...] = ("--jobs", "2")
    launched: int = 0

    def define(self, algos: str, *, envs: str = "stubs/Toy-v0", seeds: int = 1, **run: Any) -> Grid:
        """Write the study file. algos, envs: separated by spaces. run: settings other than `RUN`."""
        lines = [f"algos = {_toml(algos.split())}", f"envs = {_toml(envs.split())}", f"seeds = {seeds}"]
        lines += ["[run]", *(f"{key} = {_toml(value)}" for key, value in (RUN | run).items())]
        lines += ["[config]", *(f"{key} = {_toml(value)}" for key, value in _tiny(algos.split()).items())]
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{self.name}.toml").write_text("\n".join(lines) + "\n")
        return self

    @property
    def root(self) -> Path:
        return self.folder / self.results

    def arguments(self, *more: str) -> tuple[str, ...]:
        return ("run", "--study", f"{self.name}.toml", "--results", self.results, *self.options, *more)

    def start(self, *more: str, **variables: str) -> Launch:
        """The grid's command in the background. variables: of its environment."""
        self.launched += 1
        log = self.folder / f"launch-{self.launched}.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(*self.arguments(*more)),
                cwd=self.folder,
                env=environment() | {"BENCH_TEST_NO_FIGURES": "1"} | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Launch(process, log)

    def run(self, *more: str, **variables: str) -> tuple[int, str]:
        """The grid's command to its end: exit code and all that it printed."""
        launch = self.start(*more, **variables)
        try:
            return launch.ends(500)
        finally:
            if launch.process.poll() is None:
                launch.kill_group()

    def told(self, name: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Another command, such as "status", on these results."""
        return bench(name, "--results", self.results, *more, cwd=self.folder)

    def runs(self) -> list[Run]:
        """Every cell of the grid on disk; none before the launcher has written it down."""
        return (
            read_study(self.root, self.name).runs if (self.root / self.name / "study.json").exists() else []
        )

    def training(self, since: float) -> list[Run]:
        """Runs that have reported a step since the moment `since`."""
        return [
            run
            for run in self.runs()
            if run.state == "running" and run.env_step and _changed(run.path / "heartbeat.json") > since
        ]

    def substance(self) -> dict[str, dict[str, Any]]:
        """What must not depend on how often the grid was disturbed; every run of it is done and sealed."""
        found = self.runs()
        assert {(run.state, run.verified) for run in found} == {("done", True)}, [
            (run.path, run.state, run.reason) for run in found
        ]
        return {f"{run.env}/{run.label}/{run.seed}": substance(run.path) for run in found}

    def leftovers(self) -> list[Path]:
        """Files of finished runs that only running needs, and temporary ones anywhere."""
        names = ("owner.json", "heartbeat.json", "failure.json", "checkpoint")
        found = [path for run in self.runs() for path in run.path.iterdir() if path.name in names]
        return found + list(self.root.rglob("*.tmp"))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _tiny(algos: list[str]) -> dict[str, Any]:
    """The small networks of `TINY`, as far as any of the algorithms has such a setting."""
    fields: set[str] = set()
    for algo in algos:
        with suppress(UserError):  # it does not load, which is what some test is about
            fields |= algorithm_config(algo.partition(":")[0], {}).keys()
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in TINY.items()
        if key in fields
    }


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def no_traceback(text: str) -> None:
    """Nothing that a user sees is a traceback, and nothing tells of an error inside the suite."""
    assert not re.search(r"Traceback|^\w+Error:", text, re.M), text


def note(fault: str, **counted: object) -> None:
    """A line of measured figures for the report of `make test-faults`, kept in the file that a variable names."""
    told = ", ".join(f"{name} {value}" for name, value in counted.items())
    print(f"[faults] {fault}: {told}")
    if "FAULTS_REPORT" in os.environ:
        with open(os.environ["FAULTS_REPORT"], "a", encoding="utf-8") as file:
            file.write(f"{fault}: {told}\n")


__all__ = ["REPO", "Grid", "Launch", "group_is_empty", "no_traceback", "note", "wait_for"]
