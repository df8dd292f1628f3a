"""A study as the command line changes it."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.errors import UserError
from bench.studies.file import run_settings, seed_list
from bench.studies.overrides import canonical, whole_number
from bench.studies.study import Study


def override(
    study: Study,
    *,
    algos: str = "",
    envs: str = "",
    seeds: str = "",
    steps: str = "",
    settings: str = "",
) -> Study:
    """A study with the command line's changes; the empty string changes nothing.

    settings: "eval_every=5000 eval_episodes=3", any field of `RunSettings`. Where the settings differ from the study's
    own, its name says so ("quick-steps=5000"), since other numbers come out.
    """
    changes = dict(_pair(word) for word in settings.replace(",", " ").split())
    if steps:
        changes["steps"] = steps
    new = run_settings(study.settings, {key: _number(key, value) for key, value in changes.items()})
    before, after = dataclasses.asdict(study.settings), dataclasses.asdict(new)
    suffix = [f"{key}={canonical(after[key])}" for key in sorted(after) if after[key] != before[key]]
    return dataclasses.replace(
        study,
        name="-".join([study.name, *suffix]),
        algos=tuple(algos.split()) or study.algos,
        envs=tuple(envs.replace(",", " ").split()) or study.envs,
        seeds=seed_list(_seed_words(seeds)) if seeds else study.seeds,
        settings=new,
    )


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise UserError(f"{word!r}: expected name=value, for instance eval_every=5000")
    return key, value


def _number(key: str, value: Any) -> Any:
    if not isinstance(value, str) or key == "eval_mode":
        return value
    try:
        return whole_number(value)
    except (ValueError, OverflowError):
        name = "STEPS" if key == "steps" else key
        raise UserError(f"{name}={value}: expected a whole number such as 100000 or 1e5") from None


def _seed_words(text: str) -> Any:
    words = text.replace(",", " ").split()
    try:
        numbers = [int(word) for word in words]
    except ValueError:
        raise UserError(f"SEEDS={text}: expected how many (SEEDS=5) or which (SEEDS=0,3,7)") from None
    return numbers[0] if len(numbers) == 1 and "," not in text else numbers
