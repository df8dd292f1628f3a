"""The environment: made anew where it is half made, filled by pip's settings that say where packages come from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.machine import install
from tests.launching import REPO

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}
CONSTRAINED = {
    canonicalize_name(r.name): r
    for line in (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for r in [Requirement(line)]
}
PYTHONS = [f"3.{minor}" for minor in range(install.LOWEST[1], install.HIGHEST[1] + 1)]
WITHOUT_WHEELS = {"labmaze"}  # from Python 3.13 on; dm_control.suite never imports it
ONLY_TO_BUILD = {"setuptools"}


def test_the_documents_and_the_metadata_name_the_same_versions_of_python() -> None:
    low, high = (f"{major}.{minor}" for major, minor in (install.LOWEST, install.HIGHEST))
    assert f"Python {low} to {high}" in (REPO / "README.md").read_text(encoding="utf-8")
    assert PROJECT["requires-python"] == f">={low},<3.{install.HIGHEST[1] + 1}"
    assert f"Python {low} to {high}" in (REPO / "constraints.txt").read_text(encoding="utf-8")


def test_dm_control_comes_without_labmaze_where_that_has_no_wheels() -> None:
    """Where pip does not install dm_control's requirements, all of them but labmaze are requirements of ours."""
    needed = [Requirement(text) for text in metadata.requires("dm_control") or [] if "extra ==" not in text]
    for python in PYTHONS:
        there = {"python_version": python, "extra": ""}
        mine = {name for name, r in DECLARED.items() if r.marker is None or r.marker.evaluate(there)}
        asked = {canonicalize_name(r.name) for r in needed if r.marker is None or r.marker.evaluate(there)}
        if "dm-control" not in mine:
            assert asked - mine == WITHOUT_WHEELS | ONLY_TO_BUILD, python
    for requirement in needed:
        mine = DECLARED.get(canonicalize_name(requirement.name))
        version = CONSTRAINED[canonicalize_name(requirement.name)].specifier
        assert mine is None or all(requirement.specifier.contains(s.version) for s in version)


@pytest.mark.seconds
def test_every_task_is_made_without_labmaze() -> None:
    script = (
        "import sys; sys.modules['labmaze'] = None\n"
        "from dm_control import suite\n"
        "for name in sorted({domain for domain, _ in suite.ALL_TASKS}):\n"
        "    suite.load(name, next(task for domain, task in suite.ALL_TASKS if domain == name))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=REPO)


@pytest.mark.seconds
def test_every_package_that_is_installed_for_ours_has_its_version_in_the_constraints() -> None:
    """On every Python that the suite names; torch's own CUDA packages follow torch."""
    for python in PYTHONS:
        there = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
        seen: set[str] = set()
        waiting = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
        while waiting:
            requirement = Requirement(waiting.pop())
            name = canonicalize_name(requirement.name)
            if name in seen or (requirement.marker and not requirement.marker.evaluate(there)):
                continue
            seen.add(name)
            if re.match(r"(nvidia|cuda|triton)", name):
                continue
            pin = CONSTRAINED[name]
            assert pin.marker is None or pin.marker.evaluate(there), f"{name} on Python {python}"
            (exact,) = pin.specifier
            assert requirement.specifier.contains(exact.version), f"{requirement} against {pin}"
            try:
                waiting += metadata.requires(name) or []
            except metadata.PackageNotFoundError:  # of another Python or system
                continue


# -- pip's settings ----------------------------------------------------------------------------------


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file of pip's, and nothing else from this machine."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    return tmp_path / "pip.conf"


def settings() -> tuple[dict[str, str], list[str]]:
    return install.pip_settings(Path(sys.executable))


@pytest.mark.seconds
def test_where_packages_come_from_is_honoured_and_where_they_go_is_not(
    pip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip.write_text(
        "[global]\nindex-url = https://a.example/simple\ntarget = /elsewhere\nextra-index-url =\n  https://b.example\n"
        "  https://c.example\n[install]\nuser = true\nno-deps = true\n[list]\nformat = columns\n"
    )
    for name, value in {
        "PIP_USER": "1", "PIP_TARGET": "/elsewhere", "PIP_PREFIX": "/p", "PIP_ROOT": "/r", "PIP_DRY_RUN": "1",
        "PIP_REQUIREMENT": "/theirs.txt", "PIP_PROXY": "http://p.example", "PIP_INDEX_URL": "https://d.example/simple",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    kept, dropped = settings()
    assert kept["PIP_INDEX_URL"] == "https://d.example/simple"  # the environment before the file, as for pip
    assert kept["PIP_PROXY"] == "http://p.example"
    assert kept["PIP_EXTRA_INDEX_URL"].split() == ["https://b.example", "https://c.example"]
    assert kept["PIP_CONFIG_FILE"] == os.devnull
    assert {"user", "target", "prefix", "root", "dry-run", "no-deps", "requirement"} <= set(dropped)
    assert not [name for name in kept if name.removeprefix("PIP_").lower().replace("_", "-") in dropped]


@pytest.mark.seconds
def test_pip_settings_that_cannot_be_read(pip: Path) -> None:
    pip.write_text("no section\n")
    with pytest.raises(install.Failed, match=r"pip cannot read its settings: .") as failed:
        settings()
    assert "\n" not in str(failed.value)


# -- half-made environments --------------------------------------------------------------------------


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is started instead of venv, pip and the compiler."""
    seen: list[list[str]] = []

    def run(command: list[str], **how: object) -> subprocess.CompletedProcess[str]:
        seen.append([str(word) for word in command])
        if "venv" in command:
            (Path(command[-1]) / "bin").mkdir(parents=True)
            (Path(command[-1]) / "bin/python").touch()
        broken = not Path(command[0]).exists() and "python" in str(command[0])
        failed = broken or ("interrupt" in os.environ and "install" in command)
        return subprocess.CompletedProcess(command, int(failed), "", "")

    monkeypatch.setattr(install.subprocess, "run", run)
    return seen


def made_anew(commands: list[list[str]], folder: Path) -> bool:
    commands.clear()
    install.main(folder)
    assert (folder / install.STAMP).read_text().strip() == install.version()
    return any("venv" in command for command in commands)


def test_an_environment_is_made_anew_unless_this_python_finished_it(
    tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "e"
    assert made_anew(commands, folder)
    assert not made_anew(commands, folder)  # other versions of packages go into the same one

    (folder / install.STAMP).unlink()  # interrupted while it was first made
    (folder / "rest").touch()
    assert made_anew(commands, folder)
    assert not (folder / "rest").exists()

    (folder / install.STAMP).write_text("Python 3.11.0\n")
    assert made_anew(commands, folder)

    (folder / "bin/python").unlink()  # the machine's Python went away
    assert made_anew(commands, folder)

    monkeypatch.setenv("interrupt", "1")
    with pytest.raises(install.Failed, match="could not be installed"):
        install.main(folder)
    assert not (folder / install.STAMP).exists()
    monkeypatch.delenv("interrupt")
    assert made_anew(commands, folder)


def test_pip_is_alone_with_its_environment(tmp_path: Path, commands: list[list[str]]) -> None:
    """-I: packages on PYTHONPATH or in the user's own folder do not count as installed."""
    install.main(tmp_path / "e")
    pips = [command for command in commands if "pip" in command]
    assert pips
    assert all(command[1:4] == ["-I", "-m", "pip"] for command in pips)
    without = [command for command in pips if "--no-deps" in command]
    assert len(without) == (sys.version_info >= (3, 13))


@pytest.mark.parametrize(("given", "words"), [("ccache gcc -m64", ["ccache", "gcc", "-m64"]), ("", ["cc"])])
def test_the_compiler_may_come_with_options(
    tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, given: str, words: list[str]
) -> None:
    monkeypatch.setenv("CC", given)
    install.main(tmp_path / "e")
    (compiling,) = [command for command in commands if "-shared" in command]
    assert compiling[: len(words) + 1] == [*words, "-shared"]


def test_what_is_in_the_way_is_not_removed(tmp_path: Path, commands: list[list[str]]) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(install.Failed, match="is a link or a file"):
            install.main(tmp_path / name)
    assert (tmp_path / "theirs").is_dir()


def test_other_pythons_are_refused_in_one_line(tmp_path: Path) -> None:
    text = (REPO / "bench/machine/install.py").read_text(encoding="utf-8")
    (tmp_path / "install.py").write_text(
        text.replace("HIGHEST = (3, 11), (3, 14)", "HIGHEST = (3, 8), (3, 9)")
    )
    done = subprocess.run(
        [sys.executable, "-I", tmp_path / "install.py", "e"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"make: this is Python 3\.\d+, and the suite needs 3\.8 to 3\.9: name another.*\n", done.stderr
    )
    assert not (tmp_path / "e").exists()
