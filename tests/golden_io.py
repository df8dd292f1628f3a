"""Reads the golden files: one update of a reference implementation, number by number (see tests/golden/README.md)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from algos import agent_class
from algos.agent import Agent, Batch
from algos.noise import Draw, Draws

ALGORITHM = {"dql_bc": "dql-bc"}  # the name in `meta` where it differs from ours
CONFIG_FIELD = {"lr": ("actor_lr", "critic_lr"), "actor_delay": ("actor_delay",)}
RENAMED = {
    "target_policy_noise": "target_noise",
    "target_policy_noise_clip": "target_noise_clip",
    "exploration_noise": "action_noise",
    "batch": "batch_size",
}


class Golden:
    """One file: `meta`, the agent that it describes, and its arrays as tensors with a seed axis of length one."""

    def __init__(self, path: Path, dtype: torch.dtype):
        self.arrays = np.load(path, allow_pickle=False)
        self.meta = json.loads(str(self.arrays["meta"]))
        self.dtype = dtype

    def agent(self, execution: str = "eager") -> Agent:
        """Our agent with the file's dimensions and settings and its initial parameters."""
        cls = agent_class(ALGORITHM.get(self.meta["algo"], self.meta["algo"]))
        fields = {f.name for f in dataclasses.fields(cls.Config)}
        settings = {}
        for key, value in self.meta.items():
            key = RENAMED.get(key, key)
            if key in fields:
                settings[key] = tuple(value) if isinstance(value, list) else value
        settings["actor_lr"] = settings["critic_lr"] = self.meta["lr"]
        if "temperature_lr" in fields:
            settings["temperature_lr"] = self.meta["lr"]
        if "target_entropy" in self.meta:
            settings["target_entropy_per_dim"] = self.meta["target_entropy"] / self.meta["act_dim"]
        agent = cls(
            cls.Config(**settings), self.meta["obs_dim"], self.meta["act_dim"], [0], dtype=self.dtype, execution=execution
        )
        for part, leaves in self.parameters("init").items():
            ours = our_leaves(agent.state[part])
            assert ours.keys() == leaves.keys(), part
            write_leaves(agent.state[part], leaves)
        return agent

    def parameters(self, moment: str) -> dict[str, dict[str, Tensor]]:
        """The file's parameters at "init", "after1" or "after4": part -> leaf -> tensor in our layout."""
        parts: dict[str, dict[str, Tensor]] = {}
        for key in self.arrays.files:
            if key.startswith(moment + "/"):
                _, net, leaf = key.split("/", 2)
                part, name, value = _translate(net, leaf, self.tensor(key))
                parts.setdefault(part, {}).setdefault(name, value)
        return {part: _stack_twins(leaves) for part, leaves in parts.items()}

    def tensor(self, key: str) -> Tensor:
        value = torch.as_tensor(self.arrays[key])
        return value.to(self.dtype) if value.is_floating_point() else value.long()

    def batch(self, i: int) -> Batch:
        of = lambda name: self.tensor(f"update{i}/batch/{name}")  # noqa: E731
        return Batch(
            *(of(name)[None] for name in ("observations", "actions")),
            *(of(name).reshape(1, -1) for name in ("rewards", "masks")),
            of("next_observations")[None],
        )

    def draws(self, prefix: str, specs: list[Draw]) -> Draws:
        """The recorded draws in their order, under the names that our algorithm declares in its order."""
        keys = sorted(k for k in self.arrays.files if k.startswith(f"{prefix}/draw"))
        assert [key.rsplit("/", 1)[1] for key in keys] == [spec.kind for spec in specs]
        return {spec.name: self.tensor(key).reshape(1, *spec.shape) for key, spec in zip(keys, specs)}

    def info(self, i: int) -> dict[str, float]:
        prefix = f"update{i}/info/"
        return {k.removeprefix(prefix): float(self.arrays[k]) for k in self.arrays.files if k.startswith(prefix)}


def our_leaves(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters under the names of `parameters`: the parts of the first layer joined as the references have them."""
    leaves = dict(params)
    if "w0a" in leaves:
        parts = [leaves.pop(name) for name in _first_layer(params)]
        leaves["w0"] = torch.cat(parts, 1)
    return leaves


def write_leaves(params: dict[str, Tensor], leaves: dict[str, Tensor]) -> None:
    for name, value in leaves.items():
        if name == "w0" and "w0a" in params:
            order = _first_layer(params)
            for part, rows in zip(order, value.split([params[n].shape[1] for n in order], 1)):
                params[part].copy_(rows)
        else:
            params[name].copy_(value)


def _first_layer(params: dict[str, Tensor]) -> tuple[str, ...]:
    """The order of the concatenated input: action, state, time in the JAX code; action, time, state in the PyTorch code."""
    return ("w0a", "w0s", "w0t") if "frequencies" in params else ("w0a", "w0t", "w0s")


def _translate(net: str, leaf: str, value: Tensor) -> tuple[str, str, Tensor]:
    """(part, leaf name, tensor with a seed axis) in our state for one array of a golden file."""
    part = {"score_model": "actor", "temp": "temperature"}.get(net, net)
    twin = ""
    if part[-2:] in ("_1", "_2"):  # the QSM authors' critics are two networks
        part, twin = part[:-2], f"{part[-1]}:"
    if leaf == "log_temp":
        return part, "log", value.reshape(1, 1)
    if "/" in leaf:
        return part, twin + _flax_name(net, leaf), _flax_value(leaf, value)
    module, index, kind = _torch_name(leaf)
    if module.startswith("q"):
        twin = f"{module[1]}:"
    prefix = "time_" if module == "time_mlp" else ""
    value = value.T if kind == "weight" else value[None]
    return part, f"{twin}{prefix}{'w' if kind == 'weight' else 'b'}{index}", value[None]


def _flax_name(net: str, leaf: str) -> str:
    if leaf.startswith("FourierFeatures"):
        return "frequencies"
    path = leaf.removeprefix("VmapStateActionValue_0/").split("/")
    letter = "w" if path[-1] == "kernel" else "b"
    if path[0].startswith("OutputDense"):
        return f"{letter}:{path[0]}"
    if path[0].startswith("Dense"):
        return f"{letter}:last"
    index = path[1].removeprefix("Dense_")
    return f"time_{letter}{index}" if net == "score_model" and path[0] == "MLP_0" else letter + index


def _flax_value(leaf: str, value: Tensor) -> Tensor:
    if leaf.endswith("bias"):
        value = value.unsqueeze(-2)  # (out) -> (1, out)
    return value[None]


def _torch_name(leaf: str) -> tuple[str, int, str]:
    module, *index, kind = leaf.split(".")
    if module == "final_layer":
        return module, -1, kind
    return module, int(index[0]) // 2, kind


def _stack_twins(leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Joins separate twins and heads, and numbers the last layers."""
    if any(name.startswith("1:") for name in leaves):
        names = [name[2:] for name in leaves if name.startswith("1:")]
        leaves = {name: torch.stack([leaves[f"1:{name}"], leaves[f"2:{name}"]], 1) for name in names}
    last = 1 + max((int(name[1:]) for name in leaves if name[0] in "wb" and name[1:].isdigit()), default=-1)
    out: dict[str, Tensor] = {}
    for name, value in leaves.items():
        head = name.partition(":")[2]
        if head == "OutputDenseLogStd":
            continue  # joined to its neighbour below
        if head == "OutputDenseMean" and f"{name[0]}:OutputDenseLogStd" in leaves:
            value = torch.cat([value, leaves[f"{name[0]}:OutputDenseLogStd"]], -1)
        out[f"{name[0]}{last}" if head else name.replace("-1", str(last))] = value
    return out
