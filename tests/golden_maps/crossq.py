"""The CrossQ authors' files: SAC with their critics and actor."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from algos.core.agent import Agent
from tests.golden_maps.jax_authors import BatchRenormFiles


class Reader(BatchRenormFiles):
    algorithm = "sac"
    BATCH = ("observations", "actions", "rewards", "dones", "next_observations")
    METRICS = {
        "actor_loss": ("actor_loss",),
        "critic_loss": ("critic_loss",),
        "q": ("current_q_values",),
        "temperature": ("ent_coef",),
    }
    FIELDS = {
        "batch": "batch_size",
        "net_pi": "hidden",
        "net_qf": "critic_hidden",
        "bn_momentum": "crossq_momentum",
        "bn_epsilon": "crossq_eps",
        "warmup": "crossq_warm_up",
        "r_max": "crossq_r_max",
        "d_max": "crossq_d_max",
        "qf_lr": "critic_lr",
        "gamma": "discount",
        "policy_delay": "actor_delay",
        "ent0": "initial_temperature",
    }
    FIXED = {"bn_mode": "brn_actor", "tau": 1.0, "crossq_style": True, "log_std_clip": [-20, 2]}
    READ = frozenset({"lr", "adam_b1", "adam", "target_entropy"})

    def settings(self) -> dict[str, Any]:
        m = self.meta
        adam = {"b1_actor_critic": m["adam_b1"], "b1_ent_coef": 0.9, "b2": 0.999, "eps": 1e-8}
        if m["adam"] != adam:
            raise ValueError(f"Adam with {m['adam']}, ours is {adam}")
        return super().settings() | {
            "critic": "crossq",
            "critic_loss": "mean",
            "actor_network": "crossq",
            "actor_q": "min",
            "actor_lr": m["lr"],
            "temperature_lr": m["lr"],
            "actor_beta1": m["adam_b1"],
            "crossq_beta1": m["adam_b1"],
            "target_entropy_per_dim": m["target_entropy"] / m["act_dim"],
        }

    def info(self, i: int) -> dict[str, float]:
        """The temperature is ours to report where it moves."""
        info = super().info(i)
        if (i + 1) % self.meta["policy_delay"]:
            del info["temperature"]
        return info

    def locate(self, agent: Agent, leaf: str) -> list[Tensor]:
        net, _, path = leaf.partition("/")
        if net == "ent_coef":
            return [agent.state["temperature"]["log"][0, 0]]
        last = len(agent.config.hidden)
        mean_and_std = (slice(agent.act_dim), slice(agent.act_dim, None))
        heads = {f"Dense_{last + k}": columns for k, columns in enumerate(mean_and_std)}
        params = agent.state[net]
        return [
            self.renorm_leaf(params, path.removeprefix("VmapCritic_0/"), heads if net == "actor" else None)
        ]
