"""The suite around the algorithms: runs, launchers, timing, analysis."""
