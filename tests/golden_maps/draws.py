"""Recorded draws by name, where the reference makes them in another order or layout than ours."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from algos.core.noise import Draw


def by_name(found: Mapping[str, Tensor], specs: list[Draw], where: str) -> dict[str, Tensor]:
    """The draws that ours asks for, (1, *shape) each, among all that a file has.

    Raises:
        ValueError: one is missing, of another size or kind, or out of its range.
    """
    draws = {}
    for spec in specs:
        value = found.get(spec.name)
        if value is None or value.numel() != math.prod(spec.shape):
            raise ValueError(f"{where} draws {value if value is None else tuple(value.shape)}, ours {spec}")
        if value.is_floating_point() == (spec.kind == "randint"):
            raise ValueError(f"{where} draws {value.dtype}, ours {spec}")
        if spec.kind == "randint" and not bool(((value >= 0) & (value < spec.high)).all()):
            raise ValueError(f"{where}: {spec.name} is not in [0, {spec.high})")
        draws[spec.name] = value.reshape(1, *spec.shape)
    return draws
