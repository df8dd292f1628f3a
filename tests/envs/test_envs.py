"""Tasks: names, spaces, seeding, episode ends, packs, and the physics engine itself.

`python -m tests.envs.test_envs regenerate` writes tests/envs/trajectories/ anew: only after a deliberate change of
mujoco or dm_control, since scores from before and after it are then no longer of the same tasks.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from bench.envs import suite
from bench.envs import tasks as envs
from bench.envs.batch import EnvBatch
from bench.envs.view import AgentView
from bench.errors import UserError

PAPER_TASKS = [
    "cartpole-balance",
    "cartpole-swingup",
    "cheetah-run",
    "hopper-hop",
    "walker-walk",
    "walker-run",
    "quadruped-walk",
    "humanoid-walk",
]
TRAJECTORIES = Path(__file__).parent / "trajectories"


LARGEST = float(np.finfo(np.float32).max)


class Scripted(gymnasium.Env):
    """Observes (its step count, the action), pays the count; ends, fails or goes wrong on schedule."""

    def __init__(
        self, length=1000, *, terminates=False, raises_at=None, reward_at=None, obs_at=None, bounds=(-1, 1)
    ):
        self.length, self.terminates = length, terminates
        self.raises_at, self.reward_at, self.obs_at = raises_at, reward_at or {}, obs_at or {}
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = Box(*np.array(bounds, np.float32).reshape(2, 1), dtype=np.float32)
        self.actions: list[np.ndarray] = []

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return np.array([0.0, seed]), {}

    def step(self, action):
        self.count += 1
        self.actions.append(action)
        if self.count == self.raises_at:
            raise ValueError("the simulation\nexploded")
        over = self.count >= self.length
        obs = self.obs_at.get(self.count, np.array([self.count, action[0]]))
        reward = self.reward_at.get(self.count, float(self.count))
        return obs, reward, over and self.terminates, over and not self.terminates, {}


def scripted_pack(*scripts: dict) -> EnvBatch:
    return EnvBatch([AgentView(Scripted(**script), "scripted") for script in scripts])


def some_actions(env: gymnasium.Env, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


def roll(env: gymnasium.Env, seed: int, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Observations (steps + 1, obs_dim) and rewards (steps,) of the beginning of an episode."""
    observations, rewards = [env.reset(seed=seed)[0]], []
    for action in actions:
        obs, reward, *_ = env.step(action)
        observations.append(obs)
        rewards.append(reward)
    return np.array(observations), np.array(rewards)


# --- names and spaces


def test_names_are_domain_dash_task():
    names = envs.task_names()
    assert len(names) == len(set(names))
    assert {*PAPER_TASKS, "ball_in_cup-catch", "cartpole-swingup_sparse", "humanoid_CMU-run"} <= set(names)
    assert envs.check_name("ball_in_cup-catch") == "dm_control"
    assert envs.check_name("Pendulum-v1") == "gymnasium"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cheeta-run", "cheetah-run"),
        ("cheetah_run", "cheetah-run"),
        ("pendulum-v1", "Pendulum-v1"),
        ("Pendulum", "Pendulum-v1"),
        ("Hopper-v9", "Hopper-v5"),
    ],
)
def test_unknown_name_suggests_what_was_meant(name, meant):
    with pytest.raises(UserError, match="unknown task") as error:
        envs.make(name)
    assert repr(meant) in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_name_without_a_close_one_says_what_a_name_looks_like():
    with pytest.raises(UserError, match="cheetah-run"):
        envs.check_name("qqqqqqqq")


@pytest.mark.parametrize("kwargs", [{"action_repeat": 0}, {"render_mode": "human"}])
def test_bad_arguments(kwargs):
    with pytest.raises(UserError, match=next(iter(kwargs))):
        envs.make("Pendulum-v1", **kwargs)


def test_spaces_that_cannot_be_used():
    with pytest.raises(UserError, match="Discrete"):
        envs.spec("CartPole-v1")
    for space, complaint in [
        (Box(0.0, np.inf, (1,), np.float64), "one side"),
        (Box(0.0, LARGEST, (1,), np.float32), "one side"),
        (Box(-np.finfo(np.float64).max, 1.0, (1,), np.float64), "one side"),
        (Box(-np.inf, np.inf, (1,), np.float32), "without bounds"),
        (Box(-LARGEST, LARGEST, (1,), np.float32), "without bounds"),
        (Box(-np.finfo(np.float64).max, np.finfo(np.float64).max, (1,), np.float64), "without bounds"),
        (Box(-1e10, np.inf, (1,), np.float64), "without bounds"),
        (Box(0, 5, (1,), np.int64), "int64"),
        (Discrete(2), "Discrete"),
    ]:
        env = Scripted()
        env.action_space = space
        with pytest.raises(UserError, match=complaint):
            AgentView(env, "scripted")


def test_a_task_that_cannot_be_built_is_one_line():
    def broken(**kwargs):
        raise ImportError("no module\nnamed box3d")

    gymnasium.register("Broken-v0", broken)
    try:
        with pytest.raises(UserError, match=r"Broken-v0.*no module named box3d"):
            envs.spec("Broken-v0")
    finally:
        del gymnasium.registry["Broken-v0"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cheetah-run", envs.EnvSpec(17, 6, 1000, "dm_control")),
        ("humanoid-walk", envs.EnvSpec(67, 21, 1000, "dm_control")),
        ("Pendulum-v1", envs.EnvSpec(3, 1, 200, "gymnasium")),
        ("Hopper-v5", envs.EnvSpec(11, 3, 1000, "gymnasium")),
    ],
)
def test_spec(name, expected):
    assert envs.spec(name) == expected


@pytest.mark.parametrize("name", ["humanoid-walk", "Hopper-v5"])
def test_spaces_and_dtypes(name):
    env = envs.make(name)
    assert env.action_space == Box(-1.0, 1.0, (envs.spec(name).act_dim,), np.float32)
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space
    obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    assert obs in env.observation_space
    assert obs.dtype == np.float32
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)


def test_agrees_with_plain_dm_control():
    """Observation order (with a scalar entry, `height`), reset seed, rewards."""
    env = envs.make("walker-walk")
    actions = some_actions(env, 10)
    observations, rewards = roll(env, 7, actions)
    plain = suite._suite().load("walker", "walk", task_kwargs={"random": 7})
    steps = [plain.reset(), *(plain.step(action) for action in actions)]
    for ours, step in zip(observations, steps, strict=True):
        assert list(step.observation) == ["orientations", "height", "velocity"]
        expected = np.hstack([step.observation[key] for key in ("orientations", "height", "velocity")])
        np.testing.assert_array_equal(ours, expected.astype(np.float32))
    np.testing.assert_array_equal(rewards, [step.reward for step in steps[1:]])


# --- actions


@pytest.mark.parametrize(
    ("bounds", "action", "native"),
    [
        ((-2, 6), 0.5, 4.0),
        ((-2, 6), -1.0, -2.0),
        ((-2, 6), 1.0, 6.0),
        ((-2, 6), 3.0, 6.0),  # clipped
        ((-1e9, 1e9), 0.25, 2.5e8),
    ],
)
def test_actions_are_mapped_to_the_tasks_bounds(bounds, action, native):
    scripted = Scripted(bounds=bounds)
    env = AgentView(scripted, "scripted")
    env.reset(seed=0)
    env.step(np.array([action], np.float32))
    assert scripted.actions[0] == pytest.approx(native)
    assert scripted.actions[0].dtype == np.float32


def test_actions_of_lqr_have_no_bounds_and_are_taken_as_they_are():
    env = envs.make("lqr-lqr_2_1")
    env.reset(seed=0)
    for action in (-1.0, 0.25, 1.0):
        env.step(np.array([action], np.float32))
        assert env.unwrapped.native.physics.control().tolist() == [action]


def test_dm_control_receives_float64_and_the_very_action_where_bounds_are_one():
    env = envs.make("cheetah-run")
    env.reset(seed=0)
    action = some_actions(env, 1)[0]
    env.step(action)
    control = env.unwrapped.native.physics.control()
    assert control.dtype == np.float64
    np.testing.assert_array_equal(control, action.astype(np.float64))


@pytest.mark.parametrize("terminates", [True, False])
@pytest.mark.parametrize("repeat", [1, 2, 3, 4])
def test_action_repeat_sums_rewards_and_stops_at_the_end(repeat, terminates):
    pack = EnvBatch([AgentView(Scripted(length=5, terminates=terminates), "scripted", repeat)])
    pack.reset(0, 0)
    counted = 0
    while counted < 5:
        _, (reward,), (terminated,), (truncated,) = pack.step(np.zeros((1, 1), np.float32))
        taken = min(repeat, 5 - counted)
        assert pack.frames[0] == taken
        assert reward == sum(range(counted + 1, counted + taken + 1))
        counted += taken
        assert (terminated, truncated) == (counted == 5 and terminates, counted == 5 and not terminates)


def test_action_repeat_shortens_dm_control_episodes():
    single, repeated = envs.make("cartpole-balance"), envs.make("cartpole-balance", action_repeat=4)
    actions = some_actions(single, 3)
    observations, rewards = roll(single, 0, np.repeat(actions, 4, axis=0))
    repeated_observations, repeated_rewards = roll(repeated, 0, actions)
    np.testing.assert_array_equal(repeated_observations, observations[::4])
    np.testing.assert_allclose(repeated_rewards, rewards.reshape(3, 4).sum(1), rtol=1e-15)


# --- episodes


@pytest.mark.parametrize("name", [*PAPER_TASKS, "Pendulum-v1", "Hopper-v5"])
def test_seeded_reset_is_independent_of_what_happened_before(name):
    env, other = envs.make(name), envs.make(name)
    actions = some_actions(env, 15)
    first = roll(env, 3, actions)
    roll(env, 4, actions[::-1])
    env.reset()  # an episode left after no step
    again = roll(env, 3, actions)
    elsewhere = roll(other, 3, actions)
    for obs, rewards in (again, elsewhere):
        np.testing.assert_array_equal(obs, first[0])
        np.testing.assert_array_equal(rewards, first[1])
    assert not np.array_equal(roll(env, 5, actions)[0][0], first[0][0])


@pytest.mark.slow
def test_every_dm_control_task_is_seeded_and_lasts_1000_steps():
    for name in envs.task_names():
        env, other = envs.make(name), envs.make(name)
        actions = some_actions(env, 5)
        roll(env, 1, actions)
        for ours, theirs in zip(roll(env, 2, actions), roll(other, 2, actions)):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
        assert envs.spec(name).max_episode_steps == 1000, name


@pytest.mark.parametrize(
    ("name", "steps"), [("cartpole-balance", 1000), ("lqr-lqr_2_1", 1000), ("Pendulum-v1", 200)]
)
def test_a_time_limit_truncates(name, steps):
    env = envs.make(name)
    env.reset(seed=0)
    action = np.full(env.action_space.shape, 0.1, np.float32)
    ends = [env.step(action)[2:4] for _ in range(steps)]
    assert ends == [(False, False)] * (steps - 1) + [(False, True)]


def test_termination_by_the_task():
    env = envs.make("Hopper-v5")
    env.reset(seed=0)
    ends = [(False, False)]
    while ends[-1] == (False, False):
        ends.append(env.step(np.ones(3, np.float32))[2:4])
    assert ends[-1] == (True, False)
    assert len(ends) < 200


def test_dm_control_termination_is_discount_zero():
    """lqr ends when the state is at rest: put it there."""
    env = envs.make("lqr-lqr_2_1")
    env.reset(seed=0)
    physics = env.unwrapped.native.physics
    physics.data.qpos[:] = physics.data.qvel[:] = 0
    physics.forward()
    assert env.step(np.zeros(1, np.float32))[2:4] == (True, False)
    with pytest.raises(RuntimeError, match="reset first"):
        env.step(np.zeros(1, np.float32))


# --- packs


def test_pack_steps_what_single_environments_step():
    singles = [envs.make("cheetah-run") for _ in range(2)]
    pack = EnvBatch([envs.make("cheetah-run") for _ in range(2)])
    actions = np.stack([some_actions(env, 5, seed=k) for k, env in enumerate(singles)], axis=1)
    for k, env in enumerate(singles):
        np.testing.assert_array_equal(pack.reset(k, seed=10 + k), env.reset(seed=10 + k)[0])
    for action in actions:
        obs, reward, _, _ = pack.step(action)
        for k, env in enumerate(singles):
            expected_obs, expected_reward, *_ = env.step(action[k])
            np.testing.assert_array_equal(obs[k], expected_obs)
            assert reward[k] == np.float32(expected_reward)
    assert (obs.dtype, reward.dtype) == (np.float32, np.float32)


def test_pack_with_episodes_of_different_lengths():
    pack = scripted_pack({"length": 2, "terminates": True}, {"length": 3})
    pack.reset(0, seed=5)
    pack.reset(1, seed=6)
    np.testing.assert_array_equal(pack.obs, [[0, 5], [0, 6]])
    actions = np.array([[0.25], [0.5]], np.float32)
    pack.step(actions)
    obs, reward, terminated, truncated = pack.step(actions)
    np.testing.assert_array_equal(
        obs, [[2, 0.25], [2, 0.5]]
    )  # the true last observation, not the next episode's
    assert (terminated.tolist(), truncated.tolist()) == ([True, False], [False, False])
    with pytest.raises(RuntimeError, match="environment 0"):
        pack.step(actions)
    pack.reset(0, seed=7)
    np.testing.assert_array_equal(pack.obs, [[0, 7], [2, 0.5]])
    obs, reward, terminated, truncated = pack.step(actions)
    assert reward.tolist() == [1, 3]
    assert (terminated.tolist(), truncated.tolist()) == ([False, False], [False, True])


def test_observations_stay_during_the_next_step():
    """The training loop stores (obs, action, reward, next obs) after the step, without a copy."""
    pack = scripted_pack({})
    before = pack.reset(0, seed=5)
    after, *_ = pack.step(np.full((1, 1), 0.5, np.float32))
    assert before.tolist() == [0, 5]
    assert after[0].tolist() == [1, 0.5]


def test_replay_goes_on_where_the_episode_was():
    pack, resumed = (EnvBatch([envs.make("hopper-hop") for _ in range(2)]) for _ in range(2))
    actions = np.stack([some_actions(env, 12, seed=k) for k, env in enumerate(pack.envs)], axis=1)
    for k in range(2):
        pack.reset(k, seed=k)
    for step, action in enumerate(actions):
        if step == 4:  # environment 1 begins an episode of its own
            pack.reset(1, seed=9)
        if step == 10:
            resumed.replay(0, 0, actions[:10, 0])
            resumed.replay(1, 9, actions[4:10, 1])
            np.testing.assert_array_equal(resumed.obs, pack.obs)
        expected = pack.step(action)
    for action in actions[10:]:
        outcome = resumed.step(action)
    for ours, theirs in zip(outcome, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_standing_still_and_moving_again():
    pack = scripted_pack({}, {})
    pack.reset(0, seed=5)
    pack.reset(1, seed=6)
    actions = np.array([[0.25], [0.5]], np.float32)
    pack.step(actions)
    pack.stand_still(1)
    for _ in range(3):
        obs, reward, terminated, truncated = pack.step(actions)
    assert obs.tolist() == [[4, 0.25], [1, 0.5]]
    assert reward.tolist() == [4, 0]
    assert not terminated.any()
    assert not truncated.any()
    pack.reset(1, seed=8)
    assert pack.step(actions)[1].tolist() == [5, 1]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ({"raises_at": 2}, "ValueError: the simulation exploded"),
        ({"reward_at": {2: float("nan")}}, "reward nan"),
        ({"obs_at": {2: np.array([np.inf, 0.0])}}, "observation"),
    ],
)
def test_a_failing_environment_stops_alone(script, reason):
    pack = scripted_pack({}, script, {})
    for k in range(3):
        pack.reset(k, seed=k)
    actions = np.full((3, 1), 0.5, np.float32)
    pack.step(actions)
    assert pack.error == [None] * 3
    for count in (2, 3):
        obs, reward, terminated, truncated = pack.step(actions)
        assert obs.tolist() == [[count, 0.5], [1, 0.5], [count, 0.5]]
        assert reward.tolist() == [count, 0, count]
        assert not (terminated | truncated).any()
    assert pack.error[0] is pack.error[2] is None
    assert reason in pack.error[1]
    pack.reset(1, seed=9)  # an error is for good
    assert pack.step(actions)[1].tolist() == [4, 0, 4]


def test_an_unstable_simulation_is_an_error_of_its_seed():
    pack = EnvBatch([envs.make("cheetah-run") for _ in range(2)])
    for k in range(2):
        pack.reset(k, seed=k)
    actions = np.zeros((2, 6), np.float32)
    actions[1] = np.nan
    pack.step(actions)
    assert pack.error[0] is None
    assert "PhysicsError" in pack.error[1]


def test_actions_of_another_shape_are_nobodys_divergence():
    pack = scripted_pack({}, {})
    pack.reset(0, seed=0)
    pack.reset(1, seed=0)
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        pack.step(np.zeros((1, 1), np.float32))
    assert pack.error == [None, None]


# --- GL

TRAIN_WITHOUT_GL = """
import sys
from bench.envs import tasks as envs
assert not {"mujoco", "dm_control", "torch"} & set(sys.modules), "importing bench.envs.tasks must be cheap"
for name in ("cheetah-run", "quadruped-escape", "HalfCheetah-v5"):
    env = envs.make(name)
    env.reset(seed=0)
    env.step(env.action_space.sample())
print([name for name in sys.modules if name.split(".")[0] == "OpenGL"])
"""


@pytest.mark.seconds
@pytest.mark.parametrize("mujoco_gl", [None, "egl"])
def test_training_loads_no_gl_and_leaves_no_files(mujoco_gl, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2])}
    if mujoco_gl is not None:
        environment["MUJOCO_GL"] = mujoco_gl
    result = subprocess.run(
        [sys.executable, "-c", TRAIN_WITHOUT_GL],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []  # MuJoCo's own handler would write MUJOCO_LOG.TXT


@pytest.mark.seconds
@pytest.mark.parametrize("name", ["cheetah-run", "Hopper-v5"])
def test_drawing(name):
    try:
        from mujoco.egl import GLContext

        GLContext(8, 8).free()
    except Exception as error:
        pytest.skip(f"no EGL here: {error}")
    env = envs.make(name, render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    assert before.dtype == np.uint8
    assert before.shape[2] == 3
    assert before.std() > 5  # something is in the picture
    for _ in range(10):
        env.step(np.ones(env.action_space.shape, np.float32))
    assert not np.array_equal(env.render(), before)
    env.close()


def test_drawing_without_a_gl_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco.egl", None)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    env = envs.make("cheetah-run", render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"cannot draw cheetah-run.*libEGL"):
        env.render()


# --- the physics engine


def installed() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in ("mujoco", "dm_control")}


def regenerate() -> None:
    TRAJECTORIES.mkdir(exist_ok=True)
    for name in PAPER_TASKS:
        env = envs.make(name)
        actions = some_actions(env, 20)
        observations, rewards = roll(env, 0, actions)
        np.savez_compressed(
            TRAJECTORIES / f"{name}.npz",
            actions=actions,
            observations=observations,
            rewards=rewards,
            **{package: np.array(version) for package, version in installed().items()},
        )


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_physics_engine_is_the_one_that_was_recorded(name):
    """Scores belong to a physics engine: one that moves differently must not go unseen.

    Tolerance: state changed by a relative 1e-12 before every step (another CPU rounds by 1e-16) moves these
    observations by at most 1.2e-7, one unit of float32, and the rewards by 2e-11; gravity changed by 1e-4
    moves each of them by a relative 2e-5 or more.
    """
    with np.load(TRAJECTORIES / f"{name}.npz", allow_pickle=False) as recorded:
        observations, rewards = roll(envs.make(name), 0, recorded["actions"])
        versions = {package: str(recorded[package]) for package in installed()}
        message = (
            f"{name}: the physics differs from what was recorded with {versions}; here are {installed()}"
        )
        np.testing.assert_allclose(observations, recorded["observations"], 1e-6, 1e-6, err_msg=message)
        np.testing.assert_allclose(rewards, recorded["rewards"], 1e-6, 1e-9, err_msg=message)


@pytest.mark.seconds
def test_a_changed_physics_engine_is_seen():
    for name in PAPER_TASKS:
        env = envs.make(name)
        env.unwrapped.native.physics.model.opt.gravity[2] *= 1 + 1e-4
        with np.load(TRAJECTORIES / f"{name}.npz", allow_pickle=False) as recorded:
            observations, _ = roll(env, 0, recorded["actions"])
            assert not np.allclose(observations, recorded["observations"], 1e-6, 1e-6), name


if __name__ == "__main__":
    if sys.argv[1:] != ["regenerate"]:
        sys.exit("usage: python -m tests.envs.test_envs regenerate")
    regenerate()
