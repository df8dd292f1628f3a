"""The paper's claims as they stand, by the rules of claims-2.toml.

claims.toml holds the first rules, byte for byte as they were before the data; claims-first-verdicts.csv what they gave
on the results of commit 85c80a8, written by that commit's own code (its report's table of claims shows the same).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.analysis import stats, verdicts
from bench.analysis.coverage import FEW
from bench.analysis.csvfile import read_text
from bench.analysis.scores.results import LARGEST_RETURN, Cell, Results
from bench.analysis.scores.tables import p_value, seeds_entry
from bench.analysis.stats import Contrast, Resampled
from bench.analysis.style import display_name
from bench.analysis.table import MISSING, Entry, Table, number, within
from bench.analysis.verdicts import Verdict, overall
from bench.analysis.wallclock.timings import TimingSet, ratio_over_rounds, round_medians
from bench.paper.claims import experiments as claim_experiments
from bench.paper.claims.rules import FILE, FIRST, Claim, Rules, load_claims

FIRST_VERDICTS = FILE.with_name("claims-first-verdicts.csv")
DIGITS = 3  # decimals of a value and its interval
RULES = "The rules are not pre-registered: their head says what had been seen when they were written."


def concerns(results: Results) -> bool:
    """Whether a study is one of the paper's: it has runs of the paper's algorithm and of one of its baselines."""
    (first, *_) = load_claims()[0].claim
    there = set(results.algos.values())
    return first.subject in there and not there.isdisjoint(first.baselines)


def judge(results: Results, timing_sets: Sequence[TimingSet]) -> list[Verdict[Claim]]:
    """Every claim, by this study's runs, the timing studies and the experiments under the same root."""
    rules, _ = load_claims()
    found = []
    for claim in rules.claim:
        if claim.data == "study":
            found.append(_by_study(rules, claim, results))
        elif claim.data == "timing":
            found.append(_by_timing(rules, claim, timing_sets))
        else:
            found.append(claim_experiments.judge(rules, claim, results.root))
    return found


def judge_experiment(root: Path, data: str) -> list[Verdict[Claim]]:
    """The claims that the experiment in root/data decides, such as "experiments/theorem"."""
    rules, _ = load_claims()
    return [claim_experiments.judge(rules, claim, root) for claim in rules.claim if claim.data == data]


def table(judged: Sequence[Verdict[Claim]]) -> Table:
    """One row per contrast, level or ratio."""
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for verdict in judged:
        for finding in verdict.findings:
            row: list[Entry] = [verdict.claim.id, verdict.claim.title, finding.name]
            record: dict[str, object] = {"claim": verdict.claim.id, "contrast": finding.name}
            if finding.contrast is None:
                row += [MISSING, MISSING]
            else:
                found = finding.contrast
                detail = f"{within(found.low, found.high, DIGITS)} {p_value(found.p)}".strip()
                row += [number(found.value, DIGITS, detail=detail)]
                row += [number(100 * found.level, 2)]
                record |= {"value": found.value, "low": found.low, "high": found.high, "level": found.level}
                record |= {"permutation_p": found.p}
            n = seeds_entry(finding.n) if finding.unit == "seeds" else number(finding.n)
            rows.append([*row, n, finding.verdict, finding.decides or MISSING])
            record |= {"n": finding.n, "verdict": finding.verdict, "decides": finding.decides}
            records.append({**record, "claim_verdict": verdict.verdict, "conditions": verdict.conditions})
    columns = [
        "Claim",
        "Title",
        "Contrast",
        "Value [interval]",
        "Level, %",
        "n",
        "Verdict",
        "What would decide it",
    ]
    notes = [
        f"Rules: bench/paper/claims/{FILE.name}, SHA-256 {load_claims()[1]}. {RULES}",
        "Level: of the interval alone, after the correction over all findings of one claim (Holm for contrasts, else "
        "Bonferroni): the tests hold together at 95%, the intervals do not. p: two-sided permutation test of the "
        "difference of means, where one task has it, uncorrected. n: seeds of the task with the fewest; of claim 2, "
        "timed rounds.",
        FEW,
    ]
    return Table("claims", "The paper's claims", columns, rows, records, notes)


def both_rules(judged: Sequence[Verdict[Claim]]) -> Table:
    """Each claim's verdict under the first rules, as it stood when they were replaced, and under the present ones."""
    first_rules, first_hash = load_claims(FIRST)
    titles = {claim.id: claim.title for claim in first_rules.claim}
    first = {row["claim"]: row["verdict"] for row in read_text(FIRST_VERDICTS).to_dict("records")}
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for verdict in judged:
        claim = verdict.claim
        name = claim.id
        title = titles[name] if titles[name] == claim.title else f"{titles[name]} → {claim.title}"
        rows.append([name, title, first[name], verdict.verdict, claim.changed])
        records.append({"claim": name, "title": claim.title, "first": first[name], "now": verdict.verdict})
    notes = [
        f"First rules: bench/paper/claims/{FIRST.name}, SHA-256 {first_hash}; their verdicts are those of commit "
        "85c80a8, on the results that it held, and are not judged anew. Second rules: "
        f"bench/paper/claims/{FILE.name}, SHA-256 {load_claims()[1]}. {RULES}",
    ]
    columns = ["Claim", "Title", "First rules", "Second rules", "What changed, and why"]
    return Table("claims_both_rules", "The claims under both rules", columns, rows, records, notes)


# --- by the returns of a study ----------------------------------------------------------------------------


def _by_study(rules: Rules, claim: Claim, results: Results) -> Verdict[Claim]:
    envs = results.control_envs
    labels = {algo: _label(results, algo) for algo in (claim.subject, *claim.baselines)}
    cells = {
        algo: [results.cells[env, label] for env in envs]
        for algo, label in labels.items()
        if label and envs and all((env, label) in results.cells for env in envs)
    }
    missing = {algo: _missing(results, algo, labels[algo], claim.min_seeds) for algo in labels}
    subject = claim.subject
    several = {algo for algo in cells if min(cell.n for cell in cells[algo]) > 1}  # one seed has no interval
    pairs = [algo for algo in claim.baselines if {subject, algo} <= several]
    cut = stats.trimmed_share([cell.n for side in cells.values() for cell in side] or [1], max(1, len(envs)))
    differences = {
        algo: _difference_of_iqms(cells[subject], cells[algo], cut, rules.resamples) for algo in pairs
    }
    contrasts = stats.holm(differences, rules.level, len(claim.baselines))
    if len(envs) == 1:
        contrasts = {
            algo: replace(found, p=stats.permutation_p(cells[subject][0].final, cells[algo][0].final))
            for algo, found in contrasts.items()
        }
    findings = []
    for algo in claim.baselines:
        sides = [cells.get(subject, []), cells.get(algo, [])]
        n = min(cell.n for side in sides for cell in side) if all(sides) else 0
        lacks = tuple(dict.fromkeys(filter(None, (missing[subject], missing[algo]))))
        findings.append(
            verdicts.difference(_versus(subject, algo), contrasts.get(algo), n, claim.margin, lacks)
        )
    return Verdict(claim, overall(findings), tuple(findings), _conditions(results, labels))


def _label(results: Results, algo: str) -> str | None:
    """The label that stands for an algorithm: its plain name, or its only variant in this study."""
    labels = [label for label in results.learners if results.algos[label] == algo]
    return algo if algo in labels else labels[0] if len(labels) == 1 else None


def _missing(results: Results, algo: str, label: str | None, fewest: int) -> str:
    """The runs needed before a verdict is possible; "" if none."""
    name, envs = display_name(algo, algo), results.control_envs
    if label is None or not envs:
        return f"one variant of {name} in the study" if envs else "a DM Control task"
    scores = [score for score in results.runs if score.run.label == label and score.run.env in envs]
    seeds = {env: sum(score.run.env == env for score in scores) for env in envs}
    absent = [env for env in envs if not seeds[env]]
    if absent:
        return f"runs of {name} on {', '.join(absent)}"
    if min(seeds.values()) < fewest:
        return f"at least {fewest} seeds of {name} on every task, not {min(seeds.values())}"
    unscored = sum(not score.scored for score in scores)
    return f"{unscored} unscored run{'s' * (unscored > 1)} of {name}" if unscored else ""


def _difference_of_iqms(ours: Sequence[Cell], theirs: Sequence[Cell], cut: float, draws: int) -> Resampled:
    iqm = functools.partial(stats.iqm, cut=cut)
    x, y = ([cell.final / LARGEST_RETURN for cell in cells] for cells in (ours, theirs))
    return stats.resampled_difference(iqm, x, y, [cell.group for cell in (*ours, *theirs)], draws)


def _conditions(results: Results, labels: Mapping[str, str | None]) -> str:
    """Steps, tasks, widths and evaluation: a verdict holds for these."""
    steps = results.settings.get("steps")
    widths = [
        f"{display_name(algo, algo)} {'x'.join(map(str, hidden))}"
        for algo, label in labels.items()
        if label and (hidden := results.config(label).get("hidden"))
    ]
    parts = (
        f"{steps:,} environment steps" if isinstance(steps, int) else "",
        f"tasks {', '.join(results.control_envs)}",
        f"widths {', '.join(widths)}",
        f"evaluation {results.evaluation}",
    )
    return f"study {results.study}: " + "; ".join(filter(None, parts))


# --- by a timing study ------------------------------------------------------------------------------------


def _by_timing(rules: Rules, claim: Claim, timing_sets: Sequence[TimingSet]) -> Verdict[Claim]:
    subject, (baseline,) = claim.subject, claim.baselines
    findings, sizes = [], set()
    for timings in timing_sets:
        size = timings.reference_size()
        where = {"what": claim.measure, "T": str(claim.T), **size}
        slow, fast = (round_medians(timings, algo=algo, **where) for algo in (baseline, subject))
        value, low, high, n = ratio_over_rounds(slow, fast, rules.resamples, rules.level)
        if not n:
            continue
        ratio = Contrast(value, low, high, rules.level)
        name = f"{display_name(baseline, baseline)} / {display_name(subject, subject)}, {timings.title}"
        findings.append(verdicts.level(name, ratio, n, claim.threshold, claim.min_seeds, "rounds"))
        sizes.add(f"widths {size['hidden']}, batch {size['batch']}, pack {size['pack']}")
    conditions = f"T = {claim.T}; " + ("; ".join(sorted(sizes)) or "no timing study has both at this T")
    return Verdict(claim, overall(findings), tuple(findings), conditions)


def _versus(subject: str, baseline: str) -> str:
    return f"{display_name(subject, subject)} − {display_name(baseline, baseline)}"
