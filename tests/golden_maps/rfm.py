"""The RFM authors' files, in flax."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos.core.agent import Agent
from algos.core.noise import Draw
from bench.check.golden import Golden
from tests.golden_maps.references import last_layer, layer
from tests.golden_maps.renamed import renamed

CRITIC = {
    "num_q": "critics",
    "discount": "discount",
    "tau": "tau",
    "target_update_period": "target_every",
    "lr": "critic_lr",
}
NAMES = {
    "batch": "batch_size",
    "actor_emb_size": "embedding",
    "actor_lr": "actor_lr",
    "num_estimator_mc_samples": "samples",
    "num_integration_steps": "flow_steps",
    "cv_weight": "cv_weight",
    "cv_ridge": "cv_ridge",
    "cv_clip": "cv_clip",
    "rfm_on_policy": "on_policy",
    "init_temperature": "temperature",
    "final_temperature": "final_temperature",
    "temperature_steps": "temperature_steps",
    "num_particles_training": "particles",
    "num_particles_data": "act_particles",
    "num_particles_eval": "eval_particles",
    "sampler_method": "integrator",
    "t_min": "t_min",
}
READ = {"critic", "actor_hidden_size", "actor_hidden_layers", "actor_max_grad_norm", "cv_weight_autotune"}


class Reader(Golden):
    algorithm = "rfm"
    BATCH = ("states", "actions", "rewards", "masks", "next_states")
    METRICS = {
        "actor_loss": ("actor_loss",),
        "temperature": ("temperature",),
        "cv_weight": ("posterior_cv_weight",),
        "ess": ("posterior_ess",),
    }
    LOSS_RTOL = 3e-5

    def settings(self) -> dict[str, Any]:
        m = self.meta
        critic = m["critic"]
        clip, widths = critic["max_grad_norm"], (critic["hidden_size"],) * critic["hidden_layers"]
        settings = renamed(critic, CRITIC, {"hidden_size", "hidden_layers", "max_grad_norm"})
        return (
            settings
            | renamed(m, NAMES, READ)
            | {
                "critic_hidden": widths,
                "critic_grad_norm": clip or 0.0,
                "hidden": (m["actor_hidden_size"],) * m["actor_hidden_layers"],
                "grad_norm": m["actor_max_grad_norm"] or 0.0,
                "control_variate": "tuned" if m["cv_weight_autotune"] else "fixed",
            }
        )

    def is_slow(self, leaf: str) -> bool:
        return leaf.startswith("q_target")

    def locate(self, agent: Agent, leaf: str) -> list[Tensor]:
        """ "net/Block_0/Dense_0/kernel", "q_online/NormedLinear_0/Dense_0/bias", "q_target/Dense_0/kernel" ..."""
        net, module, *_, name = leaf.split("/")
        kind, number = {"kernel": "w", "bias": "b"}[name], int(module.rpartition("_")[2])
        params = agent.state[{"net": "actor", "q_online": "critic", "q_target": "target_critic"}[net]]
        if net == "net":
            number = {"Dense_0": 0, "Dense_1": last_layer(params)}.get(module, number + 1)
            if kind == "w" and number == 0:
                return [params[part][0] for part in ("w0s", "w0a", "w0t")]
            return [layer(params, f"{kind}{number}")]
        return [layer(params, f"{kind}{last_layer(params) if module == 'Dense_0' else number}", slice(None))]

    def draws(self, prefix: str, specs: list[Draw]) -> dict[str, Tensor]:
        """Gumbel numbers as the uniforms that give them, times as numbers from 0 to 1."""
        t_min, recorded = self.meta["t_min"], []
        for kind, value in self.recorded(prefix):
            if kind == "gumbel":
                kind, value = "uniform64", torch.exp(-torch.exp(-value.double()))
            elif kind == "uniform":
                value = (value - t_min) / (1 - 2 * t_min)
            recorded.append((kind, value))
        return self.matched(prefix, recorded, specs)

    def info(self, i: int) -> dict[str, float]:
        """Their loss is the mean over the critics."""
        loss = float(self.arrays[f"update{i}/info/q_loss"]) * self.meta["critic"]["num_q"]
        return super().info(i) | {"critic_loss": loss}

    def more(self, agent: Agent, i: int, metrics: dict[str, float]) -> list[str]:
        if i > 0:
            return []
        times = self.arrays["schedule/integration_t"]
        t_min, n = self.meta["t_min"], self.meta["num_integration_steps"]
        same = np.allclose(times, t_min + (1 - 2 * t_min) / n * np.arange(n), rtol=1e-5)
        return [] if same else ["schedule: integration_t differs"]
