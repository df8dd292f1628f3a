"""kill -9 of workers, launchers and whole process groups: after one more command the results are the undisturbed ones.

Fifty kills in each run of this module, by a seeded plan: at random moments, and at fault points in the middle of a
CSV line, a checkpoint's parts and the records of a run (`bench/disk.py`).
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from bench.launch.local.pool import LocalOptions, Pool
from bench.launch.plan import make_plan
from bench.runs import Run
from bench.studies.file import load_study
from tests.faults.harness import Grid, Launch, no_traceback, note, wait_for

pytestmark = [pytest.mark.usefixtures("stubs"), pytest.mark.faults, pytest.mark.timeout(2400)]

CHECKPOINTS = {"BENCH_TEST_CHECKPOINT_S": "0.2"}
#: Writes in whose middle a worker is killed, each once per worker: what, moment and the how many-th.
POINTS = (
    "append.middle:9",
    "shard.middle:2",
    "state.middle:3",
    "manifest.middle:2",
    "manifest.written:2",
    "run.written:1",
    "heartbeat.middle:1",
    "policy.middle:1",
    "done.written:1",
    "cleanup.middle:1",
)


@dataclass
class Killing:
    """A grid that is launched again and again, and who was killed."""

    grid: Grid
    dice: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    launches: int = 0

    def launch(self, **variables: str) -> Launch:
        self.launches += 1
        return self.grid.start(**CHECKPOINTS, **variables)

    def until_training(self, launch: Launch) -> None:
        """Wait for a step of this launch, or for its end, and then for a random while."""
        since = time.time()
        wait_for(
            lambda: launch.process.poll() is not None or self.grid.training(since), 400, "training or the end"
        )
        time.sleep(self.dice.uniform(0.0, 1.2))

    def kill_worker(self, launch: Launch) -> None:
        workers = launch.workers()
        if workers:
            try:
                self.dice.choice(workers).kill()
                self.kills["worker"] += 1
            except psutil.NoSuchProcess:
                pass

    def kill_launcher(self, launch: Launch) -> None:
        """Its workers live on for a moment, finish their step, save and end; the next launch need not wait."""
        if launch.process.poll() is None:
            os.kill(launch.pid, signal.SIGKILL)
            launch.process.wait()
            self.kills["launcher"] += 1
            if self.dice.random() < 0.5:
                launch.ends()

    def kill_group(self, launch: Launch) -> None:
        if launch.process.poll() is None:
            launch.kill_group()
            self.kills["group"] += 1

    def at(self, point: str) -> None:
        """A launch whose workers are each killed where they cross `point`."""
        before = self.done()
        code, out = self.launch(BENCH_FAULT=point).ends()
        no_traceback(out)
        launcher = code == -signal.SIGKILL and point.startswith("cleanup")  # which tidies up too
        assert code in (0, 1) or launcher, out
        self.kills["launcher"] += launcher
        kills = len(
            [line for line in out.splitlines() if re.match(r"failed: s/.* its worker ended by SIGKILL", line)]
        )
        if point.startswith("cleanup"):  # then the run was finished, and no failure
            kills += self.done() - before
        self.kills[point.partition(":")[0]] += kills

    def done(self) -> int:
        return sum(run.state == "done" for run in self.grid.runs())


def undisturbed(grid: Grid, pack: int, root: Path) -> None:
    """The same grid under `root`, by one pool that nothing disturbs and without checkpoints in between."""
    jobs = load_study(str(grid.folder / "s.toml")).jobs()
    plan = make_plan(root, jobs, pack_size=pack)
    outcome = Pool(root, plan, LocalOptions(2), lambda pool: None).run()
    assert len(outcome.done) == len(jobs), outcome.failed
    shutil.copy(grid.root / grid.name / "study.json", root / grid.name)


def hunt(killing: Killing, moments: list[str]) -> None:
    """Carry out a plan of kills, one launch each; a grid that ends before its turn is left as it is."""
    for moment in moments:
        if killing.grid.runs() and killing.done() == len(killing.grid.runs()):
            break
        if ":" in moment:
            killing.at(moment)
            continue
        launch = killing.launch()
        try:
            killing.until_training(launch)
            act: Callable[[Launch], None] = getattr(killing, f"kill_{moment}")
            act(launch)
            if moment == "worker":  # the others of this launch go on for a while
                time.sleep(killing.dice.uniform(0.0, 1.0))
                killing.kill_worker(launch)
                killing.kill_group(launch)
        finally:
            if launch.process.poll() is None:
                launch.kill_group()


def check(killing: Killing, undisturbed_grid: Grid) -> tuple[int, int]:
    """The last launch; how many runs have the undisturbed bytes, and how many only until their pack was split.

    A pack that was killed between the checkpoints of two of its seeds goes on as two: products of another size are
    rounded otherwise, and training makes more of the difference.
    """
    code, out = killing.grid.run()
    assert code == 0, out
    no_traceback(out)
    assert killing.grid.leftovers() == []
    found, wanted = killing.grid.substance(), undisturbed_grid.substance()
    assert found.keys() == wanted.keys()
    split = 0
    for run in killing.grid.runs():
        name = f"{run.env}/{run.label}/{run.seed}"
        if found[name] == wanted[name]:
            continue
        split += 1
        step = _split(run)
        assert step is not None, f"{name} differs though its pack was always the same"
        for table in ("train.csv", "eval.csv"):
            assert _until(found[name][table], step) == _until(wanted[name][table], step), (name, table)
        assert len(found[name]["eval.csv"].splitlines()) == len(wanted[name]["eval.csv"].splitlines())
    return len(found) - split, split


def _split(run: Run) -> int | None:
    """The step at which the run first trained in another pack than before; None where it never did."""
    first, *rest = run.meta["attempts"]
    pack = first["execution"]["pack"]
    steps = (a["resumed_at_step"] for a in rest if a["execution"]["pack"] != pack)
    return next(steps, None)


def _until(table: str, step: int) -> list[str]:
    """The rows of a table up to `step`."""
    return [row for row in table.splitlines()[1:] if int(row.partition(",")[0]) <= step]


@pytest.mark.parametrize("pack", [1, 3])
def test_killed_grids_end_with_the_undisturbed_results(tmp_path: Path, pack: int) -> None:
    algos = "td3 sac qsm dql dql-bc stub" if pack == 1 else "td3 qsm stub"
    options = ("--jobs", "2", "--pack", str(pack))
    grid = Grid(tmp_path, options=options).define(algos, seeds=pack, steps=1600, eval_every=400)
    killing = Killing(grid, random.Random(pack))
    if pack == 1:
        moments = ["worker", "launcher", "group"] * 2 + list(POINTS[:7])
    else:
        moments = ["worker", "group", "launcher"] * 2 + [
            "state.middle:2",
            "manifest.middle:2",
            "append.middle:20",
        ]
    killing.dice.shuffle(moments)
    hunt(killing, [*moments, *POINTS[7:]])
    undisturbed(grid, pack, tmp_path / "whole")
    same, split = check(killing, Grid(tmp_path, "whole"))
    attempts = sum(len(run.meta["attempts"]) for run in grid.runs())
    note(
        f"kill -9, packs of {pack}",
        kills=killing.kills.total(),
        of=dict(killing.kills),
        launches=killing.launches,
        attempts=attempts,
        runs=same + split,
        byte_equal=same,
        byte_equal_until_the_pack_was_split=split,
    )
    assert killing.kills.total() >= 25
