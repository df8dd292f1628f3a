"""Fixtures that several test modules share."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.launching import STUBS

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch: threads that wait for each other cost most of the time

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under `nohup` it is ignored, also by what tests start

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
    from bench import config
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
