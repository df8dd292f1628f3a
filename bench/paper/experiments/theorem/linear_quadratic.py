"""Linear-quadratic problems in which Q of a diffusion policy is known in closed form (claim 5a).

s' = A s + B a + w, w ~ N(0, W); reward -(s' C s + a' R a); discount gamma. The policy is the reverse chain of the
suite's noise schedule without the clip, and its noise prediction is linear, eps_t(s, a) = E_t a + F_t s. Then
    a ~ N(K s, Sigma),
    V(s) = -(s' P s + p),   P = C + K'RK + gamma (A + BK)' P (A + BK),
    p (1 - gamma) = tr((R + gamma B'PB) Sigma) + gamma tr(P W),
    Q(s, a) = -(s' H_ss s + 2 s' H_sa a + a' H_aa a + gamma (tr(P W) + p)),
    H_ss = C + gamma A'PA,  H_sa = gamma A'PB,  H_aa = R + gamma B'PB,
and -M_q grad_a Q = 2 M_q (H_aa a + H_sa' s) has the form of eps_t: the minimum of QSM's loss is in the family.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_lyapunov

from algos.core.diffusion import Schedule, vp_schedule

Array = NDArray[np.float64]

STATES, ACTIONS = 3, 2
GAMMA = 0.95


@dataclass(frozen=True)
class Problem:
    """A (n, n), B (n, m), C (n, n), R (m, m), W (n, n)."""

    A: Array
    B: Array
    C: Array
    R: Array
    W: Array

    @classmethod
    def random(cls, rng: np.random.Generator) -> Problem:
        """A stable system: the spectral radius of A is 0.9; costs and noise are isotropic."""
        A = rng.normal(size=(STATES, STATES))
        A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
        B = rng.normal(size=(STATES, ACTIONS)) / np.sqrt(STATES)
        return cls(A, B, np.eye(STATES), 0.1 * np.eye(ACTIONS), 0.01 * np.eye(STATES))


@dataclass(frozen=True)
class Value:
    """Q(s, a) = -(s' ss s + 2 s' sa a + a' aa a + constant)."""

    ss: Array
    sa: Array
    aa: Array
    constant: float

    def mean(self) -> float:
        """Over s ~ N(0, I) and a ~ N(0, I): the same state-action pairs, whatever the policy."""
        return -(np.trace(self.ss) + np.trace(self.aa) + self.constant)

    def nowhere_below(self, other: Value) -> bool:
        """Whether Q is at least that of `other` at every (s, a)."""
        cross = other.sa - self.sa
        gain = np.block([[other.ss - self.ss, cross], [cross.T, other.aa - self.aa]])
        return bool(other.constant >= self.constant and np.linalg.eigvalsh(gain).min() >= 0)

    def gradient_rms(self) -> float:
        """Root mean square of a coordinate of grad_a Q over the same pairs."""
        return float(2 * np.sqrt((np.square(self.sa).sum() + np.square(self.aa).sum()) / ACTIONS))


class Policy:
    """The chain with eps_t(s, a) = E[t] a + F[t] s; E (T, m, m), F (T, m, n)."""

    def __init__(self, schedule: Schedule, E: Array, F: Array):
        self.schedule, self.E, self.F = schedule, E, F

    @classmethod
    def random(cls, T: int, rng: np.random.Generator) -> Policy:
        """A ~ N(0, I) in every state, up to a random term of a tenth of that in each coefficient.

        eps_t = sqrt(1 - abar_t) a is the noise prediction of the standard normal distribution; the chain keeps
        it until the last step, which adds no noise.
        """
        schedule = vp_schedule(T)
        sigma = np.sqrt(1 - np.array(schedule.alpha_bar))[:, None, None]
        E = sigma * (np.eye(ACTIONS) + 0.1 * rng.normal(size=(T, ACTIONS, ACTIONS)))
        return cls(schedule, E, sigma * 0.1 * rng.normal(size=(T, ACTIONS, STATES)))

    def law(self) -> tuple[Array, Array]:
        """K (m, n) and Sigma (m, m): a ~ N(K s, Sigma)."""
        K, Sigma = np.zeros((ACTIONS, STATES)), np.eye(ACTIONS)
        for t in reversed(range(self.schedule.T)):
            alpha = self.schedule.alpha[t]
            weight = (1 - alpha) / np.sqrt(1 - self.schedule.alpha_bar[t])
            M = (np.eye(ACTIONS) - weight * self.E[t]) / np.sqrt(alpha)
            K = M @ K - weight * self.F[t] / np.sqrt(alpha)
            Sigma = M @ Sigma @ M.T + (self.schedule.beta[t] * np.eye(ACTIONS) if t > 0 else 0.0)
        return K, Sigma

    def moved(self, target: tuple[Array, Array], keep: float, step: float) -> Policy:
        """keep eps + step target, for target = (E, F) of one noise level."""
        E, F = target
        return Policy(self.schedule, keep * self.E + step * E, keep * self.F + step * F)

    def with_target(self, target: tuple[Array, Array]) -> tuple[Array, Array]:
        """All coefficients of eps and of a target, as vectors of one length."""
        E, F = (np.broadcast_to(part, (self.schedule.T, *part.shape)) for part in target)
        join = lambda *parts: np.concatenate([part.ravel() for part in parts])  # noqa: E731
        return join(self.E, self.F), join(E, F)


def evaluate(problem: Problem, policy: Policy) -> Value | None:
    """Q of the policy; None where it is infinite: the discounted closed loop is unstable."""
    K, Sigma = policy.law()
    if not (np.isfinite(K).all() and np.isfinite(Sigma).all()):
        return None
    A, B, C, R, W = problem.A, problem.B, problem.C, problem.R, problem.W
    closed = np.sqrt(GAMMA) * (A + B @ K)
    if np.abs(np.linalg.eigvals(closed)).max() >= 1:
        return None
    P = solve_discrete_lyapunov(closed.T, C + K.T @ R @ K)
    aa = R + GAMMA * B.T @ P @ B
    p = (np.trace(aa @ Sigma) + GAMMA * np.trace(P @ W)) / (1 - GAMMA)
    return Value(C + GAMMA * A.T @ P @ A, GAMMA * A.T @ P @ B, aa, GAMMA * (np.trace(P @ W) + p))


def start(T: int, seed: int) -> tuple[Problem, Policy, Value]:
    """A random problem and first policy, drawn again where its Q is infinite, and that Q."""
    rng = np.random.default_rng(seed)
    while True:
        problem, policy = Problem.random(rng), Policy.random(T, rng)
        value = evaluate(problem, policy)
        if value is not None:
            return problem, policy, value


def target(value: Value, M_q: float) -> tuple[Array, Array]:
    """-M_q grad_a Q as coefficients (E, F) of a and s."""
    return 2 * M_q * value.aa, 2 * M_q * value.sa.T
