"""From results/ to the paper: statistics, tables, figures, verdicts on the claims, one report. Never
imports torch.
"""

from bench.analysis.build import build, summary
from bench.analysis.external import import_scores

__all__ = ["build", "import_scores", "summary"]
