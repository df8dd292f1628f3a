"""Reads golden files and compares our agents with them: one update of a reference, number by number.

The format is described in tests/golden/README.md. Arrays have no seed axis; our agent is a pack of one seed.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos import agent_class
from algos.core.agent import Agent, Batch
from algos.core.noise import Draw

LOSS_RTOL = 1e-5
#: Float32 rounding of a batch mean of terms of order one, per action dimension, over which a log-probability sums:
#: decides only where a mean cancels to almost nothing.
LOSS_ATOL = 1e-6
PARAMETER_RTOL = 1e-3  # of the distance that the leaf has moved since `init`
SLOW_RTOL = (
    2e-2  # target and EMA networks: one step moves a weight by little more than its last float32 digits
)
ACTION_ATOL = 1e-5
SCHEDULE_ATOL = 2e-6  # references compute 1 - exp(-x) in float32

ALGORITHM = {"dql_bc": "dql-bc"}  # the name in `meta` where it differs from ours
STRUCTURE = {
    "algo",
    "obs_dim",
    "act_dim",
    "updates",
    "adam",
}  # keys of `meta` that are no setting of an algorithm
SETTING = {  # our name of a setting where it differs from the one in `meta`
    "batch": "batch_size",
    "actor_lr_decay_steps": "actor_lr_decay",
    "init_temperature": "initial_temperature",
    "temp_lr": "temperature_lr",
    "target_policy_noise": "target_noise",
    "target_policy_noise_clip": "target_noise_clip",
    "exploration_noise": "action_noise",
}
METRIC = {  # in `update{i}/info`: our metric -> the names whose sum or mean it is; anything else is not compared
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


class Golden:
    """One file: `meta`, the agent that it describes, and its arrays as tensors of `dtype` or int64.

    Raises:
        ValueError: the file lacks what `meta` announces, or has more.
    """

    def __init__(self, path: Path, dtype: torch.dtype):
        self.path, self.dtype = path, dtype
        with np.load(path, allow_pickle=False) as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}
        self.meta = json.loads(str(self.arrays.pop("meta")))
        groups = {key.split("/")[0] for key in self.arrays}
        self.moments = sorted(int(g.removeprefix("after")) for g in groups if g.startswith("after"))
        updates = {f"update{i}" for i in range(self.meta["updates"])}
        known = updates | {f"after{n}" for n in self.moments} | {"init", "act", "schedule"}
        if groups - known or (updates | {"init"}) - groups:
            raise ValueError(f"{path}: groups {sorted(groups)} do not fit {self.meta['updates']} updates")
        if not self.moments or not 1 <= self.moments[0] <= self.moments[-1] <= self.meta["updates"]:
            raise ValueError(f"{path}: no parameters after an update")

    def agent(self, execution: str = "eager") -> Agent:
        """Our agent with the file's dimensions and settings and its initial parameters."""
        agent = build(self.meta, self.dtype, execution)
        self.load(agent, "init")
        return agent

    # -- parameters ---------------------------------------------------------------------------------------------------

    def leaves(self, moment: str) -> dict[str, Tensor]:
        """ "<net>/<leaf>" -> array at "init", "after1", ...; weights as (in, out) whoever wrote them."""
        leaves = {}
        for key in self.arrays:
            if key.startswith(moment + "/"):
                value = self.tensor(key)
                torch_weight = key.endswith(".weight")
                leaves[key.removeprefix(moment + "/")] = value.T if torch_weight else value
        return leaves

    def load(self, agent: Agent, moment: str) -> None:
        """Writes the file's parameters into the agent; all of them, and nothing else, must be there.

        Raises:
            ValueError: shapes differ, or a parameter of ours is not in the file.
        """
        written = 0
        for name, value in self.leaves(moment).items():
            views = locate(agent, name)
            rows = [v.shape[0] for v in views] if value.dim() else [1]
            if value.shape != joined(views).shape:
                raise ValueError(
                    f"{self.path}: {name} is {tuple(value.shape)}, ours {tuple(joined(views).shape)}"
                )
            for view, part in zip(views, value.split(rows) if value.dim() else [value]):
                view.copy_(part)
            written += value.numel()
        ours = sum(p.numel() for part in networks(agent) for p in agent.state[part].values())
        if written != ours:
            raise ValueError(f"{self.path}: {written} parameters at {moment}, our {agent.name} has {ours}")

    # -- inputs -------------------------------------------------------------------------------------------------------

    def tensor(self, key: str) -> Tensor:
        value = torch.as_tensor(self.arrays[key])
        return value.to(self.dtype) if value.is_floating_point() else value.long()

    def batch(self, i: int) -> Batch:
        m = self.meta
        rows = lambda name, *shape: self.tensor(f"update{i}/batch/{name}").reshape(1, m["batch"], *shape)  # noqa: E731
        return Batch(
            rows("observations", m["obs_dim"]),
            rows("actions", m["act_dim"]),
            rows("rewards"),
            rows("masks"),
            rows("next_observations", m["obs_dim"]),
        )

    def draws(self, prefix: str, specs: list[Draw]) -> dict[str, Tensor]:
        """The recorded draws in their order, under the names that our algorithm declares in its order.

        Raises:
            ValueError: other kinds, numbers or ranges of draws than ours.
        """
        recorded = [key.split("/") for key in self.arrays if key.startswith(f"{prefix}/draw")]
        recorded.sort(key=lambda parts: int(parts[-2].removeprefix("draw")))  # "draw100" follows "draw99"
        if [parts[-1] for parts in recorded] != [spec.kind for spec in specs]:
            raise ValueError(f"{self.path}: {prefix} draws {[p[-1] for p in recorded]}, ours {specs}")
        draws = {}
        for parts, spec in zip(recorded, specs):
            value = self.tensor("/".join(parts)).reshape(1, *spec.shape)
            if spec.kind == "randint" and not bool(((value >= 0) & (value < spec.high)).all()):
                raise ValueError(f"{self.path}: {'/'.join(parts)} is not in [0, {spec.high})")
            draws[spec.name] = value
        return draws

    def update(self, agent: Agent, i: int) -> dict[str, float]:
        """One update with the file's batch and draws, which repeat after the last; the metrics."""
        j, phase = i % self.meta["updates"], agent.phase(i)
        batch = self.batch(j)
        arguments = (agent.state, batch, self.draws(f"update{j}", agent.update_draws(batch, phase)))
        metrics = agent.execution(("update", phase), agent.update_step, arguments, (phase,))
        return {name: float(value) for name, value in metrics.items()}

    def info(self, i: int) -> dict[str, float]:
        """The reference's losses and statistics of update i under our names."""
        prefix = f"update{i}/info/"
        theirs = {k.removeprefix(prefix): float(v) for k, v in self.arrays.items() if k.startswith(prefix)}
        info = {}
        for ours, names in METRIC.items():
            values = [theirs[name] for name in names if name in theirs]
            if values:
                info[ours] = sum(values) / (len(values) if ours == "q" else 1)
        return info


def build(meta: dict[str, Any], dtype: torch.dtype, execution: str = "eager") -> Agent:
    """Our agent with the dimensions and settings of a file's `meta`.

    Raises:
        ValueError: a key is no setting of the algorithm, or Adam is not ours.
    """
    cls = agent_class(ALGORITHM.get(meta["algo"], meta["algo"]))
    fields = {field.name for field in dataclasses.fields(cls.Config)}
    adam = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
    if meta["adam"] != adam:
        raise ValueError(f"Adam with {meta['adam']}, ours is {adam}")
    settings: dict[str, object] = {}
    for key, value in meta.items():
        if key in STRUCTURE:
            continue
        names = {SETTING.get(key, key)}
        if key == "lr":
            names = {"actor_lr", "temperature_lr"} & fields
            if meta["algo"] != "dql_bc":  # whose critics learn at 3e-4 whatever the actor's rate
                names |= {"critic_lr"}
        elif key == "target_entropy":
            names, value = {"target_entropy_per_dim"}, value / meta["act_dim"]
        if not names <= fields:
            raise ValueError(f"meta has {key!r}, which is no setting of {meta['algo']}")
        settings |= dict.fromkeys(names, tuple(value) if isinstance(value, list) else value)
    return cls(
        cls.Config(**settings), meta["obs_dim"], meta["act_dim"], [0], dtype=dtype, execution=execution
    )


def networks(agent: Agent) -> list[str]:
    """The parts of the state that are networks (or a temperature), not optimisers or flags."""
    return [part for part in agent.state if not part.endswith(".adam") and part != "health"]


def joined(views: list[Tensor]) -> Tensor:
    return views[0] if len(views) == 1 else torch.cat(views)


def locate(agent: Agent, leaf: str) -> list[Tensor]:
    """Where a reference's leaf lies in our state: views that, one below the other, have its layout (in, out).

    Raises:
        ValueError: no such leaf.
    """
    net, _, path = leaf.partition("/")
    part = {"score_model": "actor", "temp": "temperature"}.get(net, net)
    twin: int | slice = slice(None)
    if net.endswith(("_1", "_2")):  # the QSM authors' diffusion agents keep two single critics
        part, twin = net[:-2], int(net[-1]) - 1
    try:
        params = agent.state[part]
        if path == "log_temp":
            return [params["log"][0, 0]]
        if path.startswith("FourierFeatures"):
            return [params["frequencies"][0]]
        if "/" in path:
            return _flax(agent, params, net, path.removeprefix("VmapStateActionValue_0/").split("/"), twin)
        return _torch(params, path.split("."))
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{agent.name} has no parameter {leaf!r} ({error})") from error


def _flax(
    agent: Agent, params: dict[str, Tensor], net: str, path: list[str], twin: int | slice
) -> list[Tensor]:
    kind = {"kernel": "w", "bias": "b"}[path[-1]]
    last = _last(params)
    if path[0].startswith("OutputDense"):
        columns = {"Mean": slice(agent.act_dim), "LogStd": slice(agent.act_dim, None)}[path[0][11:]]
        view = params[f"{kind}{last}"][0, ..., columns]
        return [view if kind == "w" else view[..., 0, :]]
    index = last if path[0] == "Dense_0" else int(path[1].removeprefix("Dense_"))
    if net == "score_model" and path[0] == "MLP_0":
        return [_layer(params, f"time_{kind}{index}")]
    if net == "score_model" and kind == "w" and index == 0:
        return [params[name][0] for name in ("w0a", "w0s", "w0t")]
    return [_layer(params, f"{kind}{index}", twin if "critic" in net else None)]


def _torch(params: dict[str, Tensor], path: list[str]) -> list[Tensor]:
    module, *index, kind = path
    letter = {"weight": "w", "bias": "b"}[kind]
    layer = int(index[0]) // 2 if index else _last(params)  # every second module is an activation
    if module == "time_mlp":
        return [_layer(params, f"time_{letter}{layer}")]
    if module == "mid_layer" and letter == "w" and layer == 0:
        return [params[name][0] for name in ("w0a", "w0t", "w0s")]
    twin = {"q1_model": 0, "q2_model": 1, "mid_layer": None, "final_layer": None}[module]
    return [_layer(params, f"{letter}{layer}", twin)]


def _layer(params: dict[str, Tensor], name: str, twin: int | slice | None = None) -> Tensor:
    """Seed 0's weight or bias, biases without their row axis; of one critic, of both, or of a single network."""
    p = params[name][0] if twin is None else params[name][0, twin]
    return p[..., 0, :] if "b" in name else p


def _last(params: dict[str, Tensor]) -> int:
    return max(int(name[1:]) for name in params if name[0] == "b")


# -- the comparison ------------------------------------------------------------------------------------------


def compare(path: Path, dtype: torch.dtype) -> list[str]:
    """Everything in the file that our agent does not reproduce, one line each; empty if it reproduces all."""
    golden = Golden(path, dtype)
    agent = golden.agent()
    return compare_schedule(golden, agent) + compare_updates(golden, agent) + compare_actions(golden, agent)


def compare_updates(golden: Golden, agent: Agent) -> list[str]:
    """The losses of every update, and the parameters wherever the file has them; `agent` is at `init`."""
    problems, init = [], golden.leaves("init")
    for i in range(golden.meta["updates"]):
        problems += compare_losses(golden, i, golden.update(agent, i))
        if i + 1 in golden.moments:
            after = golden.leaves(f"after{i + 1}")
            problems += [
                p for name in after for p in compare_leaf(agent, i + 1, name, after[name], init[name])
            ]
    return problems


def compare_losses(golden: Golden, i: int, metrics: dict[str, float]) -> list[str]:
    problems = []
    for name, theirs in golden.info(i).items():
        if name == "actor_loss" and name not in metrics and theirs == 0.0:
            continue  # TD3's reference reports 0 for an update without an actor step
        ours = metrics.get(name, math.nan)
        if not abs(ours - theirs) <= max(LOSS_RTOL * abs(theirs), LOSS_ATOL * golden.meta["act_dim"]):
            problems.append(f"update {i + 1}: {name} = {ours:.9g}, reference {theirs:.9g}")
    return problems


def compare_leaf(agent: Agent, n: int, name: str, theirs: Tensor, init: Tensor) -> list[str]:
    """||ours - reference|| <= tolerance ||reference - init||: relative to the step, not to the parameter."""
    ours = joined(locate(agent, name))
    moved, off = (theirs - init).norm().item(), (ours - theirs).norm().item()
    slow = name.startswith(("target", "ema"))
    if off <= (SLOW_RTOL if slow else PARAMETER_RTOL) * moved:
        return []
    share = (
        f"{off / moved:.2g} of its movement" if moved else f"by {off:.2g}, but the reference did not move it"
    )
    return [f"after update {n}: {name} is off {share}"]


def compare_schedule(golden: Golden, agent: Agent) -> list[str]:
    ours = {"betas": "beta", "alphas": "alpha", "alpha_hats": "alpha_bar"}
    problems = []
    for key in golden.arrays:
        if key.startswith("schedule/"):
            name = key.removeprefix("schedule/")
            mine = np.array(getattr(agent.schedule, ours[name]))  # type: ignore[attr-defined]
            if mine.shape != golden.arrays[key].shape or abs(mine - golden.arrays[key]).max() > SCHEDULE_ATOL:
                problems.append(f"schedule: {name} differs")
    return problems


def compare_actions(golden: Golden, agent: Agent) -> list[str]:
    """The recorded actions of the final parameters: the authors' evaluation, and with exploration."""
    problems = []
    for key, mode in (("act/eval", agent.evaluation_mode), ("act/explore", "behaviour")):
        if f"{key}/action" not in golden.arrays:
            continue
        golden.load(
            agent, f"after{golden.meta['updates']}"
        )  # the file's, so that only the acting is compared
        obs = golden.tensor("act/observation").reshape(1, 1, -1)
        selection = agent.selection(mode)
        specs = agent.act_draws(obs, mode, selection)
        recorded = [k for k in golden.arrays if k.startswith(f"{key}/draw")]
        if recorded:
            draws = golden.draws(key, specs)
        else:  # the mean of a Gaussian uses none
            draws = {s.name: torch.zeros(1, *s.shape, dtype=golden.dtype) for s in specs}
        action = agent.act_step(agent.state, obs, draws, mode, selection).flatten()
        off = (action - golden.tensor(f"{key}/action").flatten()).abs().max().item()
        if not off <= ACTION_ATOL:
            problems.append(f"{key}: the action is off by {off:.2g}")
    return problems
