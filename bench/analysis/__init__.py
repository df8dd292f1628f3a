"""From results/ to tables, figures and one page. Never imports torch."""

from bench.analysis.external.importing import import_scores
from bench.analysis.report.output import build, draw, summary
from bench.analysis.scores.load import load as load_results  # `load` is the module

__all__ = ["build", "draw", "import_scores", "load_results", "summary"]
