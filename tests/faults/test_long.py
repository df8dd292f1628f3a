"""Long runs: memory and descriptors stay flat, and what results and checkpoints cost is known."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench.launch.local.pool import LocalOptions, Pool
from bench.launch.plan import make_plan
from bench.runs import TABLES, Writer, read_run
from tests.faults.harness import Grid, note
from tests.launching import stub_study

pytestmark = [pytest.mark.usefixtures("stubs"), pytest.mark.faults, pytest.mark.timeout(900)]

MEGABYTE = 2**20


class Meter:
    """Memory (resident bytes) and open descriptors of a process, looked at whenever `look` is called."""

    def __init__(self, pid: int):
        self.process = psutil.Process(pid)
        self.memory: list[int] = []
        self.descriptors: list[int] = []

    def look(self) -> None:
        try:
            self.memory.append(self.process.memory_info().rss)
            self.descriptors.append(self.process.num_fds())
        except psutil.Error:
            pass


def growth(values: Sequence[int]) -> float:
    """The least of the last quarter less that of the second: what came before was warming up, and what a job holds
    for a moment is no growth.
    """
    n = len(values)
    return float(min(values[3 * n // 4 :]) - min(values[n // 4 : n // 2]))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_two_hundred_jobs_leave_memory_and_descriptors_flat(tmp_path: Path) -> None:
    jobs = stub_study(seeds=200).jobs()
    meters: dict[int, Meter] = {}
    own = Meter(psutil.Process().pid)
    looked = 0.0

    def show(pool: Pool) -> None:
        nonlocal looked
        if time.monotonic() - looked > 0.5:
            looked = time.monotonic()
            own.look()
            for worker in pool.workers:
                meters.setdefault(worker.process.pid, Meter(worker.process.pid)).look()

    began = time.monotonic()
    outcome = Pool(tmp_path, make_plan(tmp_path, jobs), LocalOptions(2), show).run()
    assert len(outcome.done) == 200
    assert len(meters) == 2  # nobody had to be replaced
    runs = [read_run(tmp_path / job.path) for job in jobs]
    assert all(run.verified for run in runs)
    for meter in (own, *meters.values()):
        assert growth(meter.descriptors) <= 0
        assert growth(meter.memory) < 20 * MEGABYTE
    note(
        "200 jobs in two workers",
        seconds=round(time.monotonic() - began),
        launcher_grew_kB=round(growth(own.memory) / 1024),
        workers_grew_kB=[round(growth(m.memory) / 1024) for m in meters.values()],
        descriptors=[m.descriptors[-1] for m in (own, *meters.values())],
        kB_per_run=round(size(tmp_path) / 200 / 1024, 1),
    )


def test_a_hundred_thousand_steps_leave_memory_and_descriptors_flat(tmp_path: Path) -> None:
    grid = Grid(tmp_path, options=("--jobs", "1")).define(
        "stub", steps=100_000, eval_every=10_000, eval_episodes=2, replay_size=5_000, random_steps=1_000
    )
    launch = grid.start(BENCH_TEST_CHECKPOINT_S="2")
    meters: dict[int, Meter] = {}
    largest = 0
    while launch.process.poll() is None:
        for process in launch.workers():
            meters.setdefault(process.pid, Meter(process.pid)).look()
        for folder in grid.root.glob("*/*/*/*/checkpoint"):
            try:
                largest = max(largest, size(folder))
            except OSError:
                continue
        time.sleep(0.5)
    code, out = launch.ends()
    assert code == 0, out
    (meter,) = meters.values()
    assert growth(meter.descriptors) <= 0
    assert growth(meter.memory) < 20 * MEGABYTE
    (run,) = grid.runs()
    assert run.verified
    sizes = {name: (run.path / name).stat().st_size for name in (*TABLES, "policy.pt", "run.json")}
    assert sum(sizes.values()) < 2 * MEGABYTE
    row = 4 * (2 * 3 + 2 + 2)  # bytes of a transition of the toy task
    assert largest < 3 * 5_000 * row + MEGABYTE  # the ring, the shard that is half overwritten, and the state
    note(
        "100,000 steps of the stub",
        worker_grew_kB=round(growth(meter.memory) / 1024),
        descriptors=meter.descriptors[-1],
        results_kB=round(sum(sizes.values()) / 1024),
        checkpoint_at_most_kB=round(largest / 1024),
    )


@pytest.mark.timeout(600)
def test_checkpoints_of_a_long_humanoid_run_cost_less_than_two_percent(tmp_path: Path) -> None:
    """A million steps of humanoid-walk, SAC and QSM at full width, a checkpoint in every 120 s.

    Every checkpoint of such a run is written, at a pace at which more rows come together than on any CPU so far
    (150 steps/s), with the tables growing beside them; its time is set against the 120 s that it covers.
    """
    from bench.launch.pack import CHECKPOINT_EVERY_S
    from bench.studies.job import Job, RunSettings
    from bench.training.trainer import Trainer

    steps, pace = 1_000_000, 150
    for algo in ("sac", "qsm"):
        from bench.studies.overrides import algorithm_config

        job = Job("s", "humanoid-walk", algo, algo, 0, algorithm_config(algo, {}), RunSettings())
        trainer = Trainer([job], {"mode": "eager", "device": "cpu", "threads": 1, "dtype": "float32"})
        rng = np.random.default_rng(0)
        chunk = rng.standard_normal((10_000, 157), dtype=np.float32)
        rows = np.tile(chunk, (int(CHECKPOINT_EVERY_S * pace / len(chunk)) + 1, 1))[
            : int(CHECKPOINT_EVERY_S * pace)
        ]
        writer = Writer.open(tmp_path, job, execution={}, provenance={})
        evaluation = [
            {"env_step": 0, "episode": i, "return": 1 / 3, "length": 1000, "wall_s": 1 / 3} for i in range(10)
        ]
        first, seconds = 0, []
        while first < steps:
            for _ in range(2):
                writer.append("eval.csv", evaluation)
            writer.append(
                "train.csv", [{"env_step": first, "kind": "loss", "name": "x", "value": 1 / 3}] * 18 * 8
            )
            began = time.monotonic()
            snapshot = trainer.snapshot(0)
            writer.save_checkpoint(first + len(rows), snapshot, rows, first)
            seconds.append(time.monotonic() - began)
            first += len(rows)
        share = sum(seconds) / (len(seconds) * CHECKPOINT_EVERY_S)
        note(
            f"checkpoints of 1M steps of humanoid-walk, {algo}",
            checkpoints=len(seconds),
            seconds_in_all=round(sum(seconds), 1),
            longest_s=round(max(seconds), 2),
            share_of_the_run=f"{share:.2%}",
            state_MB=round(len(snapshot) / MEGABYTE, 1),
            disk_MB=round(size(tmp_path / job.path / "checkpoint") / MEGABYTE),
        )
        assert share < 0.02
        began = time.monotonic()
        writer.release()
        again = Writer.open(tmp_path, job, execution={}, provenance={})
        checkpoint = again.load_checkpoint()
        assert checkpoint is not None
        assert len(checkpoint.rows) == first
        note(f"resuming there, {algo}", seconds=round(time.monotonic() - began, 1))
        again.restart("enough")
        again.release()
        trainer.close()


def test_a_pack_needs_no_descriptors_per_seed(tmp_path: Path) -> None:
    """Sixty-four seeds in one process under a limit of 64 descriptors."""
    from bench.launch import pack as worker
    from tests.launching import spec

    pack = stub_study(seeds=64).jobs()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = psutil.Process().num_fds()
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 24, limits[1]))
    threads = threading.active_count()
    try:
        said: list[str] = []
        assert worker.run(spec(tmp_path, pack), say=said.append) == "done", said
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert all(read_run(tmp_path / job.path).verified for job in pack)
    assert threading.active_count() <= threads
    assert psutil.Process().num_fds() <= used + 2
    assert list(tmp_path.glob("*"))
