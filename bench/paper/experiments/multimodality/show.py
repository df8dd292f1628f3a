"""Figures and tables of the experiment `multimodality`: the densities of policies on a bandit with four optima."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from bench.analysis.report.sections import Picture
from bench.analysis.style import PAGE, legend, plain, styles
from bench.analysis.table import Entry, Table
from bench.paper.experiments.data import interval, mean_entry, n_of, read_scores, read_table, values

OPTIMA = ((0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5), (0.5, -0.5))
CELLS = 50  # per axis, as the experiment counted them
PRODUCTS = "products"  # in front of the settings of the grid at the sizes of target that tasks have
TITLE = "Multi-modality"
ASKS = (
    "Which of four optima does a policy cover, when Q is known exactly and stands in the critics' place? "
    "Beside the Boltzmann density exp(Q/α), over M_q and T. A sample at ±1 does not count: a policy that "
    "is clipped there has modes only of the box."
)
NAMES = {
    "qsm": "QSM",
    "qsm-exact": "QSM's chain, exact",
    "boltzmann": "Boltzmann",
    "qsm-score_scale=true": "QSM, scaled score",
    "dql": "DQL",
    "sac": "SAC",
}
Cell = tuple[str, str]  # algorithm and the knobs in its setting: ("qsm", "M_q=1-T=20")


def pictures(folder: Path) -> list[Picture]:
    """Everything that is drawn of results/experiments/multimodality."""
    scores, density = read_scores(folder), read_table(folder, "density")
    cells = _cells(scores, "equal")
    n = n_of([values(scores, "modes_covered", _setting("equal", knobs), algo) for algo, knobs in cells])
    return [
        Picture(
            "multimodality_densities",
            "Samples of policies on a bandit with four equal optima (crosses) and exact Q: the policy of seed 0, each "
            "panel in its own scale, colour to the square root of the count. Below each: optima covered, mean over "
            f"{n} seeds, and the share of action coordinates at ±1. Controls: the Boltzmann density at the chain's "
            "last temperature, and the chain with the exact score, without a network.",
            _densities(scores, density, "equal"),
        ),
        Picture(
            "multimodality_unequal_densities",
            "The same on optima of height 1 (upper right), 0.9, 0.8 and 0.7 (counter-clockwise). Below each: the share "
            f"of samples nearest to the highest, and the share of action coordinates at ±1, mean over {n} seeds.",
            _densities(scores, density, "unequal"),
        ),
        Picture(
            "multimodality_modes",
            "Optima covered (of four equal ones) and share of action coordinates at ±1 over M_q, mean over "
            f"{n} seeds with 95% intervals; dotted: the chain with the exact score. DQL (T = 20) and SAC have no M_q.",
            _modes(scores),
        ),
        Picture(
            "multimodality_products_densities",
            "Samples where the target of QSM's loss, M_q |dQ/da|, is as large as in runs on tasks, T = 5: the "
            "policy of seed 0 (above) and the chain with the exact score (below). Below each: modes and optima "
            f"covered (crosses), mean over {n} seeds.",
            _product_densities(scores, density),
        ),
    ]


def tables(folder: Path) -> list[Table]:
    """The same as numbers."""
    scores = read_scores(folder)
    return [_at_products(scores), _summary(scores), _unequal(scores)]


def _cells(scores: pd.DataFrame, heights: str) -> list[Cell]:
    """Algorithms and knobs there are, in the order of `NAMES`, large T first, small M_q first."""
    found = {
        (algo, setting.removeprefix(heights).lstrip("-"))
        for algo, setting in zip(scores["algo"], scores["setting"])
        if setting.startswith(heights)
    }
    order = list(NAMES)
    return sorted(found, key=lambda c: (order.index(c[0]), -_knob(c[1], "T", 0.0), _knob(c[1], "M_q", 0.0)))


def _setting(heights: str, knobs: str) -> str:
    return f"{heights}-{knobs}" if knobs else heights


def _knob(knobs: str, name: str, missing: float) -> float:
    found = [part.partition("=")[2] for part in knobs.split("-") if part.startswith(name + "=")]
    return float(found[0]) if found else missing


def _densities(scores: pd.DataFrame, density: pd.DataFrame, heights: str) -> Figure:
    there = _cells(scores, heights)
    m_q = sorted({_knob(knobs, "M_q", 0) for algo, knobs in there if algo == "qsm"})
    grid: list[list[Cell]] = [
        [
            (algo, f"M_q={m:g}-T={T}")
            for algo, T in (("boltzmann", 20), ("qsm-exact", 20), ("qsm", 20), ("qsm-exact", 5), ("qsm", 5))
        ]
        for m in m_q
    ]
    last: list[Cell] = [("dql", "T=20"), ("dql", "T=5"), ("sac", ""), ("qsm-score_scale=true", "M_q=1-T=20")]
    figure = Figure(figsize=(PAGE, 1.53 * (len(grid) + 1)), layout="constrained")
    axes = figure.subplots(len(grid) + 1, 5)
    for ax, cell in zip(axes.ravel(), [cell for row in (*grid, last) for cell in row]):
        _density(ax, scores, density, heights, *cell)
    axes[-1, -1].set_axis_off()
    return figure


def _product_densities(scores: pd.DataFrame, density: pd.DataFrame) -> Figure:
    there = _cells(scores, PRODUCTS)
    grid = [[cell for cell in there if cell[0] == algo] for algo in ("qsm", "qsm-exact")]
    figure = Figure(figsize=(PAGE, 3.4), layout="constrained")
    axes = figure.subplots(len(grid), len(grid[0]))
    for ax, cell in zip(axes.ravel(), [cell for row in grid for cell in row], strict=True):
        _density(ax, scores, density, PRODUCTS, *cell)
    return figure


def _density(
    ax: Axes, scores: pd.DataFrame, density: pd.DataFrame, heights: str, algo: str, knobs: str
) -> None:
    """One panel; `heights` may be PRODUCTS, whose optima are equal."""
    grid = f"{PRODUCTS}-equal" if heights == PRODUCTS else heights
    part = "-".join(filter(None, (grid, algo, knobs)))
    rows = density[density["part"] == part]
    if rows.empty:
        raise ValueError(f"the table density lacks {part}")
    counts = np.zeros((CELLS, CELLS))
    counts[rows["i"].to_numpy(int), rows["j"].to_numpy(int)] = rows["count"]
    ax.imshow(
        counts.T,
        origin="lower",
        extent=(-1, 1, -1, 1),
        cmap="viridis_r",
        norm=PowerNorm(0.5),
        interpolation="nearest",
    )
    ax.plot(*zip(*OPTIMA), "+", color="#d62728", markersize=4, markeredgewidth=0.6)
    shown = knobs.replace("M_q", "$M_q$").replace("-", ", ")
    mean = {
        measure: values(scores, measure, _setting(heights, knobs), algo).mean()
        for measure in ("modes_covered", "share_0", "at_bound")
    }
    found = (
        f"{100 * mean['share_0']:.0f}% at 1" if heights == "unequal" else f"{mean['modes_covered']:.1f} of 4"
    )
    if heights == PRODUCTS:
        modes = values(scores, "modes", _setting(heights, knobs), algo).mean()
        found = f"{modes:.1f} modes, {found}"
    else:
        found += f", {100 * mean['at_bound']:.0f}% at ±1"
    ax.set_title(f"{NAMES[algo]}\n{shown}", fontsize=6, linespacing=1.1, pad=3)
    ax.set_xlabel(found, fontsize=6, labelpad=0)
    ax.tick_params(labelbottom=False)
    ax.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.03), xticks=[-1, 1], yticks=[-1, 1])
    ax.grid(False)


def _modes(scores: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(PAGE, 2.0), layout="constrained")
    axes = figure.subplots(1, 2)
    look = styles({"qsm": "qsm", "qsm-T=5": "qsm", "dql": "dql", "sac": "sac"})
    m_q = sorted({_knob(knobs, "M_q", 0) for algo, knobs in _cells(scores, "equal") if algo == "qsm"})
    handles, names = [], []
    for ax, measure in zip(axes, ("modes_covered", "at_bound")):
        for label, T in (("qsm", 20), ("qsm-T=5", 5)):
            for algo in ("qsm-exact", "qsm"):
                groups = [values(scores, measure, f"equal-M_q={m:g}-T={T}", algo) for m in m_q]
                means = [group.mean() for group in groups]
                if algo == "qsm-exact":
                    ax.plot(m_q, means, color=look[label].color, linewidth=0.8, linestyle=":")
                    continue
                bounds = [interval(group, "multimodality", measure, f"{T}") for group in groups]
                errors = np.abs(np.array(bounds).T - means)
                style = look[label]
                handle = ax.errorbar(
                    m_q, means, errors, color=style.color, linestyle=style.linestyle, marker=style.marker
                )
                if ax is axes[0]:
                    handles.append(handle)
                    names.append(f"QSM, T = {T}")
        for algo, knobs in (("dql", "T=20"), ("sac", "")):
            level = values(scores, measure, _setting("equal", knobs), algo).mean()
            handle = ax.axhline(level, color=look[algo].color, linestyle=look[algo].linestyle)
            if ax is axes[0]:
                handles.append(handle)
                names.append(NAMES[algo] + (f", {knobs}" if knobs else "").replace("=", " = "))
        ax.set_xscale("log")
        ax.set_xticks(m_q, [f"{m:g}" for m in m_q])
        ax.minorticks_off()
        ax.set_xlabel("$M_q$")
    axes[0].set(ylabel="Optima covered", ylim=(-0.15, 4.15))
    axes[1].set(ylabel="Share of coordinates at ±1", ylim=(-0.04, 1.04))
    legend(figure, handles, names)
    return figure


def _at_products(scores: pd.DataFrame) -> Table:
    """Modes and optima covered where the target of QSM's loss is as large as on tasks."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for algo, knobs in _cells(scores, PRODUCTS):
        found = {
            measure: values(scores, measure, _setting(PRODUCTS, knobs), algo)
            for measure in ("product", "modes", "modes_covered", "at_bound", "q")
        }
        digits = {"modes": 1, "modes_covered": 1, "at_bound": 3}
        entries = [
            mean_entry(group, "multimodality", measure, digits=digits.get(measure, 2))
            for measure, group in found.items()
        ]
        rows.append([plain(NAMES[algo]), knobs.replace("-", " "), *entries, str(len(found["q"]))])
        means = {measure: float(group.mean()) for measure, group in found.items() if len(group)}
        records.append({"policy": algo, "knobs": knobs, **means, "n": len(found["q"])})
    return Table(
        "multimodality_products",
        "Four equal optima, exact Q, targets as large as on tasks",
        ["Policy", "Knobs", "M_q |dQ/da|", "Modes", "Optima covered", "Share at ±1", "Mean Q", "n"],
        rows,
        records,
        [
            "Mean over seeds [95% interval]. M_q |dQ/da|: mean over training, M_q times q_gradient of train.csv. "
            "Modes: peaks of the samples' density, wherever they lie, that stand out by half and hold 5% of the "
            "samples. Optima covered: of four; 5% of the samples nearest to it, inside (every |a_i| < 0.95), Q "
            "within 10% of the maximum.",
            "QSM's chain, exact: with M_q times the true gradient of Q in the place of a network.",
        ],
    )


def _summary(scores: pd.DataFrame) -> Table:
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for prefix in ("", "initial-"):
        for algo, knobs in _cells(scores, f"{prefix}equal"):
            found = {
                measure: values(scores, measure, _setting(f"{prefix}equal", knobs), algo)
                for measure in ("modes_covered", "at_bound", "q", "alpha", "total_variation")
            }
            name = NAMES[algo] + (", before training" if prefix else "")
            entries = [
                mean_entry(group, "multimodality", measure, digits=1 if measure == "modes_covered" else 3)
                for measure, group in found.items()
            ]
            rows.append([plain(name), knobs.replace("-", " "), *entries, str(len(found["q"]))])
            means = {measure: float(group.mean()) for measure, group in found.items()}
            records.append({"policy": prefix + algo, "knobs": knobs, **means, "n": len(found["q"])})
    return Table(
        "multimodality",
        "Four equal optima, exact Q",
        ["Policy", "Knobs", "Optima covered", "Share at ±1", "Mean Q", "α fitted", "Distance", "n"],
        rows,
        records,
        [
            "Mean over seeds [95% interval]. Optima covered: of four. Share at ±1: of action "
            "coordinates. α fitted: of the Boltzmann density exp(Q/α) nearest to the samples (0.01 to 10), and its "
            "distance in total variation.",
            "QSM's chain, exact: with M_q times the true gradient of Q in the place of a network. Boltzmann: samples "
            "of the density at α = sqrt(1 − ᾱ_0)/(2 M_q), where a chain of small steps ends.",
        ],
    )


def _unequal(scores: pd.DataFrame) -> Table:
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for algo, knobs in _cells(scores, "unequal"):
        shares = [values(scores, f"share_{k}", _setting("unequal", knobs), algo) for k in range(4)]
        q = values(scores, "q", _setting("unequal", knobs), algo)
        entries: Sequence[Entry] = [mean_entry(x, "multimodality", "unequal") for x in (*shares, q)]
        rows.append([plain(NAMES[algo]), knobs.replace("-", " "), *entries, str(len(q))])
        means = {f"share_{k}": float(share.mean()) for k, share in enumerate(shares)}
        records.append({"policy": algo, "knobs": knobs, **means, "q": float(q.mean()), "n": len(q)})
    return Table(
        "multimodality_unequal",
        "Optima of height 1, 0.9, 0.8 and 0.7, exact Q",
        ["Policy", "Knobs", "Share at 1", "at 0.9", "at 0.8", "at 0.7", "Mean Q", "n"],
        rows,
        records,
        ["Share of samples nearest to each optimum, mean over seeds [95% interval]."],
    )
