"""Settings inherited from the shell: those that would make results wrong are dropped, and reported."""

from __future__ import annotations

import locale
import os
import re
import sys
from collections.abc import MutableMapping

#: Variables under which a run would differ from its record, and their effect.
MISLEADING = {
    "TORCHDYNAMO_DISABLE": "runs that are recorded as compiled would not be",
    "TORCH_COMPILE_DISABLE": "runs that are recorded as compiled would not be",
    "NVIDIA_TF32_OVERRIDE": "products that are recorded as float32 would be rounded to TF32, or timed without it",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "products that are recorded as float32 would be rounded to TF32",
    "OMP_PROC_BIND": "all processes of a grid would share one core",
    "OMP_PLACES": "all processes of a grid would share one core",
    "GOMP_CPU_AFFINITY": "all processes of a grid would share one core",
    "KMP_AFFINITY": "all processes of a grid would share one core",
    "PYTHONOPTIMIZE": "checks would be left out",
}


def clean(environment: MutableMapping[str, str], path: list[str]) -> list[str]:
    """Take the misleading out of `environment` and out of the import path; a line for each that was dropped.

    To be called before anything imports torch.
    """
    lines = []
    for name, reason in MISLEADING.items():
        if environment.pop(name, ""):
            lines.append(f"the shell's {name} is not used: {reason}")
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    entries = environment.get("PYTHONPATH", "").split(os.pathsep)
    foreign = [
        entry
        for entry in entries
        if own != (version := _version_of(entry))
        and version  # packages of another Python, from an environment module
    ]
    if foreign:
        environment["PYTHONPATH"] = os.pathsep.join(entry for entry in entries if entry not in foreign)
        path[:] = [entry for entry in path if entry not in foreign]
        lines.append(f"left out of PYTHONPATH, as they are for another Python: {os.pathsep.join(foreign)}")
    return lines


def _version_of(entry: str) -> str:
    """The Python that a folder of packages belongs to, such as "python3.9"; "" where its name does not say."""
    match = re.search(r"/(python\d+\.\d+)/(?:site|dist)-packages/?$", entry)
    return match[1] if match else ""


def for_git(environment: MutableMapping[str, str]) -> dict[str, str]:
    """The environment of a git that is asked about this checkout, not about the one that GIT_DIR or a hook names."""
    kept = {k: v for k, v in environment.items() if not k.startswith("GIT_") or k == "GIT_EXEC_PATH"}
    return kept | {"GIT_OPTIONAL_LOCKS": "0"}  # two workers asking at once must not collide


def utf8_command(arguments: list[str]) -> list[str] | None:
    """The command that starts this process again with UTF-8 for its files; None where that is so already.

    Files of results are UTF-8 in every locale. Printed text stays in the locale's encoding, with ? for the
    characters it lacks.
    """
    encoding = locale.getpreferredencoding(False)
    if sys.flags.utf8_mode or encoding.lower().replace("-", "") == "utf8":
        return None
    os.environ["PYTHONUTF8"] = "1"
    os.environ.setdefault("PYTHONIOENCODING", f"{encoding}:replace")
    return [sys.executable, "-m", "bench", *arguments]
