"""A reading of continuous Q-score matching on a linear-quadratic problem whose answer is known.

Hua, Gu, Tang (CQSM, arXiv 2510.17122) have published no code. This is our reading of its idea, not a reproduction:
the action is itself a diffusion, its drift Psi (the score) is the control and has a cost, Q is found by martingale
orthogonality, and Psi is moved towards grad_a Q / lambda.

    dX = (A X + B a) dt + sigma dW,   da = Psi(X, a) dt + sigma dW^a,   z = (X, a),
    Q(z; Psi) = E int_0^inf exp(-rho t) (-(X'C X + a'R a) - lambda/2 |Psi|^2) dt.

In closed form, with M = diag(C, R), F = [A B; 0 0], G = [0; I] and Psi = K z: Q(z) = -(z'P z + p),
    rho P = M + lambda/2 K'K + (F + G K)'P + P (F + G K),   rho p = sigma^2 tr P,
and at the optimum Psi = grad_a Q / lambda, K = -2/lambda G'P, rho P = M + F'P + P F - 2/lambda P G G'P.

Evaluation: Q_theta(z) = theta . phi(z), phi all products of two coordinates and 1. For the right theta
int exp(-rho t) (dQ + (r - lambda/2 |Psi|^2 - rho Q) dt) is a martingale, so its increments are orthogonal to what is
known before them; with phi as test functions and paths of step dt that is a linear system in theta. Improvement:
K <- K + step (grad_a Q_theta / lambda - K). The learner knows samples of z and rewards, never A, B, C or R.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_continuous_are, solve_continuous_lyapunov

from bench.paper.experiments.parts import Part, Row, Tables, all_scores

Array = NDArray[np.float64]

EXPERIMENT = "cqsm"
SEEDS = 10
STATES, ACTIONS = 2, 1
RHO, SIGMA = 0.5, 0.3
PATHS, HORIZON, ITERATIONS, STEP = 400, 4.0, 12, 0.5
LAMBDAS, DTS = (0.1, 1.0, 10.0), (0.04, 0.02, 0.01)
BASE: dict[str, Any] = {"cost": 1.0, "dt": 0.01}  # the others differ from it in one of the two


@dataclass(frozen=True)
class Problem:
    """F (n, n) and G (n, m) of z = (X, a); M (n, n) of the reward -z'M z; cost: lambda."""

    F: Array
    G: Array
    M: Array
    cost: float

    @classmethod
    def random(cls, rng: np.random.Generator, cost: float) -> Problem:
        """X alone is stable: the real parts of the eigenvalues of A are at most -0.2."""
        n = STATES + ACTIONS
        A, B = rng.normal(size=(STATES, STATES)), rng.normal(size=(STATES, ACTIONS))
        A = A - (np.linalg.eigvals(A).real.max() + 0.2) * np.eye(STATES)
        F = np.zeros((n, n))
        F[:STATES] = np.hstack([A, B])
        return cls(F, np.eye(n)[:, STATES:], np.diag([1.0] * STATES + [0.1] * ACTIONS), cost)

    def value(self, K: Array) -> Array:
        """P of Psi = K z. Raises ValueError where Q is infinite."""
        closed = self.F + self.G @ K - RHO / 2 * np.eye(len(self.F))
        if np.linalg.eigvals(closed).real.max() >= 0:
            raise ValueError("the discounted closed loop is unstable")
        return solve_continuous_lyapunov(closed.T, -(self.M + self.cost / 2 * K.T @ K))

    def best(self) -> Array:
        """K of the optimum."""
        shifted = self.F - RHO / 2 * np.eye(len(self.F))
        P = solve_continuous_are(shifted, self.G, self.M, self.cost / 2 * np.eye(ACTIONS))
        return -2 / self.cost * self.G.T @ P

    def loss(self, K: Array) -> float:
        """-E Q over z ~ N(0, I)."""
        P = self.value(K)
        return float(np.trace(P) * (1 + SIGMA**2 / RHO))


def features(z: Array) -> Array:
    """(..., n) -> (..., n (n + 1)/2 + 1): all products of two coordinates, and 1."""
    i, j = np.triu_indices(z.shape[-1])
    return np.concatenate([z[..., i] * z[..., j], np.ones((*z.shape[:-1], 1))], -1)


def evaluate(problem: Problem, K: Array, dt: float, rng: np.random.Generator) -> Array:
    """P (n, n) of Psi = K z from sampled paths alone."""
    n = len(problem.F)
    z = rng.normal(size=(PATHS, n))
    size = n * (n + 1) // 2 + 1
    left, right, phi = np.zeros((size, size)), np.zeros(size), features(z)
    for _ in range(round(HORIZON / dt)):
        psi = z @ K.T
        reward = -np.einsum("pi,ij,pj->p", z, problem.M, z) - problem.cost / 2 * np.square(psi).sum(-1)
        noise = SIGMA * np.sqrt(dt) * rng.normal(size=z.shape)
        z = z + dt * (z @ problem.F.T + psi @ problem.G.T) + noise
        after = features(z)
        left += phi.T @ (phi * (1 + RHO * dt) - after)
        right += dt * phi.T @ reward
        phi = after
    theta = np.linalg.solve(left, right)
    P = np.zeros((n, n))
    P[np.triu_indices(n)] = -theta[:-1]
    return (P + P.T) / 2


def learn(problem: Problem, dt: float, rng: np.random.Generator) -> list[Array]:
    """K after every iteration, from K = -I on the action (it decays) on."""
    K = np.hstack([np.zeros((ACTIONS, STATES)), -np.eye(ACTIONS)])
    path = [K]
    for _ in range(ITERATIONS):
        P = evaluate(problem, K, dt, rng)
        K = K + STEP * (-2 / problem.cost * problem.G.T @ P - K)
        path.append(K)
    return path


def settings() -> list[dict[str, Any]]:
    moved = [{**BASE, "cost": cost} for cost in LAMBDAS] + [{**BASE, "dt": dt} for dt in DTS]
    return list({tuple(cell.items()): cell for cell in moved}.values())


def parts() -> list[Part]:
    return [
        Part(EXPERIMENT, f"cost={c['cost']:g}-dt={c['dt']:g}", f"{__name__}:run", {**c, "seeds": SEEDS})
        for c in settings()
    ]


def scores(folder: Path) -> list[Row]:
    return all_scores(folder, parts())


def run(folder: Path, cost: float, dt: float, seeds: int) -> Tables:
    """Per seed, a problem of its own: how far K and its loss are from the optimum's, relative to the first K's."""
    rows: list[Row] = []
    iterations: list[Row] = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        problem = Problem.random(rng, cost)
        best = problem.best()
        least, path = problem.loss(best), learn(problem, dt, rng)
        first = problem.loss(path[0]) - least
        for number, K in enumerate(path):
            apart = float(np.linalg.norm(K - best) / np.linalg.norm(best))
            try:
                regret = (problem.loss(K) - least) / first
            except ValueError:
                regret = np.inf
            iterations.append({"seed": seed, "iteration": number, "distance": apart, "regret": regret})
        measured = {"distance": apart, "regret": regret, "finite": float(np.isfinite(regret))}
        setting = f"cost={cost:g},dt={dt:g}"
        rows += [
            {"measure": name, "setting": setting, "algo": "cqsm-reading", "seed": seed, "value": value}
            for name, value in measured.items()
        ]
    return {"scores": rows, "iterations": iterations}
