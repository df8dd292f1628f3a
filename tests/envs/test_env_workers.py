"""A pack stepped by several processes gives what a pack in one process gives, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from bench.envs import tasks as envs
from bench.envs.batch import EnvBatch
from bench.envs.parallel import ParallelEnvBatch


@pytest.fixture
def packs():
    one = EnvBatch([envs.make("hopper-hop", action_repeat=2) for _ in range(3)])
    many = ParallelEnvBatch("hopper-hop", 3, 2, workers=2)
    yield one, many
    many.close()


@pytest.mark.seconds
def test_the_same_numbers(packs) -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (40, 3, 4)).astype(np.float32)
    before = rng.uniform(-1, 1, (5, 4)).astype(np.float32)
    seen = []
    for pack in packs:
        rows = [pack.reset(0, 1).copy(), pack.reset(1, 2).copy(), pack.replay(2, 3, before).copy()]
        for t, action in enumerate(actions):
            if t == 20:
                pack.stand_still(1)
            if t == 30:
                rows.append(pack.reset(0, 9).copy())
            previous = pack.obs
            kept = previous.copy()
            rows.extend(np.array(x, copy=True) for x in pack.step(action))
            np.testing.assert_array_equal(previous, kept)  # the old observations outlive the step
        seen.append(rows)
    for ours, theirs in zip(*seen):
        np.testing.assert_array_equal(ours, theirs)
    assert len(seen[0]) > 160
    assert seen[0][20 * 4 + 3][1].any()


@pytest.mark.seconds
def test_errors_come_back_and_are_forgiven(packs) -> None:
    for pack in packs:
        for k in range(3):
            pack.reset(k, k)
        pack.step(np.full((3, 4), np.nan, np.float32))
        assert all(pack.error), pack.error
        pack.clear_errors()
        for k in range(3):
            pack.reset(k, k)
        pack.step(np.zeros((3, 4), np.float32))
        assert pack.error == [None] * 3


@pytest.mark.seconds
def test_what_a_caller_does_wrong(packs) -> None:
    for pack in packs:
        with pytest.raises(ValueError, match="shape"):
            pack.step(np.zeros((2, 4), np.float32))
        with pytest.raises(RuntimeError, match="not in an episode"):
            pack.step(np.zeros((3, 4), np.float32))
        for k in range(3):
            pack.reset(k, k)
        pack.step(np.zeros((3, 4), np.float32))  # and goes on after it


@pytest.mark.seconds
def test_a_dead_process_is_reported() -> None:
    pack = ParallelEnvBatch("cartpole-balance", 2, 1, workers=2)
    for k in range(2):
        pack.reset(k, k)
    pack._processes[1].kill()
    pack._processes[1].join()
    with pytest.raises(RuntimeError, match="has died"):
        pack.step(np.zeros((2, 1), np.float32))
    pack.close()
