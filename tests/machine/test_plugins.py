"""Algorithms of packages: names that are refused, what a mistake is reported as, what is recorded of their code."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import algos
from algos.core.agent import Agent, ContractError
from bench.errors import UserError
from bench.failures import reason
from bench.machine import plugins
from bench.studies import overrides as config
from bench.studies.overrides import agent_class, algorithm_config
from tests.algos.small import ACT_DIM, OBS_DIM, random_batch

CODE = """
import torch
from algos.td3 import TD3

class Mine(TD3):
    name = "mine"
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs packages, each with entry points {name: "module:class"} and modules {name: code}."""
    monkeypatch.syspath_prepend(tmp_path)

    def clear() -> None:
        algos.registry.cache_clear()
        algos.offered.cache_clear()
        config._default.cache_clear()

    def install(package: str, points: dict[str, str], **modules: str) -> None:
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {place}\n" for name, place in points.items())
        (info / "entry_points.txt").write_text(f"[{algos.ENTRY_POINTS}]\n{lines}")
        for name, code in modules.items():
            (tmp_path / f"{name}.py").write_text(code)
        importlib.invalidate_caches()
        clear()

    before = set(sys.modules)
    clear()
    yield install
    clear()
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def refusal(name: str) -> str:
    with pytest.raises(UserError) as caught:
        agent_class(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_name_means_one_algorithm(install: Callable[..., None]) -> None:
    install("one", {"mine": "own_one:Mine", "sac": "own_one:Mine", "other": "own_one:Mine"}, own_one=CODE)
    install("two", {"other": "own_one:Mine"})
    assert agent_class("mine").name == "mine"
    assert "one offers an algorithm of this built-in name: rename its entry point" in refusal("sac")
    assert "one and two offer it 2 times: uninstall all but one" in refusal("other")
    assert agent_class("td3").name == "td3"  # the others are as before


def test_an_entry_point_has_the_name_of_its_class(install: Callable[..., None]) -> None:
    install("one", {"yours": "own_one:Mine"}, own_one=CODE)
    assert "own_one:Mine is named 'mine': expected 'yours'" in refusal("yours")


def test_a_config_that_raises_anything_is_one_line(install: Callable[..., None]) -> None:
    code = (
        CODE + "    class Config(TD3.Config):\n        def __post_init__(self):\n            {}[self.tau]\n"
    )
    code = code.replace(
        "    class Config",
        "    from dataclasses import dataclass\n    @dataclass(frozen=True)\n    class Config",
    )
    install("one", {"mine": "own_one:Mine"}, own_one=code)
    with pytest.raises(
        UserError, match=r"has no usable Config: KeyError: 0.005 \(own_one.py:\d+, __post_init__\)"
    ):
        algorithm_config("mine", {})


def agent(install: Callable[..., None], body: str) -> Agent:
    install("one", {"mine": "own_one:Mine"}, own_one=CODE + body)
    cls = agent_class("mine")
    return cls(cls.Config(hidden=(8,), batch_size=4), OBS_DIM, ACT_DIM, [0, 1], dtype=torch.float64)


MISTAKES = [
    (
        "    def actor_step(self, state, batch, draws, phase):\n        return {'loss': state['acter']}\n",
        r"KeyError: 'acter' \(own_one.py:8, actor_step\)",
    ),
    (
        "    def actor_step(self, state, batch, draws, phase):\n        return {'a_loss': batch.reward}\n",
        r"mine: the metric 'a_loss' has shape \(2, 4\), expected a tensor of shape \(2,\)",
    ),
    (
        "    def actor_step(self, state, batch, draws, phase):\n        return {'a,b': batch.reward.mean(1)}\n",
        "mine: 'a,b' cannot name a metric",
    ),
    ("    def actor_step(self, state, batch, draws, phase):\n        return None\n", "TypeError"),
    (
        "    def learn(self, state, batch, draws, phase):\n        return None\n",
        "mine: learn returned NoneType",
    ),
    (
        "    def target_action(self, state, next_obs, draws):\n        return next_obs, 0.0\n",
        r"mine: target_action: the action has shape \(2, 4, 5\), expected a tensor of shape \(2, 4, 2\)",
    ),
    (
        "    def target_action(self, state, next_obs, draws):\n"
        "        return super().target_action(state, next_obs, draws)[0], next_obs\n",
        r"mine: target_action: the bonus has shape \(2, 4, 5\), expected a tensor of shape \(2, 4\)",
    ),
    (
        "    def target_action(self, state, next_obs, draws):\n        draws.normal('z', 1)\n"
        "        return draws.normal('z', 1), 0.0\n",
        r"ValueError: draw 'z' is declared twice: .* \(own_one.py:9, target_action\)",
    ),
]


@pytest.mark.parametrize(("body", "expected"), MISTAKES)
def test_a_mistake_in_an_update_is_reported_with_its_place(
    install: Callable[..., None], body: str, expected: str
) -> None:
    mine = agent(install, body)
    with pytest.raises(Exception) as caught:
        mine.update(random_batch(mine, 0))
    assert re.search(expected, reason(caught.value)), reason(caught.value)


def test_a_mistake_in_an_action_is_reported(install: Callable[..., None]) -> None:
    mine = agent(install, "    def policy(self, state, obs, draws, mode):\n        return obs\n")
    with pytest.raises(ContractError, match=r"mine: policy: the action has shape \(2, 3, 5\)"):
        mine.act(torch.zeros(2, 3, OBS_DIM, dtype=torch.float64), mode="sample")


def test_a_missing_method_is_named() -> None:
    class Bare(Agent):
        name = "bare"
        Config = agent_class("td3").Config

        def optimisers(self) -> dict[str, Any]:
            return {}

    bare = Bare(Bare.Config(hidden=(8,), batch_size=4), OBS_DIM, ACT_DIM, [0], dtype=torch.float64)
    with pytest.raises(NotImplementedError, match="Bare has no method target_action"):
        bare.update(random_batch(bare, 0))
    with pytest.raises(NotImplementedError, match="Bare has no method policy"):
        bare.act(torch.zeros(1, 1, OBS_DIM, dtype=torch.float64), mode="sample")


def test_what_is_recorded_of_a_package(install: Callable[..., None], tmp_path: Path) -> None:
    assert plugins.plugins("sac") == []
    install("one", {"mine": "own_one:Mine"}, own_one=CODE)
    (record,) = plugins.plugins("mine")
    assert (record["offers"], record["distribution"], record["version"]) == ("algorithm mine", "one", "1.0")
    (tmp_path / "own_one.py").write_text(CODE + "# changed\n")
    (changed,) = plugins.plugins("mine")
    assert changed["modules_sha256"] != record["modules_sha256"]
    assert changed | {"modules_sha256": ""} == record | {"modules_sha256": ""}


def test_of_an_error_in_compiling_the_first_line_and_the_place_are_reported() -> None:
    class Unsupported(RuntimeError):
        __module__ = "torch._dynamo.exc"

    error = Unsupported(
        "Data-dependent branching\n  Hint: use torch.cond\n\nfrom user code:\n"
        '   File "/x/algos/core/agent.py", line 9, in learn\n   File "/home/me/my_algo.py", line 125, in actor_step\n'
        "Set TORCHDYNAMO_VERBOSE=1 for the internal stack trace"
    )
    assert reason(error) == "Unsupported: Data-dependent branching (my_algo.py:125, actor_step)"
