"""A Study is a grid of algorithms, environments and seeds; it expands to Jobs.

A setting that changes what is measured (steps, evaluation, action repeat) belongs to the study and shows in the name of
its folder. A setting that changes an algorithm makes a variant and shows in its label.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.errors import UserError
from bench.names import ALLOWED, env_folder, is_safe_name
from bench.studies.job import Job, RunSettings
from bench.studies.overrides import (
    Overrides,
    algorithm_config,
    canonical,
    parse_overrides,
    recorded,
    settable,
)

# The name of a job's log holds more than its label, and a file's name has 255 bytes at most.
LONGEST_LABEL = 150


@dataclass(frozen=True)
class Study:
    """A grid, read from a file and changed by the command line. `name` is its folder below the results."""

    name: str
    title: str
    algos: tuple[str, ...]  # as the user writes them: "qsm", "qsm:M_q=120,T=20"
    envs: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: RunSettings
    config: Overrides = field(default_factory=dict)  # for every algorithm that has the field
    algo: Mapping[str, Overrides] = field(default_factory=dict)
    env: Mapping[str, Mapping[str, Overrides]] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)  # what is shown of it (bench/studies/report.py)

    def jobs(self) -> list[Job]:
        """Every job, seed by seed across environments and algorithms, so that an unfinished grid is balanced.

        Raises:
            UserError: an unknown algorithm or task, or an override that the algorithm does not take.
        """
        from bench.envs import tasks as envs

        for name in self.envs:
            envs.spec(name)
        cells = list(dict.fromkeys(self._cells()))
        folders = Counter((env_folder(env), label) for env, _, label, _ in cells)
        for (env, label), count in folders.items():
            if count > 1:
                raise UserError(f"{count} different runs would share the folder {env}/{label}")
        return [
            Job(self.name, env, algo, label, seed, json.loads(config), self.settings)
            for seed in self.seeds
            for env, algo, label, config in cells
        ]

    def _cells(self) -> Iterator[tuple[str, str, str, str]]:
        """(environment, algorithm, label, full configuration as canonical JSON)."""
        for env in self.envs:
            for spec in self.algos:
                algo, own = parse_overrides(spec)
                config = self.base_config(algo, env, own)
                yield env, algo, self._label(algo, own), json.dumps(recorded(algo, config), sort_keys=True)

    def base_config(self, algo: str, env: str, own: Overrides | None = None) -> dict[str, Any]:
        """An algorithm's full configuration on a task (or "") in this study, the special over the general.

        own: a variant's overrides. The critic among them brings its own defaults, over which the study's settings go.
        """
        special = {**self.algo.get(algo, {}), **self.env.get(env, {}).get(algo, {}), **(own or {})}
        fields = settable(algo, {**self.config, **special}.get("critic"))
        common = {key: value for key, value in self.config.items() if key in fields}
        return algorithm_config(algo, {**common, **special})

    def labels(self) -> list[str]:
        """The label of every algorithm. Raises UserError as `jobs`."""
        return [self._label(*parse_overrides(spec)) for spec in self.algos]

    def _label(self, algo: str, own: Overrides) -> str:
        """The algorithm and its overrides, sorted; one that changes nothing anywhere in the study is dropped.

        It does not depend on the environments that were asked for: they may be asked for one by one.
        """
        full = self.base_config(algo, "", own)

        def changes(key: str) -> bool:
            chosen = {} if key == "critic" else {k: v for k, v in own.items() if k == "critic"}
            return any(self.base_config(algo, env, chosen)[key] != full[key] for env in ("", *self.env))

        kept = {key: full[key] for key in own if changes(key)}
        label = "-".join([algo, *(f"{key}={canonical(kept[key])}" for key in sorted(kept))])
        if not is_safe_name(label) or len(label) > LONGEST_LABEL:
            raise UserError(f"{label!r} cannot name a folder: use {ALLOWED}, at most {LONGEST_LABEL} of them")
        return label

    def to_dict(self) -> dict[str, Any]:
        """The contents of study.json besides the grid."""
        report = {"report": dict(self.report)} if self.report else {}
        return {"title": self.title, "settings": dataclasses.asdict(self.settings), **report}
