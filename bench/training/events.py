"""The events that a Trainer yields while it trains, to be stored and shown by its caller."""

from __future__ import annotations

from dataclasses import dataclass

Row = dict[str, object]


@dataclass(frozen=True)
class Rows:
    """Rows for a table of seed number k of the pack."""

    k: int
    table: str
    rows: list[Row]


@dataclass(frozen=True)
class Diverged:
    """Seed number k has ended: its first value that is not finite, or an environment that failed."""

    k: int
    env_step: int
    reason: str


@dataclass(frozen=True)
class Step:
    """A step of the whole pack is complete: the moment at which a checkpoint may be taken.

    env_step counts every action as `action_repeat` environment steps, also one that ended its episode earlier, so that
    the seeds of a pack go in lock-step and all runs are evaluated at the same steps.
    """

    env_step: int


@dataclass(frozen=True)
class Evaluating:
    """An evaluation is in progress: send a heartbeat, but do not checkpoint."""

    env_step: int


Event = Rows | Diverged | Step | Evaluating
