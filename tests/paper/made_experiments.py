"""Data of all experiments as `make experiments` leaves them, made up: every part, few numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.disk import write_json
from bench.paper.experiments import parts
from bench.paper.experiments.cqsm import run as cqsm
from bench.paper.experiments.exploration import problem as point
from bench.paper.experiments.exploration import run as exploration
from bench.paper.experiments.exploration.training import label
from bench.paper.experiments.multimodality import run as multimodality
from bench.paper.experiments.theorem import run as theorem

SEEDS = {"multimodality": 5, "exploration": 10, "theorem": 5}


def make(root: Path) -> Path:
    """Fill root/experiments; that folder."""
    point.register()
    folder = root / "experiments"
    rng = np.random.default_rng(0)
    for experiment, tables in (
        (multimodality, _multimodality),
        (exploration, _exploration),
        (theorem, _theorem),
        (cqsm, _cqsm),
    ):
        own = folder / experiment.EXPERIMENT
        for part in experiment.parts():
            for table, rows in tables(part, rng).items():
                parts.write_rows(own / table / f"{part.name}.csv", rows)
            part.record(folder).parent.mkdir(parents=True, exist_ok=True)
            write_json(part.record(folder), _record(part), "run")
        parts.write_rows(own / "scores.csv", experiment.scores(own))
    return folder


def _record(part: parts.Part) -> dict[str, object]:
    return {
        "format": 1,
        "function": part.function,
        "settings": dict(part.settings),
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 1.5,
        "provenance": {
            "git": {"commit": "0123456789abcdef", "dirty": False},
            "code_digest": "fedcba9876543210",
            "hardware": {"cpu": "a processor", "cores": 2},
            "versions": {"torch": "2.0"},
        },
    }


def _scores(algo: str, settings: list[str], seeds: int, measures: dict[str, object]) -> list[parts.Row]:
    return [
        {"measure": measure, "setting": setting, "algo": algo, "seed": seed, "value": draw()}
        for setting in settings
        for seed in range(seeds)
        for measure, draw in measures.items()
    ]


def _multimodality(part: parts.Part, rng: np.random.Generator) -> parts.Tables:
    at_product = part.name.startswith(multimodality.PRODUCTS)
    algo, heights = part.settings["algo"], part.settings["heights"]
    knobs = {key: part.settings.get(key) for key in ("M_q", "T")}
    words = [f"{k}={v:g}" for k, v in knobs.items() if v is not None]
    setting = "-".join([multimodality.PRODUCTS if at_product else heights, *words])
    measures = {
        "modes_covered": lambda: int(rng.integers(5)),
        **dict.fromkeys(("at_bound", "q", "alpha", "total_variation"), rng.random),
        **{f"share_{k}": rng.random for k in range(4)},
    }
    if at_product:
        measures |= {"modes": lambda: int(rng.integers(1, 5)), "product": rng.random}
    settings = [setting, *([] if at_product else multimodality._named(heights, algo, *knobs.values()))]
    if algo not in ("qsm-exact", "boltzmann") and not at_product:
        settings.append(f"initial-{setting}")
    density = [
        {"i": int(i), "j": int(j), "count": int(rng.integers(1, 99))}
        for i, j in rng.integers(0, multimodality.DRAWN, (300, 2))
    ]
    return {"scores": _scores(algo, settings, SEEDS["multimodality"], measures), "density": density}


def _exploration(part: parts.Part, rng: np.random.Generator) -> parts.Tables:
    study = exploration.STUDIES[part.settings["study"]]
    name, steps = label(study, part.settings["algo"]), study.settings.steps
    marks = np.linspace(0, steps, exploration.MARKS + 1).astype(int)[1:]
    tables: parts.Tables = {
        "coverage": [
            {"label": name, "seed": seed, "env_step": int(mark), "cells": int(cells)}
            for seed in study.seeds
            for mark, cells in zip(marks, 20 + np.cumsum(rng.integers(1, 30, len(marks))))
        ]
    }
    if study is exploration.POINT:
        tables["ends"] = [
            {"label": name, "seed": seed, "near": 1.0 - far, "far": float(far)}
            for seed, far in zip(study.seeds, rng.integers(0, 2, len(study.seeds)))
        ]
    else:
        tables["actions"] = [
            {"label": name, "seed": seed, "env_step": step, "cell": cell, "count": int(rng.integers(1, 50))}
            for seed in study.seeds
            for step in range(0, steps + 1, 1000)
            for cell in range(20)
        ]
    return tables


def _theorem(part: parts.Part, rng: np.random.Generator) -> parts.Tables:
    problem, seeds = part.settings["problem"], part.settings["seeds"]
    cell = {key: part.settings[key] for key in ("move", "step", "M_q", "T")}
    first = part.settings.get("first", 0)
    settings = [part.name, *([problem] if cell == theorem.BASE and not first else [])]
    measures = dict.fromkeys(("share_of_steps_up", "share_everywhere", "finite", "total_gain"), rng.random)
    count = max(theorem.FEWEST, round(theorem.DISTANCE / cell["step"]))
    steps = [
        {"seed": seed, "number": k, "disagreement": 1.0, "gain": gain, "everywhere": 1}
        for seed in range(first, first + seeds)
        for k, gain in enumerate(rng.random(count) / count)
    ]
    return {"scores": _scores("qsm", settings, seeds, measures), "steps": steps}


def _cqsm(part: parts.Part, rng: np.random.Generator) -> parts.Tables:
    setting = f"cost={part.settings['cost']:g},dt={part.settings['dt']:g}"
    measures = dict.fromkeys(("distance", "regret", "finite"), rng.random)
    return {"scores": _scores("cqsm-reading", [setting], part.settings["seeds"], measures)}
