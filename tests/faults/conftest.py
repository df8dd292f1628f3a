"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disks import Disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk", 400)
    yield disk
    disk.close()


@pytest.fixture
def disk_of_few_files(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk", 4000, inodes=40)
    yield disk
    disk.close()
