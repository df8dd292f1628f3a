"""Names in the files of QVPO and DIPO: their authors' PyTorch code, of one family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from algos.core.agent import Agent, Batch
from algos.core.noise import Draw
from bench.check.golden import Golden
from tests.golden_maps.draws import by_name

SETTINGS = {  # in `meta`: our field
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
#: Keys that are no setting.
STRUCTURE = {
    "algo", "obs_dim", "act_dim", "updates", "adam", "seed", "torch", "hidden", "capacity", "action_bound",
    "action_grad_norm",
}  # fmt: skip


class SecondBatch(Golden):
    """The file has the replay, from which both batches of an update come by indices that are drawn with the rest."""

    GROUPS = Golden.GROUPS | {"memory"}
    METRICS = {"critic_loss": ("critic_loss",), "actor_loss": ("actor_loss",)}
    SCHEDULE = {"betas": "beta", "alphas_cumprod": "alpha_bar"}
    FLOAT32_FLOOR = True
    MORE_SETTINGS: ClassVar[Mapping[str, str]] = {}
    #: What ours does in one way only.
    FIXED: ClassVar[Mapping[str, Any]] = {"policy_type": "Diffusion", "write_back_takes_effect": False}
    MEANINGLESS: ClassVar[frozenset[str]] = frozenset()  # keys that have no part in what the file records
    SECOND: ClassVar[str]  # the actor's batch

    def settings(self) -> dict[str, Any]:
        m, names = self.meta, SETTINGS | dict(self.MORE_SETTINGS)
        if unknown := m.keys() - names - STRUCTURE - self.FIXED.keys() - self.MEANINGLESS:
            raise ValueError(f"meta has {sorted(unknown)}, which are no settings of {self.algorithm}")
        for key, value in self.FIXED.items():
            if m[key] != value:
                raise ValueError(f"meta has {key} = {m[key]!r}, ours is always {value!r}")
        if (m["adam"]["b1"], m["adam"]["b2"]) != (0.9, 0.999):
            raise ValueError(f"Adam with {m['adam']}, ours is another")
        known = {ours: m[theirs] for theirs, ours in names.items()}
        return known | {"hidden": tuple(m["hidden"]), "adam_eps": m["adam"]["eps"]}

    def batch(self, i: int) -> Batch:
        """The critics' batch and below it the actor's. What the file lacks of the latter is not a number."""
        m, mine = self.meta, {"actions": "best_actions"}
        sizes = {"observations": m["obs_dim"], "actions": m["act_dim"], "next_observations": m["obs_dim"]}

        def field(name: str) -> Tensor:
            rows = self.tensor(f"update{i}/batch/{name}").reshape(1, m["batch"], sizes.get(name, 1))
            key = f"update{i}/{self.SECOND}/{mine.get(name, name)}"
            second = self.tensor(key).unsqueeze(0) if key in self.arrays else torch.full_like(rows, math.nan)
            both = torch.cat([rows, second], 1)
            return both if name in sizes else both.squeeze(-1)

        obs, action, reward, mask, next_obs = (field(name) for name in self.BATCH)
        return Batch(obs, action, reward, mask / m["gamma"], next_obs)  # theirs has the discount in the mask

    def locate(self, agent: Agent, leaf: str) -> list[Tensor]:
        net, path = leaf.split("/")
        if net == "running":
            return [agent.state["running"][path.removeprefix("q_")][0, 0]]
        module, index, kind = path.split(".")
        # every second module is an activation
        letter, layer = (
            {"weight": "w", "bias": "b"}[kind],
            int(index) // 2,
        )
        params, twin = agent.state[net], {"q1_model": 0, "q2_model": 1}.get(module)
        name = f"time_{letter}{layer}" if module == "time_mlp" else f"{letter}{layer}"
        if module == "layer" and name == "w0":
            return [params[name][0] for name in ("w0a", "w0t", "w0s")]
        p = params[name][0] if twin is None else params[name][0, twin]
        return [p if letter == "w" else p[0]]

    def info(self, i: int) -> dict[str, float]:
        y = self.arrays.get(f"update{i}/info/target_y")
        return super().info(i) | ({} if y is None else {"target_q": float(y.mean())})

    def more(self, agent: Agent, i: int, metrics: dict[str, float]) -> list[str]:
        """Running statistics, in themselves and not by how far they have moved."""
        problems = []
        for name, ours in agent.state.get("running", {}).items():
            theirs = self.arrays.get(f"update{i}/info/running_q_{name}")
            if theirs is not None and abs(float(ours) - float(theirs)) > 1e-5 * abs(float(theirs)) + 1e-7:
                problems.append(
                    f"update {i + 1}: running {name} = {float(ours):.9g}, reference {float(theirs):.9g}"
                )
        return problems

    def draws(self, prefix: str, specs: list[Draw]) -> dict[str, Tensor]:
        numbers = [value for _, value in self.recorded(prefix)]
        return by_name(self.numbered(prefix, numbers), specs, f"{self.path}: {prefix}")

    def numbered(self, prefix: str, numbers: list[Tensor]) -> dict[str, Tensor]:
        """All of their draws under our names; takes them from the front of `numbers`."""
        raise NotImplementedError

    def chains(self, numbers: list[Tensor], scope: str, rows: int, copies: int = 1) -> dict[str, Tensor]:
        """Start and steps of k chains for each of so many rows: their row j rows + b is our row b k + j."""
        found = {}
        for name in ("x", *(f"z{t}" for t in reversed(range(self.meta["n_timesteps"])))):
            value = numbers.pop(0).repeat(copies, 1).unflatten(0, (-1, rows))
            found[scope + name] = value.transpose(0, 1).flatten(0, 1).unsqueeze(0)
        return found
