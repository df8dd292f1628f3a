"""The sections that the paper's own studies add to a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs

from bench.analysis.report.sections import Section
from bench.analysis.scores.results import Results
from bench.analysis.wallclock.timings import TimingSet
from bench.paper.claims import judge
from bench.paper.claims.rules import FILE, load_claims


def claims(results: Results, timing_sets: Sequence[TimingSet]) -> Section:
    """The paper's claims as this study judges them; empty for a study that does not compare the paper's algorithms, and
    for a part of one.
    """
    title = "The paper's claims"
    if not judge.concerns(results) or not results.whole:
        return Section("claims", title)
    judged = judge.judge(results, timing_sets)
    text = (
        "What the paper claims, in our words, with the test that decides it. A verdict holds for what it was judged "
        f"under, and no further. Rules: {FILE.name}, SHA-256 {load_claims()[1]}. {judge.RULES}"
    )
    return Section("claims", title, text=[text], verdicts=judged, tables=[judge.table(judged)])


def with_subject(results: Results) -> Results:
    """The results of a study of the paper, whose algorithm the others are compared with unless another was chosen."""
    subject = load_claims()[0].claim[0].subject
    chosen = results.choice.subject or results.choice.baselines or not results.whole
    if chosen or not judge.concerns(results) or subject not in results.labels:
        return results
    return replace(results, choice=structs.replace(results.choice, subject=subject))
