"""An algorithm of somebody's own that does not load."""

raise ModuleNotFoundError("No module named 'flux_capacitor'")
