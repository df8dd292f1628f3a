"""Short training runs whose numbers the code is held to: `python -m tests.record_traces` writes tests/traces/*.jsonl.

A trace is everything that a run of `bench.training.trainer.Trainer` does that could differ: the transition and the
losses of every step, the rows of eval.csv, train.csv and final.csv, and the sums and norms of all that is trained,
after a stop and a resume in the middle of an episode. Networks and batches are small and episodes are cut at 25 steps,
so that a trace takes about a second. All other settings are the algorithm's defaults: a changed default shows as well.

Existing traces are written again only after `BEHAVIOUR` (bench/machine/behaviour.py) was raised: docs/results.md, "When
numbers may change".
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from gymnasium.wrappers import TimeLimit

from bench.envs import tasks as envs
from bench.machine.behaviour import BEHAVIOUR
from bench.machine.provenance import versions
from bench.studies.job import Job, RunSettings
from bench.studies.overrides import agent_class, algorithm_config, default_config, parse_overrides
from bench.training.events import Diverged, Rows, Step
from bench.training.trainer import Trainer, read_snapshot

FOLDER = Path(__file__).parent / "traces"
EXECUTION = {"mode": "eager", "device": "cpu"}
EPISODE = 25  # environment steps
STOP = 55  # the step after which a new trainer goes on from a snapshot: in the middle of an episode
SETTINGS = RunSettings(
    steps=80, random_steps=20, eval_every=40, eval_episodes=2, final_episodes=1, replay_size=50
)
#: Small, and such that 60 updates see every branch. An algorithm takes those that are settings of its own.
SMALL = {"hidden": (32, 32), "batch_size": 32, "act_candidates": 4, "ema_start": 20}

Record = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One trace: an algorithm as the command line names it, a task, and the seeds of the pack."""

    algo: str
    env: str
    seeds: tuple[int, ...] = (0,)

    @property
    def path(self) -> Path:
        pack = "" if len(self.seeds) == 1 else f"-pack{len(self.seeds)}"
        return FOLDER / f"{re.sub('[:,]', '-', self.algo)}{pack}.{self.env}.jsonl"

    def jobs(self) -> list[Job]:
        name, own = parse_overrides(self.algo)
        known = default_config(name, own.get("critic"))
        small = {key: value for key, value in {**SMALL, **agent_class(name).small}.items() if key in known}
        # else the critics are as wide as the actor
        if known.get("critic_hidden") or known.get("critic", "mlp") != "mlp":
            small["critic_hidden"] = SMALL["hidden"]
        config = algorithm_config(name, small | own)
        return [Job("traces", self.env, name, name, seed, config, SETTINGS) for seed in self.seeds]


TASKS = ("cheetah-run", "pendulum-swingup")
CASES = [
    *(Case(algo, env) for algo in ("qsm", "dql", "dql-bc", "sac", "td3", "random") for env in TASKS),
    Case("qsm", "pendulum-swingup", (0, 3)),
    Case("qsm:score_scale=true,actor_lr_decay=100", "pendulum-swingup"),
    Case("qsm:normalise_gradient=true,clip_sampler=x0", "pendulum-swingup"),
    Case("sac:actor_q=min,critic_loss=sum,init=torch", "pendulum-swingup"),
    Case("td3:delay_targets=true,actor_q=first,clip_target_action=true,grad_norm=1", "pendulum-swingup"),
    Case("sac", "Hopper-v5"),  # a Gymnasium task, and one that ends its episodes itself
    *(
        Case(algo, "pendulum-swingup")
        for algo in ("sdac", "dpmd", "qvpo", "dacer", "maxentdp", "rfm", "dime")
    ),
    *(
        Case(algo, "pendulum-swingup")
        for algo in ("dipo:T=5", "q-langevin", "sac:critic=simba", "sac:critic=crossq")
    ),
    Case("qsm:critic=crossq", "pendulum-swingup"),
]


def record(case: Case) -> list[Record]:
    """The trace of `case`, in one thread: flat records, each of one seed, with numbers and a few names."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as in a run: bench.launch.pack.prepare_process
    make = envs.make
    try:
        with patch.object(envs, "make", lambda *name, **how: TimeLimit(make(*name, **how), EPISODE)):
            return list(_train(case.jobs()))
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)


def _train(jobs: Sequence[Job]) -> Iterator[Record]:
    trainer = Trainer(jobs, EXECUTION)
    yield from _follow(trainer, STOP)
    snapshots = [read_snapshot(trainer.snapshot(k)) for k in range(trainer.S)]
    last = trainer.replay.written
    rows = [trainer.replay.rows_between(last - len(trainer.replay), last, k) for k in range(trainer.S)]
    trainer.close()
    trainer = Trainer(jobs, EXECUTION, snapshots, rows)
    yield from _follow(trainer, SETTINGS.steps)
    trainer.close()
    for part, tensors in trainer.agent.state.items():
        for k, seed in enumerate(trainer.seeds):
            # A tensor without a seed axis (the step of an optimiser) belongs to all seeds.
            values = torch.cat([(x[k] if x.dim() else x).double().flatten() for x in tensors.values()])
            yield {"seed": seed, "part": part, "sum": float(values.sum()), "norm": float(values.norm())}


def _follow(trainer: Trainer, last: int) -> Iterator[Record]:
    """Until the environment step `last`: one record per step and seed, and what the tables of the run would hold."""
    update, metrics = trainer.agent.update, {}

    def recorded_update(batch: Any) -> Any:
        found = update(batch)
        metrics.update({name: value.tolist() for name, value in found.items()})
        return found

    trainer.agent.update = recorded_update  # type: ignore[method-assign]
    for event in trainer.events():
        if isinstance(event, Rows) and event.table != "time.csv":
            for row in event.rows:
                numbers = {name: value for name, value in row.items() if name != "wall_s"}
                yield {"seed": trainer.seeds[event.k], "table": event.table, **numbers}
        elif isinstance(event, Diverged):
            yield {"seed": trainer.seeds[event.k], "diverged": event.reason}
        elif isinstance(event, Step):
            for k, seed in enumerate(trainer.seeds):
                losses = {name: values[k] for name, values in metrics.items()}
                yield {"seed": seed, "env_step": event.env_step, **_last_transition(trainer, k), **losses}
            metrics.clear()
            if event.env_step == last:
                return


def _last_transition(trainer: Trainer, k: int) -> Record:
    """Sums over the fields of the newest row of the replay buffer."""
    written = trainer.replay.written
    row = torch.from_numpy(trainer.replay.rows_between(written - 1, written, k)).double()
    fields = trainer.replay.split(row.unsqueeze(0))
    return {name: float(value.sum()) for name, value in fields._asdict().items()}


# -- files -----------------------------------------------------------------------------------------------------------


def read(path: Path) -> tuple[Record, list[Record]]:
    """The head of a trace (behaviour, versions) and its records."""
    head, *records = map(json.loads, path.read_text().splitlines())
    return head, records


def write(path: Path, records: Iterable[Record]) -> None:
    head = {"behaviour": BEHAVIOUR, "versions": versions()}
    lines = [head, *({name: _short(value) for name, value in line.items()} for line in records)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _short(value: Any) -> Any:
    """A float with eight digits, one more than float32 has; a whole number as one."""
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    return int(value) if value.is_integer() and abs(value) < 2**53 else float(f"{value:.8g}")


def main() -> int:
    """Write every trace that is not there, or is of another behaviour than the code says it is."""
    FOLDER.mkdir(exist_ok=True)
    for case in CASES:
        if case.path.exists() and read(case.path)[0]["behaviour"] == BEHAVIOUR:
            print(
                f"{case.path.name}: kept, it is of behaviour {BEHAVIOUR}; to record anew, raise BEHAVIOUR first"
            )
        else:
            write(case.path, record(case))
            print(f"{case.path.name}: recorded")
    return 0


if __name__ == "__main__":
    sys.exit(main())
