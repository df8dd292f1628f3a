"""What the name of a run or of a file says: algorithm, task and seed.

A pattern is the name with its parts in braces, "{env}/{algo}_s{seed}.txt"; {} stands for anything. It is compared with
a whole name of a run, and with the end of a path, with or without the file's suffix. Without a pattern the names that
well-known code writes are understood:

    {env}__{}__{seed}__{}                    CleanRL's runs: the part behind the task is the name of its script
    {}/{env}/{seed}.txt                      jaxrl's evaluations
    {}/{algo}-{env}_s{seed}/progress.txt     Spinning Up's tables
    {algo}/{env}.csv                         TD-MPC2's results
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from bench.errors import UserError

FIELDS = ("env", "algo", "seed")
IsTask = Callable[[str], bool]


def pattern(text: str) -> re.Pattern[str]:
    """The pattern that `text` stands for. UserError for an unknown part, or one that is there twice."""
    parts = []
    for index, part in enumerate(re.split(r"\{([^{}]*)\}", text)):
        if index % 2 == 0:
            parts.append(re.escape(part))
        elif part in FIELDS:
            parts.append(rf"(?P<{part}>\d+)" if part == "seed" else rf"(?P<{part}>[^/]+?)")
        elif part == "":
            parts.append(".*?")
        else:
            raise UserError(f"NAMES={text}: {{{part}}} is not one of {{env}}, {{algo}}, {{seed}} and {{}}")
    try:
        return re.compile(rf"(?:.*/)?{''.join(parts)}")
    except re.error:
        raise UserError(f"NAMES={text}: a part is there twice") from None


def parts_of(name: str, given: re.Pattern[str] | None, is_task: IsTask) -> dict[str, str]:
    """{"env", "algo", "seed"} as far as a run's name says them."""
    if given is not None:
        return _match(given, name)
    known = re.fullmatch(r"(?P<env>.+)__(?P<algo>.+)__(?P<seed>\d+)__\d+", name.rpartition("/")[2])
    return known.groupdict() if known and is_task(known["env"]) else {}


def parts_of_path(path: Path, given: re.Pattern[str] | None, is_task: IsTask) -> dict[str, str]:
    """The same for a file's path."""
    whole = PurePosixPath(path.absolute().as_posix())
    if given is not None:
        return _match(given, str(whole)) or _match(given, str(whole.with_suffix("")))
    stem, folder = whole.stem, whole.parent.name
    if whole.name == "progress.txt" and (seeded := re.fullmatch(r"(.+)_s(\d+)", folder)):
        for algo, dash, env in _splits(seeded[1]):
            if is_task(env):
                return {"algo": algo, "env": env, "seed": seeded[2]} if dash else {}
        return {"seed": seeded[2]}
    if stem.isdecimal() and is_task(folder):
        return {"env": folder, "seed": stem}
    if is_task(stem):
        return {"env": stem, "algo": folder}
    return {}


def _splits(text: str) -> list[tuple[str, str, str]]:
    """Every way to part `text` at a hyphen or an underscore, the shortest first part first."""
    return [(text[: at.start()], at[0], text[at.end() :]) for at in re.finditer("[-_]", text)]


def _match(given: re.Pattern[str], text: str) -> dict[str, str]:
    found = given.fullmatch(text)
    return {key: value for key, value in found.groupdict().items() if value} if found else {}
