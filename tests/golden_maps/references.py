"""What the five references of tests/golden have in common."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from algos.core.agent import Agent
from bench.check.golden import Golden
from bench.studies.overrides import agent_class

# keys of `meta` that are no setting of an algorithm
STRUCTURE = {
    "algo",
    "obs_dim",
    "act_dim",
    "updates",
    "adam",
}
SETTING = {  # our name of a setting where it differs from the one in `meta`
    "batch": "batch_size",
    "actor_lr_decay_steps": "actor_lr_decay",
    "init_temperature": "initial_temperature",
    "temp_lr": "temperature_lr",
    "target_policy_noise": "target_noise",
    "target_policy_noise_clip": "target_noise_clip",
    "exploration_noise": "action_noise",
}


class Reference(Golden):
    METRICS = {
        "actor_loss": ("actor_loss", "actor_loss_mean"),
        "critic_loss": ("critic_loss", "c_loss_mean_1", "c_loss_mean_2"),
        "q": ("q", "q_mean_1", "q_mean_2"),
        "target_q": ("target_q_mean",),
        "bc_loss": ("bc_loss",),
        "q_loss": ("ql_loss",),
        "entropy": ("entropy",),
        "temperature": ("temperature",),
        "temperature_loss": ("temperature_loss",),
    }
    CRITICS_OWN_RATE = False  # critics that learn at our default whatever `lr` is

    def settings(self) -> dict[str, Any]:
        fields = {field.name for field in dataclasses.fields(agent_class(self.algorithm).Config)}
        adam = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
        if self.meta["adam"] != adam:
            raise ValueError(f"Adam with {self.meta['adam']}, ours is {adam}")
        settings: dict[str, object] = {}
        for key, value in self.meta.items():
            if key in STRUCTURE:
                continue
            names = {SETTING.get(key, key)}
            if key == "lr":
                names = {"actor_lr", "temperature_lr"} & fields
                names |= set() if self.CRITICS_OWN_RATE else {"critic_lr"}
            elif key == "target_entropy":
                names, value = {"target_entropy_per_dim"}, value / self.meta["act_dim"]
            if not names <= fields:
                raise ValueError(f"meta has {key!r}, which is no setting of {self.meta['algo']}")
            settings |= dict.fromkeys(names, tuple(value) if isinstance(value, list) else value)
        return settings


class QSMAuthors(Reference):
    """The QSM authors' repository, in flax: kernels are (in, out)."""

    def locate(self, agent: Agent, leaf: str) -> list[Tensor]:
        net, _, path = leaf.partition("/")
        part = {"score_model": "actor", "temp": "temperature"}.get(net, net)
        critic: int | slice = slice(None)
        if net.endswith(("_1", "_2")):  # their diffusion agents keep two single critics
            part, critic = net[:-2], int(net[-1]) - 1
        params = agent.state[part]
        if path == "log_temp":
            return [params["log"][0, 0]]
        if path.startswith("FourierFeatures"):
            return [params["frequencies"][0]]
        module, *rest, last_name = path.removeprefix("VmapStateActionValue_0/").split("/")
        kind = {"kernel": "w", "bias": "b"}[last_name]
        last = last_layer(params)
        if module.startswith("OutputDense"):
            columns = {"Mean": slice(agent.act_dim), "LogStd": slice(agent.act_dim, None)}[module[11:]]
            view = params[f"{kind}{last}"][0, ..., columns]
            return [view if kind == "w" else view[..., 0, :]]
        index = last if module == "Dense_0" else int(rest[0].removeprefix("Dense_"))
        if net == "score_model" and module == "MLP_0":
            return [layer(params, f"time_{kind}{index}")]
        if net == "score_model" and kind == "w" and index == 0:
            return [params[name][0] for name in ("w0a", "w0s", "w0t")]
        return [layer(params, f"{kind}{index}", critic if "critic" in net else None)]


class DiffusionQLAuthors(Reference):
    """The Diffusion-QL authors' repository, in PyTorch: every second module is an activation."""

    CRITICS_OWN_RATE = True

    def locate(self, agent: Agent, leaf: str) -> list[Tensor]:
        net, _, path = leaf.partition("/")
        params = agent.state[net]
        module, *index, kind = path.split(".")
        letter = {"weight": "w", "bias": "b"}[kind]
        number = int(index[0]) // 2 if index else last_layer(params)
        if module == "time_mlp":
            return [layer(params, f"time_{letter}{number}")]
        if module == "mid_layer" and letter == "w" and number == 0:
            return [params[name][0] for name in ("w0a", "w0t", "w0s")]
        critic = {"q1_model": 0, "q2_model": 1, "mid_layer": None, "final_layer": None}[module]
        return [layer(params, f"{letter}{number}", critic)]


def layer(params: dict[str, Tensor], name: str, critic: int | slice | None = None) -> Tensor:
    """Seed 0's weight or bias, biases without their row axis; of one critic, of all, or of a single network."""
    p = params[name][0] if critic is None else params[name][0, critic]
    return p[..., 0, :] if "b" in name else p


def last_layer(params: dict[str, Tensor]) -> int:
    return max(int(name[1:]) for name in params if name[0] == "b")
