"""Measurements in tests count as evidence, whatever else the machine does, and pin no process that runs other tests."""

from __future__ import annotations

from types import ModuleType

import pytest

from bench.timing import measurement
from bench.timing.stopwatch import Quiet

QUIET = Quiet(own_core=1.0, others=0.0)


def counts(patch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Of what `module` measures, with its own `pin` and `save`."""
    patch.setattr(module, "pin", lambda: None)
    patch.setattr(module, "save", lambda *args: measurement.save(*args[:4], QUIET, *args[5:]))
