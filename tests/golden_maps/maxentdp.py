"""The MaxEntDP authors' files, in flax; their networks are named as in the QSM authors' repository."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos.core.agent import Agent
from algos.core.cosine import T_MAX, T_MIN, CosineSchedule
from algos.core.noise import Draw
from tests.golden_maps.references import QSMAuthors
from tests.golden_maps.renamed import renamed

NAMES = {
    "batch": "batch_size",
    "hidden": "hidden",
    "actor_lr": "actor_lr",
    "critic_lr": "critic_lr",
    "discount": "discount",
    "tau": "tau",
    "T": "T",
    "time_dim": "time_dim",
    "decay_steps": "actor_lr_decay",
    "temp": "temperature",
    "backup_entropy": "backup_entropy",
    "samples_num": "log_prob_samples",
    "T_log_prob": "log_prob_steps",
    "score_samples_num": "samples",
}
READ = {"cond_hidden", "clip_sampler", "eval_action_selection", "eval_candidate_num", "policy_training"}
SCORES = {"QNE": "noise", "iDEM": "gradient", "QSM": "q-gradient"}


class Reader(QSMAuthors):
    algorithm = "maxentdp"
    LOSS_RTOL = 1e-4
    #: Their float32 loses 1 - abar where abar is near 1: 4e-3 of it at t = 0.001.
    SCHEDULE_RTOL = 1e-4

    def settings(self) -> dict[str, Any]:
        m = self.meta
        if m["cond_hidden"] != [2 * m["time_dim"]] * 2:
            raise ValueError(f"cond_hidden = {m['cond_hidden']}: ours is twice time_dim, twice")
        return renamed(m, NAMES, READ) | {
            "clip_sampler": "x0_beta" if m["clip_sampler"] else "beta",
            "eval_candidates": m["eval_candidate_num"] if m["eval_action_selection"] else 1,
            "score": SCORES[m["policy_training"]],
        }

    def draws(self, prefix: str, specs: list[Draw]) -> dict[str, Tensor]:
        """Times as numbers from 0 to 1, truncated normals as the uniforms that give them.

        The reference draws truncated normals in QSM's mode too, and always normals to replace what is not a number.
        """
        recorded = []
        for number, (kind, value) in enumerate(self.recorded(prefix)):
            if kind == "uniform":
                value = (value - T_MIN) / (T_MAX - T_MIN)
            elif kind == "truncated_normal":
                if self.meta["policy_training"] == "QSM":
                    break
                kind, value = "uniform64", self.quantile(value, f"{prefix}/aux/draw{number:02d}")
            recorded.append((kind, value))
            if kind == "uniform64":
                break
        return self.matched(prefix, recorded, specs)

    def quantile(self, value: Tensor, aux: str) -> Tensor:
        """Which quantile of the normal distribution between its recorded bounds a number is."""
        below = lambda x: torch.special.erf(x.double() / math.sqrt(2))  # noqa: E731
        low, high = below(self.tensor(f"{aux}_lower")), below(self.tensor(f"{aux}_upper"))
        return ((below(value) - low) / (high - low)).clamp(0.0, 1.0)

    def more(self, agent: Agent, i: int, metrics: dict[str, float]) -> list[str]:
        if i > 0:
            return []
        problems = []
        for name, ours in (("sampler", agent.schedule), ("log_prob", agent.log_prob_levels)):
            assert isinstance(ours, CosineSchedule)
            if f"schedule/{name}_t" not in self.arrays:
                continue
            for key, mine in (("t", (T_MIN, *ours.times)), ("alpha_hats", (ours.start, *ours.alpha_bar))):
                if not np.allclose(
                    mine, self.arrays[f"schedule/{name}_{key}"], rtol=self.SCHEDULE_RTOL, atol=0
                ):
                    problems.append(f"schedule: {name}_{key} differs")
        rate, counts = agent.optimiser["actor"], self.arrays["schedule/actor_lr_count"]
        for count, theirs in zip(counts.tolist(), self.arrays["schedule/actor_lr"].tolist()):
            factor = 1.0 if rate.schedule is None else rate.schedule(torch.tensor(float(count))).item()
            if abs(rate.lr * factor - theirs) > 1e-6 * rate.lr:
                problems.append(f"schedule: the actor's rate after {count} updates differs")
        return problems
