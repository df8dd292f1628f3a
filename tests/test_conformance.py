"""Every algorithm, one of your own included, tested against the rules of bench/check/conformance.py."""

from __future__ import annotations

import importlib.util

import pytest
import torch

import algos
from algos.core.critics import CRITICS
from bench.check.algorithm import Algorithm
from bench.check.conformance import CHECKS, SLOW

#: Every algorithm with its own critic, and every critic with a policy of each kind.
CRITICS_HERE = [
    name
    for name, place in CRITICS.items()
    if name != "mlp" and importlib.util.find_spec(place.partition(":")[0])
]
SPECS = [
    *sorted(algos.registry()),
    *(f"{algo}:critic={c}" for c in CRITICS_HERE for algo in ("sac", "qsm", "dql")),
    *("dql-bc:critic=simba", "td3:critic=crossq", "dime:critic=simba"),
]
COMPILED = ("qsm",)  # by `make test-slow`; the others take a minute each, in `make test-all`


def marks(spec: str, what: str) -> list[pytest.MarkDecorator]:
    if what not in SLOW:
        return [pytest.mark.seconds]
    return [pytest.mark.slow if spec in COMPILED else pytest.mark.full]


CASES = [
    pytest.param(spec, what, marks=marks(spec, what), id=f"{spec}-{what}")
    for spec in SPECS
    for what in CHECKS
]


@pytest.mark.parametrize(("spec", "what"), CASES)
def test_conformance(spec: str, what: str) -> None:
    torch.set_num_threads(1)
    CHECKS[what](Algorithm(spec))
