"""A user's own comparison: the studies that it puts side by side, and the algorithms, tasks and steps that it shows.

Nothing is averaged or interpolated here. Studies put side by side share the environment steps at which all of them were
evaluated, and their scores are those of these evaluations.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.scores.load import cells
from bench.analysis.scores.normalise import scale
from bench.analysis.scores.results import RANDOM, Results, RunScore
from bench.errors import UserError
from bench.studies.lookup import KEYS, look_up, resolve
from bench.studies.report import Choice


def choose(
    parts: Sequence[Results],
    choice: Choice,
    *,
    required: Collection[str] = KEYS,
    report: str = "",
    home: str = "",
    again: str = "",
) -> Results:
    """The part of whole studies that `choice` shows.

    report: the name of a report of its own; "" for that of the study `home`. again: the command that makes it.
    Raises UserError for a name of a required key that none of the studies has, and for steps at which they were not
    evaluated; what is not required is named in `.left_out`.
    """
    together = _together(parts)
    on_steps, no_steps = look_up([choice.steps], partial(_on_steps, together), "steps" in required)
    results = on_steps[0] if on_steps else _on_steps(together, 0)
    choice, no_names = resolve(choice, results.labels, results.envs, results.study, required)
    results = scale(results, choice.normalise)
    labels, envs = choice.algos or results.labels, choice.envs or results.envs
    runs = tuple(score for score in results.runs if score.run.label in labels and score.run.env in envs)
    return replace(
        results,
        study=home or results.study,
        title=choice.title or results.title,
        envs=envs,
        labels=labels,
        algos={label: results.algos[label] for label in labels},
        families={env: results.families[env] for env in envs},
        runs=runs,
        cells={key: cell for key, cell in results.cells.items() if cell.label in labels and cell.env in envs},
        bounds={env: bounds for env, bounds in results.bounds.items() if env in envs},
        scale_notes=tuple(note for note in results.scale_notes if _speaks_of_any(note, envs, results.envs)),
        left_out=tuple(f"[report]: left out: {line}" for line in (*no_steps, *no_names)),
        choice=choice,
        required=frozenset(required),
        parts=tuple(parts),
        report=report,
        again=again or results.again,
    )


def _speaks_of_any(note: str, envs: Sequence[str], every: Sequence[str]) -> bool:
    """Whether a note names one of `envs`, or no task at all."""
    words = set(note.replace(":", " ").split())
    return not words.isdisjoint(envs) or words.isdisjoint(every)


# --- several studies --------------------------------------------------------------------------------------


def _together(parts: Sequence[Results]) -> Results:
    """The studies as one. A label that means different things in them is shown once for each: "sac@gate-sac"."""
    if len(parts) == 1:
        return parts[0]
    apart = labels_apart(parts)
    scores: list[RunScore] = []
    algos: dict[str, str] = {}
    for part in parts:
        names = {label: f"{label}@{part.study}" if label in apart else label for label in part.labels}
        algos |= {names[label]: part.algos[label] for label in part.labels}
        scores += [
            replace(score, run=replace(score.run, label=names[score.run.label])) for score in part.runs
        ]
    first = parts[0]
    families = {env: family for part in reversed(parts) for env, family in part.families.items()}
    settings = {
        key: value
        for key, value in first.settings.items()
        if all(part.settings.get(key) == value for part in parts)
    }
    return replace(
        first,
        study="+".join(part.study for part in parts),
        title=" and ".join(part.title for part in parts),
        settings=settings,
        envs=tuple(dict.fromkeys(env for part in parts for env in part.envs)),
        labels=tuple(sorted(algos, key=lambda label: algos[label] == RANDOM)),
        families=families,
        algos=algos,
        runs=tuple(scores),
        cells=cells(scores, families),
        problems=tuple(dict.fromkeys(problem for part in parts for problem in part.problems)),
    )


def labels_apart(parts: Sequence[Results]) -> set[str]:
    """The labels that mean different things in these studies."""
    return {label for part in parts for label in part.labels if not _is_one(label, parts)}


def _is_one(label: str, parts: Sequence[Results]) -> bool:
    """Whether a label names one thing in all studies that have it: runs of one configuration, none of them twice."""
    having = [part for part in parts if label in part.labels]
    if len(having) == 1:
        return True
    seen = [
        (score.run.env, score.run.seed) for part in having for score in part.runs if score.run.label == label
    ]
    if len(set(seen)) < len(seen) or any(part.settings != having[0].settings for part in having):
        return False
    usual = set()
    by_env: dict[str, set[str]] = {}
    for part in having:
        found = Counter(
            (score.run.env, json.dumps(score.run.meta["config"], sort_keys=True))
            for score in part.runs
            if score.run.label == label and score.run.meta
        )
        if not found:
            return False
        for env, config in found:
            by_env.setdefault(env, set()).add(config)
        usual.add(Counter(config for _, config in found.elements()).most_common(1)[0][0])
    return len(usual) == 1 and all(len(configs) == 1 for configs in by_env.values())


# --- steps ------------------------------------------------------------------------------------------------


def shared_steps(every: Iterable[Results]) -> NDArray[np.int64]:
    """The environment steps at which all runs of these were evaluated; none where no run was scored.

    Raises UserError where they have evaluations and share none.
    """
    grids = {cell.env_steps.tobytes(): cell.env_steps for each in every for cell in each.cells.values()}
    if not grids:
        return np.empty(0, np.int64)
    shared = reduce(np.intersect1d, grids.values()).astype(np.int64)
    if not len(shared):
        listed = "; ".join(_spelled(steps) for steps in grids.values())
        raise UserError(
            f"these studies share no step at which they were evaluated: {listed}. Show them one by one"
        )
    return shared


def _on_steps(results: Results, last: int) -> Results:
    """The results as of the environment step `last` (0: of the last one), on steps at which all runs were evaluated."""
    shared = shared_steps([results])
    if not results.cells or (
        not last and all(len(cell.env_steps) == len(shared) for cell in results.cells.values())
    ):
        return results
    if last and last not in shared:
        near = sorted(shared, key=lambda step: abs(step - last))[:2]
        raise UserError(
            f"STEPS={last}: no evaluation there; next to it are those at "
            f"{' and '.join(f'{step:.0f}' for step in sorted(near))}"
        )
    kept = shared[shared <= last] if last else shared
    scores = tuple(_cut(score, kept) if score.scored else score for score in results.runs)
    return replace(
        results,
        settings=results.settings | {"steps": int(kept[-1])},
        runs=scores,
        cells=cells(scores, results.families),
    )


def _cut(score: RunScore, steps: NDArray[np.int64]) -> RunScore:
    """A scored run at these steps alone. Its final policy belongs to its last step, and is kept only with that step."""
    at = np.isin(score.env_steps, steps)
    end = int(score.env_steps[-1])
    return replace(
        score,
        env_steps=score.env_steps[at],
        returns=score.returns[at],
        finals=score.finals if steps[-1] == end else {},
        note=score.note if score.noted_at <= steps[-1] else "",
    )


def _spelled(steps: NDArray[Any]) -> str:
    """Some evaluation steps: "2,500, 5,000, … 15,000"."""
    ends = [f"{step:,.0f}" for step in (*steps[:2], *steps[2:][-1:])]
    return ", ".join([*ends[:2], *(["…"] if len(steps) > 3 else []), *ends[2:]])
