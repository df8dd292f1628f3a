"""Declared shapes: what does not fit is reported with its place, the expected value and the found one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from msgspec import UNSET, Meta, Struct, UnsetType

from bench.errors import UserError
from bench.shape import Mismatch, fit, read_toml


class Even(int):
    @classmethod
    def parse(cls, value: object) -> Even:
        if not isinstance(value, int) or value % 2:
            raise ValueError("must be an even number")
        return cls(value)


class Inner(Struct, forbid_unknown_fields=True):
    cpus: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    even: Even | UnsetType = UNSET


class Shape(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern="^[a-z]+$", description="small letters")]
    kind: Literal["runs", "figures"] = "runs"
    share: float | None = None
    many: Annotated[list[str], Meta(min_length=1)] | None = None
    pair: tuple[int, ...] = ()
    free: dict[str, dict[str, int]] = {}
    tables: dict[str, Inner] = {}
    inner: Inner | None = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "A"}, "'name' must be small letters, not 'A'"),
        ({"kind": "other"}, "'kind' must be 'runs' or 'figures', not 'other'"),
        ({"share": "x"}, "'share' must be a number or null, not 'x'"),
        ({"many": []}, "'many' must not be empty"),
        ({"many": ["a", 3]}, "'many[1]' must be text, not 3"),
        ({"pair": [1, 2, True]}, "'pair[2]' must be a whole number, not True"),
        ({"free": 3}, "'free' must be a table, not 3"),
        ({"free": {"a": {"b": 1, "c": 1.5}}}, "'free.a.c' must be a whole number, not 1.5"),
        ({"free": {"good": {}, "a.b": 3}}, "'free.a.b' must be a table, not 3"),
        ({"tables": {"x": {"cpus": 0}}}, "'tables.x.cpus' must be a whole number from 1 on, not 0"),
        (
            {"tables": {"good": {"cpus": 1}, "x": {"cpu": 1}}},
            "'tables.x.cpu' is an unknown key; did you mean 'cpus'?",
        ),
        ({"inner": {"even": 3}}, "'inner.even' must be an even number, not 3"),
        ({"inner": 3}, "'inner' must be a table or null, not 3"),
        ({"nmae": 3}, "'nmae' is an unknown key; did you mean 'name'?"),
    ],
)
def test_a_mismatch_names_place_expectation_and_value(change: dict[str, Any], message: str) -> None:
    with pytest.raises(Mismatch) as caught:
        fit({"name": "a", **change}, Shape)
    assert str(caught.value) == message


def test_what_fits_is_converted() -> None:
    found = fit({"name": "a", "inner": {"even": 4}, "pair": [1, 2]}, Shape)
    assert found.inner is not None
    assert (found.inner.even, found.inner.cpus, found.pair) == (4, UNSET, (1, 2))
    with pytest.raises(Mismatch, match="'name' is missing"):
        fit({}, Shape)


def test_a_file_that_is_no_toml_or_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("a = \n")
    with pytest.raises(UserError, match=r"^mine: not valid TOML: .*line 1"):
        read_toml(tmp_path / "bad.toml", "mine")
    with pytest.raises(UserError, match=r"^mine: cannot be read: No such file"):
        read_toml(tmp_path / "none.toml", "mine")
