"""A Job is one seed's work: a task, an algorithm with its full configuration, the settings of the run, a seed.

Its hash is a stable identity: it covers everything that decides the result, not how or where the job runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from bench.names import env_folder

MAX_COUNT = 10**15  # of steps, transitions or episodes: a typing mistake rather than a plan


@dataclass(frozen=True)
class RunSettings:
    """How a run is carried out and evaluated. Steps are environment steps (frames): agent steps x action repeat."""

    steps: int = 1_000_000  # random ones included
    random_steps: int = 10_000  # uniform actions first; updates start after them
    eval_every: int = 10_000
    eval_episodes: int = 10
    # Each algorithm by its own authors' convention; or "sample" or "greedy" for all
    eval_mode: str = "authors"
    action_repeat: int = 1
    replay_size: int = 1_000_000  # transitions
    final_episodes: int = 10  # with the final policy, under each mode; 0: none

    def __post_init__(self) -> None:
        """Raises ValueError for a value that no run can have."""
        for name in ("steps", "eval_every", "eval_episodes", "action_repeat", "replay_size"):
            self._require(name, 1)
        for name in ("random_steps", "final_episodes"):
            self._require(name, 0)
        if self.eval_mode not in ("authors", "sample", "greedy"):
            raise ValueError(f"eval_mode = {self.eval_mode!r}: expected authors, sample or greedy")
        for name in ("steps", "random_steps", "eval_every"):
            if getattr(self, name) % self.action_repeat:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: not a multiple of action_repeat = {self.action_repeat}"
                )

    def _require(self, name: str, least: int) -> None:
        if not least <= getattr(self, name) <= MAX_COUNT:
            raise ValueError(f"{name} = {getattr(self, name)}: expected a whole number from {least} on")


@dataclass(frozen=True)
class Job:
    """One seed of one cell of a study's grid."""

    study: str
    env: str
    algo: str
    label: str
    seed: int
    config: Mapping[str, Any]
    settings: RunSettings

    @property
    def path(self) -> PurePosixPath:
        """Of the run directory, below the root of all results."""
        return PurePosixPath(self.study, env_folder(self.env), self.label, f"seed-{self.seed}")

    @property
    def cell(self) -> tuple[str, str, str]:
        return self.study, self.env, self.label

    def identity(self) -> dict[str, Any]:
        """The measured quantity's identity: without device, execution and pack."""
        return {
            "env": self.env,
            "algo": self.algo,
            "config": dict(self.config),
            "settings": dataclasses.asdict(self.settings),
            "seed": self.seed,
        }

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON of `identity()`."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {**self.identity(), "study": self.study, "label": self.label}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Job:
        return cls(**{**record, "settings": RunSettings(**record["settings"])})
