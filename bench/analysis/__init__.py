"""From results/ to the paper: statistics, tables, figures, verdicts on the claims, one report. Never
imports torch.
"""

from bench.analysis.build import build, summary


__all__ = ["build", "summary"]
