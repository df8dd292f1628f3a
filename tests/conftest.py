"""Fixtures that several test modules share."""

from __future__ import annotations

import importlib
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator

import pytest

from bench.machine.inherited import MISLEADING
from bench.machine.mkl import use_avx512
from tests.launching import STUBS

use_avx512()  # as every process that trains: tests compare its bytes with those of runs in this one
os.environ["OMP_NUM_THREADS"] = "1"  # before torch: threads that wait for each other cost most of the time

# Under `nohup` the first is ignored, in the background of a script the second, also by what tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# What a shell may have set for other purposes; a test that is about one of them sets it itself.
for name in list(os.environ):
    if name.startswith(("GIT_", "PIP_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_")) or name in MISLEADING:
        del os.environ[name]
# What the `make test VARIABLE=value` that may have started this passes on to any other make.
given = re.findall(r"(?:^| )(\w+)=", os.environ.get("MAKEFLAGS", ""))
for name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", *given):
    os.environ.pop(name, None)

# Its import closes all handlers of logging, and with them the standard error of the test in which absl was imported.
importlib.import_module("submitit.core.logger")

# Else whatever logs first, such as dm_control when it is imported, binds the root logger to the standard error of the
# test that runs then, which is closed after it: "I/O operation on closed file" in the tests of a process that follow.
logging.basicConfig()


@pytest.fixture(autouse=True)
def small_numbers() -> Iterator[None]:
    """What prepares a process flushes denormal numbers to zero; a test that runs it here passes that on to none."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The algorithms and tasks in tests/stubs, in this process and in those that it starts."""
    import algos
    from bench.studies import overrides as config
    from tests.launching import python_path

    monkeypatch.syspath_prepend(STUBS)
    monkeypatch.setenv("PYTHONPATH", python_path())
    algos.registry.cache_clear()
    algos.offered.cache_clear()
    config._default.cache_clear()
    from stub_envs import register

    register()
    yield
    algos.registry.cache_clear()
    algos.offered.cache_clear()
    config._default.cache_clear()
