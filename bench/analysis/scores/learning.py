"""Whether every algorithm learns, compared with the random policy of the same study, and with which settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.analysis.scores.results import Results, name_parts
from bench.analysis.style import named
from bench.analysis.table import MISSING, Entry, Table, number
from bench.runs import RANDOM
from bench.text import one_line

Settings = Mapping[str, Any]


def table(results: Results, defaults: Callable[[str, str | None], Settings]) -> Table:
    """One row per task and label: the final return of each seed, and what is set otherwise than the authors have it.

    defaults: the authors' configuration of an algorithm (its name, the critic's), see bench.studies.overrides.
    """
    labels = [label for label in results.labels if any(results.cell(env, label) for env in results.envs)]
    changed = {
        label: _changed(results, label, defaults) for label in labels if results.algos[label] != RANDOM
    }
    common = _common(changed)
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for env in results.envs:
        best_random = _best_of_random(results, env)
        for label in labels:
            cell = results.cell(env, label)
            if cell is None:
                continue
            own = {key: value for key, value in changed.get(label, {}).items() if key not in common}
            lowest = float(cell.final.min())
            clear = (
                "" if cell.algo == RANDOM or best_random is None else "yes" if lowest > best_random else "no"
            )
            seeds = {score.run.seed: value for score, value in zip(cell.runs, cell.final)}
            rows.append(
                [
                    env,
                    named(results, label),
                    number(float(cell.final.mean())),
                    " ".join(f"{seeds[seed]:.0f}" for seed in sorted(seeds)),
                    clear or MISSING,
                    _listed(own) or MISSING,
                ]
            )
            record: dict[str, object] = {"env": env, "label": label, "algo": cell.algo, "n": cell.n}
            record |= {"final": float(cell.final.mean()), "lowest": lowest, "above_random": clear}
            records.append({**record, "settings": _listed(own), "settings_of_all": _listed(common)})
    columns = ["Task", "Algorithm", "Final return", "Of each seed", "Above random", "Settings"]
    protocol = ", ".join(f"{key} {value}" for key, value in results.settings.items())
    notes = [
        "Final return: mean over seeds of the mean of the last tenth of a run's evaluations. Above random: yes where "
        "the lowest seed is above the highest evaluation of the random policy, of any seed at any time.",
        "Settings: what is set otherwise than the authors have it. "
        + (f"All that have the setting: {_listed(common)}. " if common else "")
        + f"Runs: {one_line(protocol)}.",
    ]
    return Table("learning", "Does each algorithm learn?", columns, rows, records, notes)


def _changed(results: Results, label: str, defaults: Callable[[str, str | None], Settings]) -> dict[str, str]:
    """The settings in which a label differs from its authors', except those in its name."""
    meta = next(score.run.meta for score in results.runs if score.run.label == label and score.run.meta)
    config, algo = meta["config"], results.algos[label]
    told = {part.partition("=")[0] for part in name_parts(label.removeprefix(algo))}
    full = {**defaults(algo, None), **config}
    critic = config.get("critic")
    authors = defaults(algo, critic if isinstance(critic, str) else None)
    return {key: _text(value) for key, value in full.items() if value != authors.get(key) and key not in told}


def _common(changed: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The settings that more than half of the labels change, all of them to the same value."""
    keys = dict.fromkeys(key for settings in changed.values() for key in settings)
    found = {key: [settings[key] for settings in changed.values() if key in settings] for key in keys}
    return {
        key: values[0]
        for key, values in found.items()
        if len(set(values)) == 1 and 2 * len(values) > len(changed)
    }


def _best_of_random(results: Results, env: str) -> float | None:
    cells = (results.cell(env, label) for label in results.labels if results.algos[label] == RANDOM)
    return max((float(cell.returns.max()) for cell in cells if cell is not None), default=None)


def _listed(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _text(value: Any) -> str:
    return one_line("x".join(map(str, value)) if isinstance(value, list | tuple) else str(value), 60)
