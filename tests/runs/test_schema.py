"""The tables: rows to text and back, bit by bit, and nothing read that was not written."""

from __future__ import annotations

import numpy as np
import pytest

from bench.disk import DamagedFile
from bench.runs import tables as schema
from bench.runs.tables import FAST_FROM, TABLES, header, parse_table, render_rows

EVAL = {"env_step": 10, "episode": 0, "return": 1.5, "length": 7, "wall_s": 0.25}


def eval_text(*lines: str) -> bytes:
    return header("eval.csv") + "".join(line + "\n" for line in lines).encode()


def test_what_is_rendered_is_parsed_to_the_same_bits() -> None:
    bits = np.random.default_rng(0).integers(0, 2**64, 5000, dtype=np.uint64).view(np.float64)
    returns = [*bits[np.isfinite(bits)].tolist(), 0.1, -0.0, 5e-324, 1.7976931348623157e308]
    rows = [EVAL | {"env_step": i, "return": value} for i, value in enumerate(returns)]
    long = header("eval.csv") + render_rows("eval.csv", rows)
    short = header("eval.csv") + render_rows("eval.csv", rows[-30:])
    assert len(long) > FAST_FROM > len(short)  # both parsers
    for data, wanted in ((long, returns), (short, returns[-30:])):
        parsed = parse_table("eval.csv", data)
        assert parsed["return"].tobytes() == np.array(wanted).tobytes()
        assert parsed["env_step"].tolist() == list(range(len(returns) - len(wanted), len(returns)))
        assert parsed["env_step"].dtype == np.int64


@pytest.mark.seconds
@pytest.mark.parametrize("copies", [1, 5000])
@pytest.mark.parametrize(
    "line",
    [
        "10,0,1.5,7",  # a cell too few
        "10,0,1.5,7,0.25,1",
        "10,0,,7,0.25",
        "10,0,abc,7,0.25",
        "10,0,1_0,7,0.25",
        "10,0, 1,7,0.25",
        "-1,0,1.5,7,0.25",
        "99999999999999999999,0,1.5,7,0.25",
        "9" * 5000 + ",0,1.5,7,0.25",
        "10,0,1.5,7,inf",  # no time
        "10,0,1.5,7,-1.0",
        "10,0,1.5,7,nan",
        '"10",0,1.5,7,0.25',
        "=1,0,1.5,7,0.25",
        "10,0,1.5,7,0.25\r",
        "10,0,1.5\x00,7,0.25",
        "<<<<<<< HEAD",
        "",
    ],
)
def test_a_strange_line_is_refused_with_its_number(line: str, copies: int) -> None:
    good = ["10,0,1.5,7,0.25"] * copies
    with pytest.raises(
        DamagedFile, match=r"eval\.csv(, line \d+| holds a number that is too large)"
    ) as caught:
        parse_table("eval.csv", eval_text(*good, line, *good))
    if "line" in str(caught.value):
        assert f"line {copies + 2}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_count_is_written_as_an_integer() -> None:
    with pytest.raises(DamagedFile, match=r"line 2: length cannot be '7\.0'"):
        parse_table("eval.csv", eval_text("10,0,1.5,7.0,0.25"))


def test_infinite_and_missing_losses_can_be_written_and_read() -> None:
    values = [1.0, float("nan"), float("inf"), -float("inf")]
    rows = [{"env_step": 1, "kind": "loss", "name": "critic_loss", "value": value} for value in values]
    parsed = parse_table("train.csv", header("train.csv") + render_rows("train.csv", rows))
    np.testing.assert_array_equal(parsed["value"], values)
    assert parsed["name"].tolist() == ["critic_loss"] * 4


@pytest.mark.parametrize("name", ["=cmd", "a b", "<b>", "a,b", "", "x" * 65, "ü", 'a"', "$x$", "a\n"])
def test_a_name_that_something_would_act_on_is_neither_written_nor_read(name: str) -> None:
    with pytest.raises(ValueError):
        render_rows("train.csv", [{"env_step": 1, "kind": "loss", "name": name, "value": 1.0}])
    with pytest.raises(DamagedFile):
        parse_table("train.csv", header("train.csv") + f"1,loss,{name},1.0\n".encode())


@pytest.mark.parametrize(
    "row",
    [
        {"env_step": 1},
        EVAL | {"more": 1},
        EVAL | {"env_step": 1.0},
        EVAL | {"env_step": -1},
        EVAL | {"return": "1"},
        EVAL | {"return": None},
        EVAL | {"wall_s": float("nan")},
    ],
)
def test_a_wrong_row_is_not_written(row: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"eval\.csv"):
        render_rows("eval.csv", [row])


def test_numpy_numbers_are_written_as_plain_ones() -> None:
    row = {"env_step": np.int32(10), "episode": np.int64(0), "length": 7}
    row |= {"return": np.float64(1.5), "wall_s": np.float32(0.25)}
    assert render_rows("eval.csv", [row]) == b"10,0,1.5,7,0.25\n"


def test_a_torn_end_is_dropped_only_where_it_may_be() -> None:
    whole = eval_text("10,0,1.5,7,0.25")
    for cut in range(len(whole), len(whole) + 14):
        data = (whole + b"20,0,2.5,7,0.5")[:cut]
        assert parse_table("eval.csv", data, torn=True)["env_step"].tolist() == [10]
    with pytest.raises(DamagedFile, match="middle of a line"):
        parse_table("eval.csv", whole + b"20,0")
    assert len(parse_table("eval.csv", header("eval.csv")[:9], torn=True)["episode"]) == 0


@pytest.mark.parametrize("first", [b"", b"env_step,episode\n", b"a,b,c,d,e\n"])
def test_other_columns_are_refused(first: bytes) -> None:
    with pytest.raises(DamagedFile, match="columns"):
        parse_table("eval.csv", first + b"10,0,1.5,7,0.25\n")


def test_windows_line_ends_are_named() -> None:
    with pytest.raises(DamagedFile, match="Windows line ends"):
        parse_table("eval.csv", eval_text("10,0,1.5,7,0.25").replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_table_has_its_columns(table: str) -> None:
    parsed = parse_table(table, header(table))
    assert {name: len(values) for name, values in parsed.items()} == dict.fromkeys(TABLES[table], 0)
    assert [parsed[name].dtype for name in TABLES[table]] == [
        schema._KINDS[kind].dtype for kind in TABLES[table].values()
    ]
