"""A claim judged by an experiment: in each of its settings and by each of its measures, then as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from bench.analysis import stats, verdicts
from bench.analysis.resampling import Array, Group
from bench.analysis.stats import Contrast
from bench.analysis.style import display_name
from bench.analysis.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED, Finding, Verdict, overall
from bench.paper.claims.rules import Claim, Rules
from bench.paper.experiments.data import load_scores

MIXED, DESCRIPTIVE = "mixed", "descriptive"
#: How the table of claims calls the measures and settings of the rules where a claim has several.
MEASURES = {
    "modes": "modes",
    "modes_covered": "optima covered",
    "coverage": "coverage",
    "always_up_to=0.1": "along the path's first 0.1 every step raises Q",
    "above_start_at=2": "at its length 2 Q is above its start",
}
SETTINGS = {"authors": "point", "swingup-authors": "cartpole-swingup"}


@dataclass(frozen=True)
class Cell:
    """One measure in one setting: {algorithm: one value per seed}."""

    measure: str
    setting: str
    values: Mapping[str, Array]

    def side(self, algo: str) -> Array:
        """One value per seed (n,), none where the algorithm was not run."""
        return self.values.get(algo, np.empty(0))


def judge(rules: Rules, claim: Claim, root: Path) -> Verdict[Claim]:
    """The claim as the rules say that it is judged by the experiment in root/claim.data."""
    cells, problems = [], []
    for measure in claim.measures:
        for setting in claim.settings:
            values, problem = load_scores(root / claim.data, measure, setting)
            cells.append(Cell(measure, setting, values))
            problems += [problem] * bool(problem)
    findings = {"level": _levels, "contrast": _contrasts, "value": _values}[claim.kind](rules, claim, cells)
    conditions = f"{claim.data}, settings {', '.join(claim.settings)}"
    conditions += "".join(f": {problem}" for problem in dict.fromkeys(problems))
    everything = tuple(finding for cell in findings for finding in cell)
    if claim.kind == "value":
        return Verdict(claim, DESCRIPTIVE, everything, conditions)
    needs = (claim.needs,) if claim.needs else (verdicts.BETTER, verdicts.AS_GOOD, SUPPORTED)
    return Verdict(claim, combined([overall(cell, needs) for cell in findings]), everything, conditions)


def combined(found: Sequence[str]) -> str:
    """The verdict over several settings and measures: theirs where they agree, mixed where some of them are supported
    and others contradicted, else undecided.
    """
    if len(set(found)) == 1:
        return found[0]
    return MIXED if {SUPPORTED, CONTRADICTED} <= set(found) else UNDECIDED


def _name(claim: Claim, cell: Cell, of: str) -> str:
    """The subject of a finding: the algorithms, and measure and setting if the claim has several."""
    words = [of]
    if len(claim.measures) > 1:
        words.append(MEASURES.get(cell.measure, cell.measure))
    if len(claim.settings) > 1:
        words.append(SETTINGS.get(cell.setting, cell.setting.partition("-")[2] or cell.setting))
    return ", ".join(words)


def _levels(rules: Rules, claim: Claim, cells: Sequence[Cell]) -> list[list[Finding]]:
    """Bonferroni over the cells."""
    algo = claim.subject
    level = 1 - (1 - rules.level) / len(cells)
    found = []
    for cell in cells:
        name, values = _name(claim, cell, display_name(algo, algo)), cell.side(algo)
        if len(values):
            contrast = _level(rules, claim, cell, algo, level)
            finding = verdicts.level(name, contrast, len(values), claim.threshold, claim.min_seeds)
        else:
            finding = Finding(name, UNDECIDED, lacks=("the experiment's data",))
        found.append([finding])
    return found


def _values(rules: Rules, claim: Claim, cells: Sequence[Cell]) -> list[list[Finding]]:
    """Of the subject and of each baseline, each with the interval of its own."""
    return [
        [
            Finding(
                _name(claim, cell, display_name(algo, algo)),
                DESCRIPTIVE,
                len(cell.side(algo)),
                _level(rules, claim, cell, algo, rules.level) if len(cell.side(algo)) else None,
            )
            for algo in (claim.subject, *claim.baselines)
        ]
        for cell in cells
    ]


def _level(rules: Rules, claim: Claim, cell: Cell, algo: str, level: float) -> Contrast:
    """The mean over seeds with its interval; of a share of seeds, Clopper and Pearson's. One seed has none."""
    values = cell.side(algo)
    if claim.statistic == "share":
        exact = binomtest(round(values.sum()), len(values)).proportion_ci(level, method="exact")
        return Contrast(float(values.mean()), exact.low, exact.high, level)
    found = stats.resampled(stats.mean, [values], [_group(claim, cell, algo)], rules.resamples)
    return stats.contrast_of(found, level)


def _contrasts(rules: Rules, claim: Claim, cells: Sequence[Cell]) -> list[list[Finding]]:
    """Differences of means under Holm over all cells; of shares, where each has an interval of its own, Bonferroni."""
    subject, count = claim.subject, len(cells) * len(claim.baselines)
    fewest = 1 if claim.statistic == "share" else 2  # of one seed a bootstrap says nothing
    pairs = {
        f"{cell.setting} {cell.measure} {algo}": (cell, algo)
        for cell in cells
        for algo in claim.baselines
        if min(len(cell.side(subject)), len(cell.side(algo))) >= fewest
    }
    if claim.statistic == "share":
        level = 1 - (1 - rules.level) / count
        contrasts = {
            key: _difference_of_shares(cell, subject, algo, level) for key, (cell, algo) in pairs.items()
        }
    else:
        differences = {
            key: stats.resampled_difference(
                stats.mean,
                [cell.side(subject)],
                [cell.side(algo)],
                [_group(claim, cell, subject), _group(claim, cell, algo)],
                rules.resamples,
            )
            for key, (cell, algo) in pairs.items()
        }
        contrasts = {
            key: replace(
                found, p=stats.permutation_p(pairs[key][0].side(subject), pairs[key][0].side(pairs[key][1]))
            )
            for key, found in stats.holm(differences, rules.level, count).items()
        }
    found = []
    for cell in cells:
        mine = []
        for algo in claim.baselines:
            n = min(len(cell.side(subject)), len(cell.side(algo)))
            lacks = (f"at least {claim.min_seeds} seeds a side, not {n}",) if n < claim.min_seeds else ()
            name = _name(claim, cell, f"{display_name(subject, subject)} − {display_name(algo, algo)}")
            contrast = contrasts.get(f"{cell.setting} {cell.measure} {algo}")
            mine.append(verdicts.difference(name, contrast, n, claim.margin, lacks))
        found.append(mine)
    return found


def _difference_of_shares(cell: Cell, subject: str, algo: str, level: float) -> Contrast:
    ours, theirs = cell.side(subject), cell.side(algo)
    bounds = stats.difference_of_shares(round(ours.sum()), len(ours), round(theirs.sum()), len(theirs), level)
    return Contrast(float(ours.mean() - theirs.mean()), *bounds, level)


def _group(claim: Claim, cell: Cell, algo: str) -> Group:
    return len(cell.side(algo)), (claim.data, cell.setting, cell.measure, algo)
