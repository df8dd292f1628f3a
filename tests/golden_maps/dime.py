"""The DIME authors' files."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor

from algos.core.agent import Agent
from algos.core.noise import Draws
from bench.check.golden import joined
from tests.golden_maps.jax_authors import BatchRenormFiles

MOMENT_RTOL = 1e-4  # of Adam's averages, relative to the largest entry of the network's
ROW_RTOL = 3e-5


class Reader(BatchRenormFiles):
    algorithm = "dime"
    BATCH = ("observations", "actions", "rewards", "dones", "next_observations")
    METRICS = {
        "actor_loss": ("actor_loss",),
        "critic_loss": ("critic_loss",),
        "q_entropy": ("entrQ_1", "entrQ_2"),
        "path_cost": ("run_costs",),
        "temperature": ("ent_coef",),
    }
    MEANS = frozenset({"q_entropy"})
    NOTES = BatchRenormFiles.NOTES | {
        "repo", "dumps", "first_actor_update", "reward_scale", "jitter_actor", "jitter_last", "run_twice",
    }  # fmt: skip
    FIELDS = {
        "batch": "batch_size",
        "diff_steps": "T",
        "time_coder_out": "time_out",
        "critic_hs": "critic_hidden",
        "critic_activation": "critic_activation",
        "n_atoms": "distributional_atoms",
        "v_min": "distributional_low",
        "v_max": "distributional_high",
        "entr_coeff": "distributional_entropy",
        "bn_momentum": "crossq_momentum",
        "bn_epsilon": "crossq_eps",
        "bn_warmup": "crossq_warm_up",
        "r_max": "crossq_r_max",
        "d_max": "crossq_d_max",
        "lr_critic": "critic_lr",
        "lr_actor": "actor_lr",
        "lr_betas": "process_lr",
        "actor_grad_clip": "gradient_bound",
        "dt": "dt",
        "init_std": "prior_std",
        "friction": "friction",
        "sched_min": "dt_floor",
        "sched_s": "dt_shift",
        "sched_pow": "dt_power",
        "gamma": "discount",
        "policy_delay": "actor_delay",
        "policy_tau": "policy_tau",
        "ent0": "initial_temperature",
        "q_reduce": "actor_q",
    }
    FIXED = {"tau": 1.0}
    READ = frozenset({"num_layers", "num_hid", "adam_b1", "adam", "target_entropy"})

    def settings(self) -> dict[str, Any]:
        m = self.meta
        rate = m["adam"]["lr_ent_coef"]
        adam = {
            "b1_actor_critic": m["adam_b1"],
            "b1_ent_coef": 0.9,
            "lr_ent_coef": rate,
            "b2": 0.999,
            "eps": 1e-8,
        }
        if m["adam"] != adam:
            raise ValueError(f"Adam with {m['adam']}, ours is {adam}")
        return super().settings() | {
            "hidden": (m["num_hid"],) * m["num_layers"],
            "actor_beta1": m["adam_b1"],
            "crossq_beta1": m["adam_b1"],
            "temperature_lr": rate,
            "target_cost_per_dim": m["target_entropy"] / m["act_dim"],
        }

    # -- parameters ------------------------------------------------------------------------------------------------

    def leaves(self, moment: str) -> dict[str, Tensor]:
        """Without what the authors never train. Raises ValueError where that is not what ours has built in."""
        kept = {}
        for name, value in super().leaves(moment).items():
            net, _, last = name.partition("/")
            built_in = {"betas": 1.0, "prior_mean": 0.0, "prior_std": self.meta["init_std"], "mass_std": 1.0}
            if last in built_in:
                value = torch.nn.functional.softplus(value) if last.endswith("std") else value
                if not torch.allclose(value, torch.full_like(value, built_in[last])):
                    raise ValueError(f"{self.path}: {moment}/{name} is {value}, ours is {built_in[last]}")
            elif not net.startswith("adam_"):
                kept[name] = value
        return kept

    def locate(self, agent: Any, leaf: str) -> list[Tensor]:
        net, _, path = leaf.partition("/")
        if net == "ent_coef":
            return [agent.state["temperature"]["log"][0, 0]]
        if net.startswith("critic"):
            return [self.renorm_leaf(agent.state[net], path.removeprefix("VmapCritic_0/"))]
        process = agent.state[net.replace("actor", "process")]
        if path in ("dt", "friction"):
            return [process[path][0, 0]]
        params = agent.state[net]
        module, *rest = path.removeprefix("fwd_params/params/").split("/")
        if module == "timestep_phase":
            return [params["phases"][0]]
        index, kind = int(rest[0].removeprefix("layers_")), {"kernel": "w", "bias": "b"}[rest[-1]]
        if module == "time_coder_state":
            view = params[f"time_{kind}{index // 2}"][0]  # an activation lies between
        elif index == 0 and kind == "w":
            return [params[name][0] for name in ("w0a", "w0s", "w0t")]
        else:
            view = params[f"{kind}{index}"][0]
        return [view if kind == "w" else view[0]]

    # -- inputs and comparisons ------------------------------------------------------------------------------------

    def info(self, i: int) -> dict[str, float]:
        """The temperature is ours to report where it moves."""
        info = super().info(i)
        if (i + 1) % self.meta["policy_delay"]:
            del info["temperature"]
        return info

    def prepare(self, agent: Agent, i: int) -> None:
        """The target actor's action and its costs, as the update will find them."""
        batch = self.batch(i)
        specs = agent.update_draws(batch, agent.phase(agent.updates))
        draws = self.draws(f"update{i}", specs)
        params = agent.state["target_actor"] | agent.state["target_process"]
        with torch.no_grad():
            self.rows = agent.chain(params, batch.next_obs, Draws(draws).scope("target"))  # type: ignore[attr-defined]

    def more(self, agent: Agent, i: int, metrics: dict[str, float]) -> list[str]:
        problems = []
        for name, ours in zip(("next_action", "next_run_costs", "next_terminal_costs"), self.rows):
            theirs = self.tensor(f"update{i}/info/{name}")
            problems += self._far(f"update {i + 1}: {name}", ours.reshape(theirs.shape), theirs, ROW_RTOL)
        if i == 0:
            shares = self.tensor("schedule/delta_t_factor")
            ours = shares.new_tensor(agent.shares)  # type: ignore[attr-defined]
            problems += self._far("schedule: delta_t_factor", ours, shares, ROW_RTOL)
        return problems + (self._moments(agent, i + 1) if i + 1 in self.moments else [])

    def _moments(self, agent: Agent, n: int) -> list[str]:
        """Adam's two averages, which show the scale of a gradient; relative to the largest entry of each net."""
        problems = []
        for average, letter in (("adam_mu", "m"), ("adam_nu", "v")):
            nets: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
            state = {
                part.removesuffix(".adam"): {
                    name[2:]: x for name, x in moments.items() if name.startswith(f"{letter}.")
                }
                for part, moments in agent.state.items()
                if part.endswith(".adam")
            }
            for name, theirs in super().leaves(f"after{n}").items():
                kind, _, leaf = name.partition("/")
                if kind == average and leaf.rpartition("/")[2] not in (
                    "betas",
                    "prior_mean",
                    "prior_std",
                    "mass_std",
                ):
                    ours = joined(self.locate(types.SimpleNamespace(state=state), leaf))
                    lists = nets.setdefault(leaf.split("/")[0], ([], []))
                    for values, value in zip(lists, (ours, theirs)):
                        values.append(value.flatten())
            for net, (mine, theirs_) in nets.items():
                problems += self._far(
                    f"after update {n}: {average} of {net}", torch.cat(mine), torch.cat(theirs_), MOMENT_RTOL
                )
        return problems

    @staticmethod
    def _far(what: str, ours: Tensor, theirs: Tensor, rtol: float) -> list[str]:
        off, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
        return [] if off <= rtol * largest else [f"{what} is off by {off:.2g} (largest {largest:.2g})"]
