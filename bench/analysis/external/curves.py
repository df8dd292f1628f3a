"""Learning curves of others: one `Curve` for each source, algorithm and task, made from its single seeds.

The runs of one source need not have been evaluated at the same steps. `curve` puts them on common ones:
- where the seeds share most of their steps, all steps that any of them has;
- where they do not (at most half of all steps are shared, as with returns logged at the end of each episode), equally
  spaced steps, as many as the median seed has evaluations.
A seed without an evaluation at a step gets the value on the straight line between its own neighbours. Nothing is
continued beyond a seed's first and last evaluation: the curve begins where the last seed does and ends where the first
seed ends. `Curve.notes` says in words what was interpolated and what was cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis import stats
from bench.analysis.external.scores import read_all, single_seeds
from bench.analysis.resampling import Array, curve_resamples
from bench.analysis.scores.results import LARGEST_RETURN

COLUMNS = ("source", "algo", "env", "seed", "env_step", "return")


@dataclass(frozen=True)
class Curve:
    """Others' runs of one algorithm on one task: returns (n, K) of n seeds at env_steps (K,).

    env_steps are in frames: decisions times action repeat. evaluated: (K,), whether all seeds were evaluated at the
    step; elsewhere some lie on a line between their evaluations. notes: what a reader must know of it, one line each.
    """

    env: str
    algo: str
    source: str
    env_steps: Array
    returns: Array
    evaluated: NDArray[np.bool_]
    seeds: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return len(self.returns)

    def band(self, bounded: bool) -> tuple[Array, Array]:
        """The 95% interval of the mean over seeds, as those of our own curves are made: (K,), (K,).

        bounded: the returns lie between 0 and 1000, as those of DM Control do; the interval ends there. nan for a
        single seed.
        """
        if self.n == 1:
            return np.full_like(self.env_steps, np.nan), np.full_like(self.env_steps, np.nan)
        group = (self.n, ("external", self.env, self.algo, self.source))
        draws = curve_resamples(len(self.env_steps))
        low, high = stats.resampled(stats.mean, [self.returns.T], [group], draws).interval()
        return (np.clip(low, 0, LARGEST_RETURN), np.clip(high, 0, LARGEST_RETURN)) if bounded else (low, high)

    def at(self, env_step: float) -> Array:
        """One return per seed at a step, (n,), on a line between two evaluations; empty outside of the curve."""
        if not self.env_steps[0] <= env_step <= self.env_steps[-1]:
            return np.empty(0)
        return np.array([np.interp(env_step, self.env_steps, seed) for seed in self.returns])


def load_curves(root: Path) -> tuple[pd.DataFrame, list[str]]:
    """What others' single runs scored, one row per evaluation, and one line per file or source left out.

    From results/published/, results/published/curves/ and results/external/. Columns: source, algo (lower case), env,
    seed, env_step (frames: decisions times action repeat), return; sorted by the first five. Scores of which only a
    summary over seeds is known are not among them: those are points (`scores.load_external`).
    """
    found, problems = read_all(root)
    return of_single_seeds(found), problems


def of_single_seeds(found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of `load_curves` in the frames of `scores.read_all`."""
    frame = single_seeds(found).rename(columns={"value": "return"})[list(COLUMNS)]
    return frame.sort_values(list(COLUMNS[:5]), kind="stable", ignore_index=True)


def curves(frame: pd.DataFrame) -> list[Curve]:
    """A curve for each source, algorithm and task of `load_curves`, in its order; none of seeds that share no span."""
    found = [curve(rows) for _, rows in frame.groupby(["source", "algo", "env"], sort=False)]
    return [made for made in found if len(made.env_steps)]


def curve(rows: pd.DataFrame) -> Curve:
    """The runs of one source, algorithm and task (columns COLUMNS) on common steps, none where they share no span."""
    runs: dict[int, tuple[Array, Array]] = {}
    seeds, steps, returns = (rows[name].to_numpy(np.float64) for name in ("seed", "env_step", "return"))
    for seed in np.unique(seeds):
        run = np.flatnonzero(seeds == seed)
        run = run[np.argsort(steps[run], kind="stable")]
        runs[int(seed)] = steps[run], returns[run]
    grid = common_steps([steps for steps, _ in runs.values()])
    first, last = max(steps[0] for steps, _ in runs.values()), min(steps[-1] for steps, _ in runs.values())
    kept = grid[(grid >= first) & (grid <= last)]
    evaluated = np.array([np.isin(kept, steps) for steps, _ in runs.values()])
    of = rows.iloc[0]
    return Curve(
        env=str(of["env"]),
        algo=str(of["algo"]),
        source=str(of["source"]),
        env_steps=kept,
        returns=np.array([np.interp(kept, steps, values) for steps, values in runs.values()]),
        evaluated=np.asarray(evaluated.all(axis=0)),
        seeds=tuple(runs),
        notes=tuple(_notes(evaluated, grid, kept, {seed: steps for seed, (steps, _) in runs.items()})),
    )


def common_steps(runs: Iterable[Array]) -> Array:
    """The steps (K,) at which runs are compared whose own steps are these; see the module's docstring."""
    runs = list(runs)
    union = np.unique(np.concatenate(runs))
    middle = int(np.median([len(steps) for steps in runs]))
    if len(union) <= 2 * middle:
        return union
    return np.unique(np.round(np.linspace(union[0], union[-1], max(middle, 2))))


def _notes(evaluated: NDArray[np.bool_], grid: Array, kept: Array, runs: dict[int, Array]) -> list[str]:
    """What was interpolated, and what was cut off because of which seeds."""
    notes = []
    between = int((~evaluated).sum())
    if between:
        notes.append(
            f"seeds were evaluated at different steps: {between} of {evaluated.size} values lie on the line between a "
            "seed's neighbouring evaluations"
        )
    late = {seed: steps[0] for seed, steps in runs.items() if steps[0] > grid[0]}
    early = {seed: steps[-1] for seed, steps in runs.items() if steps[-1] < grid[-1]}
    if len(kept) and late and kept[0] > grid[0]:
        notes.append(f"not shown before step {kept[0]:,.0f}, where the last seed begins: {_some(late)}")
    if len(kept) and early and kept[-1] < grid[-1]:
        notes.append(f"not shown after step {kept[-1]:,.0f}, where the first seed ends: {_some(early)}")
    return notes


def _some(seeds: dict[int, float]) -> str:
    shown = ", ".join(f"seed {seed} at {step:,.0f}" for seed, step in list(seeds.items())[:4])
    return shown + (f" and {len(seeds) - 4} more" if len(seeds) > 4 else "")
