"""What all algorithms can be set to, and how settings are checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """What all algorithms have in common; the defaults are the QSM authors' (their repository's configs)."""

    hidden: tuple[int, ...] = (256, 256)
    critic_activation: str = "relu"
    init: str = "xavier_uniform"  # or "torch", PyTorch's default
    actor_lr: float = 3e-4
    actor_lr_decay: int = 0  # updates of a cosine schedule to zero; 0: constant
    critic_lr: float = 3e-4
    critic_loss: str = (
        "sum"  # over the two critics, or "mean": matters beside Adam's epsilon and for clipping
    )
    grad_norm: float = 0.0  # each network's gradient is clipped to this norm; 0: not
    discount: float = 0.99
    tau: float = 0.005  # Polyak step of the target networks
    batch_size: int = 256

    def __post_init__(self) -> None:
        """Raises ValueError for values no algorithm can run with."""
        require(len(self.hidden) > 0 and min(self.hidden) > 0, "hidden", self.hidden, "positive layer widths")
        require(
            self.critic_activation in ("relu", "mish"),
            "critic_activation",
            self.critic_activation,
            "relu or mish",
        )
        require(self.init in ("xavier_uniform", "torch"), "init", self.init, "xavier_uniform or torch")
        require(self.critic_loss in ("sum", "mean"), "critic_loss", self.critic_loss, "sum or mean")
        for name in ("actor_lr", "critic_lr", "batch_size"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        for name in ("actor_lr_decay", "grad_norm"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "zero or a positive number")
        for name in ("discount", "tau"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number from 0 to 1")


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raises ValueError naming the field, its value and what was expected, unless `condition`."""
    if not condition:
        raise ValueError(f"{name} = {value!r}: expected {expected}")
