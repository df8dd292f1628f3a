"""Learning curves of others: one `Curve` for each source, algorithm and task, made from its single seeds.

The runs of one source need not have been evaluated at the same steps. `curve` puts them on common ones:
- where the seeds share most of their steps, all steps that any of them has;
- where they do not (at most half of all steps are shared, as with returns logged at the end of each episode), equally
  spaced steps, as many as the median seed has evaluations.
A seed without an evaluation at a step gets the value on the straight line between its own neighbours. Nothing is
continued beyond a seed's first and last evaluation: there it has no value (nan) and does not count. `Curve.notes` says
in words what was interpolated, and which seeds began later or ended earlier than others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis import stats
from bench.analysis.external.scores import load_per_seed
from bench.analysis.resampling import CURVE_RESAMPLES, Array

COLUMNS = ("source", "algo", "env", "seed", "env_step", "return")


@dataclass(frozen=True)
class Curve:
    """Others' runs of one algorithm on one task.

    env_steps: (K,), in frames: decisions times action repeat. returns: (n, K), one row per seed, nan where a seed has
    no value. notes: what a reader must know of it, one line each.
    """

    source: str
    algo: str
    env: str
    env_steps: Array
    returns: Array
    seeds: tuple[int, ...]
    evaluated: NDArray[np.bool_]  # (K,): whether every seed was evaluated at the step itself
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What tells it apart on its task: "dime", or "simbav2: sac" where the source is named otherwise."""
        return self.algo if self.source == self.algo else f"{self.source}: {self.algo}"

    @cached_property
    def n(self) -> Array:
        """How many seeds have a value at each step: (K,)."""
        return np.isfinite(self.returns).sum(axis=0).astype(np.float64)

    @cached_property
    def mean(self) -> Array:
        """Mean over the seeds that have a value: (K,)."""
        return np.nansum(self.returns, axis=0) / self.n

    @cached_property
    def whole(self) -> NDArray[np.bool_]:
        """Whether all seeds have a value at a step: (K,)."""
        return np.asarray(np.isfinite(self.returns).all(axis=0))

    def at(self, env_step: float) -> Array:
        """One return per seed at a step, (n,), on a line between two evaluations; empty where some seed has none."""
        steps = self.env_steps[self.whole]
        if not len(steps) or not steps[0] <= env_step <= steps[-1]:
            return np.empty(0)
        return np.array([np.interp(env_step, steps, seed) for seed in self.returns[:, self.whole]])

    @cached_property
    def extent(self) -> tuple[Array, Array]:
        """The lowest and the highest seed: (K,), (K,)."""
        return np.nanmin(self.returns, axis=0), np.nanmax(self.returns, axis=0)

    @cached_property
    def band(self) -> tuple[Array, Array]:
        """The 95% interval of the mean over seeds, as those of our own curves are made: (K,), (K,).

        nan where a single seed has a value. Not cut off at the ends of the task's scale.
        """
        low, high = np.full(len(self.env_steps), np.nan), np.full(len(self.env_steps), np.nan)
        there = np.isfinite(self.returns)
        for present in np.unique(there, axis=1).T:  # steps at which the same seeds have a value
            if present.sum() < 2:
                continue
            at = (there == present[:, None]).all(axis=0)
            group = (int(present.sum()), (self.env, self.name))
            scores = self.returns[np.ix_(present, at)].T
            found = stats.resampled(stats.mean, [scores], [group], CURVE_RESAMPLES)
            low[at], high[at] = found.interval()
        return low, high


def load_curves(root: Path) -> tuple[pd.DataFrame, list[str]]:
    """What others' single runs scored, one row per evaluation, and one line per file or source left out.

    From results/published/, results/published/curves/ and results/external/. Columns: source, algo (lower case), env,
    seed, env_step (frames: decisions times action repeat), return; sorted by the first five. Scores of which only a
    summary over seeds is known are not among them: those are points (`scores.load_external`).
    """
    frame, problems = load_per_seed(root)
    frame = frame.rename(columns={"value": "return"})[list(COLUMNS)]
    return frame.sort_values(list(COLUMNS[:5]), kind="stable", ignore_index=True), problems


def curves(frame: pd.DataFrame) -> list[Curve]:
    """A curve for each source, algorithm and task of `load_curves`, in its order."""
    return [curve(rows) for _, rows in frame.groupby(["source", "algo", "env"], sort=False)]


def curve(rows: pd.DataFrame) -> Curve:
    """The runs of one source, algorithm and task (columns COLUMNS) on common steps."""
    seeds: dict[int, tuple[Array, Array]] = {}
    for seed, run in rows.sort_values("env_step").groupby("seed"):
        seeds[int(seed)] = run["env_step"].to_numpy(np.float64), run["return"].to_numpy(np.float64)
    grid = common_steps([steps for steps, _ in seeds.values()])
    returns = np.array(
        [np.interp(grid, steps, values, left=np.nan, right=np.nan) for steps, values in seeds.values()]
    )
    somewhere = np.isfinite(returns).any(axis=0)  # not between a seed that ends and one that begins later
    grid, returns = grid[somewhere], returns[:, somewhere]
    first = rows.iloc[0]
    return Curve(
        source=str(first["source"]),
        algo=str(first["algo"]),
        env=str(first["env"]),
        env_steps=grid,
        returns=returns,
        seeds=tuple(seeds),
        evaluated=np.all([np.isin(grid, steps) for steps, _ in seeds.values()], axis=0),
        notes=tuple(_notes(grid, seeds)),
    )


def common_steps(runs: Iterable[Array]) -> Array:
    """The steps (K,) at which runs are compared whose own steps are these; see the module's docstring."""
    runs = list(runs)
    union = np.unique(np.concatenate(runs))
    middle = int(np.median([len(steps) for steps in runs]))
    if len(union) <= 2 * middle:
        return union
    return np.unique(np.round(np.linspace(union[0], union[-1], max(middle, 2))))


def _notes(grid: Array, seeds: dict[int, tuple[Array, Array]]) -> list[str]:
    notes = []
    inside = {seed: (grid >= steps[0]) & (grid <= steps[-1]) for seed, (steps, _) in seeds.items()}
    between = sum(int((inside[seed] & ~np.isin(grid, steps)).sum()) for seed, (steps, _) in seeds.items())
    if between:
        every = sum(int(there.sum()) for there in inside.values())
        notes.append(
            f"seeds were evaluated at different steps: {between} of {every} values lie on the line between a seed's "
            "neighbouring evaluations"
        )
    late = {seed: steps[0] for seed, (steps, _) in seeds.items() if steps[0] > grid[0]}
    early = {seed: steps[-1] for seed, (steps, _) in seeds.items() if steps[-1] < grid[-1]}
    for which, where in (
        (late, f"began after step {grid[0]:,.0f}"),
        (early, f"ended before step {grid[-1]:,.0f}"),
    ):
        if which:
            shown = ", ".join(f"seed {seed} at {step:,.0f}" for seed, step in list(which.items())[:4])
            more = f" and {len(which) - 4} more" if len(which) > 4 else ""
            notes.append(
                f"{len(which)} of {len(seeds)} seeds {where}: {shown}{more}; they count where they have values"
            )
    return notes
