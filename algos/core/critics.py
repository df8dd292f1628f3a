"""Critics: Q(s, a) and how it is trained. A choice of the user's, `critic=mlp`, for every algorithm.

Shapes: S seeds, K critics, B batch, O observation and A action dimensions.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from typing import Any, ClassVar

import torch
from torch import Tensor

from algos.core.networks import Generators, Params, init_mlp, mlp
from algos.core.optim import Adam, clip_by_norm, polyak

State = dict[str, Params]
Metrics = dict[str, Tensor]

#: Name -> "module:class". A package adds one here, or under the entry-point group below.
CRITICS = {
    "mlp": "algos.core.critics:MLPCritic",
    "simba": "algos.core.critic_simba:SimBaCritic",
    "crossq": "algos.core.critic_crossq:CrossQCritic",
    "distributional": "algos.core.critic_distributional:DistributionalCritic",
}
ENTRY_POINTS = "qsm_bench.critics"


@functools.cache
def offered() -> dict[str, importlib.metadata.EntryPoint]:
    """Name -> the entry point under which an installed package offers a critic."""
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def critic_names() -> list[str]:
    """The names that the setting `critic` can take."""
    return list({**CRITICS, **offered()})


def critic_class(name: str) -> type[Critic]:
    """The class of a critic. Raises KeyError, ImportError, or AttributeError."""
    module, _, attribute = (CRITICS[name] if name in CRITICS else offered()[name].value).partition(":")
    found: type[Critic] = getattr(importlib.import_module(module), attribute)
    return found


class Critic:
    """K critics side by side. A subclass defines its networks and the step that trains them.

    Its parts of the agent's state: "critic", the trained parameters; "target_critic", an average of them, where there
    are target networks; "critic_stats", running statistics, where there are some. All have the seed axis S in front.
    """

    #: Fields of the base Config that mean nothing to this critic: setting one is refused.
    unused: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any, obs_dim: int, act_dim: int):
        self.config, self.obs_dim, self.act_dim = config, obs_dim, act_dim

    @classmethod
    def check(cls, config: Any) -> None:
        """Raises ValueError for settings that this critic cannot have."""

    def initial_state(self, generators: Generators) -> State:
        """The critic's parts of the state."""
        raise NotImplementedError

    def optimiser(self) -> Adam:
        """How "critic" is stepped."""
        return Adam(self.config.critic_lr, clip=clip_by_norm(self.config.grad_norm))

    def q(
        self, state: State, obs: Tensor, action: Tensor, target: bool = False, first: int | None = None
    ) -> Tensor:
        """Values (S, K, B) at obs (S, B, O) and action (S, B, A), differentiable in the action; statistics are kept.

        target: of the target networks, if there are any. first: of the first critics only, so many.
        """
        raise NotImplementedError

    def step(
        self, agent: Any, state: State, batch: Any, draws: Any, next_action: Tensor, bonus: Tensor | float
    ) -> Metrics:
        """One step of all critics towards `agent.td_target` by `agent.critic_loss`, through `agent.minimise`.

        State other than parameters, such as running statistics, is returned by the loss and written by this method.
        """
        raise NotImplementedError

    def move_targets(self, state: State, tau: float) -> None:
        """One step of the target networks where there are some."""
        if "target_critic" in state:
            polyak(state["target_critic"], state["critic"], tau)

    def observe(self, state: State, obs: Tensor) -> None:
        """Before every action of the behaviour policy, at obs (S, n, O): where statistics of observations run."""

    def normalised(self, state: State, obs: Tensor) -> Tensor:
        """Observations as every network of the agent gets them, when acting and in an update."""
        return obs


class MLPCritic(Critic):
    """Multi-layer perceptrons on (s, a) with target networks."""

    def initial_state(self, generators: Generators) -> State:
        c = self.config
        sizes = (self.obs_dim + self.act_dim, *(c.critic_hidden or c.hidden), 1)
        critic = init_mlp(generators, sizes, c.init, c.critics)
        return {"critic": critic, "target_critic": {name: p.clone() for name, p in critic.items()}}

    def q(
        self, state: State, obs: Tensor, action: Tensor, target: bool = False, first: int | None = None
    ) -> Tensor:
        params = state["target_critic" if target else "critic"]
        if first is not None:
            params = {name: p[:, :first] for name, p in params.items()}
        return self.forward(params, obs, action)

    def forward(self, params: Params, obs: Tensor, action: Tensor) -> Tensor:
        """Values (S, K, B) of the critics whose parameters are `params`."""
        return q_networks(params, obs, action, self.config.critic_activation)

    def step(
        self, agent: Any, state: State, batch: Any, draws: Any, next_action: Tensor, bonus: Tensor | float
    ) -> Metrics:
        next_q = self.q(state, batch.next_obs, next_action, target=True)
        y = agent.td_target(batch, next_q, bonus)  # (S, B)

        def loss(critic: Params) -> tuple[Tensor, Metrics]:
            q = self.forward(critic, batch.obs, batch.action)
            per_seed = agent.critic_loss(q, y)
            return per_seed.sum(), {"critic_loss": per_seed, "q": q.mean((1, 2)), "target_q": y.mean(1)}

        return agent.minimise(state, "critic", loss)


def q_networks(params: Params, obs: Tensor, action: Tensor, activation: str) -> Tensor:
    """All critics that `params` hold, weights (S, K, in, out), at (S, B, O) and (S, B, A) -> (S, K, B)."""
    S, K = params["w0"].shape[:2]
    stacked = {name: p.flatten(0, 1) for name, p in params.items()}
    return mlp(stacked, rows_per_critic(obs, action, K), activation).view(S, K, -1)


def rows_per_critic(obs: Tensor, action: Tensor, critics: int) -> Tensor:
    """The same (s, a) for each of K critics: (S, B, O) and (S, B, A) -> (S K, B, O + A)."""
    x = torch.cat([obs, action], -1)
    return x.unsqueeze(1).expand(-1, critics, -1, -1).flatten(0, 1)
