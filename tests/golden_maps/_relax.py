"""SDAC's and DPMD's files: the authors' JAX code, whose networks are haiku's."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from algos.core.agent import Agent, Batch

NAMES = {  # in `meta`: our field
    "batch": "batch_size",
    "time_dim": "time_dim",
    "time_hidden": "time_hidden",
    "activation": "critic_activation",
    "num_timesteps": "T",
    "num_particles": "particles",
    "noise_scale": "noise_scale",
    "beta_schedule_scale": "beta_scale",
    "gamma": "discount",
    "tau": "tau",
    "reward_scale": "reward_scale",
    "delay_update": "actor_delay",
    "delay_alpha_update": "temperature_delay",
    "lr_schedule_end": "actor_lr_end",
    "alpha_lr": "temperature_lr",
    "policy_lr_transition_begin": "actor_lr_hold",
    "policy_lr_transition_steps": "actor_lr_fall",
    "init_alpha": "initial_temperature",
    "reverse_mc_num": "samples",
}
#: Keys of `meta` that are no settings: the initial running statistics stand among the parameters, too.
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
METRIC = {
    "critic_loss": ("q1_loss", "q2_loss"),
    "actor_loss": ("policy_loss",),
    "weight": ("q_weights_mean",),
    "weight_max": ("q_weights_max",),
    "temperature": ("alpha",),
    "entropy": ("entropy_approx",),
}
NETWORKS = {
    "q1": ("critic", 0),
    "q2": ("critic", 1),
    "target_q1": ("target_critic", 0),
    "target_q2": ("target_critic", 1),
    "policy": ("actor", None),
    "target_policy": ("target_actor", None),
}


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    known = {ours: meta[theirs] for theirs, ours in NAMES.items() if meta.get(theirs) is not None}
    return known | {
        "hidden": tuple(meta["hidden"]),
        "actor_lr": meta["lr"],
        "critic_lr": meta["lr"],
        "target_entropy_per_dim": meta["target_entropy"] / meta["act_dim"],
    }


def batch(golden: Any, i: int) -> Batch:
    field = lambda name: golden.tensor(f"update{i}/batch/{name}").unsqueeze(0)  # noqa: E731
    return Batch(
        field("obs"), field("action"), field("reward"), 1 - field("done").to(golden.dtype), field("next_obs")
    )


def locate(agent: Agent, leaf: str) -> list[Tensor]:
    net, *path = leaf.split("/")
    if net == "log_alpha":
        return [agent.state["temperature"]["log"][0, 0]]
    if net == "running":
        return [agent.state["running"][path[0].removeprefix("q_")][0, 0]]
    part, twin = NETWORKS[net]
    params = agent.state[part]
    layer = int(path[1].removeprefix("linear").lstrip("_") or 0)
    if twin is not None:
        p = params[f"{path[2]}{layer}"][0, twin]
        return [p if path[2] == "w" else p[0]]
    if layer < 2:
        name = f"time_{path[2]}{layer}"
    elif layer == 2 and path[2] == "w":
        return [params[name][0] for name in ("w0s", "w0a", "w0t")]
    else:
        name = f"{path[2]}{layer - 2}"
    p = params[name][0]
    return [p if path[2] == "w" else p[0]]


def best_of(golden: Any, prefix: str, first: int, scope: str) -> dict[str, Tensor]:
    """The three draws of an action: start (P, n, A), steps (P, T, n, A) and added noise (n, A), as ours.

    Ours are row n P + p of x, z{T-1}, ..., z0, (1, n P, A) each, and exploration (1, n, A).
    """
    x, z, noise = (golden.tensor(f"{prefix}/draw{first + i:02d}/normal") for i in range(3))
    P, T, A = x.shape[0], z.shape[1], x.shape[-1]
    z = z.reshape(P, T, -1, A)
    arrays = {"x": x.reshape(P, -1, A)} | {f"z{T - 1 - i}": z[:, i] for i in range(T)}
    found = {scope + name: y.transpose(0, 1).reshape(1, -1, A) for name, y in arrays.items()}
    return found | {f"{scope}exploration": noise.reshape(1, -1, A)}


def forward(golden: Any, prefix: str, first: int) -> dict[str, Tensor]:
    """The noise level of each row, and its noise."""
    return {
        "actor.t": golden.tensor(f"{prefix}/draw{first:02d}/randint").unsqueeze(0),
        "actor.noise": golden.tensor(f"{prefix}/draw{first + 1:02d}/normal").unsqueeze(0),
    }
