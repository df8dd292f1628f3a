"""The stored parts of an agent: its state for going on, its networks for acting."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from algos.core.critics import State
from algos.core.noise import Noise
from algos.core.optim import Adam


class Stored:
    """The part of `Agent` that reads and writes its state; nothing here depends on the algorithm."""

    name: ClassVar[str]
    config: Any
    obs_dim: int
    act_dim: int
    seeds: tuple[int, ...]
    state: State
    optimiser: dict[str, Adam]
    noise: dict[str, Noise]
    updates: int

    def finite(self) -> list[bool]:
        """Per seed: no loss was ever infinite or not a number, and no parameter is now."""
        flags = self.state["health"]["finite"].clone()
        for part in self.optimiser:
            for p in self.state[part].values():
                flags &= p.flatten(1).isfinite().all(1)
        return flags.tolist()

    def state_dict(self, k: int) -> dict[str, Any]:
        """Seed k's part of the whole state: tensors and plain numbers only."""
        own = lambda x: x[k : k + 1].clone() if x.dim() else x.clone()  # noqa: E731
        return {
            "updates": self.updates,
            "state": {part: {name: own(x) for name, x in xs.items()} for part, xs in self.state.items()},
            "noise": {purpose: noise.state(k) for purpose, noise in self.noise.items()},
        }

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Goes on from one `state_dict` per seed, all after the same number of updates.

        Raises:
            ValueError: the seeds are at different updates, or a tensor is missing or of another shape.
        """
        if len({s["updates"] for s in states}) != 1 or len(states) != len(self.seeds):
            raise ValueError("one state per seed is needed, all after the same number of updates")
        loaded = []
        for part, params in self.state.items():
            for name, mine in params.items():
                theirs = [s["state"].get(part, {}).get(name) for s in states]
                expected = (1, *mine.shape[1:]) if mine.dim() else ()
                for value in theirs:
                    if value is None or value.shape != expected:
                        found = "is missing" if value is None else f"has shape {tuple(value.shape)}"
                        raise ValueError(f"{part}/{name} {found}, expected shape {expected}")
                loaded.append((mine, torch.cat(theirs) if mine.dim() else theirs[0]))
        for mine, value in loaded:  # nothing is changed unless everything fits
            mine.copy_(value)
        for k, s in enumerate(states):
            for purpose, noise in self.noise.items():
                noise.set_state(k, s["noise"][purpose])
        self.updates = states[0]["updates"]

    def policy_dict(self, k: int) -> dict[str, Any]:
        """Seed k's networks without optimiser moments: enough to act and to evaluate the critics."""
        parts = {
            part: xs for part, xs in self.state.items() if not part.endswith(".adam") and part != "health"
        }
        return {
            "algo": self.name,
            "config": {f.name: getattr(self.config, f.name) for f in dataclasses.fields(self.config)},
            "obs_dim": self.obs_dim,
            "act_dim": self.act_dim,
            "state": {
                part: {name: x[k : k + 1].clone() for name, x in xs.items()} for part, xs in parts.items()
            },
        }
