"""The files of rules by which the claims are judged, and their declared shape."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from msgspec import Struct

from bench.disk import parse_toml
from bench.shape import fit

FILE = Path(__file__).with_name("claims-2.toml")
FIRST = FILE.with_name("claims.toml")


class Claim(Struct, forbid_unknown_fields=True):
    """One [[claim]]. The rules' files explain the keys; the first rules have one measure and setting a claim."""

    id: str
    title: str
    says: str
    test: str
    kind: Literal["contrast", "ratio", "level", "value"]
    data: str  # "study", "timing" or "experiments/<name>"
    subject: str
    min_seeds: int
    changed: str = ""
    measure: str = ""
    measures: list[str] = []
    setting: str = ""
    settings: list[str] = []
    statistic: Literal["iqm", "mean", "share"] | None = None
    baselines: list[str] = []
    margin: float = 0.0  # of a contrast
    threshold: float = 0.0  # of a level or ratio
    T: int | None = None  # of a timing
    needs: Literal["better"] | None = None  # None: "as good" supports the claim too

    def __post_init__(self) -> None:
        """Raises ValueError where the number that decides the claim is missing."""
        decides = {"contrast": "margin", "level": "threshold", "ratio": "threshold"}.get(self.kind)
        if decides and getattr(self, decides) <= 0:
            raise ValueError(f"must have a {decides} above 0, as a claim of kind {self.kind!r}")


class Rules(Struct, forbid_unknown_fields=True):
    """A file of rules."""

    format: int
    level: float
    resamples: int
    claim: list[Claim]


def load_claims(file: Path = FILE) -> tuple[Rules, str]:
    """A file of rules and its SHA-256. Raises Mismatch."""
    data = file.read_bytes()
    return fit(parse_toml(data), Rules), hashlib.sha256(data).hexdigest()
