"""From results/ to tables, figures and one page. Never imports torch."""

from bench.analysis.report.output import SUMMARY, build, draw
from bench.analysis.report.request import load_chosen, load_report, own_choice
from bench.analysis.scores.load import load as load_results  # `load` is the module

__all__ = [
    "SUMMARY",
    "build",
    "draw",
    "load_chosen",
    "load_report",
    "load_results",
    "own_choice",
]
