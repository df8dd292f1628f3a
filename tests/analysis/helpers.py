"""Made-up studies for the analysis: finished runs, and what can be wrong with them."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.runs import reader
from tests.synthetic import make_study

ORIGIN = {
    "code_digest": "a" * 64,
    "git": {"commit": "c" * 40, "dirty": False},
    "versions": {"torch": "2.13.0"},
    "hardware": {"cpu": "Some CPU", "cores": 2},
}


def study(
    root: Path,
    envs: Sequence[str] = ("cheetah-run",),
    algos: Sequence[str] = ("qsm", "sac"),
    seeds: int = 3,
    *,
    evaluations: int = 10,
    name: str = "made-up",
    levels: Mapping[str, float] | None = None,
) -> Path:
    """A finished study; its folder. Evaluations every 1000 steps, three episodes each."""
    rng = np.random.default_rng(0)
    make_study(
        root, name, envs, algos, range(seeds), evaluations, rng, episodes=3, levels=levels, origin=ORIGIN
    )
    return root / name


def set_returns(run: Path, returns: Sequence[float], every: int = 1000) -> None:
    """Replace a run's evaluations by these, one episode each."""
    rows = [f"{every * (i + 1)},0,{float(value)!r},1000,{float(i)!r}\n" for i, value in enumerate(returns)]
    (run / "eval.csv").write_text("env_step,episode,return,length,wall_s\n" + "".join(rows))
    seal(run)


def diverge(run: Path, at_step: int, returns: Sequence[float]) -> None:
    """Make a run one that diverged at a step, with these evaluations on disk."""
    set_returns(run, returns)
    seal(run, outcome="diverged", env_step=at_step, reason="critic loss is nan")


def seal(run: Path, **changes: object) -> None:
    """Bring done.json up to date with the files, and change fields of it."""
    done = json.loads((run / "done.json").read_text())
    done["files"] = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in done["files"]}
    done |= changes
    (run / "done.json").write_text(json.dumps(done | {"sha256": reader.seal(done)}))


def change_meta(run: Path, **changes: object) -> None:
    """Change fields of run.json and seal the run again."""
    meta = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(meta | changes))
    seal(run)


def change_study(folder: Path, **changes: object) -> None:
    """Change fields of study.json."""
    file = folder / "study.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


SECONDS = {  # per call, at T = 1, and more for each further denoising step
    ("qsm", "critic_update"): (8e-3, 1e-3),
    ("qsm", "actor_update"): (9e-3, 0.0),
    ("dql", "critic_update"): (8e-3, 1e-3),
    ("dql", "actor_update"): (8e-3, 3e-3),
    ("sac", "critic_update"): (8e-3, 0.0),
    ("sac", "actor_update"): (7e-3, 0.0),
}


def timing(root: Path, name: str = "idle", *, modes: Sequence[str] = ("eager",), rounds: int = 10) -> Path:
    """A timing study of QSM, DQL and SAC at 256x256 over T, three calls in each round; its folder."""
    folder = root / "timing" / name
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    head = "algo what mode device threads dtype hidden batch T pack candidates round seconds"
    facts_head = "algo hidden batch T actor_parameters critic_parameters update_gflop network_calls_update"
    samples, facts = (
        [head.split()],
        [[*facts_head.split(), "network_calls_act", "candidates", "peak_memory_mb"]],
    )
    for mode in modes:
        for algo in ("qsm", "dql", "sac"):
            for T in ("1", "5", "20") if algo != "sac" else ("",):
                more = int(T or 1) - 1
                parts = {w: a + b * more for (x, w), (a, b) in SECONDS.items() if x == algo}
                parts |= {"update": sum(parts.values()), "act_1": 1e-4 + 2e-4 * more, "env_step": 2e-4}
                parts["end_to_end"] = parts["update"] + parts["act_1"] + 3e-4
                for what, seconds in parts.items():
                    size = [algo, what, mode, "cpu", "1", "float32", "256x256", "256", T, "1", "1"]
                    times = seconds * np.exp(0.05 * rng.standard_normal(3 * rounds))
                    samples += [[*size, str(i // 3), repr(s)] for i, s in enumerate(times.tolist())]
                facts.append(
                    [algo, "256x256", "256", T, "90000", "150000", "0.7", "8", T or "1", "1", "210.5"]
                )
    for file, rows in (("samples.csv", samples), ("facts.csv", facts)):
        with (folder / file).open("w", newline="") as out:
            csv.writer(out, lineterminator="\n").writerows(rows)
    (folder / "provenance.json").write_text(json.dumps(ORIGIN))
    return folder


def with_config(folder: Path, **config: object) -> None:
    """Give every run of a study this configuration, T only where there is a chain (its hash stays)."""
    for run in sorted(folder.glob("*/*/seed-*")):
        chain = run.parent.name in ("qsm", "dql")
        change_meta(run, config={key: value for key, value in config.items() if chain or key != "T"})


def read_grid(folder: Path) -> list[dict[str, object]]:
    """The grid in study.json."""
    grid: list[dict[str, object]] = json.loads((folder / "study.json").read_text())["grid"]
    return grid
