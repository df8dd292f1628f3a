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
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

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
NAMES = {"sb3": "Stable-Baselines3", "sbx": "SBX"}
#: (algorithm, what, compared with, at least); "bound" is the rate of plain matrix products
PROMISES = (
    ("sac", "update", "sb3", 1.6),
    ("sac", "update", "sbx", 1.0),
    ("td3-paper", "update", "sb3", 1.3),  # the same work: one critic in the actor's loss
    ("td3", "update", "sbx", 1.1),  # both
    ("qsm", "update", "bound", 0.58),
    ("dql", "update", "bound", 0.58),
    ("sac", "end_to_end", "sb3", 1.6),
    ("sac", "end_to_end", "sbx", 1.1),
    ("qsm", "end_to_end", "sac", 0.7),
)
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
    print("\n".join(tables(samples, gflop) + runner_table(runner) + memory_table(memory)))
    versions = {who: server.facts["versions"] for who, server in servers.items() if who in NAMES}
    origin |= {"peers": versions, "update_gflop": gflop, "protocol": asdict(protocol)}
    files = {
        "samples": (SAMPLE_COLUMNS, samples),
        "runner": (RUNNER_COLUMNS, runner),
        "memory": (MEMORY_COLUMNS, memory),
    }
    return save(root, "perf", files, origin, quiet, quick)


# -- the libraries --------------------------------------------------------------------------------


def peers_python() -> Path | None:
    """The interpreter of the peers' environment, made where it is missing or outdated; None where it cannot be made."""
    stamp = VENV / install.STAMP
    wanted = f"{install.version()}, {hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest()}\n"
    if not (stamp.is_file() and stamp.read_text() == wanted):
        print(
            f"making an environment for {' and '.join(NAMES.values())} in {VENV.name}, a few minutes, once",
            flush=True,
        )
        try:
            install.make_empty(VENV)
            install.install_packages(VENV, PACKAGES, CONSTRAINTS)
            stamp.write_text(wanted)
        except (OSError, install.Failed) as error:
            print(f"bench: {' and '.join(NAMES.values())} are left out: {error}", file=sys.stderr)
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
        for who in NAMES:
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


# -- tables ----------------------------------------------------------------------------------------------

Times = dict[tuple[str, str, str, str], np.ndarray]  # (who, algo, what, execution) -> seconds


def tables(samples: Sequence[Row], gflop: Mapping[str, float]) -> list[str]:
    """Rates, ratios, and the promises, as lines of at most 80 characters."""
    collected: defaultdict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for row in samples:
        collected[row["who"], row["algo"], row["what"], row["mode"]].append(row["seconds"])
    times: Times = {key: np.array(seconds) for key, seconds in collected.items()}
    products = {key[1]: _sgemm_rate(key[1], times[key]) for key in times if key[2] == "sgemm"}
    bound = max(products.values())
    lines = [
        "",
        "Matrix products, one thread, GFLOP/s: " + ", ".join(f"{k} {v:.0f}" for k, v in products.items()),
    ]
    lines.append(f"The bound is the best of them, {bound:.1f} GFLOP/s.")
    for algo in gflop:
        lines += _update_table(times, algo, gflop[algo], bound)
    lines += _end_to_end_table(times)
    return lines + _promises(times, gflop, bound)


def _sgemm_rate(name: str, seconds: np.ndarray) -> float:
    """GFLOP/s of products called "count x size"."""
    count, size = map(int, name.split("x"))
    return 2 * count * size**3 / float(np.median(seconds)) / 1e9


def _update_table(times: Times, algo: str, gflop: float, bound: float) -> list[str]:
    lines = [
        "",
        f"{algo.upper()}: gradient updates per second, sampling included; {gflop:.2f} GFLOP each",
        f"{'':34}{'median':>8}{'p95':>8}{'x SB3':>7}{'x SBX':>7}{'GFLOP/s':>8}{'bound':>6}",
    ]
    for key, seconds in times.items():
        who, of, what, _ = key
        if of != algo or what not in ("update", "products"):
            continue
        cells = f"{_title(key):34}{_rate(seconds, 50):>8.1f}{_rate(seconds, 95):>8.1f}"
        cells += "".join(
            f"{_ratio(times, key, (peer, _peers_name(algo), 'update', '')):>7}" for peer in NAMES
        )
        if who == "ours":
            speed = gflop * _rate(seconds, 50)
            cells += f"{speed:>8.1f}{speed / bound:>6.0%}"
        lines.append(cells)
    return lines


def _end_to_end_table(times: Times) -> list[str]:
    lines = ["", "End to end on cheetah-run: environment steps per second"]
    lines.append(f"{'':40}{'median':>8}{'p95':>8}{'x SB3':>8}{'x SBX':>8}")
    for key, seconds in times.items():
        if key[2] == "end_to_end":
            peers = [_ratio(times, key, (peer, _peers_name(key[1]), "end_to_end", "")) for peer in NAMES]
            cells = "".join(f"{ratio:>8}" for ratio in peers)
            title = f"{key[1].upper()}, {_title(key)}"
            lines.append(f"{title:40}{_rate(seconds, 50):>8.1f}{_rate(seconds, 95):>8.1f}{cells}")
    return lines


def _peers_name(algo: str) -> str:
    """The peers' name of the algorithm."""
    return algo.removesuffix("-paper")


def _title(key: tuple[str, str, str, str]) -> str:
    who, _, what, execution = key
    peer, _, variant = who.partition("-")
    if what == "products":
        return "its matrix products alone"
    return f"ours, {execution}" if who == "ours" else NAMES[peer] + (" with our settings" if variant else "")


def _rate(seconds: np.ndarray, percentile: float) -> float:
    """Per second: at the median, or at the 95th percentile of the time taken."""
    return 1 / float(np.percentile(seconds, percentile))


def _ratio(times: Times, key: tuple, other: tuple) -> str:
    """How many times as fast as the other, by medians."""
    return f"{np.median(times[other]) / np.median(times[key]):.2f}" if other in times else "–"


def _promises(times: Times, gflop: Mapping[str, float], bound: float) -> list[str]:
    """The promised ratios, and those of the faster of our executions."""
    lines = ["", "Promised, by the faster of our modes"]

    def best(algo: str, what: str) -> float:
        ours = [np.median(t) for key, t in times.items() if key[:3] == ("ours", algo, what)]
        return 1 / float(min(ours))

    for algo, what, against, least in PROMISES:
        if against == "bound":
            found = best(algo, what) * gflop[algo] / bound
        elif against in gflop:
            found = best(algo, what) / best(against, what)
        elif (against, _peers_name(algo), what, "") in times:
            found = best(algo, what) * float(np.median(times[against, _peers_name(algo), what, ""]))
        else:
            continue
        name = {"bound": "the bound", **NAMES}.get(against, f"our {against.upper()}")
        sign = "kept" if found >= least else "MISSED"
        text = f"{algo.upper()} {what.replace('_', ' ')}: at least {least:.2f} of {name}"
        lines.append(f"{text:60}{found:>8.2f}  {sign}")
    return lines


def runner_table(rows: Sequence[Row]) -> list[str]:
    lines = ["", "The runner: grids of trivial jobs, figures included, seconds"]
    lines.append(f"{'jobs':>8}{'at once':>9}{'all':>9}{'per job':>9}{'again, nothing to do':>22}")
    for row in rows:
        each = row["seconds"] / row["jobs"]
        lines.append(
            f"{row['jobs']:>8}{row['at_once']:>9}{row['seconds']:>9.1f}{each:>9.2f}"
            f"{row['seconds_nothing_to_do']:>22.1f}"
        )
    return lines


def memory_table(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    lines = ["", "Memory of one run at its end, MB"]
    lines.append(f"{'':22}{'steps':>9}{'replay':>9}{'held':>9}{'peak':>9}")
    for row in rows:
        name = f"{row['algo'].upper()}, {row['env']}"
        lines.append(
            f"{name:22}{row['steps']:>9}{row['replay_mb']:>9.0f}{row['held_mb']:>9.0f}{row['peak_mb']:>9.0f}"
        )
    return lines
