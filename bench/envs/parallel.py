"""A batch of environments stepped by several processes at once, so that a GPU training many seeds does not wait for it.

`ParallelEnvBatch` is an `EnvBatch` whose environments live in child processes; numbers are the same to the bit.
Actions, observations and the other results of a step lie in shared memory; a pipe to each child carries only commands.
"""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawArray
from typing import Any

import numpy as np

from bench.envs import tasks as envs
from bench.envs.batch import EnvBatch


class _Shared:
    """The arrays of a batch of S environments, in memory that parent and children see."""

    def __init__(self, size: int, obs_dim: int, act_dim: int):
        self.shapes = {
            "obs": (size, obs_dim),
            "action": (size, act_dim),
            "reward": (size,),
            "flags": (size, 3),  # terminated, truncated, frames
        }
        self.buffers = {name: RawArray(ctypes.c_float, int(np.prod(s))) for name, s in self.shapes.items()}

    def view(self, name: str) -> np.ndarray:
        return np.frombuffer(self.buffers[name], np.float32).reshape(self.shapes[name])  # type: ignore[call-overload]


class ParallelEnvBatch:
    """S environments of one task in lock-step, in `workers` processes; the interface of `EnvBatch`.

    Raises:
        RuntimeError: a child process has died.
    """

    def __init__(self, name: str, size: int, action_repeat: int, workers: int):
        spec = envs.spec(name)
        self.size = size
        self.error: list[str | None] = [None] * size
        shared = _Shared(size, spec.obs_dim, spec.act_dim)
        self._shared_obs, self._action = shared.view("obs"), shared.view("action")
        self._reward, self._flags = shared.view("reward"), shared.view("flags")
        self.frames = np.ones(size, np.int64)
        self.obs = np.zeros((size, spec.obs_dim), np.float32)
        self._previous = np.zeros_like(self.obs)
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads and CUDA's state
        self._own = [list(range(w, size, workers)) for w in range(min(workers, size))]
        self._child = {k: w for w, own in enumerate(self._own) for k in own}
        self._pipes: list[Connection] = []
        self._processes = []
        for own in self._own:
            here, there = context.Pipe()
            process = context.Process(
                target=_serve, args=(there, shared, name, action_repeat, own), daemon=True
            )
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        atexit.register(
            self.close
        )  # before multiprocessing joins its children, which wait for the pipe to close
        self._receive(range(len(self._own)))

    def reset(self, k: int, seed: int) -> np.ndarray:
        return self._place(k, "reset", seed)

    def replay(self, k: int, seed: int, actions: np.ndarray) -> np.ndarray:
        return self._place(k, "replay", seed, actions)

    def _place(self, k: int, command: str, *arguments: Any) -> np.ndarray:
        self._send(self._child[k], command, k, *arguments)
        self._receive([self._child[k]])
        self.obs[k] = self._shared_obs[k]
        return self.obs[k]

    def stand_still(self, k: int) -> None:
        self._send(self._child[k], "stand_still", k)
        self._receive([self._child[k]])

    def clear_errors(self) -> None:
        """Clear the errors, so that failed environments may be reset."""
        self._all("clear_errors")

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if actions.shape != self._action.shape:
            raise ValueError(f"actions must have shape {self._action.shape}, not {actions.shape}")
        self._action[:] = actions
        self._all("step")
        self._previous, self.obs = self.obs, self._previous
        self.obs[:] = self._shared_obs
        self.frames[:] = self._flags[:, 2]
        return self.obs, self._reward.copy(), self._flags[:, 0] > 0, self._flags[:, 1] > 0

    def _all(self, command: str) -> None:
        for w in range(len(self._pipes)):
            self._send(w, command)
        self._receive(range(len(self._pipes)))

    def _send(self, w: int, *message: Any) -> None:
        with suppress(ConnectionError):  # `_receive` reports a dead child
            self._pipes[w].send(message)

    def _receive(self, children: Sequence[int]) -> None:
        """Wait for each child's answer, copy the errors of its environments, and raise the first exception."""
        problems = []
        for w in children:
            try:
                problem, errors = self._pipes[w].recv()
            except (EOFError, ConnectionError):
                raise RuntimeError(f"the process of environments {self._own[w]} has died") from None
            problems += [problem] if problem is not None else []
            for k, error in zip(self._own[w], errors or ()):
                self.error[k] = error
        if problems:
            raise problems[0]

    def close(self) -> None:
        """End the processes."""
        atexit.unregister(self.close)
        for pipe, process in zip(self._pipes, self._processes):
            with suppress(OSError):
                pipe.send(("close",))
            pipe.close()
            process.join(5)
            process.kill()


def _serve(pipe: Connection, shared: _Shared, name: str, action_repeat: int, own: Sequence[int]) -> None:
    """A child: carries out commands on its own environments until the pipe closes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the parent decides; when it is gone, the pipe closes
    rows = list(own)
    obs, action = shared.view("obs"), shared.view("action")
    reward, flags = shared.view("reward"), shared.view("flags")
    batch = EnvBatch([envs.make(name, action_repeat=action_repeat) for _ in rows])

    def step() -> None:
        obs[rows], reward[rows], flags[rows, 0], flags[rows, 1] = batch.step(action[rows])
        flags[rows, 2] = batch.frames

    def place(command: Callable[..., Any], k: int, *arguments: Any) -> None:
        command(rows.index(k), *arguments)
        obs[k] = batch.obs[rows.index(k)]

    reported: list[str | None] = list(batch.error)
    pipe.send((None, None))
    while True:
        try:
            command, *arguments = pipe.recv()
        except (EOFError, OSError):
            return
        problem = None
        try:
            if command == "step":
                step()
            elif command == "close":
                return
            elif command == "clear_errors":
                batch.clear_errors()
            else:
                place(getattr(batch, command), *arguments)
        except Exception as error:
            problem = error
        changed = list(batch.error) if batch.error != reported else None
        reported = list(batch.error)
        pipe.send((problem, changed))
