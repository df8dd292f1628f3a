"""The SimBa authors' files: SAC with their critics and actor, and the environment step before every update."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from algos.core.agent import Agent
from tests.golden_maps.jax_authors import FlaxAuthors


class Reader(FlaxAuthors):
    algorithm = "sac"
    BATCH = ("observation", "action", "reward", "terminated", "next_observation")
    METRICS = {
        "actor_loss": ("actor_loss",),
        "critic_loss": ("critic_loss",),
        "temperature_loss": ("temperature_loss",),
        "entropy": ("entropy",),
        "temperature": ("temperature",),
        "q": ("q1_mean", "q2_mean"),
    }
    SLOW_RTOL = 5e-3  # the temperature: a step of 1e-4 beside float32's last digit of -4.6
    FIELDS = {
        "batch": "batch_size",
        "normalize_observation": "simba_normalise",
        "actor_learning_rate": "actor_lr",
        "actor_weight_decay": "actor_weight_decay",
        "critic_learning_rate": "critic_lr",
        "critic_weight_decay": "simba_weight_decay",
        "temp_initial_value": "initial_temperature",
        "temp_learning_rate": "temperature_lr",
        "target_tau": "tau",
    }
    FIXED = {
        "actor_block_type": "residual",
        "critic_block_type": "residual",
        "temp_weight_decay": 0.0,
        "adamw": {"b1": 0.9, "b2": 0.999, "eps": 1e-8},
        "layernorm_eps": 1e-6,
        "obs_norm_eps": 1e-8,
        "count0": 1e-4,
        "log_std": [-10, 2],
    }
    READ = frozenset(
        {"actor_num_blocks", "actor_hidden_dim", "critic_num_blocks", "critic_hidden_dim", "critic_use_cdq", "gamma",
         "n_step", "temp_target_entropy", "temp_target_entropy_coef"}
    )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        m = self.meta
        return super().settings() | {
            "critic": "simba",
            "critics": 2 if m["critic_use_cdq"] else 1,
            "critic_loss": "sum",
            "critic_hidden": (m["critic_hidden_dim"],) * m["critic_num_blocks"],
            "hidden": (m["actor_hidden_dim"],) * m["actor_num_blocks"],
            "actor_network": "simba",
            "actor_q": "min",
            "actor_first": True,
            "discount": m["gamma"] ** m["n_step"],  # the rewards of the batch are sums over n steps already
            "target_entropy_per_dim": m["temp_target_entropy"] / m["act_dim"],
        }

    def is_slow(self, leaf: str) -> bool:
        return super().is_slow(leaf) or leaf.endswith("log_temp")

    def prepare(self, agent: Agent, i: int) -> None:
        """The action before the update, which moves the statistics of observations first."""
        obs = self.tensor(f"update{i}/env/observation").reshape(1, -1, self.meta["obs_dim"])
        selection = agent.selection("behaviour")
        draws = self.draws(f"update{i}/env", agent.act_draws(obs, "behaviour", selection))
        self.action = agent.act_step(agent.state, obs, draws, "behaviour", selection).flatten()

    def more(self, agent: Agent, i: int, metrics: dict[str, float]) -> list[str]:
        off = (self.action - self.tensor(f"update{i}/env/action").flatten()).abs().max().item()
        return [] if off <= self.ACTION_ATOL else [f"the action before update {i + 1} is off by {off:.2g}"]

    def locate(self, agent: Agent, leaf: str) -> list[Tensor]:
        net, *path = leaf.split("/")
        if net == "temperature":
            return [agent.state["temperature"]["log"][0, 0]]
        if net == "running":
            view = agent.state["obs_stats"][path[0]][0]
            return [view[0, 0] if path[0] == "count" else view]
        params = agent.state[net]
        critics = () if net == "actor" else (slice(None),)
        if path[0].startswith("Vmap"):  # two critics
            path = path[1:]
        elif critics:
            critics = (0,)
        view = self._renamed(params, path, agent.act_dim if net == "actor" else 1)
        view = view[(0, *critics)]
        return [view if path[-1] == "kernel" else view[..., 0, :]]

    @staticmethod
    def _renamed(params: dict[str, Tensor], path: list[str], out: int) -> Tensor:
        """Our tensor, seed and critics in front; a head is columns of the last weight."""
        network, *modules, kind = path
        if network == "predictor":
            first = int(modules[0].removeprefix("Dense_")) * out
            return params["w_out" if kind == "kernel" else "b_out"][..., first : first + out]
        if modules[0].startswith("ResidualBlock"):
            i, inner = modules[0].removeprefix("ResidualBlock_"), modules[1]
            names = {"Dense_0": ("w", "b"), "Dense_1": ("v", "c"), "LayerNorm_0": ("scale", "shift")}[inner]
            return params[names[kind == "bias"] + i]
        names = {"Dense_0": ("w_in", "b_in"), "LayerNorm_0": ("scale_out", "shift_out")}[modules[0]]
        return params[names[kind == "bias"]]
