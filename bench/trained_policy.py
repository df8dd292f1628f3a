"""A finished run's policy: as an agent of one seed, and as a function of observations."""

from __future__ import annotations

import io
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from algos.core.agent import Agent
from bench.disk import read_bytes
from bench.envs import tasks as envs
from bench.errors import UserError
from bench.paths import expand
from bench.runs import FINISHED, Run, read_run
from bench.studies.overrides import agent_class, build_config
from bench.text import one_line

MODES = ("sample", "greedy")


class Policy:
    """What a run learned: `policy(obs)` is the action, `policy.make_env()` the task.

    run: the run (env, algo, label, seed, meta). mode: in which it was evaluated, "sample" or "greedy". obs_dim and
    act_dim: numbers of coordinates O and A.
    """

    def __init__(self, run: Run, agent: Agent, mode: str):
        self.run, self.mode = run, mode
        self.obs_dim, self.act_dim = agent.obs_dim, agent.act_dim
        self._agent = agent

    def __call__(
        self, obs: ArrayLike, *, mode: str = "", candidates: int | None = None
    ) -> NDArray[np.float32]:
        """Actions, each coordinate in [-1, 1], at one observation (O,) -> (A,), or at n of them (n, O) -> (n, A).

        What is random in it is drawn from the stream of the run's seed, call after call.

        Args:
            mode: "sample" (the policy itself) or "greedy"; "": that in which the run was evaluated.
            candidates: how many actions are drawn, of which the one with the highest Q is taken; None: as the
                algorithm's authors do.

        Raises:
            UserError: another mode, or observations of another shape.
        """
        given = np.asarray(obs, np.float32)
        if given.ndim not in (1, 2) or given.shape[-1] != self.obs_dim:
            raise UserError(
                f"{self.run.env} has observations ({self.obs_dim},), or (n, {self.obs_dim}) for n of them, not "
                f"{given.shape}"
            )
        if mode not in ("", *MODES):
            raise UserError(f"mode {mode!r}: expected {' or '.join(MODES)}")
        rows = torch.from_numpy(np.atleast_2d(given))[None]
        action = self._agent.act(rows, mode=mode or self.mode, candidates=candidates)[0].numpy().copy()
        return action[0] if given.ndim == 1 else action

    def make_env(self, render_mode: str | None = None) -> gymnasium.Env:
        """The task, with flat observations and actions in [-1, 1], as the run was trained on it."""
        repeat: int = self.run.meta["settings"]["action_repeat"]
        return envs.make(self.run.env, action_repeat=repeat, render_mode=render_mode)

    def __repr__(self) -> str:
        run = self.run
        return (
            f"<policy of {run.label} on {run.env}, seed {run.seed}: ({self.obs_dim},) -> ({self.act_dim},)>"
        )


def policy(run: str | Path) -> Policy:
    """The final policy of a finished run, results/<study>/<env>/<label>/seed-<k>.

    Raises:
        UserError: no finished run is there, it keeps no policy, or its policy is not what its algorithm needs.
    """
    found = finished(Path(expand(str(run))))
    return Policy(found, *load_policy(found))


def finished(path: Path) -> Run:
    """The finished run in a folder. UserError where there is none."""
    expected = "expected results/<study>/<env>/<label>/seed-<k>"
    try:
        run = read_run(path.absolute())
    except ValueError:  # not the path of a run
        raise UserError(f"{path} is not a run directory: {expected}") from None
    if run.state not in FINISHED:
        what = f" ({run.state}{': ' + run.reason if run.reason else ''})" if path.exists() else ""
        raise UserError(f"{path} is not a finished run{what}: {expected}")
    return run


def load_policy(run: Run) -> tuple[Agent, str]:
    """A run's final policy as an agent of one seed, and the mode in which the run was evaluated.

    Raises:
        UserError: policy.pt is missing or is not what the run's algorithm needs.
    """
    try:
        data = read_bytes(run.path / "policy.pt")
        record: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        cls = agent_class(record["algo"])
        config = build_config(record["algo"], record["config"])
        agent: Agent = cls(config, record["obs_dim"], record["act_dim"], [run.seed])
        for part, tensors in record["state"].items():
            for name, value in tensors.items():
                agent.state[part][name].copy_(value)
    except FileNotFoundError:
        raise UserError(f"{run.path} keeps no policy.pt, so there is nothing to watch") from None
    except UserError:
        raise
    except UnpicklingError:  # torch's message proposes to load it all the same
        raise UserError(
            f"{run.path / 'policy.pt'} holds objects other than tensors and numbers, so it is not loaded"
        ) from None
    except Exception as error:  # whatever is in a file from elsewhere
        raise UserError(f"{run.path / 'policy.pt'} cannot be used: {one_line(error)}") from None
    wanted = run.meta["settings"]["eval_mode"]
    return agent, agent.evaluation_mode if wanted == "authors" else wanted
