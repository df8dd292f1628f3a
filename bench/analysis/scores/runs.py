"""Where the numbers come from: every run of the grid with its state, and the provenance of the scored
ones.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from bench.analysis import stats
from bench.analysis.scores.results import Results, RunScore, name_parts
from bench.analysis.style import named
from bench.analysis.table import MISSING, Entry, Link, Table, number
from bench.machine.behaviour import behaviour_of
from bench.text import one_line

STATES = (
    *("done", "diverged", "untrained", "running", "stale", "failed", "damaged"),
    *("configuration changed", "missing"),
)


def runs(results: Results) -> Table:
    """One row per run of the grid, those without a score included."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    order = {label: i for i, label in enumerate(results.labels)}
    tasks = {env: i for i, env in enumerate(results.envs)}
    for score in sorted(results.runs, key=lambda s: (tasks[s.run.env], order[s.run.label], s.run.seed)):
        run = score.run
        scored = score.scored
        final, area, best = _measures(score) if scored else (float("nan"),) * 3
        step = float("nan") if run.env_step is None else float(run.env_step)
        attempts = _attempts(score)
        behaviour = " then ".join(_behaviours(score))
        code = attempts[-1]["provenance"].get("code_digest") if attempts else None
        where = quote(results.address(run))
        name = named(results, run.label)
        rows.append(
            [
                run.env,
                name,
                Link(str(run.seed), where) if run.state != "missing" else str(run.seed),
                score.state,
                number(step),
                *(number(value) for value in (final, area, best)),
                behaviour or MISSING,
                score.reason or "",
            ]
        )
        record: dict[str, object] = {"env": run.env, "label": run.label, "algo": run.algo, "seed": run.seed}
        record |= {"state": score.state, "scored": scored, "env_step": run.env_step, "final": final}
        record |= {"area": area, "best_biased": best, "behaviour": behaviour, "code_digest": code}
        record |= {"reason": score.reason}
        records.append(record)
    columns = [
        "Task",
        "Algorithm",
        "Seed",
        "State",
        "Env steps",
        "Final",
        "AUC",
        "Best (biased)",
        "Behaviour",
        "Reason",
    ]
    found = Counter(score.state for score in results.runs)
    notes = [
        "; ".join(f"{found[state]} {state}" for state in STATES if found[state]) + ".",
        "Behaviour: the version of what the code computes; it is raised whenever numbers are meant to change.",
    ]
    return Table("runs", "Runs", columns, rows, records, notes)


def days(results: Results) -> tuple[str, ...]:
    """The first and the last day on which an attempt at one of the study's runs started: ("2026-11-25",)."""
    metas = [score.run.meta for score in results.runs if score.run.meta]
    found = sorted({str(attempt["started"])[:10] for meta in metas for attempt in meta["attempts"]})
    return tuple(dict.fromkeys((*found[:1], *found[-1:])))


def _measures(score: RunScore) -> tuple[float, float, float]:
    return (
        float(stats.final_return(score.returns)),
        float(stats.area_under_curve(score.env_steps.astype(float), score.returns)),
        float(stats.best_return(score.returns)),
    )


def _attempts(score: RunScore) -> list[dict[str, Any]]:
    """The attempts that made a run's numbers: those since it last began at step 0. Empty where it has not begun."""
    attempts = list(score.run.meta["attempts"]) if score.run.meta else []
    begun = [i for i, attempt in enumerate(attempts) if attempt["resumed_at_step"] == 0]
    return attempts[begun[-1] :] if begun else attempts


def _behaviours(score: RunScore) -> list[str]:
    """The behaviour versions of those attempts, in their order, each once."""
    return list(dict.fromkeys(_behaviour(attempt["provenance"]) for attempt in _attempts(score)))


def _behaviour(provenance: dict[str, Any]) -> str:
    version = behaviour_of(provenance)
    if version is not None:
        return str(version)
    digest = provenance.get("code_digest")
    return f"unknown (code {one_line(digest)[:8]})" if digest else "unknown"


def provenance(results: Results) -> Table:
    """Every value of code, versions, hardware and execution, with the number of scored runs that have it."""
    counts: Counter[tuple[str, str]] = Counter()
    for score in results.runs:
        if score.scored:
            counts.update(set(_origin(score)))
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for (key, value), runs_with_it in sorted(counts.items()):
        rows.append([key, value, number(runs_with_it)])
        records.append({"key": key, "value": value, "runs": runs_with_it})
    notes = [
        "A scored run counts at every value that one of its attempts had, from the last one that began at step 0 on."
    ]
    return Table("provenance", "Provenance", ["What", "Value", "Runs"], rows, records, notes)


def configurations(results: Results) -> Table:
    """Every setting of the study and of each algorithm; where a value depends on the task, which task has
    it.
    """
    seen: dict[tuple[str, str], dict[str, list[str]]] = {}  # (key, label) -> value -> tasks
    for score in results.runs:
        for key, value in (score.run.meta["config"] if score.run.meta else {}).items():
            shown = "x".join(map(str, value)) if isinstance(value, list) else str(value)
            tasks = seen.setdefault((one_line(key, 60), score.run.label), {}).setdefault(one_line(shown), [])
            if score.run.env not in tasks:
                tasks.append(score.run.env)
    keys = list(dict.fromkeys(key for key, _ in seen))
    rows: list[list[Entry]] = [
        [key, *(_by_task(seen.get((key, label), {})) for label in results.labels)] for key in keys
    ]
    rows += [[key, *[one_line(value)] * len(results.labels)] for key, value in results.settings.items()]
    records = [dict(zip(["key", *results.labels], map(str, row))) for row in rows]
    names = [named(results, label) for label in results.labels]
    return Table("configurations", "Configurations", ["Setting", *names], rows if keys else [], records)


def _by_task(values: dict[str, list[str]]) -> str:
    """The value of most tasks, then the others with their tasks: "50.0; 120.0: humanoid-walk"."""
    ordered = sorted(values, key=lambda value: -len(values[value]))
    return "; ".join([*ordered[:1], *(f"{value}: {', '.join(values[value])}" for value in ordered[1:])])


def _origin(score: RunScore) -> Iterator[tuple[str, str]]:
    yield "attempts", str(len(score.run.meta["attempts"]))
    for attempt in _attempts(score):
        yield from _leaves("execution", {k: v for k, v in attempt["execution"].items() if k != "pack"})
        yield "behaviour", _behaviour(attempt["provenance"])
        for key in ("code_digest", "git", "versions", "hardware", "os"):
            if key in attempt["provenance"]:
                yield from _leaves(key, attempt["provenance"][key])
        for offers, package in _packages(attempt):
            yield from _leaves(offers, {k: v for k, v in package.items() if k not in ("offers", "title")})


_line = functools.lru_cache(4096)(one_line)  # thousands of runs record the same values


def _leaves(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{_line(name, 60)}", inner)
    elif value not in (None, [], ""):
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield key, _line(shown)


def _mixed_behaviours(results: Results) -> Iterator[str]:
    """A line with the behaviour versions, most frequent first, if runs or attempts of several enter one table."""
    found = Counter(tuple(_behaviours(score)) for score in results.runs if score.scored)
    if len({version for versions in found for version in versions}) > 1:
        ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        named = ", ".join(
            f"{' then '.join(versions)} ({count} run{'s' if count > 1 else ''})"
            for versions, count in ordered
        )
        yield f"Scores of different behaviour versions of the code are pooled: {named}."


def _packages(attempt: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What an attempt used of packages outside the suite ("task my_package:MyEnv-v0"), and their records."""
    found = attempt["provenance"].get("plugins")
    for package in found if isinstance(found, list) else []:
        if isinstance(package, dict) and isinstance(package.get("offers"), str):
            yield _line(package["offers"]), package


def _mixed_packages(results: Results) -> Iterator[str]:
    """A line for each task, algorithm or critic of a package whose runs come from different states of its code."""
    found: dict[str, Counter[tuple[str, str]]] = {}
    for score in results.runs:
        if score.scored:
            used = {(offers, _state(package)) for a in _attempts(score) for offers, package in _packages(a)}
            for offers, state in used:
                found.setdefault(offers, Counter())[state] += 1
    for offers, states in sorted(found.items()):
        if len(states) > 1:
            ordered = sorted(states.items(), key=lambda item: (-item[1], item[0]))
            named = ", ".join(
                f"{version} with digest {digest[:8]} ({count} run{'s' if count > 1 else ''})"
                for (version, digest), count in ordered
            )
            yield f"Scores of different code of the {offers} are pooled: {named}."


def _state(package: dict[str, Any]) -> tuple[str, str]:
    """Version, and digest of all files where it is known, else of the modules."""
    name, version = package.get("distribution"), package.get("version")
    digest = package.get("files_sha256") or package.get("modules_sha256")
    return _line(f"{name} {version}" if name else "no package"), _line(str(digest or "unknown"))


def pooled_code(results: Results) -> list[str]:
    """Lines about pooled runs of different code: versions of the suite's behaviour, and of outside packages.

    They stand under tables of every format, so what records say is shown without signs that a format acts on.
    """
    lines = [*_mixed_behaviours(results), *_mixed_packages(results)]
    return [re.sub(r"[^\w .,:/@+=()-]", "?", line) for line in lines]


def warnings(results: Results) -> list[str]:
    """What a reader must know before any number: code that was pooled, and the runs that are left out, with reasons."""
    lines = pooled_code(results)
    dirty = sum(score.scored and any(map(_dirty, _attempts(score))) for score in results.runs)
    if dirty:
        lines.append(f"{dirty} runs were made with uncommitted changes in the code.")
    names = {results.folder(score.run): score for score in results.unscored}
    reasons = Counter((score.state, score.reason) for score in names.values())
    for (state, reason), count in sorted(reasons.items()):
        which = [name for name, score in names.items() if (score.state, score.reason) == (state, reason)]
        shown = ", ".join(which[:5]) + (f" and {count - 5} more" if count > 5 else "")
        lines.append(f"No score, {state}: {shown}." + (f" {reason}" if reason else ""))
    return [*lines, *results.problems, *results.left_out]


def _dirty(attempt: dict[str, Any]) -> bool:
    git = attempt["provenance"].get("git")
    return isinstance(git, dict) and git.get("dirty") not in (False, None)


def command(results: Results) -> str:
    """The command that runs this study's grid again."""
    base, *changes = name_parts(results.study)
    words = ["make bench", f"STUDY={base}"]
    steps = [change.removeprefix("steps=") for change in changes if change.startswith("steps=")]
    others = [change for change in changes if not change.startswith("steps=")]
    if steps:
        words.append(f"STEPS={steps[0]}")
    if others:
        words.append(f'SET="{" ".join(others)}"')
    words.append(f'ALGOS="{" ".join(_specification(results, label) for label in results.labels)}"')
    words.append(f'ENVS="{" ".join(results.envs)}"')
    seeds = sorted({score.run.seed for score in results.runs})
    if seeds == list(range(len(seeds))):
        words.append(f"SEEDS={len(seeds)}")
    else:
        words.append(
            f"SEEDS={','.join(map(str, seeds))}{',' * (len(seeds) == 1)}"
        )  # "3," is one seed, not three
    return " ".join(words)


def _specification(results: Results, label: str) -> str:
    """A label as the command line wants it: "qsm:M_q=120,T=20"."""
    algo = results.algos[label]
    changes = name_parts(label.removeprefix(algo))
    overrides = ",".join(change for change in changes if change)
    return f"{algo}:{overrides}" if overrides else algo
