"""Others' learning curves as curves: each algorithm of each source a thin line with its band, beside ours.

Steps are environment steps (frames) everywhere, as the files have them (results/published/curves/README.md). A curve
begins where the last seed does and ends where the first seed ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.analysis.coverage import mark
from bench.analysis.external.curves import Curve, of_single_seeds
from bench.analysis.external.curves import curves as curves_of
from bench.analysis.external.scores import read_all
from bench.analysis.scores.figures import finish_panel, label_panels, legend_name, line, panels, steps_axis
from bench.analysis.scores.results import Results
from bench.analysis.scores.tables import count
from bench.analysis.style import Style, display_name, legend, looks, named, styles
from bench.analysis.table import Entry, Table, number, within
from bench.errors import UserError, suggest
from bench.studies.lookup import look_up

Key = tuple[str, str]  # algorithm, source


Curves = dict[Key, dict[str, Curve]]  # task -> curve


def load_curves(root: Path) -> Curves:
    """(algorithm, source) -> task -> curve, of every source whose single seeds are known."""
    return curves_in(read_all(root)[0])


def curves_in(found: Sequence[pd.DataFrame]) -> Curves:
    """The curves of `load_curves` in the frames of `scores.read_all`."""
    made: Curves = {}
    for curve in curves_of(of_single_seeds(found)):
        made.setdefault((curve.algo, curve.source), {})[curve.env] = curve
    return made


def points_beside(results: Results, external: pd.DataFrame, curves: Curves) -> pd.DataFrame:
    """Published scores that are no part of a curve, up to our last step: of the algorithms asked for, else of ours."""
    last = max((float(cell.env_steps[-1]) for cell in results.cells.values()), default=0.0)
    keys = pd.Series(list(zip(external["algo"], external["source"])), index=external.index, dtype=object)
    wanted = set(results.algos.values()) | {"@".join(key) for key in keys if key[0] in results.algos.values()}
    if results.choice.others:
        wanted = {word.lower() for word in results.choice.others}
    fits = [algo in wanted or f"{algo}@{source}".lower() in wanted for algo, source in keys]
    inside = external["env"].isin(results.envs) & (external["env_step"] <= last)
    return external[inside & ~keys.isin(list(curves)) & np.array(fits, bool)]


def chosen(results: Results, curves: Curves, points: Collection[Key] = ()) -> tuple[list[Key], list[str]]:
    """The curves that a report shows: those asked for, else those of algorithms that the study has too.

    points: who has published single scores; one that has nothing else is shown by these. And a line for each name
    ("dime", or "sac@simba" of one source) that no source has, or none on a task shown here: UserError where it is
    required.
    """
    here = {key for key, tasks in curves.items() if any(env in tasks for env in results.envs)}
    words = results.choice.others
    if not words:
        ours = set(results.algos.values())
        return sorted(key for key in here if key[0] in ours), []

    def named_so(word: str) -> list[Key]:
        algo, _, source = word.lower().partition("@")

        def fits(key: Key) -> bool:
            return key[0] == algo and (not source or key[1].lower() == source)

        fitting = sorted(filter(fits, curves))
        if not fitting and not any(map(fits, points)):
            names = {algo for algo, _ in curves} | {"@".join(key) for key in curves if key[0] == algo}
            raise UserError(f"others: no curves are named {word!r}{suggest(word.lower(), names)}")
        if fitting and not here.intersection(fitting):
            tasks = sorted({env for key in fitting for env in curves[key]})
            raise UserError(f"others: {word!r} has no curve on a task shown here; it has {', '.join(tasks)}")
        return [key for key in fitting if key in here]

    required = "others" in results.required
    if not required and not curves:
        return [], [f"others: no curves of others are here: {', '.join(words)}"]
    found, left_out = look_up(words, named_so, required)
    return list(dict.fromkeys(key for keys in found for key in keys)), left_out


def name_of(key: Key) -> str:
    """Of an algorithm of a source: "SAC (simba)", or "DIME" where the source is called so too."""
    algo, source = key
    shown = display_name(algo, algo)
    return shown if source == algo or source.lower() == shown.lower() else f"{shown} ({source})"


def look_of(results: Results, keys: Sequence[Key]) -> dict[Key, Style]:
    """A look for each; an algorithm that is ours too has a shade of our colour."""
    labels = {f"{algo}@@{source}": (algo, source) for algo, source in keys}
    found = styles(results.algos | {label: key[0] for label, key in labels.items()})
    return {key: found[label] for label, key in labels.items()}


def draw(ax: Axes, curve: Curve, style: Style, bounded: bool, last: float) -> Any:
    """Up to the step `last`: a thin line, its band, and a small open marker where all seeds were evaluated."""
    steps = curve.env_steps
    inside = steps <= last
    x = np.append(steps[inside], [last] if steps[-1] > last > steps[0] else [])
    value, bottom, top = (np.interp(x, steps, y) for y in (curve.returns.mean(axis=0), *curve.band(bounded)))
    ax.fill_between(x, bottom, top, color=style.color, alpha=0.09, linewidth=0)
    at = np.flatnonzero(curve.evaluated[inside])
    return ax.plot(
        x,
        value,
        color=style.color,
        linestyle=style.linestyle,
        linewidth=0.8,
        marker=style.marker,
        markevery=list(at),
        markersize=3.0,
        markerfacecolor="white",
        markeredgewidth=0.6,
    )[0]


def figure(results: Results, curves: Curves, keys: Sequence[Key], points: pd.DataFrame) -> Figure | None:
    """Our mean learning curves, others' curves with their bands, and single published scores at their steps.

    keys: the curves to show. points: summaries that have no curve, columns as of `external.scores.load_external`.
    """
    envs = [
        env for env in results.envs if any(env in curves[key] for key in keys) or (points["env"] == env).any()
    ]
    if not envs or not results.cells:
        return None
    last = max(float(cell.env_steps[-1]) for cell in results.cells.values())
    look, their_look = looks(results), look_of(results, keys)
    point_look = styles(results.algos | {algo: algo for algo in points["algo"]})
    markers = {source: "dPX*hp"[i % 6] for i, source in enumerate(sorted(set(points["source"])))}
    made, axes = panels(len(envs), height=1.9, width=results.choice.width)
    ours: dict[str, Any] = {}
    theirs: dict[Any, Any] = {}
    for env, ax in zip(envs, axes):
        for key in keys:
            if env in curves[key]:
                theirs[key] = draw(ax, curves[key][env], their_look[key], env in results.control_envs, last)
        for label in results.labels:
            cell = results.cell(env, label)
            if cell is not None:
                ours[label] = line(ax, cell.env_steps, cell.returns.mean(axis=0), look[label])
        for item in points[points["env"] == env].to_dict("records"):
            theirs[item["source"]] = _point(ax, markers[item["source"]], point_look[item["algo"]].color, item)
        finish_panel(ax, results, env, steps_axis)
        ax.set_xlim(0, 1.02 * last)
    label_panels(made, axes, "Environment steps", "Return", legend_below=True)
    order = [label for label in results.labels if label in ours]
    names = [legend_name(results, x, [c for c in results.cells.values() if c.label == x]) for x in order]
    legend(made, [ours[x] for x in order], names)
    _their_legend(made, [key for key in keys if key in theirs], envs, curves, theirs, markers)
    return made


def _their_legend(
    made: Figure,
    keys: Sequence[Key],
    envs: Sequence[str],
    curves: Curves,
    theirs: dict[Any, Any],
    markers: dict[str, str],
) -> None:
    """A legend of their own, below the panels: the source of each curve, and its number of seeds."""
    names = [
        f"{name_of(key)} (n = {_sizes(curves[key][env] for env in envs if env in curves[key])})"
        for key in keys
    ]
    sources = [source for source in markers if source in theirs]
    handles = [
        Line2D(
            [],
            [],
            color="#444444",
            linestyle="",
            marker=markers[source],
            markerfacecolor="white",
            markersize=4.5,
        )
        for source in sources
    ]
    legend(
        made,
        [*(theirs[key] for key in keys), *handles],
        [*names, *sources],
        place="outside lower center",
        title="External",
    )


def _sizes(shown: Iterable[Curve]) -> str:
    sizes = sorted({len(curve.seeds) for curve in shown})
    ends = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}"
    return f"{ends}{mark(sizes[0])}"


def _point(ax: Axes, marker: str, color: str, item: dict[str, Any]) -> Any:
    """One published score at its step, with a bar from the lowest to the highest seed where those are known."""
    if not np.isnan(item["low"]):
        ax.plot([item["env_step"]] * 2, [item["low"], item["high"]], color=color, linewidth=0.7)
    return ax.plot(
        item["env_step"],
        item["mean"],
        marker=marker,
        linestyle="",
        markersize=4.5,
        markerfacecolor="white",
        markeredgecolor=color,
        markeredgewidth=0.9,
    )[0]


def table(results: Results, curves: Curves, keys: Sequence[Key]) -> Table:
    """Returns at our last step: ours, then others', the highest mean of each task first within both."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    last = max((float(cell.env_steps[-1]) for cell in results.cells.values()), default=0.0)
    for env in results.envs:
        if not any(env in curves[key] for key in keys):
            continue
        found = [
            (named(results, cell.label), "this study", cell.returns[:, -1], False)
            for label in results.labels
            if (cell := results.cell(env, label))
        ]
        for key in keys:
            if env in curves[key] and len(values := curves[key][env].at(last)):
                steps = curves[key][env].env_steps[curves[key][env].evaluated]
                found.append((display_name(key[0], key[0]), key[1], values, last not in steps))
        for name, source, values, between in sorted(
            found, key=lambda item: (item[1] != "this study", -item[2].mean())
        ):
            detail = (
                f"{within(values.min(), values.max())} {count(len(values))}{' (between)' if between else ''}"
            )
            rows.append([env, name, source, number(values.mean(), detail=detail)])
            record: dict[str, object] = {"env": env, "algorithm": name, "source": source, "env_step": last}
            record |= {"mean": values.mean(), "low": values.min(), "high": values.max(), "n": len(values)}
            records.append({**record, "interpolated": between})
    notes = [
        f"Return at environment step {last:,.0f}, mean over seeds; brackets: lowest and highest seed. External curves "
        "were taken under protocols that differ from ours in widths, learning rate, updates per step, batch or action "
        "repeat; see results/published/curves/README.md. Between: on a line between a seed's evaluations before and "
        "after this step.",
        *(
            f"{name_of(key)} on {env}: {note}."
            for key in keys
            for env in results.envs
            if env in curves[key]
            for note in curves[key][env].notes
        ),
    ]
    return Table(
        "others", "Beside others' curves", ["Task", "Algorithm", "Source", "Return"], rows, records, notes
    )
