"""flow-rl's files of its QSM: which settings of `qsm` give it."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from algos.core.agent import Agent
from algos.core.cosine import OFFSET, T_MAX, T_MIN, CosineSchedule
from algos.core.noise import Draw
from bench.check.golden import Golden
from tests.golden_maps.references import last_layer, layer
from tests.golden_maps.renamed import renamed

NAMES = {
    "batch": "batch_size",
    "hidden_dims": "hidden",
    "critic_hidden_dims": "critic_hidden",
    "critic_activation": "critic_activation",
    "actor_lr": "actor_lr",
    "critic_lr": "critic_lr",
    "discount": "discount",
    "ema": "tau",
    "steps": "T",
    "time_dim": "time_dim",
    "explore_noise": "action_noise",
    "num_samples": "eval_candidates",
}
READ = {"temp", "clip_sampler", "end_lr", "lr_decay_steps", "lr_decay_begin"}
#: What their code fixes, and ours with it.
CONSTANTS = {
    "solver": "ddpm",
    "t_min": T_MIN,
    "t_max": T_MAX,
    "cosine_s": OFFSET,
    "cond_hidden": [128, 128],
    "grad_norm_eps": 1e-6,
}
SETTINGS = {
    "schedule": "continuous_cosine",
    "network": "flow_rl",
    "init": "orthogonal_sqrt2",
    "score_scale": True,
    "normalise_gradient": True,
    "gradient_critic": "target",
    "critic_loss": "mean",
    "target_noise": 0.0,
    "clip_behaviour": False,
    "actor_lr_decay": 0,
}


class Reader(Golden):
    algorithm = "qsm"
    METRICS = {
        "actor_loss": ("loss_actor_loss",),
        "critic_loss": ("loss_critic_loss",),
        "q": ("misc_q_mean",),
    }
    LOSS_RTOL = 3e-5
    MOMENTS_RTOL = 1e-4  # of Adam's averages, relative to the largest entry of the network

    def settings(self) -> dict[str, Any]:
        m = self.meta
        for name, value in CONSTANTS.items():
            if m[name] != value:
                raise ValueError(f"{name} = {m[name]!r}: ours is {value!r}")
        settings = renamed(m, NAMES, READ | CONSTANTS.keys()) | SETTINGS | {"M_q": 1 / m["temp"]}
        settings["clip_sampler"] = "x0_beta" if m["clip_sampler"] else "beta"
        if m["lr_decay_steps"] is not None:
            decay = {"fall": m["lr_decay_steps"], "hold": m["lr_decay_begin"], "end": m["end_lr"]}
            settings |= {f"actor_lr_{name}": value for name, value in decay.items()}
        return settings

    def batch(self, i: int) -> Any:
        terminal = self.arrays[f"update{i}/batch/terminal"]
        self.arrays[f"update{i}/batch/masks"] = 1 - terminal
        return super().batch(i)

    BATCH = ("obs", "action", "reward", "masks", "next_obs")

    def leaves(self, moment: str) -> dict[str, Tensor]:
        """Without Adam's averages, which `more` compares."""
        return {name: x for name, x in super().leaves(moment).items() if not name.startswith("adam_")}

    def is_slow(self, leaf: str) -> bool:
        return leaf.startswith("critic_target")

    def locate(self, agent: Agent, leaf: str) -> list[Tensor]:
        return self.located(agent, leaf, "")

    def located(self, agent: Agent, leaf: str, moment: str) -> list[Tensor]:
        """ "actor/noise_predictor/Dense_0/kernel", "critic_target/base/Dense_0/bias" ...; or its m or v of Adam."""
        net, module, *rest = leaf.split("/")
        kind = {"kernel": "w", "bias": "b"}[rest[-1]]
        part = {"critic_target": "target_critic"}.get(net, net)
        params = {
            name.removeprefix(moment): p
            for name, p in agent.state[part + (".adam" if moment else "")].items()
            if name.startswith(moment)
        }
        if module == "time_embedding":
            return [params["frequencies"][0]]
        number = int(rest[-2].removeprefix("Dense_"))
        if net != "actor":
            own = {name: p for name, p in params.items() if name[1:].isdigit()}
            return [
                layer(params, f"{kind}{number if rest[0] == 'backbone' else last_layer(own)}", slice(None))
            ]
        if module == "noise_predictor" and kind == "w" and number == 0:
            return [params[name][0] for name in ("w0a", "w0t", "w0s")]
        prefix = {"MLP_0": "time_", "cond_embedding": "state_", "noise_predictor": ""}[module]
        return [layer(params, f"{prefix}{kind}{number}")]

    def draws(self, prefix: str, specs: list[Draw]) -> dict[str, Tensor]:
        """Times as numbers from 0 to 1."""
        shift = lambda kind, x: (x - T_MIN) / (T_MAX - T_MIN) if kind == "uniform" else x  # noqa: E731
        return self.matched(prefix, [(kind, shift(kind, x)) for kind, x in self.recorded(prefix)], specs)

    def more(self, agent: Agent, i: int, metrics: dict[str, float]) -> list[str]:
        problems = []
        if i == 0:
            assert isinstance(agent.schedule, CosineSchedule)
            ours = (agent.schedule.start, *agent.schedule.alpha_bar)
            if not np.allclose(ours, self.arrays["schedule/alpha_hat"], rtol=1e-4, atol=0):
                problems.append("schedule: alpha_hat differs")
        for moment, short in (("adam_mu", "m."), ("adam_nu", "v.")):
            prefix = f"after{i + 1}/{moment}/"
            theirs = {
                key.removeprefix(prefix): self.tensor(key) for key in self.arrays if key.startswith(prefix)
            }
            for net in sorted({name.split("/")[0] for name in theirs}):
                largest = max(x.abs().max() for name, x in theirs.items() if name.startswith(net + "/"))
                for name, x in theirs.items():
                    if name.startswith(net + "/"):
                        ours = self.located(agent, name, short)
                        off = sum((a - b).abs().max() for a, b in zip(ours, x.split([len(v) for v in ours])))
                        if off > self.MOMENTS_RTOL * largest:
                            problems.append(
                                f"after update {i + 1}: {moment}/{name} is off {off / largest:.2g} of {net}'s"
                            )
        return problems
