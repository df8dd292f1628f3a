"""The claims at a glance: the paper's statement, the finding, its certainty, and possible further evidence.

The finding is made from those of each verdict. Words follow the intervals: above and below where one leaves
out 0, "not separated from" where it does not, and no such word below the number of seeds that the rules ask for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.analysis.style import display_name
from bench.analysis.table import MISSING, Entry, Number, Table, number, within
from bench.analysis.verdicts import UNCHANGED, Finding, Verdict
from bench.paper.claims.experiments import DESCRIPTIVE, MEASURES, SETTINGS
from bench.paper.claims.judge import DIGITS
from bench.paper.claims.rules import Claim

#: The quantity of each claim.
MEASURED = {
    "1": "IQM of final return / 1000",
    "2": "time of a Diffusion-QL actor update divided by that of a QSM one",
    "3a": "means over seeds, at four sizes of target",
    "3b": "optima covered, of four",
    "4a": "states covered in training, QSM's against others'",
    "4b": "share of seeds that end at the far goal",
    "5a": "the step of QSM's loss, linear-quadratic problem",
    "5b": "the step of QSM's loss, gridworld-like problem",
}
#: Evidence, besides more seeds, that could change the verdict.
CHANGES = {
    "1": "The paper's other tasks, its longer runs and wider networks (the studies paper and matched).",
    "2": "A GPU, where the number of kernels counts more than their size; other widths.",
    "3a": "A learned critic; more denoising steps.",
    "3b": "Nothing: it shows that there is such a setting.",
    "4a": "More tasks; longer training; a measure that counts useful states.",
    "4b": "A task on which Diffusion-QL reaches a goal.",
    "5a": "A step that changes the direction of the score alone, which is what the theorem speaks of.",
    "5b": "Larger M_q and larger steps, at which fewer steps raise Q (descriptive).",
}


def table(judged: Sequence[Verdict[Claim]]) -> Table:
    """One row per claim."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for verdict in judged:
        name = verdict.claim.id
        decides = _decides(verdict.findings)
        change = " ".join([*([f"To decide it: {decides}."] if decides else []), CHANGES[name]])
        found = _found(verdict)
        rows.append([f"{name}: {verdict.claim.says}", found, _how_sure(verdict), change])
        records.append({"claim": name, "verdict": verdict.verdict, "found": found})
    notes = [
        "Brackets: intervals at the level that the table of claims gives. Tests, verdicts and what had been seen when "
        "the rules were written: bench/paper/claims/claims-2.toml."
    ]
    columns = ["The paper says", "We found", "How sure", "What would change it"]
    return Table("overview", "The claims at a glance", columns, rows, records, notes)


def _how_sure(verdict: Verdict[Claim]) -> str:
    """The verdict, and on how many seeds or rounds."""
    sizes = sorted({finding.n for finding in verdict.findings})
    unit = "rounds" if verdict.claim.data == "timing" else "seeds"
    if not sizes or sizes == [0]:
        return "not run yet"
    n = " to ".join(f"{size}" for size in dict.fromkeys((sizes[0], sizes[-1])))
    shown = "shown, not judged" if verdict.verdict == DESCRIPTIVE else verdict.verdict
    return f"{shown}, {n} {unit}"


def _decides(findings: Sequence[Finding]) -> str:
    """ "QSM − SAC: about 30 seeds; QSM − TD3: about 15 seeds, if value and spread stay as they are" """
    lacks = [need for finding in findings for need in finding.lacks]
    enough = [f"{finding.name}: {finding.enough}" for finding in findings if finding.enough]
    return "; ".join(dict.fromkeys([*lacks, *enough])) + (UNCHANGED if enough else "")


def _found(verdict: Verdict[Claim]) -> str:
    claim = verdict.claim
    if not any(finding.contrast for finding in verdict.findings):
        return MISSING
    kind = _several if len(claim.settings) > 1 else _each
    if claim.kind == "level":
        kind = _shares if claim.statistic == "share" else _ranges
    return f"{MEASURED[claim.id]}: {'; '.join(kind(claim, verdict.findings))}"


def _each(claim: Claim, findings: Sequence[Finding]) -> Iterator[str]:
    """ "QSM − SAC 0.081 [−0.092, 0.184]" """
    for finding in findings:
        found = finding.contrast
        if found is not None:
            value = number(found.value, DIGITS)
            assert isinstance(value, Number)
            name = finding.name.partition(": ")[2] or finding.name  # of a timing, its execution
            yield f"{name} {value.text} {within(found.low, found.high, DIGITS)}"


def _shares(claim: Claim, findings: Sequence[Finding]) -> Iterator[str]:
    """ "every step up to 0.1 raises Q in 10 of 10 seeds" """
    for measure, finding in zip(claim.measures, findings, strict=True):
        if finding.contrast is not None:
            count = round(finding.contrast.value * finding.n)
            yield f"{MEASURES[measure]} in {count} of {finding.n} seeds"


def _ranges(claim: Claim, findings: Sequence[Finding]) -> Iterator[str]:
    """ "modes 5.0 to 8.8", over the settings"""
    settings = len(claim.settings)
    for k, measure in enumerate(claim.measures):
        group = findings[k * settings : (k + 1) * settings]
        values = [finding.contrast.value for finding in group if finding.contrast is not None]
        if values:
            yield f"{MEASURES[measure]} {min(values):.1f} to {max(values):.1f}"


def _several(claim: Claim, findings: Sequence[Finding]) -> Iterator[str]:
    """ "point: above TD3, DQL, and below SAC", for each setting"""
    algos = claim.baselines
    for k, setting in enumerate(claim.settings):
        words: dict[str, list[str]] = {}
        for algo, finding in zip(algos, findings[k * len(algos) : (k + 1) * len(algos)], strict=True):
            words.setdefault(_word(finding, claim.min_seeds), []).append(display_name(algo, algo))
        said = "; ".join(f"{word} {', '.join(names)}" for word, names in words.items())
        yield f"{SETTINGS.get(setting, setting)}: {said}".replace("; ", ", and ")


def _word(finding: Finding, fewest: int) -> str:
    found = finding.contrast
    if found is None or finding.n < fewest:
        return "too few seeds beside"
    return "above" if found.low > 0 else "below" if found.high < 0 else "not separated from"
