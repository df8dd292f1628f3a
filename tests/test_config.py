"""An algorithm's settings as users write them."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import algos
from bench import config
from bench.config import (
    agent_class,
    algorithm_config,
    build_config,
    canonical,
    default_config,
    parse_overrides,
    whole_number,
)
from bench.errors import UserError


@pytest.mark.parametrize("algo", sorted(algos.registry()))
def test_a_full_configuration_and_its_object_are_the_same(algo: str) -> None:
    plain = default_config(algo)
    assert algorithm_config(algo, {}) == algorithm_config(algo, plain) == plain
    assert build_config(algo, plain) == agent_class(algo).Config()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("qsm", {}),
        ("qsm:M_q=120", {"M_q": 120.0}),
        ("qsm:M_q=1.2e2,T=20", {"M_q": 120.0, "T": 20}),
        ("qsm:T=2e1", {"T": 20}),
        ("qsm:T=20.0", {"T": 20}),
        ("qsm:hidden=256x128", {"hidden": (256, 128)}),
        ("qsm:hidden=256+128", {"hidden": (256, 128)}),
        ("qsm:hidden=256", {"hidden": (256,)}),
        ("qsm:score_scale=True", {"score_scale": True}),
        ("qsm:score_scale=false", {"score_scale": False}),
        ("qsm:init=torch", {"init": "torch"}),
        ("sac:target_entropy_per_dim=-1", {"target_entropy_per_dim": -1.0}),
    ],
)
def test_overrides_are_typed_by_the_field(spec: str, expected: dict[str, Any]) -> None:
    algo, overrides = parse_overrides(spec)
    assert (algo, overrides) == (spec.split(":")[0], expected)
    assert [type(value) for value in overrides.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("qsn", r"no algorithm 'qsn'; did you mean 'qsm'\?"),
        ("qsm,dql", r"no algorithm 'qsm,dql'"),
        ("", "no algorithm ''"),
        ("qsm:", r"'qsm:': expected qsm:name=value"),
        ("qsm:M_q", "expected qsm:name=value"),
        ("qsm:M_q=", "expected qsm:name=value"),
        ("qsm:=3", "expected qsm:name=value"),
        ("qsm:M_q=1,", "expected qsm:name=value"),
        ("qsm:M_q=1,M_q=2", "M_q is set twice"),
        ("qsm:Mq=1", r"qsm has no setting 'Mq'; did you mean 'M_q'\?"),
        ("sac:M_q=1", "sac has no setting 'M_q'"),
        ("qsm:T=five", "qsm: T = 'five': expected a whole number"),
        ("qsm:T=2.5", "qsm: T = '2.5': expected a whole number"),
        ("qsm:T=nan", "expected a whole number"),
        ("qsm:T=1e999", "expected a whole number"),
        ("qsm:T=true", "expected a whole number"),
        ("qsm:M_q=high", "qsm: M_q = 'high': expected a number"),
        ("qsm:M_q=inf", "expected a number"),
        ("qsm:M_q=nan", "expected a number"),
        ("qsm:score_scale=1", "qsm: score_scale = '1': expected true or false"),
        ("qsm:hidden=wide", "qsm: hidden = 'wide': expected widths such as 256x256"),
        ("qsm:hidden=256x", "expected widths"),
    ],
)
def test_mistakes_in_overrides(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_overrides(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"T": 0}, "qsm: T = 0: expected at least 1"),
        ({"M_q": -1}, "qsm: M_q = -1.0: expected a positive number"),
        ({"hidden": []}, "hidden"),
        ({"hidden": 256}, "hidden = 256: expected widths"),
        ({"hidden": {"a": 1}}, "expected widths"),
        ({"hidden": [[1]]}, "expected widths"),
        ({"init": "zeros"}, "init = 'zeros': expected xavier_uniform, torch, "),
        ({"init": 3}, "init = 3: expected a name"),
        ({"M_q": True}, "M_q = True: expected a number"),
        ({"M_q": [1]}, "expected a number"),
        ({"batch_size": 0}, "batch_size"),
        ({"discount": 1.5}, "discount = 1.5: expected a number from 0 to 1"),
    ],
)
def test_values_from_files_are_checked_too(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        algorithm_config("qsm", overrides)


def test_minus_zero_is_zero() -> None:
    found = algorithm_config("sac", {"target_entropy_per_dim": "-0.0"})["target_entropy_per_dim"]
    assert math.copysign(1, found) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (120.0, "120"), (3e-4, "0.0003"), (1e-5, "1e-05"), (0.1, "0.1"), (-1.0, "-1"), (5, "5"), (True, "true"),
        (1e20, "1e+20"), ([256, 128], "256x128"), ("min", "min"),
    ],
)  # fmt: skip
def test_one_spelling_for_each_value(value: Any, text: str) -> None:
    assert canonical(value) == text


@pytest.mark.parametrize(("text", "number"), [("100_000", 100_000), ("1e5", 100_000), ("-3", -3), (2.0, 2)])
def test_whole_numbers(text: Any, number: int) -> None:
    assert whole_number(text) == number
    assert whole_number(str(2**60 + 1)) == 2**60 + 1


@pytest.mark.parametrize("text", ["", "x", "1.5", "1e-1", "nan", "inf", "0x10", "1,000"])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        whole_number(text)


# -- algorithms of somebody's own --------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of algos/ under another name of the same package, to add files to."""
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "agent.py").touch()
    monkeypatch.setattr(algos, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(algos, "__path__", [*algos.__path__, str(tmp_path)])
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [])  # whatever is installed here
    algos.registry.cache_clear()
    algos.offered.cache_clear()
    config._default.cache_clear()
    yield tmp_path
    algos.registry.cache_clear()
    algos.offered.cache_clear()
    config._default.cache_clear()
    for name in [name for name in sys.modules if name.startswith("algos.my_")]:
        del sys.modules[name]


def test_a_file_registers_an_algorithm(folder: Path) -> None:
    (folder / "my_td3.py").write_text(
        "from algos.td3 import TD3\nclass Base(TD3): pass\nclass Mine(TD3):\n    name = 'my-td3'\n"
    )
    for other in ("_private.py", "my td3.py", "my_td3.py~", "notes.txt"):
        (folder / other).write_text("raise RuntimeError")
    assert set(algos.registry()) == {"my-td3"}
    assert "algos.my_td3" not in sys.modules  # nothing is imported before somebody asks
    assert agent_class("my-td3").__name__ == "Mine"
    assert parse_overrides("my-td3:tau=0.01") == ("my-td3", {"tau": 0.01})


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import flux_capacitor", "cannot be loaded: ModuleNotFoundError: No module named 'flux_capacitor'"),
        ("def", "cannot be loaded: SyntaxError: .*my_broken.py, line 1"),
        ("x = 1 / 0", "cannot be loaded: ZeroDivisionError"),
        ("", "algos.my_broken has no subclass of Agent with name = 'my-broken'"),
        ("from algos.td3 import TD3 as Mine", "has no subclass of Agent"),
        (
            "from algos.core.agent import Agent\nclass A(Agent): name = 'my-broken'",
            "no usable Config: AttributeError",
        ),
        (
            "from algos.td3 import TD3\nclass A(TD3):\n    name = 'my-broken'\n    class Config: pass",
            "no usable Config: TypeError",
        ),
    ],
)
def test_a_file_that_does_not_load_disturbs_no_other(folder: Path, code: str, message: str) -> None:
    (folder / "my_broken.py").write_text(code)
    (folder / "my_fine.py").write_text("from algos.td3 import TD3\nclass A(TD3): name = 'my-fine'")
    with pytest.raises(UserError, match=message) as caught:
        default_config("my-broken")
    assert "\n" not in str(caught.value)
    assert default_config("my-fine")["tau"] == 0.005


@dataclass(frozen=True)
class OddConfig:
    layers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StrictConfig:
    low: float = 0.0
    high: float = 1.0
    scales: tuple[float, ...] = (0.5, 1.5)

    def __post_init__(self) -> None:
        assert self.low < self.high


def own_config(monkeypatch: pytest.MonkeyPatch, Config: type) -> None:
    monkeypatch.setattr(config, "agent_class", lambda algo: type("Mine", (), {"Config": Config}))
    monkeypatch.setattr(config, "_default", config._default.__wrapped__)


def test_a_field_that_json_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    own_config(monkeypatch, OddConfig)
    with pytest.raises(UserError, match="layers is a dict, not a number, name or tuple"):
        default_config("mine")


def test_settings_that_fit_together_only(monkeypatch: pytest.MonkeyPatch) -> None:
    own_config(monkeypatch, StrictConfig)
    assert parse_overrides("mine:low=5,high=6") == ("mine", {"low": 5.0, "high": 6.0})
    assert algorithm_config("mine", {"low": "5", "high": "6"})["low"] == 5
    with pytest.raises(UserError, match=r"mine: assert 5.0 < 1.0") as caught:
        algorithm_config("mine", {"low": 5})
    assert "\n" not in str(caught.value)
    assert algorithm_config("mine", {"scales": "0.25x3"})["scales"] == [0.25, 3.0]
