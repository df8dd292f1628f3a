"""Files as others write them, read into one shape: a row for each number that was logged.

What is understood:
- tables with a header, separated by commas, tabs, semicolons or spaces: a column for each of our columns under any of
  the names in NAMES_OF (XQC, SimBa, TD-MPC2, Spinning Up's progress.txt, jaxrl, pytorch_sac, W&B's history)
- tables without a header of two columns, step and return (jaxrl's evaluations)
- wide tables: a step, and a column for each seed ("seed_3", "3") or for each run and metric, as W&B's chart export has
  it ("run - metric", beside columns "run - metric__MIN" and "__MAX", which are left out)
- NumPy arrays (seeds, evaluations), and `evaluations.npz` of Stable-Baselines3
- TensorBoard event files, where the package tensorboard is installed
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis.csvfile import as_columns, rows_of
from bench.errors import UserError, suggest
from bench.text import one_line

EVENTS = "events.out.tfevents."  # how TensorBoard's event files begin
SUFFIXES = (".csv", ".tsv", ".txt", ".npy", ".npz")

#: Our columns under the names that others give them, the most telling first.
NAMES_OF: dict[str, tuple[str, ...]] = {
    "env": ("env", "env_name", "env_id", "environment", "task", "task_name"),
    "algo": ("algo", "algorithm", "exp_name", "agent", "method", "alg"),
    "seed": ("seed", "run_seed", "random_seed"),
    "env_step": (
        *("env_step", "env_steps", "environment_steps", "num_env_steps", "frame", "frames"),
        *(
            "TotalEnvInteracts",
            "total_timesteps",
            "timesteps",
            "timestep",
            "global_step",
            "step",
            "steps",
            "_step",
        ),
    ),
    "return": (
        *("return", "episode_return", "eval_return", "average_return", "AverageTestEpRet", "episode_reward"),
        *("eval_episode_reward", "eval/episode_reward", "eval/mean_reward", "eval/return", "mean_reward"),
        *("reward", "returns", "score", "value"),
    ),
    "source": ("source",),
    "metric": ("metric", "metric_name", "tag"),
    "name": ("run", "run_name", "name", "Name"),
}
#: Metrics that are the return of evaluation episodes, as they are named where several are logged.
RETURNS = (
    *(
        "return",
        "avg_return",
        "average_return",
        "mean_return",
        "episode_return",
        "eval_return",
        "eval/return",
    ),
    *(
        "eval/avg_return",
        "eval/episode_return",
        "eval/episode_reward",
        "eval/mean_reward",
        "evaluation/return",
    ),
    *("episode_reward", "eval_reward", "eval/avg_episode_reward", "evaluation/average_return"),
)
_SEED_COLUMN = re.compile(r"(?:seed|run|s)?[ _=-]?(\d+)", re.I)
_CHART = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<bound>__MIN|__MAX)?")


@dataclass(frozen=True)
class Logged:
    """What one file holds, as text: one row for each number.

    rows: the column "line" (0: a file without lines), and those that the file has of "env_step", "return", "env",
    "algo", "seed", "source", "metric" and "name" (of a run). layout: what it was taken for. there: the file's own
    columns. columns: ours -> theirs.
    """

    file: Path
    layout: str
    rows: pd.DataFrame
    there: Sequence[str] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def read(file: Path, columns: Mapping[str, str], every: int | None) -> Logged:
    """What a file holds.

    Args:
        columns: ours -> theirs, where the user says so.
        every: environment steps between two evaluations, for arrays that do not say.

    Raises:
        UserError: it cannot be read, or has no column that the user names.
    """
    try:
        if file.name.startswith(EVENTS):
            return _events(file)
        if file.suffix in (".npy", ".npz"):
            return _array(file, every)
        return _table(file, columns)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or one_line(error)}") from None
    except ValueError as error:
        raise UserError(f"{file}: {one_line(error)}") from None


def _table(file: Path, columns: Mapping[str, str]) -> Logged:
    rows = rows_of(file, any_separator=True)
    if all(map(_is_number, rows[0])) and len(rows[0]) == 2:
        return Logged(
            file, "two columns, step and return", _with_lines(as_columns(["env_step", "return"], rows), 1)
        )
    frame = as_columns(rows[0], rows[1:])
    if "" in frame:
        frame = frame.drop(columns="")  # the index of a data frame
    unknown = [theirs for theirs in columns.values() if theirs not in frame]
    if unknown:
        raise UserError(f"{file} has no column {one_line(unknown[0], 60)!r}{_there(frame, unknown[0])}")
    found = dict(columns)
    for ours, names in NAMES_OF.items():
        theirs = next((_named(name, frame) for name in names if _named(name, frame)), None)
        if theirs and ours not in found and theirs not in found.values():
            found[ours] = theirs
    there = list(frame)
    frame = _with_lines(frame, 2)
    if "return" not in found:
        wide = _wide(file, frame, found)
        if wide is not None:
            return wide
    kept = {theirs: ours for ours, theirs in found.items()}
    layout = "a table" if found.keys() & {"env", "algo", "seed", "name"} else "a table of one run"
    return Logged(file, layout, frame[[*kept, "line"]].rename(columns=kept), there, found)


def lacking(logged: Logged, missing: Sequence[str]) -> str:
    """All that is missing of a file, what there is, and how to say where it is."""
    there = logged.there
    columns = ", ".join(one_line(name, 40) for name in there[:20]) + (", …" if len(there) > 20 else "")
    hints = []
    if there:
        hints.append(f'COLUMNS="{missing[0]}=<its name there>" names a column')
    if rest := [name for name in missing if name in ("env", "algo", "seed")]:
        example = {"env": "cheetah-run", "algo": "sac", "seed": "0"}[rest[0]]
        hints.append(f'VALUES="{rest[0]}={example}" gives all rows one value')
        hints.append(f'NAMES="{{{rest[0]}}}/{{}}" finds it in the path or the name of a run')
    has = f"it has the columns {columns}" if columns else f"it is {logged.layout}"
    return f"{logged.file} lacks {', '.join(missing)}; {has}. {'; '.join(hints)}"


def _there(frame: pd.DataFrame, name: str) -> str:
    close = suggest(name, [str(column) for column in frame])
    return one_line(close) or f"; it has {one_line(', '.join(map(str, frame)), 200)}"


def _named(name: str, frame: pd.DataFrame) -> str | None:
    """The frame's column of that name, whatever its case; "Step" is "step"."""
    return (
        name if name in frame else next((column for column in frame if column.lower() == name.lower()), None)
    )


def _with_lines(frame: pd.DataFrame, first: int) -> pd.DataFrame:
    return frame.assign(line=np.arange(first, first + len(frame)))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _wide(file: Path, frame: pd.DataFrame, found: Mapping[str, str]) -> Logged | None:
    """A table with a column for each run or seed, as one with a row for each number; None where it is no such table."""
    step = found.get("env_step")
    others = [column for column in frame if column not in (step, "line")]
    charts = {column: chart for column in others if (chart := _CHART.fullmatch(column))}
    seeds = {column: seed[1] for column in others if (seed := _SEED_COLUMN.fullmatch(column))}
    if step is None:
        if charts:
            raise UserError(
                f"{file} is an export of a W&B chart against {one_line(frame.columns[0], 60)!r}, which is not an "
                "environment step; choose the step as the chart's x axis and export it again"
            )
        return None
    if charts:
        means = [column for column, chart in charts.items() if not chart["bound"]]
        long = _melted(frame, step, means)
        long = long.assign(
            name=long["column"].map(lambda column: charts[column]["run"]),
            metric=long["column"].map(lambda column: charts[column]["metric"]),
        )
        notes = []
        if step.lower() in ("step", "_step"):
            notes.append(
                "W&B's own Step counts calls of wandb.log unless the code gave it a meaning of its own; where it does, "
                "export the chart with the environment step as its x axis"
            )
        return Logged(
            file, "W&B's export of a chart", long.drop(columns="column"), others, {"env_step": step}, notes
        )
    if seeds and len(seeds) == len(others):
        long = _melted(frame, step, others)
        rows = long.assign(seed=long["column"].map(seeds)).drop(columns="column")
        return Logged(file, "a wide table with a column for each seed", rows, others, {"env_step": step})
    return None


def _melted(frame: pd.DataFrame, step: str, columns: Sequence[str]) -> pd.DataFrame:
    """Columns env_step, column, return, line: cell after cell, without the empty ones."""
    long = frame.melt([step, "line"], columns, "column", "return").rename(columns={step: "env_step"})
    return long[long["return"] != ""].reset_index(drop=True)


def _array(file: Path, every: int | None) -> Logged:
    found = np.load(file, allow_pickle=False)
    arrays = dict(found) if file.suffix == ".npz" else {"": found}
    if {"timesteps", "results"} <= arrays.keys():
        steps, results = arrays["timesteps"], arrays["results"]
        if results.ndim != 2 or steps.shape != results.shape[:1]:
            raise ValueError(
                f"results of shape {results.shape} at timesteps of shape {steps.shape}: expected (K, episodes)"
            )
        rows = pd.DataFrame(
            {"env_step": steps.astype(str), "return": results.mean(axis=1).astype(str), "line": 0}
        )
        return Logged(file, "evaluations.npz of Stable-Baselines3, episodes averaged", rows)
    if len(arrays) != 1:
        raise ValueError(
            f"{one_line(', '.join(arrays), 100)} are in it: expected one array (seeds, evaluations)"
        )
    array = np.atleast_2d(next(iter(arrays.values())))
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(f"an array {array.shape} of {array.dtype}: expected numbers (seeds, evaluations)")
    if every is None:
        raise ValueError(
            "an array does not say at which steps; EVERY=<environment steps between two evaluations> does"
        )
    seeds, evaluations = array.shape
    rows = pd.DataFrame(
        {
            "seed": np.repeat(np.arange(seeds), evaluations).astype(str),
            "env_step": np.tile(every * np.arange(1, evaluations + 1), seeds).astype(str),
            "return": array.astype(np.float64).ravel().astype(str),
            "line": 0,
        }
    )
    return Logged(
        file, f"an array of {seeds} seeds x {evaluations} evaluations, one every {every:,} steps", rows
    )


def _events(file: Path) -> Logged:
    """Every scalar of an event file, whether written as such or as a tensor (TensorFlow 2); its folder is the run."""
    try:
        from tensorboard.backend.event_processing import event_accumulator
        from tensorboard.util import tensor_util
    except ImportError:
        raise UserError(
            f"{file} is a TensorBoard event file; the package that reads it is missing: pip install tensorboard"
        ) from None
    size = {event_accumulator.SCALARS: 0, event_accumulator.TENSORS: 0}  # 0: all of them
    events = event_accumulator.EventAccumulator(str(file), size_guidance=size).Reload()
    tags = events.Tags()
    found = [(tag, event.step, event.value) for tag in tags["scalars"] for event in events.Scalars(tag)]
    for tag in tags["tensors"]:
        for event in events.Tensors(tag):
            value = tensor_util.make_ndarray(event.tensor_proto)
            if value.size == 1 and value.dtype.kind in "fiu":
                found.append((tag, event.step, float(value.item())))
    rows = pd.DataFrame(found, columns=["metric", "env_step", "return"], dtype=str)
    return Logged(file, "TensorBoard's events", rows.assign(name=file.absolute().parent.as_posix(), line=0))
