"""An algorithm's settings as users write them: checked against its Config, and written back in one canonical form."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any

from bench.errors import UserError, suggest
from bench.failures import reason

Overrides = Mapping[str, Any]


def agent_class(algo: str) -> Any:
    """The algorithm's Agent class. Raises UserError: there is none, or its module does not load."""
    import algos

    if algo not in algos.registry():
        raise UserError(f"no algorithm {algo!r}{suggest(algo, algos.registry())}")
    try:
        return algos.agent_class(algo)
    except (Exception, SystemExit) as error:  # a user's own module may fail in any way
        raise UserError(f"algorithm {algo!r} cannot be loaded: {reason(error)}") from error


@functools.cache
def _default(algo: str) -> Any:
    """The Config of an algorithm with its defaults. Raises UserError unless JSON can tell every field."""
    try:
        default = agent_class(algo).Config()
        kinds = {field: type(getattr(default, field)) for field in _fields(default)}
    except UserError:
        raise
    except Exception as error:  # a user's own Config may fail in any way
        raise UserError(f"algorithm {algo!r} has no usable Config: {reason(error)}") from error
    for field, kind in kinds.items():
        if kind not in (bool, int, float, str, tuple):
            raise UserError(f"algorithm {algo!r}: {field} is a {kind.__name__}, not a number, name or tuple")
    return default


def default_config(algo: str, critic: str | None = None) -> dict[str, Any]:
    """The algorithm's full configuration with its defaults; with another critic: those of that critic's authors."""
    plain = _plain(_default(algo))
    if critic is None or critic == plain["critic"]:
        return plain
    return plain | {"critic": critic} | _json(type(_default(algo)).defaults(critic))


def settable(algo: str, critic: str | None = None) -> dict[str, Any]:
    """The settings that mean something to the algorithm and its critic, or the one given, with their defaults."""
    from algos.core.critics import critic_class, critic_names

    unused = set(agent_class(algo).Config.unused)
    critic = critic or default_config(algo)["critic"]
    if critic in critic_names():  # any other is reported where the configuration is made
        unused |= set(critic_class(critic).unused)
    return {key: value for key, value in default_config(algo).items() if key not in unused}


def recorded(algo: str, config: Overrides) -> dict[str, Any]:
    """The part of a full configuration that is recorded and hashed: a field that was added later only if it is set.

    So the hashes of runs from before it stay as they are (see `algos.core.config.later`).
    """
    plain = default_config(algo)
    late = {f.name for f in dataclasses.fields(_default(algo)) if f.metadata.get("later")}
    return {key: value for key, value in config.items() if key not in late or value != plain[key]}


def algorithm_config(algo: str, overrides: Overrides) -> dict[str, Any]:
    """The full configuration, JSON-able. Raises UserError for a field that is unknown, ill-typed or out of range."""
    values = _values(algo, overrides)
    try:
        defaults = default_config(algo, values.get("critic"))
        return _plain(build_config(algo, defaults | values))
    except UserError:
        raise
    except (ValueError, AssertionError) as error:
        raise UserError(f"{algo}: {' '.join(str(error).split()) or 'a setting is out of range'}") from None
    except Exception as error:  # a user's own Config may fail in any way
        raise UserError(f"{algo}: its Config refuses this: {reason(error)}") from error


def _values(algo: str, overrides: Overrides) -> dict[str, Any]:
    """The overrides as the types of the fields. Raises UserError for a field that is unknown or ill-typed."""
    default = _default(algo)
    for key in overrides:
        if key not in _fields(default):
            raise UserError(f"{algo} has no setting {key!r}{suggest(key, _fields(default))}")
    return {key: _typed(algo, key, value, getattr(default, key)) for key, value in overrides.items()}


def build_config(algo: str, config: Overrides) -> Any:
    """The Config object of a full configuration as `algorithm_config` gives it."""
    cls = agent_class(algo).Config
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in config.items()})


def parse_overrides(spec: str) -> tuple[str, dict[str, Any]]:
    """ "qsm:M_q=120,T=20" -> ("qsm", {"M_q": 120.0, "T": 20}), typed by the algorithm's Config."""
    algo, colon, rest = spec.partition(":")
    overrides: dict[str, Any] = {}
    for pair in rest.split(",") if colon else []:
        key, equals, text = pair.partition("=")
        if not equals or not key or not text:
            raise UserError(f"{spec!r}: expected {algo}:name=value,name=value")
        if key in overrides:
            raise UserError(f"{spec!r}: {key} is set twice")
        overrides[key] = text
    return algo, _values(algo, overrides)


def canonical(value: Any) -> str:
    """One spelling for each value: 120, 0.0003, true, 256x256."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
    if isinstance(value, (list, tuple)):
        return "x".join(canonical(v) for v in value)
    return str(value)


def whole_number(value: Any) -> int:
    """An int of a number or of text such as "100_000" or "1e5". Raises ValueError, TypeError or OverflowError."""
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = float(value)
    if value != int(value):
        raise ValueError(f"{value} is no whole number")
    return int(value)


def _fields(config: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(config)]


def _plain(config: Any) -> dict[str, Any]:
    return _json({name: getattr(config, name) for name in _fields(config)})


def _json(values: Overrides) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _typed(algo: str, key: str, value: Any, default: Any) -> Any:
    """`value`, from a file or from text, as the type of the field's default."""
    try:
        return _convert(value, default)
    except (ValueError, TypeError, OverflowError):
        kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}
        expected = kinds.get(type(default), "widths such as 256x256")
        raise UserError(f"{algo}: {key} = {value!r}: expected {expected}") from None


def _convert(value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        parts = re.split(r"[x+]", value) if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            raise TypeError
        return tuple(_convert(part, default[0] if default else 0) for part in parts)
    if isinstance(default, bool):
        if str(value).lower() not in ("true", "false"):
            raise ValueError
        return str(value).lower() == "true"
    if isinstance(value, bool):
        raise TypeError
    if isinstance(default, int):
        return whole_number(value)
    if isinstance(default, float):
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        return number + 0.0  # no -0.0, which equals 0.0 and reads otherwise
    if not isinstance(value, str):
        raise TypeError
    return value
