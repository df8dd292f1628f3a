"""The suite around the algorithms: runs, launchers, timing, analysis."""

from bench.machine.mkl import use_avx512

use_avx512()  # here, since it must come before anything imports torch
