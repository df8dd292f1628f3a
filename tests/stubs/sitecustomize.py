"""Python imports this at its start when the folder is on PYTHONPATH: the stub tasks are there in every process.

Variables of the environment make a process hurry or doubt, for the tests of faults:
    BENCH_TEST_CHECKPOINT_S   seconds between two checkpoints of a run
    BENCH_TEST_NO_FIGURES     a grid that has ended draws nothing
    BENCH_TEST_CLOCK          "after:shift": `time.time` jumps by `shift` seconds so many calls after the start
"""

import os
import sys

from stub_envs import register

register()

if "BENCH_TEST_CHECKPOINT_S" in os.environ:
    import bench.launch.pack

    bench.launch.pack.CHECKPOINT_EVERY_S = float(os.environ["BENCH_TEST_CHECKPOINT_S"])

if "BENCH_TEST_NO_FIGURES" in os.environ and sys.orig_argv[1:4] == ["-m", "bench", "run"]:
    import bench.commands.grid

    bench.commands.grid.draw_report = lambda root, study: None

if "BENCH_TEST_CLOCK" in os.environ:
    import itertools
    import time

    after, shift = map(float, os.environ["BENCH_TEST_CLOCK"].split(":"))
    calls, true_time = itertools.count(), time.time
    time.time = lambda: true_time() + (shift if next(calls) >= after else 0.0)
