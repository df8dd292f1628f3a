"""AVX-512 for the matrix products of torch on processors by AMD: half the time of a product on Zen 5.

The MKL inside torch's builds chooses its kernels by the processor's maker: AMD's get those for AVX2, also where they
have AVX-512. It asks its function `mkl_serv_intel_cpu_true`; mkl_avx512.c has one by that name that says yes,
and where that is loaded first, the linker takes it. Products are then rounded in another order than without it, as on
any other processor; whether it is in use is part of a run's provenance (hardware: mkl_avx512).

The command line and the processes that train or time load it. Importing bench in a program of one's own does not; the
environment variable BENCH_MKL_AVX512=0 leaves MKL as it is everywhere.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

LIBRARY = Path(sys.prefix) / "lib" / "mkl_avx512.so"  # made by `make setup` where there is a C compiler
NEEDED = frozenset(
    ["avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"]
)  # MKL's kernels use all of them
OFF = "BENCH_MKL_AVX512"  # the environment variable; "0" turns it off

_loaded = False


def use_avx512(library: Path = LIBRARY, cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Load `library` where it helps. Without effect once torch has been imported."""
    global _loaded
    if not _loaded and "torch" not in sys.modules and os.environ.get(OFF) != "0" and _is_held_back(cpuinfo):
        with suppress(OSError):  # there was no C compiler: MKL stays as it is
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
            _loaded = True


def in_use() -> bool:
    """Whether this process has loaded it."""
    return _loaded


def _is_held_back(cpuinfo: Path) -> bool:
    """Whether this is a processor by AMD with all that MKL's AVX-512 kernels need."""
    facts: dict[str, str] = {}
    try:
        with cpuinfo.open(errors="replace") as lines:
            for line in lines:
                key, colon, value = line.partition(":")
                if not colon:  # the first of its cores is described
                    break
                facts[key.strip()] = value.strip()
    except OSError:
        return False
    return facts.get("vendor_id") == "AuthenticAMD" and set(facts.get("flags", "").split()) >= NEEDED
