"""What `make perf` times beside each other, each in a process of its own. These modules need no package of ours but
`bench.envs` and `bench.stopwatch`, so that they run in the peers' environment as well; `ours` alone needs the suite.
"""
