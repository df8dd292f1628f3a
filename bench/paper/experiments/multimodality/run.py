"""Which of four optima do QSM, Diffusion-QL and SAC cover when Q is known exactly? (claims 3a, 3b)

Two grids. `parts` of the first, on optima of equal and of unequal height, go over M_q and T from where it works to the
authors' M_q. But M_q multiplies grad Q, and grad Q is larger here than on the tasks: at the same M_q the target of
QSM's loss, M_q |dQ/da|, is 29 here and 0.5 to 13 in the runs on tasks. The second grid, `AT_PRODUCTS`, has the M_q
at which that product is what runs have, and counts the modes as well as the optima covered.

With exact Q, QSM's loss is least where eps(a, t) = -M_q grad Q(a), that is where the score at noise level t,
-eps / sqrt(1 - abar_t), is that of exp(Q / alpha_t) with alpha_t = sqrt(1 - abar_t) / M_q. So the temperature falls
along the chain, from about 1 / M_q at full noise; with the option `score_scale` it is 1 / M_q at every t. A step of the
chain is one of Langevin dynamics, a <- a + beta (a / 2 + score) + sqrt(beta) z to first order in beta, whose stationary
density is exp(2 Q / alpha_t + |a|^2 / 2): half the temperature. Where steps are small compared with the width of an
optimum, the chain must therefore end near the Boltzmann density at alpha = alpha_0 / 2 (`last_temperature`), which is
the reference. The alpha that fits a policy's samples best is given with it.

Controls: samples of that density ("boltzmann"); each policy before training; and "qsm-exact", the same chain with
eps = -M_q grad Q in place of a network, which separates the sampler's effect from learning's. The first grid's M_q
begin where that chain, at the largest T, covers every optimum; learning rate and number of updates are such that the
network matches the exact chain there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from algos.core.diffusion import ddpm_step, vp_schedule
from algos.core.optim import input_gradient
from bench.paper.experiments.multimodality.exact import make
from bench.paper.experiments.multimodality.modes import CELLS as MODE_CELLS
from bench.paper.experiments.multimodality.modes import count_modes
from bench.paper.experiments.multimodality.problem import (
    ACT_DIM,
    CENTRES,
    HEIGHTS,
    OBS_DIM,
    Array,
    Bandit,
    at_bound,
    masses,
    samples,
    train,
)
from bench.paper.experiments.parts import Part, Row, Tables, all_scores

EXPERIMENT = "multimodality"
M_Q, T = (1, 5, 15, 50), (5, 20)
SEEDS = 5
TRAINING = {"updates": 4000, "random_actions": 500}
NETWORK: dict[str, Any] = {"hidden": (64, 64), "batch_size": 128, "actor_lr": 3e-3}
SAMPLES = 8192  # of each policy
CELLS = 20  # per axis, where densities are compared
DRAWN = 50  # per axis, in the figure
ALPHAS = np.logspace(-2, 1, 61)  # among which the best fit is sought

#: The second grid: with actions of uniform replay M_q |dQ/da| is 1.4, 3.4, 6.3 and 12.6 at these, T = 5.
AT_PRODUCTS = (2.5, 6.0, 11.0, 22.0)
PRODUCTS = "products"  # in the names of its parts and settings

#: (M_q, T) -> the setting that the rules of the claims name
NAMED = {(50, 5): "authors", (min(M_Q), max(T)): "small-M_q"}


def parts() -> list[Part]:
    """On optima of equal and of unequal height: Diffusion-QL over T, QSM and its controls over M_q and T, SAC."""
    grid: list[dict[str, Any]] = [{"M_q": m, "T": t} for t in reversed(T) for m in M_Q]
    cells: list[dict[str, Any]] = [{"algo": "dql", "T": t} for t in reversed(T)]
    cells += [{"algo": algo, **cell} for algo in ("qsm", "qsm-exact", "boltzmann") for cell in grid]
    cells += [{"algo": "qsm-score_scale=true", "M_q": min(M_Q), "T": max(T)}, {"algo": "sac"}]
    second: list[dict[str, Any]] = [
        {"algo": algo, "M_q": m, "T": min(T)} for algo in ("qsm", "qsm-exact") for m in AT_PRODUCTS
    ]
    second += [{"algo": "dql", "T": min(T)}, {"algo": "sac"}]
    return [_part({"heights": heights, **cell}) for heights in HEIGHTS for cell in cells] + [
        _part({"heights": "equal", **cell}, PRODUCTS) for cell in second
    ]


def scores(folder: Path) -> list[Row]:
    """The numbers that the rules of the claims judge, and all other measures."""
    return all_scores(folder, parts())


def _part(cell: dict[str, Any], grid: str = "") -> Part:
    words = [cell["heights"], cell["algo"], *(f"{k}={cell[k]:g}" for k in ("M_q", "T") if k in cell)]
    name = "-".join([*([grid] if grid else []), *words])
    function = "run_at_product" if grid else "run"
    return Part(EXPERIMENT, name, f"{__name__}:{function}", {**cell, "seeds": SEEDS})


def run(
    folder: Path, heights: str, algo: str, seeds: int, M_q: float | None = None, T: int | None = None
) -> Tables:
    """One algorithm on one bandit, all seeds as one pack."""
    bandit = Bandit(heights)
    found, _ = policies(bandit, algo, seeds, M_q, T)
    setting = "-".join([heights, *_knobs(M_q, T)])
    scores: list[Row] = []
    for prefix, actions in found.items():
        for seed, mine in enumerate(actions):
            for measure, value in measures(bandit, mine).items():
                scores += [
                    {"measure": measure, "setting": name, "algo": algo, "seed": seed, "value": value}
                    for name in (prefix + setting, *(_named(heights, algo, M_q, T) if not prefix else ()))
                ]
    return {"scores": scores, "density": _density(found[""][0])}


def run_at_product(
    folder: Path, heights: str, algo: str, seeds: int, M_q: float | None = None, T: int | None = None
) -> Tables:
    """The same on the second grid: the final policies alone, with `modes` and, where there is one, the `product`.

    product: M_q times the mean over updates, batch and coordinates of |dQ/da| at the noised action, which is
    M_q times `q_gradient` in a run's train.csv.
    """
    bandit = Bandit(heights)
    found, metrics = policies(bandit, algo, seeds, M_q, T)
    scores: list[Row] = []
    for seed, mine in enumerate(found[""]):
        values = measures(bandit, mine) | {"modes": count_modes(masses(mine, MODE_CELLS))}
        if M_q is not None and "q_gradient" in metrics:
            values["product"] = M_q * float(metrics["q_gradient"][seed])
        scores += [
            {
                "measure": measure,
                "setting": "-".join([PRODUCTS, *_knobs(M_q, T)]),
                "algo": algo,
                "seed": seed,
                "value": value,
            }
            for measure, value in values.items()
        ]
    return {"scores": scores, "density": _density(found[""][0])}


def policies(
    bandit: Bandit, algo: str, seeds: int, M_q: float | None, T: int | None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Samples (seeds, SAMPLES, 2) of an algorithm's policies, and training's mean metrics (seeds,) by name.

    Key "": of the final policies; "initial-": before training, where there is any.
    """
    if algo in ("qsm-exact", "boltzmann"):
        assert M_q is not None
        assert T is not None
        draw = exact_chain if algo == "qsm-exact" else reference
        return {"": np.stack([draw(bandit, M_q, T, seed) for seed in range(seeds)])}, {}
    settings: dict[str, Any] = dict(NETWORK)
    if T is not None:
        settings |= {"T": T, "actor_lr_decay": 0}
    if M_q is not None:
        settings |= {"M_q": float(M_q), "score_scale": algo.endswith("score_scale=true")}
    if algo == "sac":
        settings["temperature_lr"] = NETWORK["actor_lr"]
    agent = make(algo.split("-")[0], bandit.q, OBS_DIM, ACT_DIM, list(range(seeds)), **settings)
    initial = samples(agent, SAMPLES)
    metrics = train(agent, **TRAINING)
    return {"initial-": initial, "": samples(agent, SAMPLES)}, metrics


def _knobs(M_q: float | None, T: int | None) -> list[str]:
    return [f"{k}={v:g}" for k, v in (("M_q", M_q), ("T", T)) if v is not None]


def _named(heights: str, algo: str, M_q: float | None, T: int | None) -> list[str]:
    """The settings of the rules that a cell belongs to: SAC, which has neither M_q nor T, to each."""
    if heights != "equal":
        return []
    return [name for (m, t), name in NAMED.items() if (M_q is None or m == M_q) and (T is None or t == T)]


def last_temperature(M_q: float, T: int) -> float:
    """Where small steps let the chain end: sqrt(1 - abar_0) / (2 M_q), see the top."""
    return (1 - vp_schedule(T).alpha_bar[0]) ** 0.5 / (2 * M_q)


def measures(bandit: Bandit, actions: Array) -> dict[str, float]:
    """Of one policy's samples (n, 2). share_k: of those nearest to optimum k; alpha: of the best-fitting Boltzmann."""
    mine = masses(actions, CELLS)
    distance = [0.5 * float(np.abs(mine - bandit.boltzmann(alpha, CELLS)).sum()) for alpha in ALPHAS]
    best = int(np.argmin(distance))
    shares = np.bincount(bandit.nearest(actions), minlength=len(CENTRES)) / len(actions)
    return {
        "modes_covered": bandit.modes_covered(actions),
        "at_bound": at_bound(actions),
        "q": float(bandit.values(actions).mean()),
        "alpha": float(ALPHAS[best]),
        "total_variation": distance[best],
        **{f"share_{k}": float(share) for k, share in enumerate(shares)},
    }


def exact_chain(bandit: Bandit, M_q: float, T: int, seed: int) -> Array:
    """Samples of QSM's chain at the minimum of its loss, eps = -M_q grad Q: (SAMPLES, 2)."""
    schedule, draw = vp_schedule(T), torch.Generator().manual_seed(seed)
    shape = (1, SAMPLES, ACT_DIM)
    a = torch.randn(shape, generator=draw)
    for t in reversed(range(T)):
        eps = -M_q * input_gradient(lambda x: bandit.q(x, x).sum(), a)
        a = ddpm_step(schedule, t, a, eps, torch.randn(shape, generator=draw))
    return a[0].numpy().astype(np.float64)


def reference(bandit: Bandit, M_q: float, T: int, seed: int) -> Array:
    """Samples of the Boltzmann density at the chain's last temperature: (SAMPLES, 2)."""
    return bandit.sample_boltzmann(last_temperature(M_q, T), SAMPLES, np.random.default_rng(seed))


def _density(actions: Array) -> list[Row]:
    """The samples of one seed, counted in squares; empty ones are left out."""
    counts = np.rint(masses(actions, DRAWN) * len(actions)).astype(int)
    return [{"i": int(i), "j": int(j), "count": int(counts[i, j])} for i, j in zip(*np.nonzero(counts))]
