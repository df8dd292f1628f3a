"""Records what rliable computes on fixed scores, for test_stats.py. Prints JSON.

rliable 1.2.0 does not import beside the versions this project uses, so it is run in an environment of its
own:

    python3.11 -m venv rliable-env
    rliable-env/bin/pip install "rliable==1.2.0" "arch<8" "pandas<3" "numpy<2.3"
    rliable-env/bin/python tests/analysis/record_rliable.py > tests/analysis/rliable.json
"""

import json

import numpy as np
from rliable import library, metrics

rng = np.random.default_rng(0)
tasks, thresholds = 4, [0.0, 0.25, 0.5, 0.75, 1.0]
levels = np.array([0.2, 0.5, 0.8, 1.0])
x = np.round(levels + 0.15 * rng.standard_normal((7, tasks)), 3)  # (runs, tasks)
y = np.round(levels - 0.1 + 0.2 * rng.standard_normal((9, tasks)), 3)
y[2, 1] = x[3, 1]  # a tie
aggregates = (metrics.aggregate_iqm, metrics.aggregate_mean, metrics.aggregate_optimality_gap)
np.random.seed(0)  # rliable ignores its random_state; with this many repetitions the seed hardly matters
_, intervals = library.get_interval_estimates(
    {"x": x},
    lambda s: np.array([f(s) for f in aggregates]),
    reps=50_000,
)
distribution = library.create_performance_profile({"x": x}, np.array(thresholds), reps=10)[0]["x"]
print(
    json.dumps(
        {
            "x": x.tolist(),
            "y": y.tolist(),
            "iqm": float(metrics.aggregate_iqm(x)),
            "iqm_y": float(metrics.aggregate_iqm(y)),
            "mean": float(metrics.aggregate_mean(x)),
            "median": float(metrics.aggregate_median(x)),
            "optimality_gap": float(metrics.aggregate_optimality_gap(x)),
            "probability_of_improvement": float(metrics.probability_of_improvement(x, y)),
            "thresholds": thresholds,
            "score_distribution": distribution.tolist(),
            "intervals": dict(zip(("iqm", "mean", "optimality_gap"), intervals["x"].T.tolist())),
        },
        indent=1,
    )
)
