"""Small disks of their own for tests: full, read-only, and grown again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


class Disk:
    """A tmpfs of so many kilobytes at `path`."""

    def __init__(self, path: Path, kilobytes: int, inodes: int = 0):
        self.path = path
        path.mkdir()
        options = f"size={kilobytes}k" + (f",nr_inodes={inodes}" if inodes else "")
        if _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", path):
            pytest.skip("only root can mount a disk")

    def remount(self, options: str) -> None:
        assert _run("mount", "-o", f"remount,{options}", self.path) == 0

    def free_kilobytes(self) -> int:
        return shutil.disk_usage(self.path).free // 1024

    def close(self) -> None:
        _run("umount", "--lazy", self.path)


def _run(*words: str | Path) -> int:
    return subprocess.run([str(word) for word in words], capture_output=True).returncode
