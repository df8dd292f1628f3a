"""Tasks of packages: what a name means, what is refused, observations as vectors, what is recorded of their code."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces.utils import flatten
from gymnasium.wrappers import FlattenObservation

from bench.__main__ import main
from bench.envs import names, packages
from bench.envs import tasks as envs
from bench.errors import UserError
from bench.names import ENV_NAME, LONGEST_ENV_NAME, env_folder, is_safe_name

PACKAGE = Path(__file__).parents[1] / "task_package"
POINTS = (PACKAGE / "pyproject.toml").read_text()


def _forget() -> None:
    names._offered.cache_clear()
    names._of_entry_points.cache_clear()
    names._imported.clear()
    names._added.clear()
    envs.spec.cache_clear()
    packages.packages.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Installs a package with entry points {group: {name: value}} and modules {name: code}; returns its folder."""
    monkeypatch.syspath_prepend(tmp_path)
    registered, loaded = dict(gymnasium.registry), set(sys.modules)
    _forget()

    def install(name: str, points: dict[str, dict[str, str]], **modules: str) -> Path:
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        groups = (
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in own.items())
            for group, own in points.items()
        )
        (info / "entry_points.txt").write_text("\n".join(groups))
        (info / "top_level.txt").write_text("\n".join(modules))
        for module, code in modules.items():
            (tmp_path / f"{module}.py").write_text(code)
        importlib.invalidate_caches()
        _forget()
        return tmp_path

    yield install
    gymnasium.registry.clear()
    gymnasium.registry.update(registered)
    for module in set(sys.modules) - loaded:
        if module.partition(".")[0].startswith(("own_", "task_package")):
            del sys.modules[module]
    _forget()


@pytest.fixture
def package(install: Callable[..., Path]) -> Path:
    """The package of tests/task_package, as it would be installed."""
    points = {
        names.GYMNASIUM: {"arena": "task_package.arena:register"},
        names.TASKS: {"hover": "task_package.hover:hover", "slide-far": "task_package.slide:far"},
    }
    folder = install("task-package", points)
    shutil.copytree(
        PACKAGE / "task_package", folder / "task_package", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "task_package-1.0.dist-info" / "top_level.txt").write_text("task_package\n")
    importlib.invalidate_caches()
    return folder


TASKS = {
    "task_package:Slide-v0": envs.EnvSpec(4, 2, 25, "gymnasium"),
    "task_package:SlideToGoal-v0": envs.EnvSpec(8, 2, 25, "gymnasium"),
    "arena/Slide-v1": envs.EnvSpec(4, 2, 50, "gymnasium"),
    "slide-far": envs.EnvSpec(4, 2, 40, "gymnasium"),
    "hover": envs.EnvSpec(3, 1, None, "gymnasium"),
}


def refusal(name: str) -> str:
    with pytest.raises(UserError) as caught:
        envs.spec(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- names


def test_every_way_to_a_task(package: Path) -> None:
    assert {name: envs.spec(name) for name in TASKS} == TASKS
    for name in TASKS:
        env = envs.make(name, action_repeat=2)
        obs, _ = env.reset(seed=3)
        assert obs.dtype == np.float32
        assert obs in env.observation_space
        assert env.step(env.action_space.sample())[-1]["frames"] == 2


def test_a_name_means_the_same_in_every_process(package: Path) -> None:
    envs.spec("task_package:Slide-v0")  # has imported it, as another process has not
    assert "did you mean 'task_package:Slide-v0'" in refusal("Slide-v0")


def test_a_module_replaces_no_task_that_was_there(install: Callable[..., Path]) -> None:
    before = gymnasium.registry["Pendulum-v1"]
    car = "gymnasium.envs.classic_control:Continuous_MountainCarEnv"
    code = f"import gymnasium\ngymnasium.register('Pendulum-v1', '{car}')"
    install("one", {}, own_one=code)
    assert envs.spec("own_one:Pendulum-v1").obs_dim == 2
    assert gymnasium.registry["Pendulum-v1"] is before
    assert envs.spec("Pendulum-v1").obs_dim == 3


UNKNOWN = [
    (
        "task_package:Slid-v0",
        "task_package registers no 'Slid-v0' with Gymnasium; did you mean 'task_package:Slide-v0'",
    ),
    ("task_pakage:Slide-v0", "there is no module 'task_pakage' here; did you mean 'task_package'?"),
    ("task_package.none:Slide-v0", "there is no module 'task_package.none' here"),
    ("hovr", "unknown task 'hovr'; did you mean 'hover'"),
    ("arena/Slid-v1", "unknown task 'arena/Slid-v1'; did you mean 'arena/Slide-v1'"),
    ("a:b:c-v0", "'a:b:c-v0' cannot name a task: expected cheetah-run, Pendulum-v1 or my_package:MyEnv-v0"),
    ("../../escape-v0", "cannot name a task"),
    ("task_package:../Slide-v0", "cannot name a task"),
    (":Slide-v0", "cannot name a task"),
    ("x" * (LONGEST_ENV_NAME + 1), f"at most {LONGEST_ENV_NAME} characters"),
]


@pytest.mark.parametrize(("name", "message"), UNKNOWN)
def test_unknown_names(package: Path, name: str, message: str) -> None:
    assert message in refusal(name)


def test_a_module_that_does_not_load_is_one_line(install: Callable[..., Path]) -> None:
    install("one", {}, own_broken="\nimport flux_capacitor\n", own_exit="raise SystemExit(3)")
    assert (
        "own_broken cannot be imported: ModuleNotFoundError: No module named 'flux_capacitor' (own_broken.py:2"
        in (refusal("own_broken:X-v0"))
    )
    assert "own_exit cannot be imported: SystemExit: 3" in refusal("own_exit:X-v0")


def test_a_package_that_cannot_register_concerns_nobody_else(install: Callable[..., Path]) -> None:
    install(
        "one", {names.GYMNASIUM: {"__root__": "own_one:register"}}, own_one="def register():\n    {}['x']\n"
    )
    assert envs.spec("Pendulum-v1").obs_dim == 3
    assert "; one could not register its tasks: KeyError: 'x' (own_one.py:2" in refusal("Mine-v0")


def test_a_name_means_one_task(install: Callable[..., Path]) -> None:
    code = "def make():\n    return 3\n"
    builtin = {"Pendulum-v1": "own_one:make", "cheetah-run": "own_one:make", "a+b": "own_one:make"}
    install(
        "one", {names.TASKS: {**builtin, "twice": "own_one:make", "number": "own_one:make"}}, own_one=code
    )
    install("two", {names.TASKS: {"twice": "own_one:make"}})
    for name in ("Pendulum-v1", "cheetah-run"):
        assert "one offers a task of this built-in name: rename its entry point" in refusal(name)
    assert "one and two offer it 2 times: uninstall all but one" in refusal("twice")
    assert "one offers it under a name that has more than letters, digits" in refusal("a+b")
    assert "number is made as a builtins.int; expected a Gymnasium or dm_env environment" in refusal("number")


FOLDERS = {
    "cheetah-run": "cheetah-run",
    "bench/TwoGoals-v0": "bench_TwoGoals-v0",  # as it was before there were modules in names
    "my_package:Task-v0": "my_package+Task-v0",
    "my_package.tasks:arena/Task-v0": "my_package.tasks+arena+Task-v0",
    "my_package:arena_Task-v0": "my_package+arena_Task-v0",
}


def test_folders_are_safe_and_distinct() -> None:
    import re

    for name, folder in FOLDERS.items():
        assert re.fullmatch(ENV_NAME, name)
        assert env_folder(name) == folder
        assert is_safe_name(folder)
        assert os.path.basename(folder) == folder
    assert len(set(map(env_folder, FOLDERS))) == len(FOLDERS)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hoverr", "unknown task 'hoverr'; did you mean 'hover'?"),
        (
            "task_package:Slide-v1",
            "unknown task 'task_package:Slide-v1': task_package registers no 'Slide-v1'",
        ),
        ("CartPole-v1", "CartPole-v1 has actions in a Discrete space; it cannot be trained"),
    ],
)
def test_a_grid_is_refused_before_anything_is_written(
    package: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    name: str,
    reason: str,
) -> None:
    results = tmp_path_factory.mktemp("results")
    words = ["run", "--algos", "td3", "--envs", f"hover {name}", "--results", str(results)]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"bench: {reason}"), error
    assert error.count("\n") == 1
    assert list(results.iterdir()) == []


# --- observations, seeds, ends


def test_a_goal_is_flattened_as_gymnasium_does_it(package: Path) -> None:
    env = envs.make("task_package:SlideToGoal-v0")
    native = env.env
    assert list(native.observation_space.spaces) == ["achieved_goal", "desired_goal", "observation"]
    obs, _ = env.reset(seed=1)
    state = native.unwrapped
    expected = np.concatenate([state.at, state.goal, state.at, state.velocity]).astype(np.float32)
    np.testing.assert_array_equal(obs, expected)
    np.testing.assert_array_equal(obs, flatten(native.observation_space, state.observe()).astype(np.float32))
    theirs, _ = FlattenObservation(native).reset(seed=1)
    np.testing.assert_array_equal(obs, theirs.astype(np.float32))


def test_a_dm_env_task(package: Path) -> None:
    """The order of its specs, its own bounds, a seed, discount 0 as termination, a time limit as truncation."""
    env = envs.make("hover")
    obs, _ = env.reset(seed=1)
    again, _ = env.reset(seed=1)
    other, _ = env.reset(seed=2)
    np.testing.assert_array_equal(obs, again)
    assert obs[2] != other[2]
    assert obs[:2].tolist() == [0.0, 0.0]
    ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(30)]  # half of 0 to 4: hovers
    assert ends == [(False, False)] * 29 + [(False, True)]
    with pytest.raises(RuntimeError, match="reset first"):
        env.step(np.zeros(1, np.float32))
    env.reset(seed=1)
    while not any(end := env.step(-np.ones(1, np.float32))[2:4]):
        pass
    assert end == (True, False)


DM = """
import dm_env, numpy as np
from dm_env import specs

class Made(dm_env.Environment):
    {seed}
    def observation_spec(self):
        return {observation}
    def action_spec(self):
        return {action}
    def reset(self):
        return dm_env.restart(np.zeros(2))
    def step(self, action):
        return dm_env.transition(0.0, np.zeros(2))
"""
SEED = "def seed(self, k): pass"
VECTOR, THRUST = "specs.Array((2,), np.float64)", "specs.BoundedArray((1,), np.float64, -1, 1)"


@pytest.mark.parametrize(
    ("seed", "observation", "action", "message"),
    [
        ("", VECTOR, THRUST, "mine is a dm_env environment that cannot be seeded"),
        (SEED, VECTOR, "specs.DiscreteArray(3)", "mine has actions in a Discrete space"),
        (SEED, VECTOR, "specs.Array((1,), np.float64)", "mine has actions without bounds"),
        (
            SEED,
            "specs.BoundedArray((8, 8, 3), np.uint8, 0, 255)",
            THRUST,
            "mine has images of shape (8, 8, 3)",
        ),
        (SEED, "{'text': specs.StringArray(())}", THRUST, "which is not an array of numbers"),
        (SEED, "specs.Array((0,), np.float64)", THRUST, "observations without a number in them"),
    ],
)
def test_dm_env_tasks_that_cannot_be_trained(
    install: Callable[..., Path], seed: str, observation: str, action: str, message: str
) -> None:
    code = DM.format(seed=seed or "pass", observation=observation, action=action)
    install("one", {names.TASKS: {"mine": "own_dm:Made"}}, own_dm=code)
    assert message in refusal("mine")


def test_a_task_of_dm_control_s_kind_is_seeded_by_its_random_state(install: Callable[..., Path]) -> None:
    code = "from dm_control import suite\ndef make():\n    return suite.load('cartpole', 'balance')\n"
    install("one", {names.TASKS: {"mine": "own_suite:make"}}, own_suite=code)
    assert envs.spec("mine") == envs.EnvSpec(5, 1, 1000, "gymnasium")
    ours, theirs = envs.make("mine"), envs.make("cartpole-balance")
    for k in (3, 4, 3):
        np.testing.assert_array_equal(ours.reset(seed=k)[0], theirs.reset(seed=k)[0])
        for _ in range(3):
            action = np.full(1, 0.5, np.float32)
            np.testing.assert_array_equal(ours.step(action)[0], theirs.step(action)[0])


def test_a_factory_is_given_the_render_mode_where_it_takes_one(install: Callable[..., Path]) -> None:
    code = (
        "import gymnasium\n"
        "def make(render_mode=None):\n    return gymnasium.make('Pendulum-v1', render_mode=render_mode)\n"
        "def blind():\n    return make()\n"
    )
    install("one", {names.TASKS: {"drawn": "own_one:make", "blind": "own_one:blind"}}, own_one=code)
    assert envs.spec("drawn").max_episode_steps == 200
    modes = [envs.make(name, render_mode="rgb_array").unwrapped.render_mode for name in ("drawn", "blind")]
    assert modes == ["rgb_array", None]


# --- what is recorded


def test_what_is_recorded_of_a_package(package: Path) -> None:
    for name in TASKS:
        (record,) = packages.packages(name)
        assert record["offers"] == f"task {name}"
        assert (record["distribution"], record["version"]) == ("task-package", "1.0")
        assert record.keys() >= {"modules_sha256", "files_sha256", "git"}
    for name in ("cheetah-run", "Pendulum-v1"):
        assert packages.packages(name) == []
    data = package / "task_package" / "slide.json"  # what a task is, and no module
    data.write_text('{"friction": 0.3}')
    packages.packages.cache_clear()
    (changed,) = packages.packages("hover")
    assert changed["files_sha256"] != record["files_sha256"]
    assert changed["modules_sha256"] == record["modules_sha256"]


def test_files_of_no_package(install: Callable[..., Path]) -> None:
    code = (PACKAGE / "task_package" / "hover.py").read_text()
    folder = install(
        "one",
        {names.TASKS: {"mine": "own_wrapped:make"}},
        own_wrapped="from own_hover import Hover as make\n",
    )
    (folder / "own_hover.py").write_text(code)
    wrapped, hover = packages.packages("mine")  # the factory's and the environment's
    assert (wrapped["distribution"], hover["distribution"]) == ("one", None)
    assert wrapped["modules_sha256"] != hover["modules_sha256"]


def test_a_package_in_place_is_found(install: Callable[..., Path], tmp_path: Path) -> None:
    source = tmp_path / "source folder"
    source.mkdir()
    (source / "own_place.py").write_text((PACKAGE / "task_package" / "hover.py").read_text())
    folder = install("in-place", {names.TASKS: {"mine": "own_place:Hover"}})
    sys.path.insert(0, str(source))
    try:
        url = f'{{"url": "{source.as_uri()}", "dir_info": {{"editable": true}}}}'
        (folder / "in_place-1.0.dist-info" / "direct_url.json").write_text(url)
        from bench.machine.plugins import distribution_of

        found = distribution_of("own_place")
        assert found is not None
        assert found.name == "in-place"
    finally:
        sys.path.remove(str(source))


def test_a_module_of_this_folder_alone_is_not_submitted(
    install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import gymnasium\ngymnasium.register('Own-v0', 'task_package.slide:Slide')\n"
    folder = install("one", {}, own_named=code)
    (folder / "own_alone.py").write_text(code)
    shutil.copytree(PACKAGE / "task_package", folder / "task_package")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    packages.check_reachable("own_alone:Own-v0")  # found through sys.path, wherever a process starts
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="would not find the module own_alone of this folder: install it"):
        packages.check_reachable("own_alone:Own-v0")
    packages.check_reachable("own_named:Own-v0")
    packages.check_reachable("Pendulum-v1")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    packages.check_reachable("own_alone:Own-v0")
