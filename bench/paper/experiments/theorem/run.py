"""Does the step of QSM's loss, which aligns the score with grad_a Q, raise Q? (claims 5a, 5b)

The paper's theorem is about the score as a function: where it does not point along grad_a Q, moving it there raises Q.
Two such moves of eps, the noise prediction, which is the score but for a negative factor:

    match   eps <- (1 - step) eps + step (-M_q grad_a Q)    the step of QSM's loss mean ||eps + M_q grad_a Q||^2 as a
                                                            function; step 1 is its minimum at once. Judged.
    add     eps <- eps + step (-M_q grad_a Q)               adds the gradient to the score without decaying the score

After each step Q of the new policy is computed exactly. "Q is higher" means its mean over a fixed set of state-action
pairs: s and a standard normal (linear-quadratic), all positions and actions of the grid (gridworld); `everywhere` says
whether it is nowhere lower.

Each seed is a problem and a first policy of its own, close to a standard normal that knows nothing of the state. M_q is
given in units in which a coordinate of grad_a Q of that first policy has root mean square 1. Every step size goes as
far: step size x number of steps = 2, at least 10 steps. A path ends where Q is infinite, which counts as a step down.

What a share of steps says depends on how far the path goes: on the linear-quadratic problem Q rises first and falls
later. The claims are therefore judged at fixed lengths of the path (`path_measures`), per seed: whether every step up
to there raised Q, and whether Q is above its start there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algos.core.diffusion import vp_schedule
from bench.paper.experiments.data import read_rows
from bench.paper.experiments.parts import Part, Row, Tables, all_scores
from bench.paper.experiments.theorem import gridworld, linear_quadratic

Array = NDArray[np.float64]

EXPERIMENT = "theorem"
SEEDS = {"linear-quadratic": 10, "gridworld": 5}
STEP, M_Q, T = (0.01, 0.03, 0.1, 0.3, 1.0), (0.25, 1.0, 4.0, 16.0, 64.0), (5, 10, 20)
# judged; the others differ from it in one of the three
BASE: dict[str, Any] = {"move": "match", "step": min(STEP), "M_q": 1.0, "T": min(T)}
DISTANCE, FEWEST = 2.0, 10
LENGTHS = (0.1, 0.25, 0.5, 1.0, 2.0)  # of the path, at which `path_measures` are taken
MORE = "more"  # further seeds of the judged cell: problem -> the first of them and how many
MORE_SEEDS = {"gridworld": (5, 5)}
ROUNDING = 1e-9  # relative distance of score and target from which on they count as different

#: One step: disagreement before it, gain of mean Q (None: Q is infinite), whether Q is nowhere lower.
Step = tuple[float, float | None, bool]


def settings() -> list[dict[str, Any]]:
    """The base, one knob after the other moved away from it, and the other move over the step size.

    (Adding, M_q is one knob with the step size.)
    """
    grids: dict[str, tuple[Any, ...]] = {"step": STEP, "M_q": M_Q, "T": T}
    moved = [{**BASE, knob: value} for knob, values in grids.items() for value in values]
    moved += [{**BASE, "move": "add", "step": value} for value in STEP]
    return list({tuple(cell.items()): cell for cell in moved}.values())


def parts() -> list[Part]:
    """One problem and cell each, and the further seeds of the judged cell."""
    return [
        Part(
            EXPERIMENT,
            _name(problem, cell),
            f"{__name__}:run",
            {"problem": problem, **cell, "seeds": SEEDS[problem]},
        )
        for problem in ("linear-quadratic", "gridworld")
        for cell in settings()
    ] + [
        Part(
            EXPERIMENT,
            f"{MORE}-{_name(problem, BASE)}",
            f"{__name__}:run",
            {"problem": problem, **BASE, "seeds": seeds, "first": first},
        )
        for problem, (first, seeds) in MORE_SEEDS.items()
    ]


def scores(folder: Path) -> list[Row]:
    """The numbers that the rules of the claims judge, and all other measures."""
    return all_scores(folder, parts()) + [
        row
        for problem in SEEDS
        for name in (_name(problem, BASE), f"{MORE}-{_name(problem, BASE)}")
        for row in path_measures(problem, read_rows(folder / "steps" / f"{name}.csv"))
    ]


def path_measures(problem: str, steps: list[dict[str, str]]) -> list[Row]:
    """Per seed and length of the path, from the judged cell's table of steps (step size BASE["step"]).

    share_up_to=L: share of the steps up to L that raise mean Q; always_up_to=L: 1 where all do; above_start_at=L: 1
    where mean Q after them is above that of the first policy. A gain of "" (Q is infinite) is a step down, and nothing
    after it is above the start. Setting: path-<problem>.
    """
    gains: dict[int, list[float]] = {}
    for row in steps:
        if float(row["disagreement"]) > ROUNDING:
            gains.setdefault(int(row["seed"]), []).append(float(row["gain"] or -np.inf))
    found: list[Row] = []
    for seed, path in gains.items():
        for length in LENGTHS:
            taken = np.array(path[: round(length / BASE["step"])])
            values = {
                "share_up_to": float((taken > 0).mean()),
                "always_up_to": float((taken > 0).all()),
                "above_start_at": float(taken.sum() > 0),
            }
            found += [
                {
                    "measure": f"{measure}={length:g}",
                    "setting": f"path-{problem}",
                    "algo": "qsm",
                    "seed": seed,
                    "value": value,
                }
                for measure, value in values.items()
            ]
    return found


def _name(problem: str, cell: dict[str, Any]) -> str:
    knobs = (f"{key}={cell[key]:g}" for key in ("step", "M_q", "T"))
    return "-".join([problem, cell["move"], *knobs])


def run(
    folder: Path, problem: str, move: str, step: float, M_q: float, T: int, seeds: int, first: int = 0
) -> Tables:
    """Every seed's path from its first policy on. first: the first seed; other than 0 for further seeds of a cell."""
    walk = {"linear-quadratic": walk_linear_quadratic, "gridworld": walk_gridworld}[problem]
    count = max(FEWEST, round(DISTANCE / step))
    scores: list[Row] = []
    steps: list[Row] = []
    cell: dict[str, Any] = {"move": move, "step": step, "M_q": M_q, "T": T}
    keep = 1 - step if move == "match" else 1.0
    for seed in range(first, first + seeds):
        start, path = walk(seed, M_q, T, keep, step, count)
        measured = list(path)
        counted = [(gain, everywhere) for apart, gain, everywhere in measured if apart > ROUNDING]
        gains = [gain for gain, _ in counted if gain is not None]
        values: dict[str, float] = {
            "share_of_steps_up": float(np.mean([gain is not None and gain > 0 for gain, _ in counted])),
            "share_everywhere": float(np.mean([everywhere for _, everywhere in counted])),
            "finite": float(len(gains) == len(counted)),
            "total_gain": float(np.sum(gains)) / abs(start),
        }
        names = [f"{MORE}-{_name(problem, cell)}"] if first else [_name(problem, cell)]
        names += [problem] if cell == BASE and not first else []
        scores += [
            {"measure": measure, "setting": name, "algo": "qsm", "seed": seed, "value": value}
            for name in names
            for measure, value in values.items()
        ]
        steps += [
            {
                "seed": seed,
                "number": number,
                "disagreement": apart,
                "gain": "" if gain is None else gain / abs(start),
                "everywhere": int(everywhere),
            }
            for number, (apart, gain, everywhere) in enumerate(measured)
        ]
    return {"scores": scores, "steps": steps}


def disagreement(eps: Array, target: Array, in_size: bool) -> float:
    """The distance of eps from the target relative to the target's size; in direction alone unless `in_size`."""
    if not in_size:
        target = target * ((eps * target).sum() / np.square(target).sum())
    return float(np.linalg.norm(eps - target) / np.linalg.norm(target))


def walk_linear_quadratic(
    seed: int, M_q: float, T: int, keep: float, step: float, count: int
) -> tuple[float, Iterator[Step]]:
    """Mean Q of the first policy, and the steps from it: eps <- keep eps + step target."""
    lq = linear_quadratic
    problem, policy, first = lq.start(T, seed)
    weight = M_q / first.gradient_rms()

    def steps() -> Iterator[Step]:
        value, now = first, policy
        for _ in range(count):
            target = lq.target(value, weight)
            apart = disagreement(*now.with_target(target), keep < 1)
            now = now.moved(target, keep, step)
            after = lq.evaluate(problem, now)
            if after is None:
                yield apart, None, False
                return
            yield apart, after.mean() - value.mean(), after.nowhere_below(value)
            value = after

    return first.mean(), steps()


def walk_gridworld(
    seed: int, M_q: float, T: int, keep: float, step: float, count: int
) -> tuple[float, Iterator[Step]]:
    """As `walk_linear_quadratic`."""
    world, schedule = gridworld.World.random(seed), vp_schedule(T)
    eps = gridworld.normal_policy(schedule, seed)
    first = world.q(gridworld.law(schedule, eps))
    weight = M_q / float(np.sqrt(np.square(gridworld.gradient(first)).mean()))

    def steps() -> Iterator[Step]:
        q, now = first, eps
        for _ in range(count):
            target = -weight * gridworld.gradient(q)
            apart = disagreement(now, np.broadcast_to(target, now.shape), keep < 1)
            now = keep * now + step * target
            after = world.q(gridworld.law(schedule, now))
            yield apart, float(after.mean() - q.mean()), bool((after >= q).all())
            q = after

    return float(first.mean()), steps()
