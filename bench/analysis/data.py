"""A study's results as tidy data frames: `bench.load("results/early-100k")`.

Every frame has one row per observation and begins with the columns `study, env, algo, label, seed, state, scored`: what
ran, the state of the run (docs/results.md), and whether the report counts it. Scores and curves are those of the report
(docs/analysis.md, "How a run is scored"): the mean over the episodes of an evaluation, a diverged run filled up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis import stats
from bench.analysis.scores.choose import labels_apart
from bench.analysis.scores.load import load as load_study
from bench.analysis.scores.results import Results, RunScore, shared_tasks
from bench.errors import UserError, suggest
from bench.paths import expand
from bench.runs import DamagedRun, studies

KEYS = ("study", "env", "algo", "label", "seed", "state", "scored")
SCORES = ("final", "area", "best_biased")
MEASURES = ("final", "area")


@dataclass(frozen=True)
class Data:
    """Runs of one or several studies. The frames are made when first asked for.

    problems: one line for each run that was left out or is damaged, as the report has them.
    apart: the labels that mean different things in these studies.
    """

    runs: tuple[RunScore, ...] = field(repr=False)
    studies: tuple[str, ...]
    problems: tuple[str, ...]
    apart: frozenset[str] = field(default=frozenset(), repr=False)

    def __repr__(self) -> str:
        states = Counter(score.state for score in self.runs)
        found = ", ".join(f"{count} {state}" for state, count in states.most_common())
        return f"<{', '.join(self.studies)}: {len(self.runs)} runs ({found}); scores, curves, train, times>"

    @cached_property
    def scores(self) -> pd.DataFrame:
        """A row per run of the grid, those that have not finished or begun included.

        KEYS, reason (why there is no score), env_step (how far it came), final, area (under the curve) and best_biased
        (nan without a score), and the algorithm's configuration: a column `config.NAME` for each setting of any of
        them, nested ones dotted, lists as "256x256", nan where an algorithm has no such setting.
        """
        rows = []
        for score in self.runs:
            step = np.nan if score.run.env_step is None else float(score.run.env_step)
            rows.append([*_keys(score), score.reason, step, *_measures(score)])
        frame = pd.DataFrame(rows, columns=[*KEYS, "reason", "env_step", *SCORES])
        return frame.join(self._configurations)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row per evaluation: KEYS, env_step, return, and the columns config.NAME of `scores`.

        Runs that have not finished are there with what they have: `curves[curves.scored]` leaves them out.
        """
        steps = np.concatenate([np.empty(0, np.int64), *(score.env_steps for score in self.runs)])
        returns = np.concatenate([np.empty(0), *(score.returns for score in self.runs)])
        counts = [len(score.returns) for score in self.runs]
        frame = self._repeated(counts).assign(**{"env_step": steps, "return": returns})
        return frame.join(self._repeated_configurations(counts))

    @cached_property
    def train(self) -> pd.DataFrame:
        """What training logged: KEYS, env_step, kind (loss, actions, episode, ...), name, value.

        Reads every train.csv.
        """
        return self._table("train.csv")

    @cached_property
    def times(self) -> pd.DataFrame:
        """Seconds that each part of training took: KEYS, and the columns of time.csv.

        Reads every time.csv. These clocks ran while other runs shared the machine: `make timing` measures speed.
        """
        return self._table("time.csv")

    def score_matrices(self, measure: str = "final") -> dict[str, np.ndarray]:
        """{label: (runs, tasks)}, as rliable takes them. Tasks in the order of `tasks`.

        The values are returns; rliable wants a common scale, as `/ 1000` gives it for DM Control. A matrix has no gaps:
        tasks are those on which every label has a score, and a label's runs are the seeds that have one on all of them.
        As in a report's aggregates, a label that lacks a task is left out where otherwise more would be lost
        (`shared_tasks`).
        Of several studies, a label that means different things in them is there once for each, "sac@gate-sac", as in a
        report; each score is that of its own study's last steps.

        Raises:
            UserError: no task or no seed is left, or no such measure.
        """
        if measure not in MEASURES:
            raise UserError(f"measure {measure!r}: expected {' or '.join(MEASURES)}")
        matrices = {}
        labels, tasks = self._shared
        for label, rows in self._scored.groupby("label", sort=False):
            if label not in labels:
                continue
            table = rows.pivot(index="seed", columns="env", values=measure)
            matrices[str(label)] = table.reindex(columns=list(tasks)).dropna().to_numpy(np.float64)
        empty = [label for label, matrix in matrices.items() if not matrix.size]
        if empty or not matrices:
            raise UserError(
                f"{', '.join(empty) or 'nothing'} has no seed with a score on all tasks; "
                "choose algos= and envs= that have"
            )
        return matrices

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of `score_matrices`, in the order of the grid."""
        return self._shared[1]

    @cached_property
    def _shared(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The labels and the tasks of `score_matrices`."""
        found = self._scored
        covered = {str(label): set(rows["env"]) for label, rows in found.groupby("label", sort=False)}
        return shared_tasks(covered, list(dict.fromkeys(found["env"])))

    @cached_property
    def _scored(self) -> pd.DataFrame:
        """The rows of `scores` that have some, labels told apart by their study where they have to be."""
        found = self.scores[self.scores["scored"].astype(bool)]  # no truth values where there are no runs
        named = found["label"] + "@" + found["study"]
        return found.assign(label=named.where(found["label"].isin(self.apart), found["label"]))

    @cached_property
    def _configurations(self) -> pd.DataFrame:
        rows = [_flat(score.run.meta.get("config", {}), "config.") for score in self.runs]
        return pd.DataFrame(rows, index=range(len(rows)))

    def _repeated_configurations(self, counts: Sequence[int]) -> pd.DataFrame:
        frame = self._configurations
        return frame.loc[np.repeat(frame.index.to_numpy(), counts)].reset_index(drop=True)

    def _repeated(self, counts: Sequence[int]) -> pd.DataFrame:
        """KEYS of each run, as many rows as it has observations."""
        columns = list(zip(*map(_keys, self.runs))) or [()] * len(KEYS)
        return pd.DataFrame(
            {
                key: pd.Series(values).repeat(counts).reset_index(drop=True)
                for key, values in zip(KEYS, columns)
            }
        )

    def _table(self, name: str) -> pd.DataFrame:
        tables = []
        for score in self.runs:
            readable = score.run.meta and score.state not in ("damaged", "configuration changed")
            try:
                tables.append(pd.DataFrame(score.run.columns(name)) if readable else pd.DataFrame())
            except DamagedRun as error:  # changed since it was loaded
                raise UserError(f"{error}; load the study again") from None
        keys = self._repeated([len(table) for table in tables])
        found = [table for table in tables if len(table)]
        return keys.join(pd.concat(found, ignore_index=True)) if found else keys


def load(*paths: str | Path, algos: str | Iterable[str] = (), envs: str | Iterable[str] = ()) -> Data:
    """Read studies: `bench.load("results/early-100k")`, `bench.load("results/a", "results/b", algos="qsm sac")`.

    Args:
        paths: folders of studies, results/<study>.
        algos: only these, names of algorithms ("qsm": all its variants) or labels ("qsm-M_q=120"), as a list or in one
            string; all by default.
        envs: only these tasks.

    Returns:
        Data with the frames `scores`, `curves`, `train` and `times`.

    Raises:
        UserError: no study is there, or none has such an algorithm or task; close names are suggested.
    """
    if not paths:
        raise UserError('load needs the folder of a study, such as "results/early-100k"')
    wanted_algos, wanted_envs = _words(algos), _words(envs)
    parts: list[Results] = []
    for path in dict.fromkeys(Path(expand(str(path))).absolute() for path in paths):
        if not (path / "study.json").is_file() and (inside := studies(path)):
            raise UserError(f"{path} is no study but holds some: name one, such as {path / inside[0]}")
        parts.append(load_study(path.parent, path.name))
    runs = [score for part in parts for score in part.runs]
    names = [part.study for part in parts]
    if len(set(names)) < len(names):
        raise UserError(f"two studies have the name {max(names, key=names.count)}; load them apart")
    _check("algorithm", wanted_algos, {name for score in runs for name in (score.run.algo, score.run.label)})
    _check("task", wanted_envs, {score.run.env for score in runs})
    chosen = [
        score
        for score in runs
        if (not wanted_algos or {score.run.algo, score.run.label} & wanted_algos)
        and (not wanted_envs or score.run.env in wanted_envs)
    ]
    problems = tuple(problem for part in parts for problem in part.problems)
    return Data(tuple(chosen), tuple(names), problems, frozenset(labels_apart(parts)))


def _words(names: str | Iterable[str]) -> set[str]:
    return set(names.split() if isinstance(names, str) else names)


def _check(what: str, wanted: set[str], there: set[str]) -> None:
    unknown = sorted(wanted - there)
    if unknown:
        raise UserError(f"no run of the {what} {unknown[0]!r} is there{suggest(unknown[0], there)}")


def _keys(score: RunScore) -> tuple[Any, ...]:
    run = score.run
    return run.study, run.env, run.algo, run.label, run.seed, score.state, score.scored


def _measures(score: RunScore) -> tuple[float, float, float]:
    if not score.scored:
        return (np.nan,) * 3
    area = stats.area_under_curve(score.env_steps.astype(np.float64), score.returns)
    return float(stats.final_return(score.returns)), float(area), float(stats.best_return(score.returns))


def _flat(config: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Nested settings joined by dots; lists as "256x256"; none without a value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = "x".join(map(str, value)) if isinstance(value, list) else value
    return flat
