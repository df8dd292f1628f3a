"""An agent's losses, parameters and actions against those of a golden file, within the file's tolerances."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from algos.core.agent import Agent
from bench.check.golden import Golden

FLOAT32_DIGIT = 6e-8  # half the distance of 1 from the next float32


def compare(golden: Golden) -> list[str]:
    """Everything in the file that our agent does not reproduce, one line each; empty if it reproduces all."""
    agent = golden.agent()
    return compare_schedule(golden, agent) + compare_updates(golden, agent) + compare_actions(golden, agent)


def compare_updates(golden: Golden, agent: Agent) -> list[str]:
    """The losses of every update, and the parameters wherever the file has them; `agent` is at `init`."""
    problems, init = [], golden.leaves("init")
    for i in range(golden.meta["updates"]):
        metrics = golden.update(agent, i)
        problems += compare_losses(golden, i, metrics) + golden.more(agent, i, metrics)
        if i + 1 in golden.moments:
            for name, theirs in golden.leaves(f"after{i + 1}").items():
                problems += compare_leaf(golden, agent, i + 1, name, theirs, init[name])
    return problems


def compare_losses(golden: Golden, i: int, metrics: dict[str, float]) -> list[str]:
    problems = []
    for name, theirs in golden.info(i).items():
        if name == "actor_loss" and name not in metrics and theirs == 0.0:
            continue  # references with a delay report 0 for an update without an actor step
        ours = metrics.get(name, math.nan)
        allowed = max(golden.LOSS_RTOL * abs(theirs), golden.LOSS_ATOL * golden.meta["act_dim"])
        if not abs(ours - theirs) <= allowed:
            problems.append(f"update {i + 1}: {name} = {ours:.9g}, reference {theirs:.9g}")
    return problems


def compare_leaf(golden: Golden, agent: Agent, n: int, name: str, theirs: Tensor, init: Tensor) -> list[str]:
    """||ours - reference|| <= tolerance ||reference - init||: relative to the step, not to the parameter."""
    moved = (theirs - init).norm().item()
    differences = (golden.ours(agent, name) - theirs).abs().flatten()
    if golden.OUTLIERS and differences.numel() >= golden.OUTLIER_LEAF:
        differences = differences.sort().values
        if differences[-1] <= golden.OUTLIER_ATOL:
            differences = differences[: -golden.OUTLIERS]
    off = differences.norm().item()
    allowed = (golden.SLOW_RTOL if golden.is_slow(name) else golden.LEAF_RTOL) * moved
    if golden.FLOAT32_FLOOR:
        allowed = max(allowed, FLOAT32_DIGIT * n * theirs.norm().item())
    if off <= allowed:
        return []
    share = (
        f"{off / moved:.2g} of its movement" if moved else f"by {off:.2g}, but the reference did not move it"
    )
    return [f"after update {n}: {name} is off {share}"]


def compare_schedule(golden: Golden, agent: Agent) -> list[str]:
    problems = []
    for name, ours in golden.SCHEDULE.items():
        theirs = golden.arrays.get(f"schedule/{name}")
        if theirs is not None:
            mine = np.array(getattr(agent.schedule, ours))  # type: ignore[attr-defined]
            if mine.shape != theirs.shape or abs(mine - theirs).max() > golden.SCHEDULE_ATOL:
                problems.append(f"schedule: {name} differs")
    return problems


def compare_actions(golden: Golden, agent: Agent) -> list[str]:
    """The recorded actions of the file's last parameters.

    Raises:
        ValueError: the file has an action whose mode is not in `MODES`.
    """
    problems = []
    recorded = {
        key.split("/")[1] for key in golden.arrays if key.startswith("act/") and key.endswith("/action")
    }
    if recorded - golden.MODES.keys():
        raise ValueError(
            f"{golden.path}: actions {sorted(recorded - golden.MODES.keys())} have no mode of ours"
        )
    for how in sorted(recorded):
        theirs = golden.tensor(f"act/{how}/action").flatten()
        off = (golden.act(agent, how) - theirs).abs().max().item()
        if not off <= golden.ACTION_ATOL:
            problems.append(f"act/{how}: the action is off by {off:.2g}")
    return problems
