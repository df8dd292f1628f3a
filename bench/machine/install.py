"""Makes the environment in which the suite runs; `make setup` starts it with the machine's Python.

    python -I bench/machine/install.py FOLDER

Needs the standard library only. The environment counts as made when FOLDER/.installed names the version of Python that
made it; one that was interrupted, or that another version made, is made anew.
"""

import ast
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LOWEST, HIGHEST = (3, 11), (3, 14)  # as in README.md and pyproject.toml; tests/test_install.py compares them
if not LOWEST <= sys.version_info[:2] <= HIGHEST:
    text = "make: this is Python {}.{}, and the suite needs {}.{} to {}.{}: name another, as in make PYTHON=python{}.{}"
    sys.exit(text.format(*sys.version_info[:2], *LOWEST, *HIGHEST, *HIGHEST))

ROOT = Path(__file__).resolve().parents[2]
STAMP = ".installed"
CONSTRAINTS = ROOT / "constraints.txt"

#: Settings of pip about the source of packages and its output. All others change what is installed or where, which a
#: shell's settings must not.
HONOURED = frozenset(
    """index-url extra-index-url no-index find-links trusted-host cert client-cert proxy timeout default-timeout retries
    resume-retries cache-dir no-cache-dir keyring-provider disable-pip-version-check no-input prefer-binary only-binary
    no-binary constraint use-feature use-deprecated progress-bar no-color quiet verbose log exists-action
    root-user-action no-python-version-warning""".split()  # noqa: SIM905
)


class Failed(Exception):
    """The environment cannot be made; the message is one line that says what to do."""


def main(folder: Path) -> None:
    """Make or renew the environment in `folder`. Raises Failed."""
    if folder.is_symlink() or folder.is_file():
        raise Failed(f"{folder} is a link or a file, not an environment: remove it")
    python, stamp = folder / "bin" / "python", folder / STAMP
    finished = stamp.read_text(encoding="utf-8").strip() if stamp.is_file() else ""
    if not os.access(ROOT, os.W_OK):
        raise Failed(f"{ROOT} cannot be written, and installing writes there: use a clone of your own")
    stamp.unlink(missing_ok=True)  # until the end it is half made
    if finished != version() or subprocess.run([str(python), "-c", ""], capture_output=True).returncode:
        make_empty(folder)
    install_packages(folder, ["--editable", f"{ROOT}[dev]"])
    if _needs_dm_control():
        install_packages(folder, ["--no-deps", "dm_control"])
    _compile(folder)
    stamp.write_text(version() + "\n", encoding="utf-8")


def install_packages(folder: Path, packages: Sequence[str], constraints: Path = CONSTRAINTS) -> None:
    """Give pip's arguments `packages` to the pip of the environment in `folder`, with `pip_settings`. Raises Failed."""
    python = folder / "bin" / "python"
    settings, dropped = pip_settings(python)
    if dropped:
        print("make: left out of pip's settings:", ", ".join(dropped), file=sys.stderr)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")} | settings
    pip = [str(python), "-I", "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
    if subprocess.run([*pip, *packages], env=environment).returncode:
        raise Failed(
            "the packages could not be installed, for the reason above; the same command tries again"
        )


def version() -> str:
    return "Python {}.{}.{}".format(*sys.version_info[:3])


def _needs_dm_control() -> bool:
    """dm_control asks for labmaze, which its suite never imports and which has no wheels from Python 3.13 on."""
    return sys.version_info >= (3, 13)


def make_empty(folder: Path) -> None:
    """Make an empty environment in place of whatever is in `folder`. Raises Failed."""
    shutil.rmtree(folder, ignore_errors=True)
    if subprocess.run([sys.executable, "-I", "-m", "venv", str(folder)]).returncode:
        raise Failed(
            f"{sys.executable} makes no environments (above): install its venv module "
            "(Debian and Ubuntu: apt install python3-venv), or name another Python: make PYTHON=python3.12"
        )


def pip_settings(python: Path) -> "tuple[dict[str, str], list[str]]":
    """pip's settings from its files and the environment: those to honour, as variables, and the names of the others."""
    command = [str(python), "-I", "-m", "pip", "--disable-pip-version-check", "config", "list"]
    own = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    asked = {key: value for key, value in os.environ.items() if key not in own or key == "PIP_CONFIG_FILE"}
    # otherwise it lists the file of that kind only
    asked |= {
        "PIP_USER": "0",
        "PIP_GLOBAL": "0",
        "PIP_SITE": "0",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=asked)
    if done.returncode:
        raise Failed(
            "pip cannot read its settings: " + (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        )
    found: dict[str, dict[str, str]] = {}
    for line in done.stdout.splitlines():
        key, equals, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if equals:
            found.setdefault(section, {})[name] = str(ast.literal_eval(value))
    merged: dict[str, str] = {}
    for section in ("global", "install"):  # pip's order: the later ones win
        merged |= found.get(section, {})
    merged |= {key[4:].lower().replace("_", "-"): value for key, value in own.items() if value}
    kept = {
        f"PIP_{name.replace('-', '_').upper()}": value for name, value in merged.items() if name in HONOURED
    }
    dropped = sorted(name for name in merged if name not in HONOURED and name != "config-file")
    return kept | {"PIP_CONFIG_FILE": os.devnull}, dropped


def _compile(folder: Path) -> None:
    """The switch for MKL's AVX-512 kernels (mkl.py), where there is a C compiler."""
    library = folder / "lib" / "mkl_avx512.so"
    command = [
        *shlex.split(os.environ.get("CC") or "cc"),
        "-shared",
        "-fPIC",
        "-nostdlib",
        "-o",
        str(library),
    ]
    try:
        done = subprocess.run(
            [*command, str(ROOT / "bench" / "machine" / "mkl_avx512.c")], capture_output=True
        )
        missing = done.returncode != 0
    except OSError:
        missing = True
    if missing:
        print("make: no C compiler here: on AMD processors with AVX-512, matrix products take twice the time "
              "(docs/timing.md)", file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as ^C: pip ends with us
    try:
        main(Path(sys.argv[1]).absolute())
    except Failed as failed:
        sys.exit(f"make: {failed}")
    except KeyboardInterrupt:
        sys.exit("make: stopped; the same command begins again")
    except OSError as error:
        sys.exit(f"make: {error.filename or sys.argv[1]}: {error.strerror}")
