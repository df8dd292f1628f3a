"""The version of the numbers that the code computes.

Two runs of one configuration have the same numbers, up to rounding, where their versions are equal. The training traces
in tests/traces hold the code to its version: docs/results.md, "When numbers may change".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BEHAVIOUR = 1  # raised by hand, together with the traces, whenever numbers are meant to change

#: Code digests of the runs from before the version was recorded.
_DIGESTS = {"5cb79156f93f80f8643b97bb5b68c15e3b28d284462c7a5fafd55ceec598d24f": 1}


def behaviour_of(provenance: Mapping[str, Any]) -> int | None:
    """The version of the code that an attempt ran, from its provenance in run.json; None where it is not known."""
    recorded = provenance.get("behaviour")
    if isinstance(recorded, int) and not isinstance(recorded, bool):
        return recorded
    return _DIGESTS.get(str(provenance.get("code_digest")))
