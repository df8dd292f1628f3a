"""A study as the analysis sees it: scored runs, cells of the grid (a task and an algorithm's label), all of it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis import stats
from bench.analysis.resampling import Array, Group
from bench.runs import FINISHED, RANDOM, Run
from bench.studies.report import Choice
from bench.text import one_line

LARGEST_RETURN = 1000.0  # of a task of DM Control: 1000 steps, rewards in [0, 1]
Bounds = tuple[float, float]  # the returns that become the scores 0 and 1
UNIT: Bounds = (0.0, LARGEST_RETURN)
UNIT_SCORE = f"return / {LARGEST_RETURN:.0f}"
REPORT = "report"  # in a study's folder
REPORTS = "reports"  # below the root of all results: reports of more than one study, or of a part of one

LONGEST_TITLE = 40  # characters of an algorithm's

FinalMode = tuple[str, int]  # mode, candidates


@dataclass(frozen=True)
class RunScore:
    """One run of the grid: returns (K,) at env_steps (K,), empty where nothing was evaluated."""

    run: Run
    env_steps: NDArray[np.int64] = field(repr=False)
    returns: Array = field(repr=False)
    finals: dict[FinalMode, float] = field(default_factory=dict)
    problem: str | None = None  # why a finished run has no score
    note: str = ""  # a caveat about its score
    noted_at: int = 0  # the environment step that the note is about

    @cached_property
    def state(self) -> str:
        """The state of bench.runs, but "damaged" if a file of a finished run could not be read, or "untrained"."""
        if self.problem:
            return "damaged"
        return "untrained" if self.run.state in FINISHED and self.run.untrained else self.run.state

    @property
    def scored(self) -> bool:
        return self.state in FINISHED and len(self.returns) > 0

    @property
    def diverged(self) -> bool:
        """Whether it diverged within the steps that are looked at."""
        last = int(self.env_steps[-1]) if len(self.env_steps) else 0
        ended = self.state == "diverged" and (self.run.env_step or 0) <= last
        return ended or self.note != ""

    @property
    def reason(self) -> str:
        untrained = self.run.untrained if self.state == "untrained" else ""
        return self.problem or untrained or self.note or self.run.reason or ""


@dataclass(frozen=True)
class Cell:
    """The scored runs of one task and algorithm label: returns (n, K) at env_steps (K,)."""

    env: str
    label: str
    algo: str
    env_steps: Array
    returns: Array
    runs: tuple[RunScore, ...]
    diverged: int
    expected: int  # runs in the grid, scored or not
    scaled: bool  # see `is_scaled`
    bounds: Bounds | None = None  # None: its returns have no scale that other tasks share

    def scores(self, returns: Array) -> Array:
        """Returns on the scale that all tasks share."""
        assert self.bounds is not None
        low, high = self.bounds
        return (returns - low) / (high - low)

    @property
    def n(self) -> int:
        return len(self.returns)

    @cached_property
    def final(self) -> Array:
        """Final return of each seed: (n,)."""
        return stats.final_return(self.returns)

    @cached_property
    def area(self) -> Array:
        return stats.area_under_curve(self.env_steps, self.returns)

    @cached_property
    def best(self) -> Array:
        return stats.best_return(self.returns)

    @property
    def group(self) -> Group:
        """Its seeds, resampled alike for everything that is computed from this cell."""
        return self.n, (self.env, self.label)


def shared_tasks(
    covered: Mapping[str, Collection[str]], tasks: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which labels and tasks are put together, so that every label has scores on every task.

    Labels with scores on at least k tasks, on the tasks that all of these have: with the k that puts most pairs of
    label and task together, and of equals the smallest, which has more labels. So one algorithm among several that
    lacks a task is left out, rather than the task for all of them.
    covered: label -> the tasks on which it has scores.
    """
    blocks = []
    for fewest in range(1, len(tasks) + 1):
        labels = tuple(label for label, found in covered.items() if len(found) >= fewest)
        blocks.append((labels, tuple(env for env in tasks if all(env in covered[label] for label in labels))))
    return max(blocks, key=lambda block: len(block[0]) * len(block[1]), default=((), ()))


@dataclass(frozen=True)
class Results:
    """A study as the analysis sees it. Labels and tasks in the order of the grid, the random policy last."""

    root: Path
    study: str
    title: str
    settings: dict[str, Any]
    envs: tuple[str, ...]
    labels: tuple[str, ...]
    families: dict[str, str]  # task -> "dm_control" or "gymnasium"
    algos: dict[str, str]  # label -> registry name
    runs: tuple[RunScore, ...]
    cells: dict[tuple[str, str], Cell]  # only those with at least one scored run
    problems: tuple[str, ...]
    choice: Choice = field(default_factory=Choice)
    required: frozenset[str] = frozenset()  # the keys of the choice of which nothing may be left out
    left_out: tuple[str, ...] = ()  # of the other keys: what is not here, or not yet
    bounds: dict[str, Bounds] = field(default_factory=dict)  # of the tasks that aggregates can cover
    scale_notes: tuple[str, ...] = ()  # where bounds come from that are not the task's own
    parts: tuple[Results, ...] = ()  # the whole studies from which this was chosen
    report: str = ""  # name of a report of its own, for what was chosen on the command line
    again: str = ""  # the command that makes it again

    @property
    def home(self) -> Path:
        """The folder of its report."""
        return self.root / REPORTS / self.report if self.report else self.root / self.study / REPORT

    @property
    def whole(self) -> bool:
        """Whether it shows one study, with all its algorithms, tasks and steps."""
        chosen = self.choice
        return len(self.parts) < 2 and not (chosen.algos or chosen.envs or chosen.steps)

    def cell(self, env: str, label: str) -> Cell | None:
        return self.cells.get((env, label))

    @property
    def control_envs(self) -> tuple[str, ...]:
        """The tasks whose returns lie between 0 and LARGEST_RETURN."""
        return tuple(env for env in self.envs if is_scaled(env, self.families[env]))

    @property
    def score_name(self) -> str:
        """What an aggregate over tasks is made of: "return / 1000", or "normalised return" on other scales."""
        unit = all(bounds == UNIT for bounds in self.bounds.values())
        return UNIT_SCORE if unit else "normalised return"

    @property
    def learners(self) -> tuple[str, ...]:
        """Labels of everything but the random policy."""
        return tuple(label for label in self.labels if self.algos[label] != RANDOM)

    def folder(self, run: Run) -> str:
        """A run's folder below the study's, "cheetah-run/qsm/seed-0"; below the results where there are several."""
        single = not self.report and len(self.parts) < 2
        return run.path.relative_to(self.root / (self.study if single else "")).as_posix()

    def address(self, run: Run, file: str = "") -> str:
        """The path of a run's folder, or of a file in it, from the folder of the report."""
        return Path(os.path.relpath(run.path / file, self.home)).as_posix() + ("" if file else "/")

    @property
    def unscored(self) -> tuple[RunScore, ...]:
        return tuple(score for score in self.runs if not score.scored)

    @property
    def evaluation(self) -> str:
        """How the learning curves were evaluated, in words."""
        mode = str(self.settings.get("eval_mode", "not recorded"))
        return "by each algorithm's own authors' convention" if mode == "authors" else f"mode {mode}"

    @cached_property
    def titles(self) -> dict[str, str]:
        """Registry name -> the title that the algorithm's code gave itself, where a run recorded one."""
        recorded = (
            (score.run.meta["algo"], score.run.meta.get("title")) for score in self.runs if score.run.meta
        )
        return {algo: one_line(title, LONGEST_TITLE) for algo, title in recorded if title}

    def config(self, label: str) -> dict[str, Any]:
        """The configuration of a label, from any of its runs; empty where none has started."""
        for score in self.runs:
            if score.run.label == label and score.run.meta:
                return dict(score.run.meta["config"])
        return {}


def families(runs: Iterable[Run]) -> dict[str, str]:
    """Task -> "dm_control" or "gymnasium", as one of its runs recorded it.

    Runs from before it was recorded: Gymnasium's names end in a version ("Pendulum-v1"), those of DM Control do not.
    """
    found: dict[str, str] = {}
    for run in runs:
        if run.meta.get("family") in ("dm_control", "gymnasium"):
            found[run.env] = run.meta["family"]
        elif run.env not in found:
            found[run.env] = "gymnasium" if re.search(r"-v\d+$", run.env) else "dm_control"
    return found


def is_scaled(env: str, family: str) -> bool:
    """Whether a task's returns lie between 0 and LARGEST_RETURN: DM Control but lqr, whose rewards can be negative."""
    return family == "dm_control" and not env.startswith("lqr-")


def name_parts(name: str) -> list[str]:
    """["qsm", "M_q=120", "T=20"]: a label or a study's name (bench/studies/study.py) and the overrides in it.

    Only a hyphen before `field=` separates them, so hyphens of the algorithm's name and minus signs of values stay.
    """
    return re.split(r"-(?=[A-Za-z_]\w*=)", name)
