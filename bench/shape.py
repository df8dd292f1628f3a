"""Records from JSON and TOML files held to their declared shapes, which are msgspec's Structs.

A message gives the place in the file, the expected value and the found one. A type of our own in a shape has a class
method `parse`, which converts the file's value or raises ValueError ("must be ...").
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from bench.disk import parse_toml
from bench.errors import UserError, suggest
from bench.text import one_line, strerror

S = TypeVar("S", bound=Struct)
PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
TABLE = "a table"  # TOML's word; JSON says "an object"


class Mismatch(ValueError):
    """A record without its declared shape.

    place: keys and list indices down to the fault; () is the whole record. reason: a clause that follows the
    place's name, "must be a whole number, not 'x'". unknown: whether the last key is one that the shape lacks.
    """

    def __init__(self, place: tuple[str | int, ...], reason: str, unknown: bool = False):
        self.place, self.reason, self.unknown = place, reason, unknown
        super().__init__(f"{self.name!r} {reason}" if place else reason)

    @property
    def name(self) -> str:
        """ "attempts[0].attempt" """
        parts = (f"[{step}]" if isinstance(step, int) else f".{one_line(step, 60)}" for step in self.place)
        return "".join(parts).removeprefix(".")


def fit(record: Mapping[str, Any], shape: type[S], table: str = TABLE) -> S:
    """`record` as an instance of `shape`. Raises Mismatch; `table`: the file format's word for keys with values."""
    try:
        return msgspec.convert(record, shape, dec_hook=lambda kind, value: kind.parse(value))
    except msgspec.ValidationError as error:
        raise _mismatch(error, record, shape, table) from None


def read_toml(file: Path, name: str) -> dict[str, Any]:
    """The content of a TOML file; UserError, which calls the file `name`, if it cannot be read."""
    try:
        return parse_toml(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{name}: not valid TOML: {error}") from None
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {strerror(error)}") from None


def _mismatch(error: msgspec.ValidationError, record: Any, shape: type[Struct], table: str) -> Mismatch:
    """msgspec's message in our words."""
    text, _, path = str(error).partition(" - at ")
    in_key = path.startswith("`key` in ")
    steps = re.findall(r"\[\.\.\.\]|\[\d+\]|\w+", path.removeprefix("`key` in "))
    place: tuple[str | int, ...] = ()
    value, hint = record, _plain(shape)
    for step in steps:
        key: str | int = int(step[1:-1]) if step[1:-1].isdecimal() and step[0] == "[" else step
        key, hint = _step(value, hint, key)
        place, value = (*place, key), value[key]
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", text):
        return Mismatch((*place, missing[1]), "is missing")
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", text):
        known = getattr(_plain(hint), "__struct_fields__", ())
        return Mismatch((*place, unknown[1]), f"is an unknown key{suggest(unknown[1], known)}", unknown=True)
    if in_key:
        wanted = get_args(_plain(hint))[0]
        bad = next(key for key in value if not _fits(key, wanted))
        return Mismatch(place, f"has the key {one_line(bad, 60)!r}, which is not {_expected(wanted, table)}")
    if "length >= 1" in text:
        return Mismatch(place, "must not be empty")
    if error.__cause__ is not None:  # of a `parse`
        said = str(error.__cause__)
        return Mismatch(place, f"{said}, not {_shown(value)}" if said.startswith("must be") else said)
    return Mismatch(place, f"must be {_expected(hint, table)}, not {_shown(value)}")


def _shown(value: Any) -> str:
    return one_line(repr(value), 60)


def _step(value: Any, hint: Any, key: str | int) -> tuple[str | int, Any]:
    """The key itself ("[...]" stands for one of a free table's) and the type that the shape declares there."""
    kind = _plain(hint)
    if isinstance(key, int):
        return key, get_args(kind)[0]
    if key == "[...]":
        of_values = get_args(kind)[1]
        return next(name for name in value if not _fits(value[name], of_values)), of_values
    return key, get_type_hints(kind, include_extras=True)[key]


def _fits(value: Any, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint, dec_hook=lambda kind, value: kind.parse(value))
    except msgspec.ValidationError:
        return False
    return True


def _plain(hint: Any) -> Any:
    """The type that has parts: without annotations, and of a union the member that is a table or a list."""
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        members = [_plain(member) for member in get_args(hint)]
        return next((m for m in members if get_origin(m) or hasattr(m, "__struct_fields__")), members[0])
    return hint


def _expected(hint: Any, table: str) -> str:
    """ "a whole number from 1 on", "text or null": the values of a type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        meta: Meta = inner[1]
        if meta.description:
            return meta.description
        return _expected(inner[0], table) + (
            f" from {meta.ge} on" if inner[0] is int and meta.ge is not None else ""
        )
    if origin in (Union, types.UnionType):
        known = [member for member in inner if member is not msgspec.UnsetType]
        return " or ".join(dict.fromkeys(_expected(member, table) for member in known))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if hint is type(None):
        return "null"
    return PLAIN.get(origin or hint, table)
