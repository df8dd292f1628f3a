"""QVPO's and DIPO's files: PyTorch code of one family."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from algos.core.agent import Agent, Batch

NAMES = {  # in `meta`: our field
    "batch": "batch_size",
    "time_dim": "time_dim",
    "time_hidden": "time_hidden",
    "activation": "critic_activation",
    "n_timesteps": "T",
    "beta_schedule": "schedule",
    "noise_ratio": "noise_ratio",
    "diffusion_lr": "actor_lr",
    "critic_lr": "critic_lr",
    "ac_grad_norm": "grad_norm",
    "tau": "tau",
    "gamma": "discount",
    "update_actor_target_every": "target_actor_every",
}
#: Keys of `meta` that are no settings of ours, and groups of the file that are no update.
STRUCTURE = {
    "algo", "obs_dim", "act_dim", "updates", "adam", "seed", "torch", "policy_type", "capacity", "action_bound",
    "action_grad_norm", "write_back_takes_effect",
}  # fmt: skip
GROUPS = ("memory",)
IGNORED = ("diffusion_memory/",)
METRIC = {"critic_loss": ("critic_loss",), "actor_loss": ("actor_loss",)}


def settings(meta: dict[str, Any], more: dict[str, str]) -> dict[str, Any]:
    """Fields of the Config, `more` under other names than these.

    Raises:
        ValueError: a policy that is no diffusion, or a write-back that takes effect.
    """
    if meta["policy_type"] != "Diffusion" or meta["write_back_takes_effect"]:
        raise ValueError(
            f"policy_type {meta['policy_type']!r}, write-back {meta['write_back_takes_effect']}: not ours"
        )
    known = {ours: meta[theirs] for theirs, ours in (NAMES | more).items()}
    return known | {"hidden": tuple(meta["hidden"]), "adam_eps": meta["adam"]["eps"]}


def batch(golden: Any, i: int, second: str, action: str | None) -> Batch:
    """The critics' batch (whose mask has gamma in it), and below it the actor's: states, and actions under that name.

    What the file does not have, because nothing reads it, is not a number.
    """
    rows, m = golden.meta["batch"], golden.meta
    sizes = {"observations": m["obs_dim"], "actions": m["act_dim"], "next_observations": m["obs_dim"]}

    def field(name: str) -> Tensor:
        first = golden.tensor(f"update{i}/batch/{name}").reshape(1, rows, sizes.get(name, 1))
        key = f"update{i}/{second}/{action if name == 'actions' else name}"
        below = golden.tensor(key).unsqueeze(0) if key in golden.arrays else torch.full_like(first, math.nan)
        both = torch.cat([first, below], 1)
        return both if name in sizes else both.squeeze(-1)

    return Batch(
        field("observations"),
        field("actions"),
        field("rewards"),
        field("masks") / m["gamma"],
        field("next_observations"),
    )


def locate(agent: Agent, leaf: str) -> list[Tensor]:
    net, path = leaf.split("/")
    if net == "running":
        return [agent.state["running"][path.removeprefix("q_")][0, 0]]
    params = agent.state[net]
    module, index, kind = path.split(".")
    letter, layer = {"weight": "w", "bias": "b"}[kind], int(index) // 2
    twin = {"q1_model": 0, "q2_model": 1}.get(module)
    if module == "time_mlp":
        name = f"time_{letter}{layer}"
    elif module == "layer" and layer == 0 and letter == "w":
        return [params[name][0] for name in ("w0a", "w0t", "w0s")]
    else:
        name = f"{letter}{layer}"
    p = params[name][0] if twin is None else params[name][0, twin]
    return [p if letter == "w" else p[0]]


class Recorded:
    """The file's draws of one update or action, taken in their order."""

    def __init__(self, golden: Any, prefix: str):
        keys = [key.split("/") for key in golden.arrays if key.startswith(f"{prefix}/draw")]
        keys.sort(key=lambda parts: int(parts[-2].removeprefix("draw")))
        self.golden, self.keys, self.found = golden, keys, {}

    def skip(self) -> None:
        """Indices into their replay."""
        self.keys.pop(0)

    def take(self) -> Tensor:
        return self.golden.tensor("/".join(self.keys.pop(0)))

    def chain(self, scope: str, n: int, copies: int = 1) -> None:
        """Start and steps of k chains for each of n rows, row j n + b of theirs is row b k + j of ours."""
        T = self.golden.meta["n_timesteps"]
        for name in ("x", *(f"z{t}" for t in reversed(range(T)))):
            value = self.take().repeat(copies, 1)
            self.found[scope + name] = value.unflatten(0, (-1, n)).transpose(0, 1).flatten(0, 1).unsqueeze(0)

    def forward(self, scope: str) -> None:
        self.found |= {f"{scope}t": self.take().unsqueeze(0), f"{scope}noise": self.take().unsqueeze(0)}
