"""The scale that tasks share in aggregates: which returns become 0 and 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bench.analysis.scores.results import UNIT, Bounds, Results
from bench.analysis.style import named
from bench.studies.report import EVERY_TASK, Bound


def scale(results: Results, chosen: Mapping[str, tuple[Bound, Bound]] | None = None) -> Results:
    """The results with `bounds` for every task that has some.

    In DM Control 0 and 1000. On other tasks, if the study has no DM Control task: the mean final return of the random
    policy and of the best learner, if the random policy was run. `chosen` takes precedence: task or "*" -> lowest and
    highest, each a number or a label whose mean final return it is.
    """
    chosen = dict(chosen or {})
    bounds: dict[str, Bounds] = {}
    notes: list[str] = []
    for env in results.envs:
        wanted = chosen.get(env, chosen.get(EVERY_TASK))
        if wanted is None and env in results.control_envs:
            bounds[env] = UNIT
            continue
        if wanted is None and not results.control_envs:
            wanted = _default(results, env)
        if wanted is None:
            continue
        low, high = (_value(results, env, bound) for bound in wanted)
        if low is None or high is None or not low < high:
            notes.append(f"{env} is left out of the aggregates: {_reason(results, wanted, low, high)}.")
            continue
        bounds[env] = (low, high)
        if bounds[env] != UNIT:
            said = [
                f"{end} is {_said(results, bound, value)}"
                for end, bound, value in zip("01", wanted, (low, high))
            ]
            notes.append(f"Returns on {env} are normalised: {', '.join(said)}.")
    if any(isinstance(bound, str) for pair in chosen.values() for bound in pair) or (notes and not chosen):
        notes.append("Intervals take these bounds as known.")
    cells = {key: replace(cell, bounds=bounds.get(cell.env)) for key, cell in results.cells.items()}
    return replace(results, bounds=bounds, scale_notes=tuple(notes), cells=cells)


def _default(results: Results, env: str) -> tuple[Bound, Bound] | None:
    """The random policy and the best learner of a task."""
    random = [label for label in results.labels if label not in results.learners and results.cell(env, label)]
    learners = [cell for label in results.learners if (cell := results.cell(env, label))]
    if not random or not learners:
        return None
    return random[0], max(learners, key=lambda cell: float(cell.final.mean())).label


def _value(results: Results, env: str, bound: Bound) -> float | None:
    if not isinstance(bound, str):
        return float(bound)
    cell = results.cell(env, bound)
    return None if cell is None else float(cell.final.mean())


def _said(results: Results, bound: Bound, value: float) -> str:
    shown = f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"the mean final return of {named(results, bound)}, {shown}" if isinstance(bound, str) else shown


def _reason(results: Results, wanted: tuple[Bound, Bound], low: float | None, high: float | None) -> str:
    for bound, value in zip(wanted, (low, high)):
        if value is None:
            return f"{named(results, str(bound))} has no scores there"
    return f"the return of 1, {high:,.0f}, is not above that of 0, {low:,.0f}"
