"""Timing for comparisons: one pinned core, turns in random order, and a check of other load.

Neighbouring calls share whatever disturbs the machine, so that things timed in turns can be compared, and things timed
one after the other cannot.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil

Key = TypeVar("Key", bound=Hashable)

#: Share of the machine that other processes may use, and that of its core which ours must have had, for evidence.
MOST_USED_BY_OTHERS = 0.05
LEAST_OF_OWN_CORE = 0.97


def pin(core: int | None = None) -> int | None:
    """Keep this process, and those it starts, on one core (the last it may use); None where that cannot be done."""
    try:
        core = max(os.sched_getaffinity(0)) if core is None else core
        os.sched_setaffinity(0, {core})
    except (AttributeError, OSError):  # no affinity masks on macOS
        return None
    return core


def machine_name(hardware: Mapping[str, Any]) -> str:
    """A folder's name for timings of this hardware and no other: the processor, its cores, a digest of it all.

    hardware: as `bench.machine.provenance.hardware` gives it, asked before this process was pinned.
    A processor's name can be vague ("AMD EPYC" in a virtual machine): its instruction sets, where the kernel lists
    them, are in the digest too, and so is whether MKL uses AVX-512 against its own choice.
    """
    model = str(hardware["cpu"])
    words = re.sub(r"\(r\)|\(tm\)|@.*|\bcpu\b|\bprocessor\b|\d+-core", " ", model.lower())
    slug = "-".join(re.findall(r"[a-z0-9]+", words))[:40].strip("-") or "cpu"
    facts = [model, hardware["cores"], *hardware["gpus"], _instruction_sets()]
    facts += ["mkl_avx512"] * bool(hardware.get("mkl_avx512"))
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:6]
    return f"{slug}-{hardware['cores']}c-{digest}"


def _instruction_sets() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line.split(":")[1].strip() for line in lines if line.startswith("flags")), "")
    except OSError:
        return ""


def chunks(keys: Sequence[Key], rounds: int, seed: int) -> Iterator[tuple[int, Key]]:
    """(round, key): every key once a round, in an order drawn anew for every round."""
    order = random.Random(seed)
    for number in range(rounds):
        yield from ((number, key) for key in order.sample(keys, len(keys)))


def timed(calls: int, call: Callable[[], float]) -> list[float]:
    """The seconds that `call` returns, `calls` times; a first call, whose caches others have used, is not counted."""
    call()
    return [call() for _ in range(calls)]


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Quiet:
    """The load of the machine while something was timed.

    own_core: CPU seconds of this process and those it started, per second of wall-clock. others: CPU seconds of all
    other processes, per second and core of the machine.
    """

    own_core: float
    others: float

    @property
    def problem(self) -> str | None:
        """Why these timings are not evidence, or None."""
        if self.others > MOST_USED_BY_OTHERS:
            return f"other processes used {100 * self.others:.0f}% of the machine"
        if self.own_core < LEAST_OF_OWN_CORE:
            return f"the timed processes had their core for {100 * self.own_core:.0f}% of the time only"
        return None

    def to_dict(self) -> dict[str, float]:
        return {"own_core": round(self.own_core, 4), "others": round(self.others, 4)}


class Watch:
    """Looks at the machine from its making to `quiet`."""

    def __init__(self) -> None:
        self._wall, self._own, self._all = time.monotonic(), _own_seconds(), _all_seconds()

    def quiet(self) -> Quiet:
        wall = max(time.monotonic() - self._wall, 1e-9)
        own, everything = _own_seconds() - self._own, _all_seconds() - self._all
        cores = psutil.cpu_count() or 1
        return Quiet(own_core=own / wall, others=max(0.0, everything - own) / wall / cores)


def _own_seconds() -> float:
    """CPU seconds of this process and of all that it started, those that have ended included."""
    total = sum(os.times()[:4])
    for child in psutil.Process().children(recursive=True):
        try:
            total += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def _all_seconds() -> float:
    """CPU seconds of the whole machine that were not idle, those that a hypervisor took away included."""
    times = psutil.cpu_times()
    return sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))
