"""Ring buffer with a seed axis: one row per seed and step, one write pointer for all seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from algos.core.agent import Batch
from algos.core.noise import Draw, Noise


class Replay:
    """Transitions as rows [obs, action, reward, mask, next_obs] of one tensor (S, capacity, width) on the device.

    Batches are drawn uniformly with replacement, from each seed's own rows by its own generator. A batch is gathered
    into the same memory every time, so that a CUDA graph can read it.
    """

    def __init__(
        self,
        capacity: int,
        obs_dim: int,
        act_dim: int,
        seeds: Sequence[int],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.capacity, self.obs_dim, self.act_dim = capacity, obs_dim, act_dim
        self.device, self.dtype = torch.device(device), dtype
        self.width = 2 * obs_dim + act_dim + 2
        self.rows = torch.zeros(len(seeds), capacity, self.width, device=self.device, dtype=dtype)
        self.written = 0  # rows ever added; row i is at i modulo capacity
        self.noise = Noise(seeds, "batch indices", self.device, dtype)
        self._staged = np.zeros((len(seeds), self.width), np.float32)
        self._first_row = torch.arange(len(seeds), device=self.device).unsqueeze(1) * capacity
        self._batch: Tensor | None = None

    def __len__(self) -> int:
        return min(self.written, self.capacity)

    def add(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        next_obs: np.ndarray,
    ) -> None:
        """One transition per seed: (S, O), (S, A), (S,), (S,), (S, O)."""
        o, a = self.obs_dim, self.act_dim
        row = self._staged
        row[:, :o], row[:, o : o + a], row[:, o + a] = obs, action, reward
        row[:, o + a + 1] = 1.0 - terminated
        row[:, o + a + 2 :] = next_obs
        self.rows[:, self.written % self.capacity] = torch.from_numpy(row).to(self.device, self.dtype)
        self.written += 1

    def sample(self, batch_size: int) -> Batch:
        """Fields of shape (S, batch_size, ...); views of memory that the next call overwrites.

        Raises:
            ValueError: nothing was added yet.
        """
        if not self.written:
            raise ValueError("cannot sample from an empty replay buffer")
        S = self.rows.shape[0]
        draw = self.noise.fill([Draw("index", "uniform64", (batch_size,))])["index"]
        index = (draw * len(self)).long() + self._first_row  # (S, B) into (S * capacity) rows
        if self._batch is None or self._batch.shape[0] != S * batch_size:
            self._batch = torch.empty(S * batch_size, self.width, device=self.device, dtype=self.dtype)
        torch.index_select(self.rows.view(-1, self.width), 0, index.view(-1), out=self._batch)
        return self.split(self._batch.view(S, batch_size, self.width))

    def split(self, rows: Tensor) -> Batch:
        """Rows (S, B, width) as fields, without a copy."""
        o, a = self.obs_dim, self.act_dim
        return Batch(
            obs=rows[..., :o],
            action=rows[..., o : o + a],
            reward=rows[..., o + a],
            mask=rows[..., o + a + 1],
            next_obs=rows[..., o + a + 2 :],
        )

    def rows_between(self, first: int, last: int, k: int) -> np.ndarray:
        """Seed k's rows first ... last-1 by their running number, (last - first, width) float32; for checkpoints.

        Raises:
            ValueError: some of them are overwritten already.
        """
        if first < self.written - self.capacity or last > self.written:
            raise ValueError(f"rows {first} to {last} are not in a ring of {self.capacity} at {self.written}")
        index = torch.arange(first, last, device=self.device) % self.capacity
        return self.rows[k].index_select(0, index).to("cpu", torch.float32).numpy()

    def restore(self, rows: Sequence[np.ndarray], written: int) -> None:
        """Puts back, per seed, the last rows before row number `written` (at most `capacity` of them)."""
        n = min(written, self.capacity)
        index = torch.arange(written - n, written, device=self.device) % self.capacity
        for k, mine in enumerate(rows):
            self.rows[k, index] = torch.from_numpy(mine[len(mine) - n :]).to(self.device, self.dtype)
        self.written = written
