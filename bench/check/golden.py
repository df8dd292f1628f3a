"""Golden files: what another implementation computed on recorded inputs, and one of our agents on the same inputs.

A file (`.npz`) holds `meta` (JSON: dimensions and settings), `init/...` and `after<n>/...` (parameters before the
first and after the n-th update), `update<i>/batch/...`, `update<i>/draw<NN>/<kind>` (random numbers in the order in
which they were made), `update<i>/info/...` (what was reported), and `act/<how>/...` (an action and its draws). Arrays
have no seed axis; our agent is a pack of one seed. tests/golden/README.md describes the format.

A subclass of `Golden` says how one algorithm's names are ours:

    class Reader(Golden):
        algorithm = "my-algo"
        METRICS = {"critic_loss": ("q1_loss", "q2_loss")}

        def settings(self): return {"batch_size": self.meta["batch"], "T": self.meta["T"]}
        def locate(self, agent, leaf): ...

    assert compare(Reader(path, torch.float64)) == []  # bench/check/golden_comparison.py
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from algos.core.agent import Agent, Batch
from algos.core.noise import Draw
from bench.studies.overrides import agent_class


class Golden:
    """One file: `meta`, and its arrays as tensors of `dtype` or int64.

    Raises:
        ValueError: the file lacks what `meta` announces, or has more.
    """

    algorithm: ClassVar[str]  # in our registry
    GROUPS: ClassVar[set[str]] = {"init", "act", "schedule"}  # beside update<i> and after<n>
    #: Our metric -> the reference's names whose sum it is.
    METRICS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    MEANS: ClassVar[frozenset[str]] = frozenset({"q"})  # of our metrics that are means of those names
    #: The file's actions -> our mode; None: the algorithm's own evaluation.
    MODES: ClassVar[Mapping[str, str | None]] = {"eval": None, "explore": "behaviour"}
    SCHEDULE: ClassVar[Mapping[str, str]] = {"betas": "beta", "alphas": "alpha", "alpha_hats": "alpha_bar"}
    #: Names of observations, actions, rewards, masks (or `dones`), next observations in `update<i>/batch`.
    BATCH: ClassVar[tuple[str, ...]] = ("observations", "actions", "rewards", "masks", "next_observations")
    UNRECORDED: ClassVar[tuple[str, ...]] = ()  # parts of our state that no file has

    LOSS_RTOL: ClassVar[float] = 1e-5
    #: Float32 rounding of a batch mean of terms of order one, per action dimension, over which a log-probability sums:
    #: decides only where a mean cancels to almost nothing.
    LOSS_ATOL: ClassVar[float] = 1e-6
    LEAF_RTOL: ClassVar[float] = 1e-3  # of the distance that the leaf has moved since `init`
    # Target and EMA networks, where a step is little more than float32's last digits
    SLOW_RTOL: ClassVar[float] = 2e-2
    #: Allow the rounding of the leaf itself in float32, once per update: the file's, whatever our own precision is.
    FLOAT32_FLOOR: ClassVar[bool] = False
    #: So many entries of a leaf may be off by up to OUTLIER_ATOL: where a gradient is as small as Adam's epsilon, its
    #: rounding in the reference decides the step. In leaves of at least OUTLIER_LEAF entries.
    OUTLIERS: ClassVar[int] = 0
    OUTLIER_ATOL: ClassVar[float] = 2e-4
    OUTLIER_LEAF: ClassVar[int] = 16
    ACTION_ATOL: ClassVar[float] = 1e-5
    SCHEDULE_ATOL: ClassVar[float] = 2e-6  # references compute 1 - exp(-x) in float32

    def __init__(self, path: Path, dtype: torch.dtype, device: str = "cpu"):
        self.path, self.dtype, self.device = path, dtype, device
        with np.load(path, allow_pickle=False) as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}
        self.meta = json.loads(str(self.arrays.pop("meta")))
        groups = {key.split("/")[0] for key in self.arrays}
        self.moments = sorted(int(g.removeprefix("after")) for g in groups if g.startswith("after"))
        updates = {f"update{i}" for i in range(self.meta["updates"])}
        known = updates | {f"after{n}" for n in self.moments} | self.GROUPS
        if groups - known or (updates | {"init"}) - groups:
            raise ValueError(f"{path}: groups {sorted(groups)} do not fit {self.meta['updates']} updates")
        if not self.moments or not 1 <= self.moments[0] <= self.moments[-1] <= self.meta["updates"]:
            raise ValueError(f"{path}: no parameters after an update")

    # -- what differs from one reference to the next ---------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """The fields of our Config that `meta` sets. Raises ValueError for a key that is not a setting."""
        raise NotImplementedError

    def locate(self, agent: Agent, leaf: str) -> list[Tensor]:
        """Where the leaf "<net>/..." lies in our state: views that, one below the other, have its layout (in, out).

        Raises:
            KeyError, IndexError or ValueError: no such leaf.
        """
        raise NotImplementedError

    def is_slow(self, leaf: str) -> bool:
        """Whether a leaf belongs to an averaged network."""
        return leaf.startswith(("target", "ema"))

    def prepare(self, agent: Agent, i: int) -> None:
        """What happens before update i and its draws, such as an observation that moves running statistics."""

    def batch(self, i: int) -> Batch:
        """The batch of update i, fields (1, rows, ...)."""
        obs, action, reward, mask, next_obs = self.BATCH
        m = self.meta
        rows = lambda name, *shape: self.tensor(f"update{i}/batch/{name}").reshape(1, m["batch"], *shape)  # noqa: E731
        continues = 1 - rows(mask) if mask in ("done", "dones", "terminated") else rows(mask)
        return Batch(
            rows(obs, m["obs_dim"]),
            rows(action, m["act_dim"]),
            rows(reward),
            continues,
            rows(next_obs, m["obs_dim"]),
        )

    def draws(self, prefix: str, specs: list[Draw]) -> dict[str, Tensor]:
        """The recorded draws in their order, under the names that our algorithm declares in its order.

        An action without recorded draws (the mean of a Gaussian) uses none.

        Raises:
            ValueError: other kinds, numbers or ranges of draws than ours.
        """
        recorded = self.recorded(prefix)
        if not recorded and prefix.startswith("act/"):
            return {
                spec.name: torch.zeros(1, *spec.shape, dtype=self.dtype, device=self.device) for spec in specs
            }
        return self.matched(prefix, recorded, specs)

    def recorded(self, prefix: str) -> list[tuple[str, Tensor]]:
        """(kind, numbers) of every draw below `prefix`, in order."""
        keys = [key for key in self.arrays if key.startswith(f"{prefix}/draw")]
        keys.sort(key=lambda key: int(key.split("/")[-2].removeprefix("draw")))  # "draw100" follows "draw99"
        return [(key.split("/")[-1], self.tensor(key)) for key in keys]

    def matched(
        self, prefix: str, recorded: list[tuple[str, Tensor]], specs: list[Draw]
    ) -> dict[str, Tensor]:
        """Recorded numbers under our names. Raises ValueError where they differ from what ours asks for."""
        kinds = [spec.kind for spec in specs]
        if [kind for kind, _ in recorded] != kinds:
            raise ValueError(f"{self.path}: {prefix} draws {[kind for kind, _ in recorded]}, ours {specs}")
        draws = {}
        for (_, numbers), spec in zip(recorded, specs):
            if numbers.numel() != math.prod(spec.shape):
                raise ValueError(f"{self.path}: {prefix} draws {tuple(numbers.shape)}, ours {spec}")
            value = numbers.reshape(1, *spec.shape)
            if spec.kind == "randint" and not bool(((value >= 0) & (value < spec.high)).all()):
                raise ValueError(f"{self.path}: {prefix}: {spec.name} is not in [0, {spec.high})")
            draws[spec.name] = value
        return draws

    def info(self, i: int) -> dict[str, float]:
        """The reference's losses and statistics of update i under our names; what it does not name is not compared."""
        prefix = f"update{i}/info/"
        info = {}
        for ours, names in self.METRICS.items():
            values = [float(self.arrays[prefix + name]) for name in names if prefix + name in self.arrays]
            if values:
                info[ours] = sum(values) / (len(values) if ours in self.MEANS else 1)
        return info

    def more(self, agent: Agent, i: int, metrics: dict[str, float]) -> list[str]:
        """Further comparisons after update i (counted from 0), one line for each difference."""
        return []

    # -- what is the same for all ----------------------------------------------------------------------------------

    def tensor(self, key: str) -> Tensor:
        value = torch.as_tensor(self.arrays[key], device=self.device)
        return value.to(self.dtype) if value.is_floating_point() else value.long()

    def build(self, execution: str = "eager") -> Agent:
        """Our agent with the file's dimensions and settings, as it is initialised."""
        cls = agent_class(self.algorithm)
        dims = self.meta["obs_dim"], self.meta["act_dim"]
        how = {"dtype": self.dtype, "device": self.device, "execution": execution}
        return cls(cls.Config(**self.settings()), *dims, [0], **how)

    def agent(self, execution: str = "eager") -> Agent:
        """Our agent with the file's dimensions and settings and its initial parameters."""
        agent = self.build(execution)
        self.load(agent, "init")
        return agent

    def leaves(self, moment: str) -> dict[str, Tensor]:
        """ "<net>/<leaf>" -> array at "init", "after1", ...; weights as (in, out) whoever wrote them."""
        leaves = {}
        for key in self.arrays:
            if key.startswith(moment + "/"):
                value = self.tensor(key)
                leaves[key.removeprefix(moment + "/")] = value.T if key.endswith(".weight") else value
        return leaves

    def ours(self, agent: Agent, leaf: str) -> Tensor:
        """Our values of a leaf. Raises ValueError: no such leaf."""
        return joined(self._located(agent, leaf))

    def _located(self, agent: Agent, leaf: str) -> list[Tensor]:
        try:
            return self.locate(agent, leaf)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"{agent.name} has no parameter {leaf!r} ({error})") from error

    def load(self, agent: Agent, moment: str) -> None:
        """Writes the file's parameters into the agent; all of them, and nothing else, must be there.

        Raises:
            ValueError: shapes differ, or a parameter of ours is not in the file.
        """
        written = 0
        for name, value in self.leaves(moment).items():
            views = self._located(agent, name)
            rows = [v.shape[0] for v in views] if value.dim() else [1]
            if value.shape != joined(views).shape:
                raise ValueError(
                    f"{self.path}: {name} is {tuple(value.shape)}, ours {tuple(joined(views).shape)}"
                )
            for view, part in zip(views, value.split(rows) if value.dim() else [value]):
                view.copy_(part)
            written += value.numel()
        parts = [part for part in networks(agent) if part not in self.UNRECORDED]
        ours = sum(p.numel() for part in parts for p in agent.state[part].values())
        if written != ours:
            raise ValueError(f"{self.path}: {written} parameters at {moment}, our {agent.name} has {ours}")

    def update(self, agent: Agent, i: int) -> dict[str, float]:
        """One update with the file's batch and draws, which repeat after the last; the metrics.

        What repeats has the phase of this update, since draws may depend on it.
        """
        recorded, phase = range(self.meta["updates"]), agent.phase(i)
        alike = [j for j in recorded if agent.phase(j) == phase] or recorded
        j = i if i in recorded else alike[i % len(alike)]
        self.prepare(agent, j)
        batch = self.batch(j)
        draws = self.draws(f"update{j}", agent.update_draws(batch, phase))
        agent.count.fill_(i)
        metrics = agent.execution(("update", phase), agent.update_step, (agent.state, batch, draws), (phase,))
        agent.updates = i + 1
        return {name: float(value) for name, value in metrics.items()}

    def act(self, agent: Agent, how: str) -> Tensor:
        """The action of `act/<how>` with the file's last parameters, flat."""
        self.load(agent, f"after{self.meta['updates']}")  # the file's, so that only the acting is compared
        mode = self.MODES[how] or agent.evaluation_mode
        obs = self.tensor("act/observation").reshape(1, -1, self.meta["obs_dim"])
        selection = agent.selection(mode)
        draws = self.draws(f"act/{how}", agent.act_draws(obs, mode, selection))
        return agent.act_step(agent.state, obs, draws, mode, selection).flatten()


def networks(agent: Agent) -> list[str]:
    """The parts of the state that are networks (or a temperature), not optimisers or flags."""
    return [part for part in agent.state if not part.endswith(".adam") and part != "health"]


def joined(views: list[Tensor]) -> Tensor:
    return views[0] if len(views) == 1 else torch.cat(views)
