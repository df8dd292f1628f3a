"""`make perf`: our SAC and TD3 against Stable-Baselines3 and SBX, and our updates against the machine's peak rate.

Each is a process of its own on one core (bench/timing/peers/), with one thread. They take turns in random order, so
that ratios compare neighbours in time. The bound is the best rate of plain matrix products measured in the same turns.
The peers live in an environment of their own, .perf-venv, made on first use. It also measures
the cost of the runner and the memory of a long run. Writes results/perf/<machine>/ (docs/timing.md).
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.analysis.table import to_terminal
from bench.analysis.wallclock import perf, perf_tables
from bench.launch.local.pool import default_workers
from bench.launch.pack import prepare_process
from bench.machine import install, mkl
from bench.machine.provenance import ROOT, provenance
from bench.studies.job import Job, RunSettings
from bench.studies.overrides import default_config
from bench.timing.measurement import Row, in_fresh_processes, memory_mb, minutes, now, save
from bench.timing.peers.serve import Server, ServerEnded
from bench.timing.peers.work import BATCH, HIDDEN, OURS
from bench.timing.stopwatch import Quiet, Watch, chunks, pin

VENV = ROOT / ".perf-venv"
CONSTRAINTS = ROOT / "bench/timing/peers/constraints.txt"
PACKAGES = ("torch", "stable-baselines3", "sbx-rl", "gymnasium", "dm-control", "psutil")
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
#: Our settings of the allocator (`prepare_process`), as glibc's variables.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}
SAMPLE_COLUMNS = [
    "who",
    "algo",
    "what",
    "mode",
    "threads",
    "dtype",
    "hidden",
    "batch",
    "T",
    "round",
    "seconds",
]
RUNNER_COLUMNS = ["jobs", "at_once", "seconds", "seconds_nothing_to_do"]
MEMORY_COLUMNS = ["env", "algo", "steps", "replay_mb", "held_mb", "peak_mb"]


@dataclass(frozen=True)
class Protocol:
    """Each task is called `warm_up` times, and then timed `rounds * calls` times (end to end: `rounds` times)."""

    warm_up: int = 20
    rounds: int = 20
    calls: int = 10
    order_seed: int = 0


QUICK = Protocol(warm_up=2, rounds=2, calls=2)


def run(root: Path, executions: Sequence[str], quick: bool, grids: Sequence[int]) -> Path:
    """Measure, print, write; the folder written.

    Args:
        executions: of ours.
        grids: numbers of trivial jobs, for the cost of the runner.
    """
    protocol = QUICK if quick else Protocol()
    origin = provenance() | {"started": now()}  # before pinning, which hides the other cores
    python = peers_python()
    runner = [runner_cost(jobs) for jobs in grids]
    lengths = () if quick else (100_000, 1_000_000)
    memory = list(in_fresh_processes(run_memory, [(algo, n) for algo in ("sac", "qsm") for n in lengths]))
    origin["core"] = pin()
    with tempfile.TemporaryDirectory() as scratch:
        servers = start_servers(python, executions, Path(scratch))
        try:
            samples, quiet = measure(servers, protocol)
        finally:
            for server in servers.values():
                server.close()
    gflop = servers["ours"].facts["gflop"]
    versions = {who: server.facts["versions"] for who, server in servers.items() if who in perf.PEERS}
    origin |= {"peers": versions, "update_gflop": gflop, "protocol": asdict(protocol)}
    files = {
        "samples": (SAMPLE_COLUMNS, samples),
        "runner": (RUNNER_COLUMNS, runner),
        "memory": (MEMORY_COLUMNS, memory),
    }
    folder = save(root, "perf", files, origin, quiet, quick)
    show(folder)
    return folder


def show(folder: Path) -> None:
    """Print what was measured, as the reports have it."""
    for table in perf_tables.all_tables([perf.read(folder)]):
        if not table.name.startswith("perf_details"):
            print(f"\n{table.title}\n\n{to_terminal(table)}", end="")


# -- the libraries --------------------------------------------------------------------------------


def peers_python() -> Path | None:
    """The interpreter of the peers' environment, made where it is missing or outdated; None where it cannot be made."""
    stamp = VENV / install.STAMP
    wanted = f"{install.version()}, {hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest()}\n"
    if not (stamp.is_file() and stamp.read_text() == wanted):
        print(
            f"making an environment for {' and '.join(perf.PEERS.values())} in {VENV.name}, a few minutes, once",
            flush=True,
        )
        try:
            install.make_empty(VENV)
            install.install_packages(VENV, PACKAGES, CONSTRAINTS)
            stamp.write_text(wanted)
        except (OSError, install.Failed) as error:
            print(f"bench: {' and '.join(perf.PEERS.values())} are left out: {error}", file=sys.stderr)
            return None
    return VENV / "bin/python"


def start_servers(python: Path | None, executions: Sequence[str], scratch: Path) -> dict[str, Server]:
    """Ours, and the peers as they come and with our settings of the memory allocator and of MKL ("-tuned")."""
    avx512 = {"LD_PRELOAD": str(mkl.LIBRARY)} if mkl.in_use() else {}
    cold = {"TORCHINDUCTOR_CACHE_DIR": str(scratch / "compiled")}
    commands: dict[str, tuple[list[str], dict[str, str]]] = {
        "ours": ([sys.executable, "-m", "bench.timing.peers.ours", *executions], cold | avx512)
    }
    if python is not None:
        for who in perf.PEERS:
            command = [str(python), "-m", "bench.timing.peers.stable_baselines", who]
            commands |= {who: (command, {}), f"{who}-tuned": (command, ALLOCATOR | avx512)}
    servers = {}
    for who, (command, environment) in commands.items():
        print(f"starting {who}", flush=True)
        try:
            servers[who] = Server(command, {**ONE_THREAD, **environment}, scratch / f"{who}.log", ROOT)
        except ServerEnded as error:
            if who == "ours":
                raise
            print(f"bench: {who} is left out, it does not start: {error}", file=sys.stderr)
    return servers


# -- measurement -----------------------------------------------------------------------------------


def measure(servers: Mapping[str, Server], protocol: Protocol) -> tuple[list[Row], Quiet]:
    """All samples, and the load of the machine while they were taken."""
    tasks = [(who, task) for who, server in servers.items() for task in server.tasks]
    for done, (who, task) in enumerate(tasks, 1):
        long = "/end_to_end" in task
        servers[who].seconds(task, protocol.warm_up // 10 if long else protocol.warm_up)
        print(f"warm: {who} {task} ({done} of {len(tasks)})", flush=True)
    rows: list[Row] = []
    watch, start = Watch(), time.monotonic()
    for done, (number, (who, task)) in enumerate(chunks(tasks, protocol.rounds, protocol.order_seed), 1):
        taken = servers[who].seconds(task, 1 if "/end_to_end" in task else protocol.calls)
        rows += [_row(who, task, number, seconds) for seconds in taken]
        if done % len(tasks) == 0:
            left = (time.monotonic() - start) / done * (len(tasks) * protocol.rounds - done)
            print(f"round {number + 1} of {protocol.rounds}, about {minutes(left)} left", flush=True)
    return rows, watch.quiet()


def _row(who: str, task: str, number: int, seconds: float) -> Row:
    algo, what, execution = [*task.split("/"), ""][:3]
    size = {"hidden": "x".join(map(str, HIDDEN)), "batch": BATCH} if what != "sgemm" else {}
    chain = {"T": OURS[algo][1].get("T", "")} if what != "sgemm" else {}
    return {
        **{"who": who, "algo": algo, "what": what, "mode": execution, "threads": 1, "dtype": "float32"},
        **size,
        **chain,
        "round": number,
        "seconds": seconds,
    }


def runner_cost(jobs: int) -> Row:
    """Seconds of `bench run` for a grid of `jobs` trivial jobs, and of the same command when all are done."""
    settings = "random_steps=0 eval_every=100 eval_episodes=1 final_episodes=0 replay_size=100"
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, "-m", "bench", "run", "--study", "quick", "--algos", "random"]
        command += ["--envs", "Pendulum-v1", "--seeds", str(jobs), "--steps", "100", "--set", settings]
        taken = []
        for _ in range(2):
            start = time.perf_counter()
            subprocess.run([*command, "--results", results], check=True, capture_output=True, cwd=ROOT)
            taken.append(time.perf_counter() - start)
    print(f"a grid of {jobs} trivial jobs took {taken[0]:.0f} s", flush=True)
    return dict(zip(RUNNER_COLUMNS, (jobs, min(jobs, default_workers("cpu", 1)), *taken)))


def run_memory(algo: str, steps: int, env: str = "humanoid-walk") -> Row:
    """Memory of a run of `steps` steps at its end. Call in a fresh process.

    Some steps are really trained and one evaluation is made, 10 episodes at once; the rows of the replay buffer that
    the other steps would have written are then written at once.
    """
    from bench.training.events import Step
    from bench.training.trainer import Trainer

    prepare_process(1)
    settings = RunSettings(steps=steps, random_steps=100, eval_every=steps)
    job = Job("memory", env, algo, algo, 0, default_config(algo), settings)
    trainer = Trainer([job], {"mode": "eager", "device": "cpu"})
    for event in trainer.events():
        if isinstance(event, Step) and event.env_step == 200:
            break
    trainer.evaluate(trainer.agent.evaluation_mode, None, settings.eval_episodes)
    trainer.replay.rows.normal_()
    trainer.snapshot(0)
    held, peak = memory_mb()
    replay = trainer.replay.rows.numel() * trainer.replay.rows.element_size() / 2**20
    print(f"memory of {algo} on {env} after {steps} steps: {held:.0f} MB", flush=True)
    return dict(zip(MEMORY_COLUMNS, (env, algo, steps, replay, held, peak)))
