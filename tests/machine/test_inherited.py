"""What the shell hands down: paths that it did not expand, variables that mislead, locales, read-only checkouts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import paths
from bench.__main__ import _parser, parse
from bench.errors import UserError
from bench.machine import inherited, provenance
from bench.machine.inherited import MISLEADING, clean
from tests.launching import REPO, command, environment

# -- paths -------------------------------------------------------------------------------------------

#: Options that are no paths; whatever is added to a command and is not named here has its ~ expanded.
NO_PATHS = {
    "algos", "envs", "seeds", "steps", "set", "device", "execution", "pack", "retry", "dry", "jobs", "jobs_per_gpu",
    "hang_minutes", "job_memory_mb", "jobs_per_task", "figures", "quick", "grids", "help",
    "json", "exit_code", "watch", "specs", "compile",
    "source", "columns", "values", "names", "metric", "rename", "action_repeat", "every",
    "subject", "baseline", "normalise", "sensitivity", "others", "width", "sizes",
}  # fmt: skip


def commands() -> dict[str, list[tuple[str, str]]]:
    """Command -> its options and positional arguments, each with the name of what it sets."""
    found = next(a for a in _parser()._actions if hasattr(a, "choices") and a.choices).choices
    return {
        name: [((action.option_strings or [""])[0], action.dest) for action in parser._actions]
        for name, parser in found.items()
    }


def test_every_path_is_expanded_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    tried = 0
    for name, options in commands().items():
        for option, where in options:
            if where in NO_PATHS:
                continue
            for text, expanded in (
                ("~/a b", "/home/me/a b"),
                ("$SCRATCH/x", "/scratch/me/x"),
                ("~", "/home/me"),
            ):
                given = [name, f"{option}={text}"] if option else [name, text]
                found = getattr(parse(given), where)
                assert (" ".join(found) if isinstance(found, list) else found) == expanded, given
                tried += 1
    assert tried > 40


def test_no_other_code_expands_a_path() -> None:
    for path in [*REPO.glob("bench/**/*.py"), *REPO.glob("algos/**/*.py")]:
        if path.name != "paths.py":
            assert "expanduser" not in (text := path.read_text(encoding="utf-8")), path
            assert "expandvars" not in text, path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("~nobody-of-that-name/x", "~nobody-of-that-name is no home folder on this host"),
        ("$NOT_SET/x", "$NOT_SET is not set on this host"),
        ("${NOT_SET}", "$NOT_SET is not set on this host"),
        ("", "RESULTS is empty: expected a path"),
    ],
)
def test_a_path_that_cannot_be_meant(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=r"^RESULTS") as refused:
        parse(["status", f"RESULTS={text}"])
    assert reason in str(refused.value)


def test_variables_are_named_as_make_names_them() -> None:
    options = parse(["run", "STUDY=paper", "JOBS_PER_GPU=3", "SET=eval_every=5", "RESULTS=a=b"])
    assert (options.study, options.jobs_per_gpu, options.set, options.results) == (
        "paper",
        "3",
        "eval_every=5",
        "a=b",
    )
    with pytest.raises(UserError, match="run does not take --algo; did you mean '--algos'"):
        parse(["run", "ALGO=sac"])  # nor is it taken for its longer neighbour


def test_a_cache_is_never_below_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert paths.cache_folder() == tmp_path / "cache" / "qsm-bench"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "~/mine")  # as a shell leaves it in quotes
    assert paths.cache_folder() == tmp_path / "home" / "mine" / "qsm-bench"
    monkeypatch.chdir(tmp_path)
    for other in ("", "relative", "$NOT_SET/x", "~nobody-of-that-name"):
        monkeypatch.setenv("XDG_CACHE_HOME", other)
        assert paths.cache_folder() == tmp_path / "home" / ".cache" / "qsm-bench"
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "home"}
    monkeypatch.delenv("XDG_CACHE_HOME")
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))  # no folder can be made there
    monkeypatch.setattr(paths.tempfile, "gettempdir", lambda: str(tmp_path / "t"))
    assert paths.cache_folder() == tmp_path / "t" / f"qsm-bench-{os.getuid()}"
    for name in ("pool.py", "child.py", "pack.py", "task.py"):
        found = list(REPO.glob(f"bench/**/{name}"))
        assert found
        assert all('".cache"' not in path.read_text(encoding="utf-8") for path in found)


def test_a_cache_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qsm-bench").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(paths.os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    assert not paths.cache_folder().is_relative_to(tmp_path / "qsm-bench")


def test_nothing_takes_rights_away_that_the_umask_leaves() -> None:
    """A group that shares a results folder sets its umask for that. A cache is its user's own (paths.py)."""
    for path in REPO.glob("bench/**/*.py"):
        if path.name != "paths.py":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"chmod\(|mkdtemp\(|mkstemp\(|NamedTemporaryFile\(", text), path


# -- variables ---------------------------------------------------------------------------------------


def test_what_would_make_results_wrong_is_dropped_and_said() -> None:
    shell = dict.fromkeys(MISLEADING, "1") | {
        "OMP_NUM_THREADS": "4",
        "CUDA_VISIBLE_DEVICES": "1",
        "HOME": "/h",
    }
    lines = clean(shell, [])
    assert shell == {"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "1", "HOME": "/h"}
    assert [line.split("'s ")[1].split()[0] for line in lines] == list(MISLEADING)
    assert clean(shell, []) == []


def test_packages_of_another_python_are_left_out(tmp_path: Path) -> None:
    own = f"/apps/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    foreign = "/apps/python/3.9/lib/python3.9/site-packages"
    shell, path = (
        {"PYTHONPATH": os.pathsep.join([foreign, "/my/code", own])},
        ["", foreign, "/my/code", own, "/lib"],
    )
    (line,) = clean(shell, path)
    assert foreign in line
    # an algorithm of one's own may lie there
    assert shell["PYTHONPATH"] == os.pathsep.join(["/my/code", own])
    assert path == ["", "/my/code", own, "/lib"]


@pytest.mark.seconds
def test_the_command_line_says_what_it_drops(tmp_path: Path) -> None:
    done = subprocess.run(
        command("status", "--results", str(tmp_path)),
        env=environment() | {"OMP_PROC_BIND": "true"},
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines()[0].startswith("bench: the shell's OMP_PROC_BIND is not used: ")


@pytest.mark.seconds
@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_files_are_utf8_in_every_locale(tmp_path: Path, locale: str) -> None:
    (tmp_path / "é.toml").write_text('title = "µ"\n', encoding="utf-8")
    shell = {
        key: value
        for key, value in environment().items()
        if not key.startswith(("LC_", "LANG", "PYTHONUTF8"))
    }
    script = (
        "import sys, bench.machine.inherited as i, locale; again = i.utf8_command(['x'])\n"
        "print(again is None or again[1:] == ['-m', 'bench', 'x'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=shell | {"LC_ALL": locale},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"
    done = subprocess.run(
        command("run", "--study", "é.toml"), env=shell | {"LC_ALL": locale}, capture_output=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"bench: ")
    assert b"Traceback" not in done.stderr


def test_another_encoding_starts_the_process_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inherited.locale, "getpreferredencoding", lambda _: "ISO-8859-1")
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    monkeypatch.delenv("PYTHONUTF8", raising=False)
    assert inherited.utf8_command(["run", "STEPS=3"]) == [sys.executable, "-m", "bench", "run", "STEPS=3"]
    assert (os.environ["PYTHONUTF8"], os.environ["PYTHONIOENCODING"]) == ("1", "ISO-8859-1:replace")
    monkeypatch.delenv("PYTHONUTF8")
    monkeypatch.delenv("PYTHONIOENCODING")


# -- git ---------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", tmp_path / "ours", *arguments], check=True, capture_output=True)

    (tmp_path / "ours/algos").mkdir(parents=True)
    (tmp_path / "ours/algos/x.py").touch()
    git("init", "-q")
    git("add", "-A")
    git("-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "m")
    return tmp_path / "ours"


def test_gits_variables_do_not_lead_to_another_checkout(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a hook, or a shell that works on dotfiles."""
    right = provenance.git_state(checkout)
    assert right["commit"]
    subprocess.run(["git", "init", "-q", tmp_path / "theirs"], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs/.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "theirs"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert provenance.git_state(checkout) == right
    assert provenance.why_no_commit(checkout) is None


def test_a_checkout_of_another_owner_has_its_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = provenance.git_state(checkout)
    if os.getuid() != 0:
        pytest.skip("only root can give a checkout to somebody else")
    for path in [checkout, *checkout.rglob("*")]:
        os.chown(path, 12345, 12345)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # a container's often calls every folder safe
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    plain = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True)
    assert "dubious ownership" in plain.stderr
    assert provenance.git_state(checkout) == right


def test_why_there_is_no_commit_is_said(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert provenance.why_no_commit(tmp_path) is None  # an archive: there is none to record
    (checkout / ".git/HEAD").write_text("garbage\n")
    reason = provenance.why_no_commit(checkout)
    assert reason
    assert "\n" not in reason
    monkeypatch.setenv("PATH", "")
    assert provenance.why_no_commit(checkout) == "there is no git here"
