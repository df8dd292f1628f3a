"""Names in the files of SDAC and DPMD: their authors' JAX code, whose networks are haiku's."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from algos.core.agent import Agent
from algos.core.noise import Draw
from bench.check.golden import Golden
from tests.golden_maps.draws import by_name

SETTINGS = {  # in `meta`: our fields
    "batch": ("batch_size",),
    "time_dim": ("time_dim",),
    "time_hidden": ("time_hidden",),
    "activation": ("critic_activation",),
    "num_timesteps": ("T",),
    "num_particles": ("particles",),
    "noise_scale": ("noise_scale",),
    "beta_schedule_scale": ("beta_scale",),
    "gamma": ("discount",),
    "tau": ("tau",),
    "reward_scale": ("reward_scale",),
    "delay_update": ("actor_delay",),
    "delay_alpha_update": ("temperature_delay",),
    "lr": ("actor_lr", "critic_lr"),
    "lr_schedule_end": ("actor_lr_end",),
    "alpha_lr": ("temperature_lr",),
    "policy_lr_transition_begin": ("actor_lr_hold",),
    "policy_lr_transition_steps": ("actor_lr_fall",),
    "init_alpha": ("initial_temperature",),
    "reverse_mc_num": ("samples",),  # SDAC's; DPMD's files have null
}
#: Keys that are no setting; what the running statistics begin with stands among the parameters, too.
STRUCTURE = {
    "algo",
    "obs_dim",
    "act_dim",
    "updates",
    "adam",
    "seed",
    "jax",
    "init_running_mean",
    "init_running_std",
}
NETWORKS: dict[str, tuple[str, int | None]] = {
    "q1": ("critic", 0),
    "q2": ("critic", 1),
    "target_q1": ("target_critic", 0),
    "target_q2": ("target_critic", 1),
    "policy": ("actor", None),
    "target_policy": ("target_actor", None),
}


class Relax(Golden):
    """The code draws, reports and keeps in every update what ours does only where the actor moves."""

    METRICS = {
        "critic_loss": ("q1_loss", "q2_loss"),
        "actor_loss": ("policy_loss",),
        "weight": ("q_weights_mean",),
        "weight_max": ("q_weights_max",),
        "temperature": ("alpha",),
        "entropy": ("entropy_approx",),
    }
    #: An action by the online policy: what the reference's `get_deterministic_action` gives.
    MODES = {"eval": None, "explore": "behaviour", "eval_online_policy": "sample"}
    SCHEDULE = {"betas": "beta", "alphas": "alpha", "alphas_cumprod": "alpha_bar"}
    BATCH = ("obs", "action", "reward", "done", "next_obs")
    FLOAT32_FLOOR = True
    OUTLIERS = 1
    KEPT_FOR_NOTHING: ClassVar[tuple[str, ...]] = ("step",)  # leaves that nothing reads, and that ours lacks

    def settings(self) -> dict[str, Any]:
        m = self.meta
        if unknown := m.keys() - SETTINGS - STRUCTURE - {"hidden", "target_entropy"}:
            raise ValueError(f"meta has {sorted(unknown)}, which are no settings of {self.algorithm}")
        if m["adam"] != {"b1": 0.9, "b2": 0.999, "eps": 1e-8}:
            raise ValueError(f"Adam with {m['adam']}, ours is another")
        known = {
            ours: m[theirs] for theirs, names in SETTINGS.items() for ours in names if m[theirs] is not None
        }
        per_dim = {"target_entropy_per_dim": m["target_entropy"] / m["act_dim"]}
        return known | per_dim | {"hidden": tuple(m["hidden"])}

    def tensor(self, key: str) -> Tensor:
        value = super().tensor(key)
        if key.endswith("/done"):
            return value.to(self.dtype)
        return value.clamp(-1.0, 1.0) if key == "act/explore/action" else value  # theirs is clipped by nobody

    def leaves(self, moment: str) -> dict[str, Tensor]:
        leaves = super().leaves(moment)
        return {name: value for name, value in leaves.items() if not name.startswith(self.KEPT_FOR_NOTHING)}

    def locate(self, agent: Agent, leaf: str) -> list[Tensor]:
        net, *path = leaf.split("/")
        if net == "log_alpha":
            return [agent.state["temperature"]["log"][0, 0]]
        if net == "running":
            return [agent.state["running"][path[0].removeprefix("q_")][0, 0]]
        part, twin = NETWORKS[net]
        _, module, kind = path
        params, layer = agent.state[part], int(module.removeprefix("linear").lstrip("_") or 0)
        name = f"{kind}{layer}"
        if twin is None:
            name = f"time_{kind}{layer}" if layer < 2 else f"{kind}{layer - 2}"
            if name == "w0":
                return [params[name][0] for name in ("w0s", "w0a", "w0t")]
        p = params[name][0] if twin is None else params[name][0, twin]
        return [p if kind == "w" else p[0]]

    def info(self, i: int) -> dict[str, float]:
        moves = i % self.meta["delay_update"] == 0
        return {k: v for k, v in super().info(i).items() if moves or not k.startswith(("actor", "weight"))}

    def draws(self, prefix: str, specs: list[Draw]) -> dict[str, Tensor]:
        numbers = [value for _, value in self.recorded(prefix)]
        return by_name(self.numbered(prefix, numbers), specs, f"{self.path}: {prefix}")

    def numbered(self, prefix: str, numbers: list[Tensor]) -> dict[str, Tensor]:
        """All of their draws under our names."""
        raise NotImplementedError

    def act(self, agent: Agent, how: str) -> Tensor:
        config = agent.config
        if how == "eval_online_policy":
            agent.config = dataclasses.replace(config, acting_actor="online")
        action = super().act(agent, how)
        agent.config = config
        return action

    def more(self, agent: Agent, i: int, metrics: dict[str, float]) -> list[str]:
        """Before the first update, the policy's learning rate after so many of its updates."""
        if i or "schedule/policy_lr" not in self.arrays:
            return []
        optimiser = agent.optimiser["actor"]
        assert optimiser.schedule is not None
        ours = optimiser.lr * optimiser.schedule(torch.as_tensor(self.arrays["schedule/policy_lr_count"]))
        theirs = torch.as_tensor(self.arrays["schedule/policy_lr"])
        return [] if bool(((ours - theirs).abs() <= 1e-5 * theirs).all()) else ["schedule: policy_lr differs"]


def best_of(numbers: list[Tensor], scope: str) -> dict[str, Tensor]:
    """An action's three draws: the start of P chains (P, n, A), their steps (P, T, n, A), the noise added (n, A).

    Ours: row n P + p of x, z{T-1}, ..., z0, (1, n P, A) each, and exploration (1, n, A).
    """
    start, steps, noise = numbers
    P, T, A = start.shape[0], steps.shape[1], start.shape[-1]
    steps = steps.reshape(P, T, -1, A)
    arrays = {"x": start.reshape(P, -1, A)} | {f"z{T - 1 - i}": steps[:, i] for i in range(T)}
    found = {scope + name: x.transpose(0, 1).reshape(1, -1, A) for name, x in arrays.items()}
    return found | {f"{scope}exploration": noise.reshape(1, -1, A)}
