"""What the cluster tests share: the development cluster, a slow algorithm, studies of it, and waiting."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import algos
from bench.launch.local.pool import LocalOptions, Pool
from bench.launch.plan import Plan
from bench.launch.slurm import arrays, queue
from bench.launch.slurm import submit as slurm
from bench.launch.slurm.profiles import Profile, load_profile
from bench.launch.slurm.queue import Entry
from bench.runs import FORMAT, Run, read_run, write_study
from bench.studies.job import Job, RunSettings
from bench.studies.study import Study

REPO = Path(__file__).parents[2]
CLUSTER = REPO / "slurm" / "dev_cluster"
LOADED = 4  # times as long as on an idle machine: what the tests wait before they fail
EAGER = {"mode": "eager", "device": "cpu"}


def state_of_runs(root: Path, study: str) -> dict[str, Entry]:
    """How the tasks of a study's runs stand, asked as the commands ask."""
    return queue.by_run(*queue.survey(arrays.folder(root, study)))


@pytest.fixture(scope="session")
def cluster() -> None:
    """The development cluster. Never any other: these tests kill its nodes."""
    if subprocess.run([CLUSTER, "status"], capture_output=True).returncode != 0:
        pytest.skip("no development cluster here; as root: slurm/dev_cluster up")


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Registers the algorithm `slow` as users register theirs: by an entry point, found by PYTHONPATH."""
    site = tmp_path_factory.mktemp("site")
    package = site / "slow_agent-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-agent\nVersion: 1\n")
    (package / "entry_points.txt").write_text(f"[{algos.ENTRY_POINTS}]\nslow = slow_agent:Slow\n")
    folders = [str(REPO), str(site), str(Path(__file__).parent)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(folders))
        patch.setattr(sys, "path", [*sys.path, *folders])
        algos.registry.cache_clear()
        algos.offered.cache_clear()
        yield
    algos.registry.cache_clear()
    algos.offered.cache_clear()


@dataclass
class Grid:
    """A study of the algorithm `slow` on the cluster, and what the tests do with it."""

    root: Path
    study: Study
    profile: Profile

    @property
    def jobs(self) -> list[Job]:
        return self.study.jobs()

    def submit(self, **options: Any) -> slurm.Submission:
        cells = [
            {"env": job.env, "algo": job.algo, "label": job.label, "seed": job.seed, "hash": job.hash}
            for job in self.jobs
        ]
        write_study(
            self.root, {"format": FORMAT, "study": self.study.name, **self.study.to_dict(), "grid": cells}
        )
        packs = [[job] for job in self.jobs]
        return slurm.submit(self.root, self.study, packs, self.profile, execution=EAGER, **options)

    def run(self, seed: int = 0) -> Run:
        job = next(job for job in self.jobs if job.seed == seed)
        return read_run(self.root / job.path, job_hash=job.hash)

    def entry(self, seed: int = 0) -> Entry:
        job = next(job for job in self.jobs if job.seed == seed)
        return state_of_runs(self.root, self.study.name)[str(job.path)]

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Until `condition`, in at most `seconds` on an idle machine; fails with what Slurm and the logs say."""
        end = time.monotonic() + LOADED * seconds
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"{what} did not happen within {LOADED * seconds} s\n{self.story()}")
            time.sleep(0.3)

    def wait_running(self, seed: int = 0, step: int = 120) -> None:
        """Until a run is in the middle."""
        self.wait(
            lambda: self.run(seed).state == "running" and (self.run(seed).env_step or 0) >= step,
            120,
            f"step {step}",
        )

    def wait_done(self, seconds: float = 120) -> None:
        """Until every run is done and Slurm has seen its task's end."""

        def done() -> bool:
            states = {self.run(job.seed).state for job in self.jobs}
            if "failed" in states:
                pytest.fail(f"a run has failed\n{self.story()}")
            return states == {"done"}

        self.wait(done, seconds, "the end of all runs")
        self.wait(
            lambda: not any(e.active for e in state_of_runs(self.root, self.study.name).values()),
            30,
            "the end of all tasks",
        )

    def story(self) -> str:
        """What a failed test wants to know."""
        logs = sorted((self.root / self.study.name / "slurm" / "logs").glob("*_log.out"))
        runs = [f"{job.path}: {self.run(job.seed)}" for job in self.jobs]
        queue = subprocess.run(["squeue", "--states=all", "--array"], capture_output=True, text=True).stdout
        return "\n".join([*runs, queue, *(f"== {log.name}\n{log.read_text()[-3000:]}" for log in logs)])

    def attempts(self, seed: int = 0) -> list[dict[str, Any]]:
        attempts: list[dict[str, Any]] = self.run(seed).meta["attempts"]
        return attempts

    def tasks(self) -> int:
        """Tasks of this study that were ever submitted."""
        found, _ = queue.survey(arrays.folder(self.root, self.study.name))
        return sum(len(array.tasks) for array in found if array.kind == "runs")


def make_study(name: str, *, seeds: int = 1, steps: int = 600, delay: float = 0.0, **config: Any) -> Study:
    """Runs of `steps` steps of which 500 take `delay` seconds each."""
    base = {"hidden": [16, 16], "batch_size": 16, "delay": delay, **config}
    settings = RunSettings(
        steps=steps, random_steps=100, eval_every=200, eval_episodes=1, replay_size=steps, final_episodes=1
    )
    return Study(
        name=name,
        title=name,
        algos=("slow",),
        envs=("Pendulum-v1",),
        seeds=tuple(range(seeds)),
        settings=settings,
        config=base,
    )


@pytest.fixture
def profile(tmp_path: Path) -> Callable[..., Profile]:
    """The profile of the development cluster with some keys changed, as a file."""

    def make(**keys: str) -> Profile:
        lines = dict(
            line.split(" = ", 1) for line in (FOLDER / "local.toml").read_text().splitlines() if " = " in line
        )
        file = tmp_path / "changed.toml"
        file.write_text("".join(f"{key} = {value}\n" for key, value in (lines | keys).items()))
        return load_profile(str(file))

    return make


FOLDER = REPO / "slurm" / "profiles"


@pytest.fixture
def grid(
    cluster: None, tmp_path: Path, profile: Callable[..., Profile], request: pytest.FixtureRequest
) -> Iterator[Callable[..., Grid]]:
    """Makes a `Grid`; what is left of its jobs afterwards is cancelled."""
    made: list[Grid] = []

    def make(*, keys: dict[str, str] | None = None, **study: Any) -> Grid:
        made.append(
            Grid(tmp_path / "results", make_study(f"study{len(made)}", **study), profile(**(keys or {})))
        )
        return made[-1]

    yield make
    for each in made:
        if arrays.folder(each.root, each.study.name).is_dir():
            slurm.cancel(each.root, each.study.name)


class Commands:
    """Stand-ins for Slurm's commands that print what they are told and count their calls."""

    def __init__(self, folder: Path):
        self.folder = folder

    def answer(self, name: str, text: str, code: int = 0) -> None:
        (self.folder / f"{name}.txt").write_text(text)
        self.script(name, f"cat {self.folder}/{name}.txt\nexit {code}")

    def script(self, name: str, body: str) -> None:
        """A stand-in that runs `body`, a shell script, and keeps the environment that it was given."""
        head = f'#!/bin/sh\necho "$@" >>{self.folder}/{name}.calls\nenv >{self.folder}/{name}.env\n'
        (self.folder / name).write_text(head + body + "\n")
        (self.folder / name).chmod(0o755)

    def environment(self, name: str) -> dict[str, str]:
        """What the last call of a command was given."""
        lines = (self.folder / f"{name}.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def slurm(self, *, sbatch: str = "echo 77") -> None:
        """All the commands that submitting needs. sbatch: its body."""
        for name in ("scancel", "scontrol"):
            self.answer(name, "MaxArraySize = 9\n")
        self.script("sbatch", sbatch)

    def calls(self, name: str) -> list[str]:
        file = self.folder / f"{name}.calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    made = Commands(folder)
    made.answer("squeue", "")
    made.answer("sacct", "Slurm accounting storage is disabled", code=1)
    return made


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Grid], None]:
    """Checks that a grid's results equal those of the same runs in a local pool, where nothing happened."""
    known: dict[tuple[int, int], list[Any]] = {}

    def results(root: Path, study: Study) -> list[Any]:
        return [substance(read_run(root / job.path, job_hash=job.hash)) for job in study.jobs()]

    def check(grid: Grid) -> None:
        key = len(grid.study.seeds), grid.study.settings.steps
        if key not in known:
            study = make_study("undisturbed", seeds=key[0], steps=key[1])
            root = tmp_path_factory.mktemp("undisturbed")
            plan = Plan(packs=[[job] for job in study.jobs()])
            outcome = Pool(root, plan, LocalOptions(workers=2, execution="eager"), lambda pool: None).run()
            assert not outcome.failed
            known[key] = results(root, study)
        assert results(grid.root, grid.study) == known[key]

    return check


def substance(run: Run) -> tuple[Any, ...]:
    """What must not depend on where, when and in how many attempts a run was made."""
    policy = torch.load(run.path / "policy.pt", weights_only=True)["state"]
    parameters = {f"{part}.{name}": x.tolist() for part, xs in policy.items() for name, x in xs.items()}
    evaluations = run.table("eval.csv").drop(columns="wall_s")
    return run.state, evaluations.values.tolist(), run.table("train.csv").values.tolist(), parameters
