"""Take scores of others, in the form in which they published or logged them, into results/external/.

One call makes one source: a CSV of the columns env, algo, source, seed, env_step, return that `scores.py` describes, or
a copy of a summary over seeds that has its columns already. `layouts.py` reads the files, `names.py` what their names
say, `tasks.py` which task is meant. Nothing is guessed in silence: `Imported.lines` says what was understood.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis.external import layouts, names
from bench.analysis.external.layouts import Logged, lacking
from bench.analysis.external.scores import (
    EACH_SEED,
    IMPORTED,
    PER_SEED,
    is_summary,
    load_external,
    load_per_seed,
    summaries,
)
from bench.analysis.external.tasks import every_task, our_names
from bench.disk import write_atomic
from bench.errors import UserError, suggest
from bench.names import is_safe_name
from bench.runs import read_study_file, studies
from bench.text import one_line, strerror

SAME = 0.9  # of the evaluations of one source are those of another: it is the same one under another name
DECISIONS = ("step", "steps", "_step", "global_step")  # columns that can count decisions
FEWEST_SAME = 20  # evaluations; fewer can agree by chance, as at the highest return of a task


@dataclass(frozen=True)
class Wishes:
    """What the user states about the files; an empty value leaves it to be found out.

    source: the name under which they are shown. columns: ours -> theirs. values: of columns that are not there. names:
    pattern of `names.py`. metric: which of several is the return. rename: their task or algorithm -> ours. envs: the
    tasks (our names) to take. action_repeat: environment steps that one of their steps is. every: as of `layouts.read`.
    """

    source: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    names: str = ""
    metric: str = ""
    rename: Mapping[str, str] = field(default_factory=dict)
    envs: Sequence[str] = ()
    action_repeat: int = 1
    every: int | None = None


@dataclass(frozen=True)
class Imported:
    """The new file, and what was understood, one line for each fact."""

    path: Path
    lines: tuple[str, ...]


def pairs(name: str, text: str, keys: Sequence[str] = ()) -> dict[str, str]:
    """{key: value} of 'key=value key="a value"'. UserError for anything else, or a key that is none of `keys`."""
    found = {}
    try:
        words = shlex.split(text)
    except ValueError:
        raise UserError(f"{name}={text}: a quote is not closed") from None
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise UserError(f'{name}={text}: expected {name}="{keys[0] if keys else "theirs"}=..."')
        if keys and key not in keys:
            raise UserError(f"{name}={text}: no column of ours is named {key!r}{suggest(key, keys)}")
        found[key] = value
    return found


def import_scores(given: Sequence[Path], root: Path, wishes: Wishes | None = None) -> Imported:
    """Take files, or folders of them, as one source into results/external/ under `root`.

    Raises UserError, and writes nothing, where something is missing (all of it is named, with what there is), a task is
    not known here, a line is wrong, a seed has two returns at one step, or the same scores are there already.
    """
    wishes = wishes or Wishes()
    files = [file for path in given for file in _files(path)]
    source = wishes.source or (
        given[0].stem if given[0].is_file() or not given[0].exists() else given[0].name
    )
    if not is_safe_name(source):
        raise UserError(
            f"{one_line(source, 60)}: a name of letters, digits and . _ - = + , @ is needed; SOURCE=name gives one"
        )
    if len(files) == 1 and is_summary(files[0]):
        data, lines = files[0].read_bytes(), [f"{files[0].name}: a summary over seeds"]
        new = summaries(files[0])
        lines += _contents(new)
    else:
        new, lines = _understood(files, source, root, wishes)
        data = _csv(new)
    target = root / IMPORTED / f"{source}.csv"
    _refuse_known(new, target, root)
    if target.is_file() and target.read_bytes() != data:
        raise UserError(
            f"{target} is already there with other scores; give another SOURCE=name, or remove that file"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data, "study")
    except OSError as error:
        raise UserError(f"cannot write {target}: {strerror(error)}") from None
    return Imported(target, tuple(lines))


def _files(path: Path) -> list[Path]:
    """The file, or those of a folder that can hold scores."""
    if not path.is_dir():
        return [path]
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and (file.suffix in layouts.SUFFIXES or file.name.startswith(layouts.EVENTS))
    ]
    if not found:
        raise UserError(
            f"{path} has no file that can hold scores: {', '.join(layouts.SUFFIXES)} or {layouts.EVENTS}*"
        )
    return found


def _understood(
    files: Sequence[Path], source: str, root: Path, wishes: Wishes
) -> tuple[pd.DataFrame, list[str]]:
    """All evaluations of the files, columns EACH_SEED, and what was understood."""
    known = _known_tasks(root, wishes)
    pattern = names.pattern(wishes.names) if wishes.names else None

    def is_task(name: str) -> bool:
        return name in wishes.rename or bool(our_names([name], known))

    frames, said = [], _Said()
    for file in files:
        logged = layouts.read(file, wishes.columns, wishes.every)
        said.read(logged)
        rows = _of_one_metric(
            logged, _with_names(logged, wishes, pattern, is_task, said), wishes.metric, said
        )
        if len(rows):
            frames.append(rows.assign(file=str(file)))
    if not frames:
        raise UserError(
            f"{files[0]}: no scores below the header" if len(files) == 1 else f"{files[0].parent}: no scores"
        )
    frame = pd.concat(frames, ignore_index=True)
    frame = _numbered_seeds(frame, said)
    new = pd.DataFrame(
        {
            "env": _tasks(frame, known, wishes, said),
            "algo": _algorithms(frame, wishes, said),
            "source": source if wishes.source or "source" not in frame else frame["source"].fillna(source),
            "seed": _whole(frame, "seed", 1),
            "env_step": _whole(frame, "env_step", wishes.action_repeat),
            "value": _numbers(frame, "return"),
            "file": frame["file"],
            "line": frame["line"],
        }
    )
    if wishes.envs:
        new = new[new["env"].isin(wishes.envs)]
        if new.empty:
            raise UserError(
                f"ENVS={' '.join(wishes.envs)}: no scores of these tasks; there are {_some(frame['env'])}"
            )
    new = _once(new, said)
    ordered = new.sort_values(list(EACH_SEED[:5]), kind="stable", ignore_index=True)[list(EACH_SEED)]
    unit = f"; one of theirs is {wishes.action_repeat} environment steps" if wishes.action_repeat > 1 else ""
    lines = [*said.lines(len(files)), *_contents(ordered)]
    lines[-1] += unit or (
        "; taken as environment steps (ACTION_REPEAT=2 where one of theirs is two)" if said.decisions else ""
    )
    return ordered, lines


class _Said:
    """What was understood of many files, each thing once."""

    def __init__(self) -> None:
        self._found: dict[str, int] = {}
        self.decisions = False  # whether their steps may count decisions

    def add(self, line: str) -> None:
        self._found[line] = self._found.get(line, 0) + 1

    def read(self, logged: Logged) -> None:
        theirs = [f"{ours} = {name}" for ours, name in logged.columns.items() if ours != name]
        self.add(f"read as {logged.layout}" + (f"; {', '.join(theirs)}" if theirs else ""))
        for note in logged.notes:
            self.add(note)
        self.decisions |= logged.columns.get("env_step", "step").lower() in DECISIONS

    def lines(self, files: int) -> list[str]:
        return [line + (f" ({count} files)" if files > 1 else "") for line, count in self._found.items()]


def _of_one_metric(logged: Logged, rows: pd.DataFrame, wanted: str, said: _Said) -> pd.DataFrame:
    """The rows that are returns; those whose cell is empty are left out, which is said."""
    empty = int((rows["return"] == "").sum())
    if empty:
        said.add(f"{empty} row{'s' * (empty > 1)} without a return left out")
    rows = rows[rows["return"] != ""]
    if "metric" not in rows:
        if wanted:
            raise UserError(f"METRIC={wanted}: {logged.file} has no metrics, its columns are its own")
        return rows
    there = list(dict.fromkeys(rows["metric"]))
    if wanted:
        if wanted not in there:
            raise UserError(f"METRIC={wanted}: not in {logged.file}{_named(wanted, there)}")
        chosen = wanted
    else:
        returns = [name for name in there if _plain(name) in {_plain(known) for known in layouts.RETURNS}]
        if len(returns) != 1:
            which = "none of them is known to be" if not returns else f"{' and '.join(returns)} can be"
            raise UserError(
                f"{logged.file} holds the metrics {_some(there)}; {which} the return of evaluations: "
                "METRIC=name chooses"
            )
        chosen = returns[0]
    others = [name for name in there if name != chosen]
    said.add(f"return = the metric {one_line(chosen, 60)}" + (f", not {_some(others)}" if others else ""))
    return rows[rows["metric"] == chosen]


def _named(wanted: str, there: Sequence[str]) -> str:
    return one_line(suggest(wanted, there)) or f"; it has {_some(there)}"


def _plain(metric: str) -> str:
    return re.sub(r"[-_ /.]+", "_", metric).strip("_").lower()


def _with_names(
    logged: Logged,
    wishes: Wishes,
    pattern: re.Pattern[str] | None,
    is_task: names.IsTask,
    said: _Said,
) -> pd.DataFrame:
    """The rows with env, algo and seed: as given, else by the pattern, the file's own column, or known names.

    UserError that names all columns that are missing then.
    """
    rows = logged.rows.copy()
    from_path = names.parts_of_path(logged.file, pattern, is_task)
    from_name = pd.DataFrame(index=rows.index)
    if "name" in rows:
        found = {name: names.parts_of(name, pattern, is_task) for name in rows["name"].unique()}
        from_name = pd.DataFrame([found[name] for name in rows["name"]], index=rows.index)
    missing = [column for column in ("env_step", "return") if column not in rows]
    for part in names.FIELDS:
        if part in wishes.values:
            rows[part] = wishes.values[part]
            said.add(f"{part} = {wishes.values[part]}, as given")
        elif pattern is None and part in rows:
            pass
        elif part in from_name and from_name[part].notna().all():
            rows[part] = from_name[part]
            said.add(f"{part} from the name of the run")
        elif part in from_path:
            rows[part] = from_path[part]
            said.add(f"{part} from the path of the file")
        elif part not in rows and not (part == "seed" and "name" in rows):
            missing.append(part)
    if missing:
        runs = f" (runs: {_some(rows['name'].unique(), 3)})" if "name" in rows else ""
        raise UserError(lacking(logged, missing) + runs)
    return rows


def _numbered_seeds(frame: pd.DataFrame, said: _Said) -> pd.DataFrame:
    """Runs of one task and algorithm that have a name and no seed, numbered in their order."""
    if "seed" in frame and frame["seed"].notna().all():
        return frame
    runs = frame.groupby(["env", "algo"], sort=False)["name"]
    numbers = runs.transform(lambda names: pd.factorize(names)[0])
    shown = ", ".join(
        f"{i} = {one_line(name.rpartition('/')[2], 40)}" for i, name in enumerate(frame["name"].unique()[:3])
    )
    said.add(
        f"every run counts as a seed, numbered in their order: {shown}{', …' if frame['name'].nunique() > 3 else ''}"
    )
    own = frame["seed"] if "seed" in frame else pd.Series(np.nan, frame.index, dtype=object)
    return frame.assign(seed=own.where(own.notna(), numbers.astype(str)))


def _known_tasks(root: Path, wishes: Wishes) -> list[str]:
    """The tasks of this suite and of every study of the results."""
    own = {cell["env"] for study in studies(root) for cell in read_study_file(root, study)["grid"]}
    known = [*own, *every_task()]
    for name in [*wishes.envs, *(wishes.values.get("env"),) * ("env" in wishes.values)]:
        if name not in known and not our_names([str(name)], known):
            raise UserError(f"unknown task {name!r}{suggest(str(name), known)}")
    return known


def _tasks(frame: pd.DataFrame, known: Iterable[str], wishes: Wishes, said: _Said) -> pd.Series:
    known = [*known]
    theirs = list(dict.fromkeys(frame["env"]))
    found = our_names(theirs, known) | {name: wishes.rename[name] for name in theirs if name in wishes.rename}
    unknown = [name for name in theirs if name not in found]
    if unknown and not wishes.envs:
        close = one_line(suggest(unknown[0], known))
        taken = sorted({*found.values()})
        only = f'; ENVS="{" ".join(taken[:3])}{" ..." * (len(taken) > 3)}" takes only these' if taken else ""
        raise UserError(
            f"{frame['file'][frame['env'] == unknown[0]].iloc[0]}: {_some(unknown)}: no "
            f"task{'s' * (len(unknown) > 1)} of this suite{close}; "
            f'RENAME="{one_line(unknown[0], 60)}=<our name>" maps one{only}'
        )
    renamed = [f"{ours} ({one_line(name, 40)})" for name, ours in found.items() if ours != name]
    if renamed:
        said.add(f"tasks under our names: {_some(renamed)}")
    if unknown:
        said.add(f"left out, not among ENVS: {_some(unknown)}")
    return frame["env"].map(found)


def _algorithms(frame: pd.DataFrame, wishes: Wishes, said: _Said) -> pd.Series:
    found = {}
    for name in dict.fromkeys(frame["algo"]):
        found[name] = wishes.rename.get(name, re.sub(r"[^A-Za-z0-9._=+,@-]+", "-", name).strip("-.")).lower()
        if not is_safe_name(found[name]):
            raise UserError(
                f'an algorithm cannot be named {one_line(name, 60)!r}; RENAME="{one_line(name, 60)}=name"'
            )
    if len(set(found.values())) < len(found):
        said.add(f"algorithms under one name: {_some(found)} as {_some(set(found.values()))}")
    renamed = [f"{ours} ({one_line(name, 40)})" for name, ours in found.items() if ours != name.lower()]
    if renamed:
        said.add(f"algorithms under our names: {_some(renamed)}")
    return frame["algo"].map(found)


def _whole(frame: pd.DataFrame, column: str, times: int) -> pd.Series:
    text = frame[column]
    if column == "seed":
        text = text.str.replace(r"(?i)^(?:seed|run|s)[ _=-]?", "", regex=True)
    values = pd.to_numeric(text, errors="coerce") * times
    _refuse(frame, column, ~(np.isfinite(values) & (values >= 0) & (values == np.floor(values))))
    return values.astype(np.int64)


def _numbers(frame: pd.DataFrame, column: str) -> pd.Series:
    values = pd.to_numeric(frame[column], errors="coerce").astype(np.float64)
    _refuse(frame, column, ~np.isfinite(values))
    return values


def _refuse(frame: pd.DataFrame, column: str, wrong: pd.Series) -> None:
    bad = np.flatnonzero(wrong.to_numpy(bool))
    if len(bad):
        raise UserError(
            f"{_place(frame.iloc[bad[0]])}: {column} cannot be {one_line(frame[column].iloc[bad[0]], 60)!r}"
        )


def _place(row: pd.Series) -> str:
    return f"{row['file']}, line {row['line']}" if row["line"] else str(row["file"])


def _once(frame: pd.DataFrame, said: _Said) -> pd.DataFrame:
    """The rows without those that say the same again. UserError where they say something else."""
    exact = frame.duplicated([*EACH_SEED])
    if exact.any():
        said.add(f"{int(exact.sum()):,} rows that repeat others were left out")
        frame = frame[~exact]
    again = frame.duplicated(list(EACH_SEED[:5]))
    if again.any():
        row = frame[again].iloc[0]
        raise UserError(
            f"{_place(row)}: seed {row['seed']} of {row['algo']} on {row['env']} has another return at step "
            f"{row['env_step']:,} already; remove one, or let COLUMNS or NAMES tell their runs apart"
        )
    return frame


def _refuse_known(new: pd.DataFrame, target: Path, root: Path) -> None:
    """UserError where the source, or its scores under another name, are in another file already."""
    there, _ = load_external(root)
    named = set(there["source"])
    if target.is_file():  # its own earlier import
        named -= set(new["source"])
    again = sorted(set(new["source"]) & named)
    if again:
        raise UserError(
            f"the source {again[0]} is among the published or imported scores already; give another SOURCE=name"
        )
    if "value" not in new:
        return
    keys = _evaluations(new)
    seeds, _ = load_per_seed(root)
    for source, rows in seeds[~seeds["source"].isin(new["source"])].groupby("source"):
        theirs = _evaluations(rows)
        both = len(keys & theirs)
        if both >= FEWEST_SAME and both > SAME * min(len(keys), len(theirs)):
            raise UserError(
                f"{both} of these {len(keys)} evaluations are those of the source {source}, which is there already; "
                "nothing is shown twice"
            )


def _evaluations(frame: pd.DataFrame) -> set[tuple[str, int, float]]:
    return set(zip(frame["env"], frame["env_step"].astype(int), frame["value"].round(2)))


def _contents(frame: pd.DataFrame) -> list[str]:
    """What is in a source: tasks, algorithms, seeds, steps."""
    lines = [
        f"tasks: {_some(sorted(frame['env'].unique()))}",
        f"algorithms: {_some(sorted(frame['algo'].unique()))}",
    ]
    steps = frame["env_step"]
    span = f"steps {int(steps.min()):,} to {int(steps.max()):,}"
    if "seed" in frame:
        sizes = frame.groupby(["env", "algo"])["seed"].nunique()
        seeds = f"{sizes.min()}" + (f" to {sizes.max()}" if sizes.max() > sizes.min() else "")
        return [*lines, f"seeds of each: {seeds}; {len(frame):,} evaluations, {span}"]
    return [*lines, f"{len(frame):,} points, {span}"]


def _csv(frame: pd.DataFrame) -> bytes:
    text = io.StringIO()
    columns = ["env", "algo", "source", "seed", "env_step", "value"]
    frame[columns].rename(columns={"value": PER_SEED[-1]}).to_csv(text, index=False, lineterminator="\n")
    return text.getvalue().encode()


def _some(names: Iterable[object], limit: int = 12) -> str:
    """Names in a list, the first ones where there are many."""
    every = [one_line(name, 60) for name in dict.fromkeys(names)]
    return ", ".join(every[:limit]) + (f" and {len(every) - limit} more" if len(every) > limit else "")
