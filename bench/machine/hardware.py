"""The cores and memory available to this process, and the names of the hardware."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import psutil


def available_cores() -> int:
    """Cores this process may keep busy: its affinity mask and the CPU quota of its cgroups (v1, v2); >= 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # no affinity masks on macOS
        cores = os.cpu_count() or 1
    return max(1, int(min([cores, *_cpu_quotas()])))


def available_memory() -> int:
    """Bytes of memory this process may use: the machine's, or the least limit of its cgroups."""
    return min([psutil.virtual_memory().total, *_memory_limits()])


def cpu_model() -> str:
    """The processor's name, as the kernel or else the platform gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cpu_quotas(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> list[float]:
    """Cores' worth of time that each cgroup around this process grants; none where nothing is limited."""
    quotas = []
    for group in _cgroups("", proc, mount):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    for group in _cgroups("cpu", proc, mount):
        quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # "-1" stands for no limit
            quotas.append(int(quota) / int(period))
    return quotas


def _memory_limits(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """The memory limit in bytes of each cgroup around this process; none where nothing is limited."""
    texts = [_text(group / "memory.max") for group in _cgroups("", proc, mount)]
    texts += [_text(group / "memory.limit_in_bytes") for group in _cgroups("memory", proc, mount)]
    return [int(text) for text in texts if text.isdigit()]


def _cgroups(controller: str, proc: Path, mount: Path) -> Iterator[Path]:
    """The folders of this process's cgroup and of its ancestors; controller "" is the hierarchy of cgroup v2.

    In a container the path can be one of the host, which is not mounted here; its ancestors' folders are then
    skipped, and the mount itself, which is the container's own group, remains.
    """
    for line in _text(proc).splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            top = mount / controller
            group = top / path.lstrip("/")
            while group != top and top in group.parents:
                yield group
                group = group.parent
            yield top


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
