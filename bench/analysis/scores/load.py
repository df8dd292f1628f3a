"""From run directories to scores: one number per evaluation, one array per cell of the grid.

How a run is scored, by its state:
- done: as evaluated.
- diverged (a loss, parameter or action that is not finite): from the divergence on, the return 0 on a DM
  Control task whose returns are never below 0 (all but lqr); on any other task the lowest evaluation of that
  task in the study. An evaluation whose return is not finite counts as a divergence too.
- anything else (missing, running, stale, failed, damaged, configuration changed): no score. It enters no
  number and is named in the list of runs; n counts the scored runs alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.scores.normalise import scale
from bench.analysis.scores.results import (
    RANDOM,
    Cell,
    FinalMode,
    Results,
    RunScore,
    families,
    is_scaled,
)
from bench.machine.hardware import available_cores
from bench.runs import FINISHED, DamagedRun, Run, read_study
from bench.runs.reader import verified

ALONE = 500  # so few runs are read before another process has started


def load(root: Path, study: str) -> Results:
    """Read results/<study>; what is damaged is named in `.problems`. UserError where there is no such
    study.
    """
    found = read_study(root, study, verify=False)  # each run is verified where it is read, see `_read`
    settings = dict(found.meta.get("settings", {}))
    read = list(_read_all(found.runs))
    problems = [*found.problems, *_newly_damaged(root, found.runs, read)]
    of_task = families(score.run for score in read)
    scores = _complete(read, settings, of_task)
    algos = {score.run.label: score.run.algo for score in scores}
    return scale(
        Results(
            root=root,
            study=study,
            title=str(found.meta.get("title") or study),
            settings=settings,
            envs=tuple(dict.fromkeys(score.run.env for score in scores)),
            labels=tuple(sorted(algos, key=lambda label: algos[label] == RANDOM)),
            families=of_task,
            algos=algos,
            runs=tuple(scores),
            cells=cells(scores, of_task),
            problems=tuple(problems),
            again=f"make figures STUDY={study}",
        )
    )


def _read_all(found: Sequence[Run]) -> Iterable[RunScore]:
    """Most of the time goes into parsing text, so the cores share a large study."""
    workers = min(available_cores(), 8)
    if len(found) <= ALONE or workers < 2:
        return map(_read, found)
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        return list(pool.map(_read, found, chunksize=100))


def _read(run: Run) -> RunScore:
    """The learning curve of one run, each evaluation the mean over its episodes, and its final policy.

    All of its files are checked first: a finished run counts only as it was when it finished.
    """
    nothing = (np.empty(0, np.int64), np.empty(0))
    if run.state in ("missing", "damaged", "configuration changed"):
        return RunScore(run, *nothing)
    run = verified(run)
    try:
        table = run.columns("eval.csv")
        env_steps, index = np.unique(table["env_step"], return_inverse=True)
        sums = np.bincount(index, weights=table["return"], minlength=len(env_steps))
        returns = sums / np.bincount(index, minlength=len(env_steps))
        finals = _final_policies(run) if run.state == "done" else {}
    except DamagedRun as error:
        reason = str(error).removeprefix(f"{run.path}: ")  # a report holds no path of this machine
        return RunScore(replace(run, state="damaged", reason=reason), *nothing)
    return RunScore(run, env_steps, returns, finals)


def _newly_damaged(root: Path, before: Sequence[Run], read: Sequence[RunScore]) -> Iterable[str]:
    """One line for each run that only the full check found damaged."""
    for run, score in zip(before, read, strict=True):
        if score.state == "damaged" and run.state != "damaged":
            yield f"{run.path.relative_to(root)}: left out: {score.reason}"


def _final_policies(run: Run) -> dict[FinalMode, float]:
    """Mean return under each mode and number of candidates."""
    table = run.columns("final.csv")
    episodes: dict[FinalMode, list[float]] = {}
    for mode, candidates, value in zip(table["mode"], table["candidates"], table["return"]):
        episodes.setdefault((str(mode), int(candidates)), []).append(float(value))
    return {mode: float(np.mean(returns)) for mode, returns in episodes.items()}


def _complete(scores: list[RunScore], settings: dict[str, Any], of_task: dict[str, str]) -> list[RunScore]:
    """Finished runs on the evaluation steps of the study; diverged ones are completed by the rule above."""
    steps = _evaluation_steps(scores, settings)
    filling = {
        env: 0.0 if is_scaled(env, of_task[env]) else lowest
        for env, lowest in _lowest_returns(scores).items()
    }
    return [
        _on_steps(score, steps, filling.get(score.run.env, 0.0)) if score.state in FINISHED else score
        for score in scores
    ]


def _evaluation_steps(scores: Sequence[RunScore], settings: dict[str, Any]) -> NDArray[np.int64]:
    """The steps at which most runs that ended regularly were evaluated, or those that the settings ask
    for.
    """
    seen = Counter(score.env_steps.tobytes() for score in scores if score.state == "done")
    if seen:
        return np.frombuffer(seen.most_common(1)[0][0], np.int64)
    every, last = settings.get("eval_every"), settings.get("steps")
    if not (isinstance(every, int) and isinstance(last, int) and 0 < every <= last):
        return np.empty(0, np.int64)
    return np.arange(every, last + 1, every, dtype=np.int64)


def _on_steps(score: RunScore, steps: NDArray[np.int64], filling: float) -> RunScore:
    if score.state == "done" and not np.array_equal(score.env_steps, steps):
        return replace(score, problem="evaluated at other steps than the rest of its study")
    if score.state == "done" and np.isfinite(score.returns).all():
        return score
    returns = np.full(len(steps), filling)
    before = score.env_steps
    if score.state == "diverged":
        before = before[before < (score.run.env_step or 0)]
    returns[np.isin(steps, before)] = score.returns[np.isin(score.env_steps, np.intersect1d(before, steps))]
    broken = np.flatnonzero(~np.isfinite(returns))
    if not len(broken):
        return replace(score, env_steps=steps, returns=returns)
    returns[broken[0] :] = filling
    note = f"a return that is not finite at env step {steps[broken[0]]}, scored as diverged from there on"
    return replace(score, env_steps=steps, returns=returns, note=note, noted_at=int(steps[broken[0]]))


def _lowest_returns(scores: Sequence[RunScore]) -> dict[str, float]:
    """The lowest finite evaluation of each task: the score of a diverged run where 0 is not the lowest return."""
    lowest: dict[str, float] = {}
    for score in scores:
        finite = score.returns[np.isfinite(score.returns)]
        if score.state in FINISHED and len(finite):
            lowest[score.run.env] = min(lowest.get(score.run.env, np.inf), float(finite.min()))
    return lowest


def cells(scores: Sequence[RunScore], of_task: Mapping[str, str]) -> dict[tuple[str, str], Cell]:
    """The scored runs by task and label. of_task: task -> family."""
    grid: dict[tuple[str, str], list[RunScore]] = {}
    for score in scores:
        grid.setdefault((score.run.env, score.run.label), []).append(score)
    found = {}
    for (env, label), members in grid.items():
        scored = tuple(score for score in members if score.scored)
        if scored:
            found[env, label] = Cell(
                env=env,
                label=label,
                algo=members[0].run.algo,
                env_steps=scored[0].env_steps.astype(np.float64),
                returns=np.array([score.returns for score in scored]),
                runs=scored,
                diverged=sum(score.diverged for score in scored),
                expected=len(members),
                scaled=is_scaled(env, of_task[env]),
            )
    return found
