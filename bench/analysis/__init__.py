"""From results/ to the paper: statistics, tables, figures, verdicts on the claims, one report. Never
imports torch.
"""

from bench.analysis.documents import refresh
from bench.analysis.experiment_report import build_experiments
from bench.analysis.external import import_scores
from bench.analysis.load import load as load_results  # `load` is the module
from bench.analysis.output import build, draw, summary

__all__ = ["build", "build_experiments", "draw", "import_scores", "load_results", "refresh", "summary"]
