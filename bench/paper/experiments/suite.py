"""The list of all experiments, and running their missing parts."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from bench.paper.experiments import parts
from bench.paper.experiments.cqsm import run as cqsm
from bench.paper.experiments.exploration import run as exploration
from bench.paper.experiments.multimodality import run as multimodality
from bench.paper.experiments.theorem import run as theorem

FOLDER = "experiments"  # under the root of all results
EXPERIMENTS: tuple[ModuleType, ...] = (exploration, multimodality, theorem, cqsm)  # the slow ones first


def run(root: Path, jobs: int) -> None:
    """Run every part that is missing below root/experiments, then write each experiment's scores.csv.

    Raises:
        UserError: as `parts.run`.
    """
    folder = root / FOLDER
    parts.run(folder, [part for experiment in EXPERIMENTS for part in experiment.parts()], jobs)
    for experiment in EXPERIMENTS:
        own = folder / experiment.EXPERIMENT
        parts.write_rows(own / f"{parts.SCORES}.csv", experiment.scores(own))
