"""The sections that the paper's own studies add to a report."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.report.sections import Section
from bench.analysis.scores import comparisons
from bench.analysis.scores.results import Results
from bench.analysis.wallclock.timings import TimingSet
from bench.paper.claims import judge
from bench.paper.claims.rules import FILE, load_claims


def claims(results: Results, timing_sets: Sequence[TimingSet]) -> Section:
    """The paper's claims as this study judges them; empty for a study that does not compare the paper's algorithms."""
    title = "The paper's claims"
    if not judge.concerns(results):
        return Section("claims", title)
    judged = judge.judge(results, timing_sets)
    text = (
        "What the paper claims, in our words, with the test that decides it. A verdict holds for what it was judged "
        f"under, and no further. Rules: {FILE.name}, SHA-256 {load_claims()[1]}. {judge.RULES}"
    )
    tables = [table for table in (judge.table(judged), comparisons.by_task(results)) if table.rows]
    return Section("claims", title, text=[text], verdicts=judged, tables=tables)
