"""The libraries that `make perf` compares, each in a process of its own.

Of ours these modules import `bench.envs.tasks` and `bench.timing.stopwatch` alone, so that they run in the peers'
environment as well; `ours` needs the whole suite.
"""
