"""The settings of all algorithms, and their checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from algos.core.critics import critic_class, critic_names
from algos.core.kernels import ACTIVATIONS
from algos.core.networks import INITIALISERS


def later(default: Any) -> Any:
    """A field that was added when there were runs already: nothing is recorded of it where it has its default.

    So the hashes of those runs stay as they are.
    """
    return dataclasses.field(default=default, metadata={"later": True})


@dataclass(frozen=True)
class Config:
    """The settings common to all algorithms; the defaults are the QSM authors' (their repository's configs)."""

    hidden: tuple[int, ...] = (256, 256)
    critic_activation: str = "relu"
    init: str = "xavier_uniform"  # one of INITIALISERS; "torch": PyTorch's default
    actor_lr: float = 3e-4
    actor_lr_decay: int = 0  # updates of a cosine schedule to zero; 0: constant
    critic_lr: float = 3e-4
    # over the critics, or "mean": it matters relative to Adam's epsilon and for clipping
    critic_loss: str = "sum"
    grad_norm: float = 0.0  # each network's gradient is clipped to this norm; 0: not
    discount: float = 0.99
    tau: float = 0.005  # Polyak step of the target networks
    batch_size: int = 256
    critic: str = later("mlp")  # one of CRITICS
    critics: int = later(2)  # whose smallest value the TD target takes
    critic_hidden: tuple[int, ...] = later(())  # empty: mlp as `hidden`, others as their authors
    simba_weight_decay: float = later(0.01)  # of AdamW, of all leaves
    simba_normalise: bool = later(True)  # observations, for all networks of the agent, by running statistics
    crossq_beta1: float = later(0.5)  # of Adam
    crossq_momentum: float = later(0.99)  # of the running statistics
    crossq_warm_up: int = later(100_000)  # training passes before batch normalisation becomes renormalisation
    crossq_r_max: float = later(3.0)
    crossq_d_max: float = later(5.0)
    crossq_eps: float = later(1e-3)
    distributional_atoms: int = later(101)  # returns in [low, high]
    distributional_low: float = later(-200.0)
    distributional_high: float = later(200.0)
    # weight of the entropy of a critic's own distribution in its loss
    distributional_entropy: float = later(0.005)

    #: Defaults that another critic's authors have in place of these: critic -> field -> value. A subclass adds its own.
    by_critic: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "simba": {"critics": 1, "critic_lr": 1e-4, "critic_loss": "sum"},
        "crossq": {"critic_lr": 1e-3, "critic_loss": "mean"},
    }
    #: Fields that mean nothing to the algorithm: setting one is refused.
    unused: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for values no algorithm can run with."""
        _unused(self, self.unused, "this algorithm")
        for name in ("hidden", "critic_hidden"):
            widths = getattr(self, name)
            require(all(width >= 1 for width in widths), name, widths, "positive layer widths")
        require(len(self.hidden) > 0, "hidden", self.hidden, "positive layer widths")
        one_of(self, "critic_activation", ACTIVATIONS)
        one_of(self, "init", INITIALISERS)
        one_of(self, "critic_loss", ("sum", "mean"))
        one_of(self, "critic", critic_names())
        positive(self, "actor_lr", "critic_lr")
        at_least(self, 1, "batch_size", "critics", "crossq_r_max")
        at_least(self, 2, "distributional_atoms")
        not_negative(self, "actor_lr_decay", "grad_norm", "simba_weight_decay", "distributional_entropy")
        not_negative(self, "crossq_warm_up", "crossq_d_max")
        positive(self, "crossq_eps")
        between(self, 0, 1, "discount", "tau", "crossq_beta1", "crossq_momentum")
        require(
            self.distributional_low < self.distributional_high,
            "distributional_low",
            self.distributional_low,
            f"below distributional_high = {self.distributional_high}",
        )
        critic = critic_class(self.critic)
        _unused(self, critic.unused, f"the critic {self.critic}")
        critic.check(self)

    @classmethod
    def defaults(cls, critic: str) -> dict[str, Any]:
        """The defaults that the critic of that name replaces; a subclass's before those of its bases."""
        merged: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            merged |= vars(base).get("by_critic", {}).get(critic, {})
        return merged


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raises ValueError naming the field, its value and what was expected, unless `condition`."""
    if not condition:
        raise ValueError(f"{name} = {value!r}: expected {expected}")


def _unused(config: Any, names: Iterable[str], by: str) -> None:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in names and value != field.default:
            raise ValueError(f"{field.name} = {value!r}: {by} makes no use of {field.name}")


def one_of(config: Any, name: str, choices: Iterable[str]) -> None:
    """Raises ValueError unless the field is one of `choices`."""
    *others, last = choices
    listed = f"{', '.join(others)} or {last}" if others else last
    require(getattr(config, name) in (*others, last), name, getattr(config, name), listed)


def at_least(config: Any, least: float, *names: str) -> None:
    """Raises ValueError unless each of the fields is `least` or more."""
    for name in names:
        require(getattr(config, name) >= least, name, getattr(config, name), f"at least {least}")


def positive(config: Any, *names: str) -> None:
    """Raises ValueError unless each of the fields is above zero."""
    for name in names:
        require(getattr(config, name) > 0, name, getattr(config, name), "a positive number")


def not_negative(config: Any, *names: str) -> None:
    """Raises ValueError unless each of the fields is zero or above."""
    for name in names:
        require(getattr(config, name) >= 0, name, getattr(config, name), "zero or a positive number")


def between(config: Any, low: float, high: float, *names: str) -> None:
    """Raises ValueError unless each of the fields lies in [low, high]."""
    for name in names:
        value = getattr(config, name)
        require(low <= value <= high, name, value, f"a number from {low} to {high}")
