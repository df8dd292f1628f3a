"""What a report shows, and how: the `[report]` table of a study file, or a figures file with the same keys.

docs/analysis.md explains the keys. Here only their form is checked; whether an algorithm or task of that name was run
is seen where results are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from bench.errors import UserError
from bench.shape import Mismatch, fit, read_toml

Bound = float | str  # of a normalised return: a number, or an algorithm whose mean final return it is
EVERY_TASK = "*"


Text = Annotated[str, Meta(description="text in quotes")]
Names = Annotated[tuple[str, ...], Meta(description='a list of names such as ["qsm", "sac"]')]
Words = Annotated[dict[str, str], Meta(description='a table such as { "sac-actor_q=min" = "SAC, min" }')]
Colors = Annotated[dict[str, str], Meta(description='a table such as { qsm = "#0173b2" }')]
Steps = Annotated[int, Meta(ge=0, description="a whole number of environment steps")]
Bounds = Annotated[
    dict[str, tuple[Bound, Bound]],
    Meta(description='a table such as { "Hopper-v5" = [20, 3200] } or { "*" = ["random", "sac"] }'),
]


class Choice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Empty fields choose nothing: what they speak of is shown as the study has it."""

    title: Text = ""
    studies: Names = ()  # put side by side
    algos: Names = ()  # which, in this order
    envs: Names = ()
    subject: Text = ""  # what the others are compared with: differences are subject - other
    baselines: Names = ()  # what is compared with: differences are other - baseline
    names: Words = {}  # algorithm -> what a reader sees
    colors: Colors = {}  # algorithm -> "#rrggbb", or a name that matplotlib knows
    steps: Steps = 0  # scores as of this environment step
    normalise: Bounds = {}  # task or "*" -> the returns that become 0 and 1
    metrics: Names = ()  # logged in training: "q_gradient"
    sensitivity: Names = ()  # settings whose variants are drawn against their value: "M_q", "qsm:M_q"
    others: Names = ()  # published curves: "dime", "sac@simba"
    width: Literal["", "column", "page"] = ""  # of figures


def read_choice(table: Mapping[str, Any]) -> Choice:
    """A `[report]` table as a Choice. Raises Mismatch, which names the key that is unknown or has a wrong value."""
    return fit(table, Choice)


def read_figures_file(path: Path) -> Choice | None:
    """The Choice in a figures file, which names `studies`; None for a study file, which has the runs' `seeds`.

    Raises UserError where the file cannot be read or is neither.
    """
    record = read_toml(path, path.name)
    if "seeds" in record or "report" in record:
        return None
    if "studies" not in record:
        raise UserError(f"{path.name}: studies: missing; a figures file names the studies that it shows")
    try:
        return read_choice(record)
    except Mismatch as error:
        raise UserError(f"{path.name}: {error}") from None
