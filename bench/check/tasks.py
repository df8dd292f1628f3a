"""What a task must do so that runs of it can be resumed and compared: `python -m bench check my_package:MyEnv-v0`.

docs/adding-a-task.md explains each rule. Whatever is compared is compared to the bit, since a resumed run replays the
actions of the episode that it was stopped in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Space, Tuple, flatdim

from bench.check.outcomes import outcomes
from bench.envs import tasks
from bench.envs.batch import EnvBatch
from bench.envs.packages import packages
from bench.envs.parallel import ParallelEnvBatch
from bench.errors import UserError
from bench.training.evaluation import NO_TIME_LIMIT

STEPS = 100  # of what is compared
EPISODES = 3  # that are played to their ends
SEED, OTHER_SEED = 5, 6
ROUNDING = 1e-5  # beyond its bounds by so much of their size, an observation counts as rounded


@dataclass(frozen=True)
class Step:
    """What an agent sees of one environment step; of a reset: the observation (obs_dim,) alone."""

    obs: np.ndarray
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated


@dataclass(frozen=True)
class Subject:
    """A task by its name."""

    name: str

    def make(self) -> gymnasium.Env:
        return tasks.make(self.name)

    @cached_property
    def spec(self) -> tasks.EnvSpec:
        return tasks.spec(self.name)

    def actions(self, steps: int = STEPS, seed: int = 0) -> np.ndarray:
        """(steps, act_dim) in [-1, 1]; every fifth at the bounds."""
        rng = np.random.default_rng(seed)
        drawn = rng.uniform(-1, 1, (steps, self.spec.act_dim))
        drawn[::5] = np.sign(drawn[::5])
        return drawn.astype(np.float32)


Check = Callable[[Subject], None]
CHECKS: dict[str, Check] = {}


def _check(what: str) -> Callable[[Check], Check]:
    def note(function: Check) -> Check:
        CHECKS[what] = function
        return function

    return note


def run(name: str) -> Iterator[tuple[str, str | None]]:
    """(what is checked, what is wrong or None), one after the other; no more after one that stops all others."""
    for number, (what, wrong) in enumerate(outcomes(CHECKS, Subject(name))):
        yield what, wrong
        if wrong is not None and number == 0:
            return


def describe(name: str) -> str:
    """What observations become, the actions, the time limit, the package; or that the task cannot be used."""
    try:
        spec, env = tasks.spec(name), tasks.make(name)
    except UserError:  # the first check says why
        return "cannot be used"
    assert isinstance(env, gymnasium.Wrapper)
    parts = ", ".join(_entries(env.env.observation_space))
    env.close()
    limit = spec.max_episode_steps
    episodes = f"episodes of at most {limit} steps" if limit else "no time limit that is known beforehand"
    origins = [
        f"{package['distribution'] or 'files of no installed package'} {package['version'] or ''}".strip()
        + f" (digest {package['files_sha256'][:8]})"
        for package in packages(name)
    ]
    whence = f"; from {' and '.join(origins)}" if origins else ""
    return f"{spec.obs_dim} observations ({parts}), {spec.act_dim} actions, {episodes}{whence}"


def _entries(space: Space, entry: str = "") -> Iterator[str]:
    """ "achieved_goal 3", "desired_goal 3", ... in the order of the vector."""
    if isinstance(space, (Dict, Tuple)):
        inner = space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces)
        for key, part in inner:
            yield from _entries(part, f"{entry}.{key}" if entry else str(key))
    else:
        yield f"{entry or 'one vector'} {flatdim(space)}"


# -- rolling out -------------------------------------------------------------------------------------------


def _roll(env: gymnasium.Env, seed: int, actions: np.ndarray) -> list[Step]:
    """The reset and the steps, to the end of the episode at most."""
    steps = [Step(env.reset(seed=seed)[0])]
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        steps.append(Step(obs.copy(), float(reward), terminated, truncated))
        if steps[-1].ended:
            break
    return steps


def _roll_batch(
    batch: EnvBatch | ParallelEnvBatch, k: int, seed: int, actions: np.ndarray, replayed: int = 0
) -> list[Step]:
    """As `_roll`, in environment k of a batch whose others stand still; `replayed` actions are taken unseen."""
    if replayed:
        steps = [Step(batch.replay(k, seed, actions[:replayed]).copy())]
    else:
        steps = [Step(batch.reset(k, seed).copy())]
    taken = np.zeros((batch.size, actions.shape[1]), np.float32)
    for action in actions[replayed:]:
        taken[k] = action
        obs, reward, terminated, truncated = batch.step(taken)
        assert batch.error[k] is None, batch.error[k]
        steps.append(Step(obs[k].copy(), float(reward[k]), bool(terminated[k]), bool(truncated[k])))
        if steps[-1].ended:
            break
    return steps


def _same(one: Sequence[Step], other: Sequence[Step], where: str) -> None:
    for t, (a, b) in enumerate(zip(one, other)):
        moment = f"step {t}" if t else "the reset"
        differ = np.flatnonzero(a.obs != b.obs)
        if len(differ):
            i = int(differ[0])
            raise AssertionError(
                f"{where}, number {i} of the observation of {moment} is {b.obs[i]:.9g}, not {a.obs[i]:.9g} "
                f"(seed {SEED})"
            )
        # A batch holds rewards as float32.
        assert np.float32(a.reward) == np.float32(b.reward), (
            f"{where}, the reward of {moment} is {b.reward:.9g}, not {a.reward:.9g} (seed {SEED})"
        )
        assert (a.terminated, a.truncated) == (b.terminated, b.truncated), f"{where}, {moment} ends otherwise"
    assert len(one) == len(other), f"{where}, the episode has {len(other) - 1} steps, not {len(one) - 1}"


# -- the checks --------------------------------------------------------------------------------------------


@_check("it can be made, and its observations and actions can be trained on")
def usable(subject: Subject) -> None:
    try:
        assert subject.spec.obs_dim > 0
    except UserError as error:
        raise AssertionError(str(error)) from None


@_check("observations are finite, of the declared shape and within the declared bounds")
def observations(subject: Subject) -> None:
    env = subject.make()
    assert isinstance(env, gymnasium.Wrapper)
    low, high = (np.concatenate([x, [0]]) for x in _bounds(env.env.observation_space))
    slack = ROUNDING * (1 + np.maximum(np.abs(low), np.abs(high)))
    for t, step in enumerate(_roll(env, SEED, subject.actions())):
        moment = f"step {t}" if t else "the reset"
        assert np.isfinite(step.obs).all(), f"{moment} gives an observation that is not finite"
        obs = np.append(step.obs, 0)
        beyond = np.flatnonzero((obs < low - slack) | (obs > high + slack))
        assert not len(beyond), (
            f"number {beyond[0]} of the observation of {moment} is {obs[beyond[0]]:.6g}; "
            f"declared is {low[beyond[0]]:.6g} to {high[beyond[0]]:.6g}"
        )
        assert np.isfinite(step.reward), f"{moment} gives the reward {step.reward}"
    env.close()


def _bounds(space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest values of the flattened space, (obs_dim,) each."""
    flat = gymnasium.spaces.flatten_space(space)
    assert isinstance(flat, Box)
    return flat.low.ravel().astype(np.float64), flat.high.ravel().astype(np.float64)


@_check("a reset is a function of the seed")
def resets(subject: Subject) -> None:
    env, other = subject.make(), subject.make()
    none = subject.actions(0)
    first = _roll(env, SEED, none)
    _same(first, _roll(env, SEED, none), "after another reset")
    _roll(env, OTHER_SEED, subject.actions(20, seed=1))
    _same(first, _roll(env, SEED, none), "after an episode of another seed")
    _same(first, _roll(other, SEED, none), "in another instance")
    env.close()
    other.close()


@_check("the same actions lead to the same states")
def replays(subject: Subject) -> None:
    env, other = subject.make(), subject.make()
    actions = subject.actions()
    first = _roll(env, SEED, actions)
    _same(first, _roll(env, SEED, actions), "played again")
    _same(first, _roll(other, SEED, actions), "in another instance")
    env.close()
    other.close()


@_check("an episode that was left goes on from its seed and its actions")
def goes_on(subject: Subject) -> None:
    # The run that was left had played other episodes before; the one that goes on has a new environment.
    actions, env = subject.actions(), subject.make()
    _roll(env, OTHER_SEED, subject.actions(seed=1))
    whole = _roll(env, SEED, actions)
    env.close()
    left = (len(whole) - 1) // 2
    batch = EnvBatch([subject.make()])
    rest = _roll_batch(batch, 0, SEED, actions, replayed=left)
    batch.close()
    # The reward and the end of the last step before it are known to the run that goes on.
    _same([Step(whole[left].obs), *whole[left + 1 :]], rest, f"{left} steps later")


@_check("environments of one process leave each other alone")
def alone(subject: Subject) -> None:
    actions, others = subject.actions(), subject.actions(seed=1)
    whole = _roll(subject.make(), SEED, actions)
    envs = [subject.make(), subject.make()]
    steps = [Step(envs[0].reset(seed=SEED)[0])]
    running = False
    for action, other in zip(actions, others):
        if not running:
            envs[1].reset(seed=OTHER_SEED)
        _, _, *ends, _ = envs[1].step(other)
        running = not any(ends)
        obs, reward, terminated, truncated, _ = envs[0].step(action)
        steps.append(Step(obs.copy(), float(reward), terminated, truncated))
        if steps[-1].ended:
            break
    for env in envs:
        env.close()
    _same(whole, steps, "beside another environment")


@_check("another process gives the same")
def other_process(subject: Subject) -> None:
    actions = subject.actions()
    batch = ParallelEnvBatch(subject.name, 1, 1, workers=1)
    try:
        there = _roll_batch(batch, 0, SEED, actions)
    finally:
        batch.close()
    _same(_roll(subject.make(), SEED, actions), there, "in another process")


@_check("an episode ends; a time limit truncates it")
def ends(subject: Subject) -> None:
    env = subject.make()
    limit = subject.spec.max_episode_steps
    longest = limit or NO_TIME_LIMIT
    lengths = []
    for k in range(EPISODES):
        *_, last = steps = _roll(env, k, subject.actions(longest, seed=k))
        length = len(steps) - 1
        if not last.ended:
            remedy = "register it with max_episode_steps, or wrap it in gymnasium.wrappers.TimeLimit"
            why = "the time limit that it declares" if limit else f"and it has no time limit: {remedy}"
            raise AssertionError(f"no end after {length} steps, {why}")
        lengths.append((length, last.terminated and not last.truncated))
    env.close()
    same = len(set(lengths)) == 1 and lengths[0][0] > 1
    assert not (same and lengths[0][1]), (
        f"{EPISODES} episodes of random actions all terminated after {lengths[0][0]} steps: if that is a time limit, "
        "it must truncate, since after a termination no further reward is expected"
    )
