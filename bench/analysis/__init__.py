"""From results/ to the paper: statistics, tables, figures, verdicts on the claims, one report. Never
imports torch.
"""

from bench.analysis.external.scores import import_scores
from bench.analysis.report.output import build, draw, summary
from bench.analysis.scores.load import load as load_results  # `load` is the module
from bench.paper.documents import refresh
from bench.paper.experiments.report import build_experiments

__all__ = ["build", "build_experiments", "draw", "import_scores", "load_results", "refresh", "summary"]
