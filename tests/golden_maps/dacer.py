"""The DACER authors' files, in haiku."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from algos.core.agent import Agent
from algos.core.noise import Draw
from bench.check.golden import Golden
from tests.golden_maps.references import layer
from tests.golden_maps.renamed import renamed

NAMES = {
    "num_timesteps": "T",
    "gamma": "discount",
    "tau": "tau",
    "batch": "batch_size",
    "hidden": "hidden",
    "activation": "critic_activation",
    "action_noise": "action_noise",
    "lr": ("actor_lr", "critic_lr"),
    "alpha_lr": "alpha_lr",
    "delay_update": "actor_delay",
    "delay_alpha_update": "alpha_delay",
    "reward_scale": "reward_scale",
    "num_samples": "entropy_samples",
    "q_loss_epsilon": "variance_floor",
    "z_clip": "z_clip",
    "td_clip_stds": "td_clip",
    "time_dim": "time_dim",
    "beta_schedule": "schedule",
}
READ = {"time_hidden", "target_entropy", "init_log_alpha", "init_mean_q_std", "gmm"}


class Reader(Golden):
    algorithm = "dacer"
    BATCH = ("obs", "action", "reward", "done", "next_obs")
    METRICS = {
        "actor_loss": ("policy_loss",),
        "critic_loss": ("q1_loss", "q2_loss"),
        "q": ("q1_mean", "q2_mean"),
        "q_std": ("q1_std", "q2_std"),
        "alpha": ("alpha",),
        "entropy": ("entropy",),
    }
    MEANS = frozenset({"q", "q_std"})
    SCHEDULE = {"betas": "beta", "alphas": "alpha", "alphas_cumprod": "alpha_bar"}
    LOSS_RTOL = 3e-5

    def settings(self) -> dict[str, Any]:
        m = self.meta
        if m["gmm"]["covariance_type"] != "full" or m["time_hidden"] != 2 * m["time_dim"]:
            raise ValueError(
                "expected a mixture with full covariances and a time network of twice its features"
            )
        return renamed(m, NAMES, READ) | {
            "initial_alpha": math.exp(m["init_log_alpha"]),
            "target_entropy_per_dim": m["target_entropy"] / m["act_dim"],
            "mixture_components": m["gmm"]["n_components"],
            "mixture_seed": m["gmm"]["random_state"],
        }

    def leaves(self, moment: str) -> dict[str, Tensor]:
        """Without the entropy of their last estimate and their count of updates, which are no parameters of ours."""
        return {name: x for name, x in super().leaves(moment).items() if name not in ("entropy", "step")}

    def is_slow(self, leaf: str) -> bool:
        return leaf.startswith(("target", "mean_q"))

    def locate(self, agent: Agent, leaf: str) -> list[Tensor]:
        """ "log_alpha", "mean_q1_std", "target_q2/<module>/linear_3/w", "policy/<module>/linear/b" ..."""
        net, *path = leaf.split("/")
        if net == "log_alpha":
            return [agent.state["alpha"]["log"][0, 0]]
        if net.startswith("mean_q"):
            return [agent.state["critic_stats"]["width"][0, int(net[6]) - 1]]
        kind, number = path[-1], int(path[-2].removeprefix("linear").lstrip("_") or 0)
        if net != "policy":
            part = "target_critic" if net.startswith("target") else "critic"
            return [layer(agent.state[part], f"{kind}{number}", int(net[-1]) - 1)]
        params = agent.state["actor"]
        if number < 2:
            return [layer(params, f"time_{kind}{number}")]
        if kind == "w" and number == 2:
            return [params[part][0] for part in ("w0s", "w0a", "w0t")]
        return [layer(params, f"{kind}{number - 2}")]

    def draws(self, prefix: str, specs: list[Draw]) -> dict[str, Tensor]:
        """A chain's steps lie in one array, t = T-1 first; those of an entropy have an axis of samples in front.

        The reference draws for the actor in every update, ours where it moves, and before the critics' draws.
        """
        recorded = [value for _, value in self.recorded(prefix)]
        scopes = ["target.", "critic", "entropy.", "actor."]
        if prefix.startswith("act/"):
            scopes = [""]
        elif len(recorded) == 8:
            scopes.remove("entropy.")
        A, values = self.meta["act_dim"], {}
        rows = lambda x: (x.movedim(0, -2) if x.dim() == 3 else x).reshape(1, -1, A)  # noqa: E731
        for scope in scopes:
            if scope == "critic":
                values |= {f"z{k}": recorded.pop(0)[None] for k in range(2)}
                continue
            x, steps, noise = recorded.pop(0), recorded.pop(0), recorded.pop(0)
            values |= {f"{scope}x": rows(x), f"{scope}noise": rows(noise), "exploration": rows(noise)}
            steps = steps.movedim(-3 if x.dim() > 1 else 0, 0)  # (T, ...)
            values |= {f"{scope}z{len(steps) - 1 - k}": rows(z) for k, z in enumerate(steps)}
        if recorded:
            raise ValueError(f"{self.path}: {prefix} draws {len(recorded)} arrays more than ours")
        return self.matched(prefix, [(spec.kind, values[spec.name]) for spec in specs], specs)

    def info(self, i: int) -> dict[str, float]:
        """What the reference computes, or keeps from before, in updates in which ours computes nothing."""
        delay = {"actor_loss": self.meta["delay_update"], "entropy": self.meta["delay_alpha_update"]}
        return {name: x for name, x in super().info(i).items() if i % delay.get(name, 1) == 0}

    def more(self, agent: Agent, i: int, metrics: dict[str, float]) -> list[str]:
        if i > 0:
            return []
        schedule, theirs = agent.schedule, self.arrays["schedule/posterior_variance"]
        abar = np.array(schedule.alpha_bar)
        ours = np.array(schedule.beta) * (1 - np.append(1.0, abar[:-1])) / (1 - abar)
        return (
            []
            if np.abs(ours - theirs).max() <= self.SCHEDULE_ATOL
            else ["schedule: posterior_variance differs"]
        )
