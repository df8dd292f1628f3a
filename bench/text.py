"""Text for messages, as one printable line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def one_line(text: object, limit: int = 300) -> str:
    """`text` as one printable line of at most `limit` characters, for messages that quote a file."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def strerror(error: OSError) -> str:
    """The system's error message, as one line."""
    return one_line(error.strerror or error)


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """One clause per key, nested ones dotted, in which the record `there` on disk differs from ours."""
    old, new = _flat(there), _flat(here)
    return [
        f"{key} is {old.get(key, 'absent')} there and {new.get(key, 'absent')} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested keys joined by dots -> the value as JSON."""
    flat: dict[str, str] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json.dumps(value)
    return flat
