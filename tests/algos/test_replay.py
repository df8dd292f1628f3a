"""The ring buffer: what is written comes back, each seed its own, old rows give way to new ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from algos.core.replay import Replay

OBS, ACT, SEEDS = 3, 2, (8, 1)
S = len(SEEDS)


def transition(i: int) -> tuple[np.ndarray, ...]:
    """Number i, every entry telling its seed, its number and its place."""
    seed = np.arange(S)[:, None] * 1000.0 + i
    obs = (seed + np.arange(OBS) / 10).astype(np.float32)
    action = (seed + 0.5 + np.arange(ACT) / 10).astype(np.float32)
    reward, terminated = (seed[:, 0] + 0.75).astype(np.float32), np.array([i % 3 == 0, i % 2 == 0])
    return obs, action, reward, terminated, obs + 0.05


def ring(capacity: int, rows: int, **how) -> Replay:
    replay = Replay(capacity, OBS, ACT, SEEDS, **how)
    for i in range(rows):
        replay.add(*transition(i))
    return replay


def numbers(replay: Replay, batch) -> torch.Tensor:
    """Which transition each row of a batch is, (S, B)."""
    return batch.obs[..., 0].round().long() - torch.arange(S)[:, None] * 1000


@pytest.mark.parametrize("rows", [5, 7, 8, 23])
def test_a_batch_holds_whole_transitions_of_its_own_seed(rows):
    replay = ring(7, rows)
    assert len(replay) == min(rows, 7)
    assert replay.written == rows
    batch = replay.sample(40)
    which = numbers(replay, batch)
    for k in range(S):
        assert set(which[k].tolist()) <= set(range(max(0, rows - 7), rows))  # overwritten rows are gone
        for b in range(40):
            obs, action, reward, terminated, next_obs = transition(int(which[k, b]))
            assert batch.obs[k, b].tolist() == obs[k].tolist()
            assert batch.action[k, b].tolist() == action[k].tolist()
            assert batch.reward[k, b].item() == reward[k]
            assert batch.mask[k, b].item() == 1.0 - terminated[k]
            assert batch.next_obs[k, b].tolist() == next_obs[k].tolist()


@pytest.mark.parametrize("rows", [4, 30])
def test_every_written_row_is_drawn_as_often_as_the_others(rows):
    replay = ring(10, rows)
    size = len(replay)
    draws = 40_000
    which = numbers(replay, replay.sample(draws))
    for k in range(S):
        counts = (which[k] - max(0, rows - 10)).bincount(minlength=size).double()
        assert len(counts) == size
        expected = draws / size
        chi_square = ((counts - expected) ** 2 / expected).sum().item()
        assert chi_square < {4: 16.27, 10: 27.88}[size]  # 0.999 quantiles, 3 and 9 degrees of freedom


def test_seeds_draw_indices_of_their_own_and_the_same_ones_in_every_pack():
    replay = ring(50, 50)
    alone = Replay(50, OBS, ACT, SEEDS[1:])
    for i in range(50):
        alone.add(*(field[1:] for field in transition(i)))
    for _ in range(3):
        batch, single = replay.sample(16), alone.sample(16)
        assert torch.equal(batch.obs[1], single.obs[0])
        which = numbers(replay, batch)
        assert not torch.equal(which[0], which[1])


def test_batches_are_gathered_into_the_same_memory():
    replay = ring(10, 10)
    where = {tuple(field.data_ptr() for field in replay.sample(4)) for _ in range(3)}
    assert len(where) == 1
    assert replay.sample(6).obs.shape == (S, 6, OBS)


def test_an_empty_buffer_has_nothing_to_draw():
    with pytest.raises(ValueError, match="empty"):
        ring(10, 0).sample(4)


def test_double_precision_is_that_of_the_batch():
    assert ring(10, 3, dtype=torch.float64).sample(2).obs.dtype == torch.float64


# -- checkpoints -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "cuts"), [(6, (0, 2, 6)), (10, (0, 3, 10)), (23, (13, 13, 20, 23)), (14, (4, 9, 14))]
)
def test_rows_written_in_shards_restore_the_ring(rows, cuts):
    replay = ring(10, rows)
    shards = [[replay.rows_between(a, b, k) for a, b in pairwise(cuts)] for k in range(S)]
    saved = [np.concatenate(s) for s in shards]
    assert all(s.dtype == np.float32 and s.shape == (cuts[-1] - cuts[0], replay.width) for s in saved)
    restored = Replay(10, OBS, ACT, SEEDS)
    restored.restore(saved, rows)
    assert torch.equal(restored.rows[:, : len(replay)], replay.rows[:, : len(replay)])
    restored.noise.set_state(0, replay.noise.state(0))
    for _ in range(2):
        one, other = replay.sample(8), restored.sample(8)
        assert all(torch.equal(x, y) for x, y in zip(one, other))
        for agent in (replay, restored):  # and the next row goes to the same place
            agent.add(*transition(rows))


def test_a_restored_ring_takes_the_last_rows_of_a_longer_history():
    replay = ring(10, 6)
    history = [replay.rows_between(0, 6, k) for k in range(S)]
    for i in range(6, 13):
        replay.add(*transition(i))
    history = [np.concatenate([h, replay.rows_between(6, 13, k)]) for k, h in enumerate(history)]
    restored = Replay(10, OBS, ACT, SEEDS)
    restored.restore(history, 13)
    assert torch.equal(restored.rows, replay.rows)


def test_a_seed_can_be_restored_into_another_pack():
    replay = ring(10, 13)
    alone = Replay(10, OBS, ACT, SEEDS[1:])
    alone.restore([replay.rows_between(3, 13, 1)], 13)
    assert torch.equal(alone.rows[0], replay.rows[1])


@pytest.mark.parametrize(("first", "last"), [(2, 5), (3, 14)])
def test_rows_that_are_gone_or_to_come_are_refused(first, last):
    with pytest.raises(ValueError, match=f"rows {first} to {last} "):
        ring(10, 13).rows_between(first, last, 0)


def test_saved_rows_are_copies():
    replay = ring(10, 10)
    rows = replay.rows_between(0, 5, 0)
    kept = rows.copy()
    for i in range(10, 20):
        replay.add(*transition(i))
    assert (rows == kept).all()
