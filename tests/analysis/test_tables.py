"""One table in five forms: what is shown, what is sorted by, and no text that acts as markup, formula or
command.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess

import numpy as np
import pytest

from bench.analysis import latex
from bench.analysis.latex import to_latex
from bench.analysis.report.output import build, write_table
from bench.analysis.table import (
    Link,
    Table,
    number,
    to_csv,
    to_html,
    to_markdown,
    to_terminal,
    within,
)
from tests.analysis import helpers
from tests.synthetic import make_study

EVIL = [
    "<script>alert(1)</script>",
    "\\input{/etc/passwd}",
    "a|b",
    "$x_1^2$ & 100% #1 ~ {x}",
    "**bold** [link](x) `code`",
    "=cmd|'/c calc'!A1",
    "line\nbreak",
    "[optional]",
    "“ünïcode” – ± † ∞",
    '" onmouseover="alert(1)',
]


def table(rows, columns=("Task", "Value"), records=()):
    return Table("name", "A title", columns, rows, records, ("A note.",))


def test_numbers_as_shown():
    assert number(1234.56).text == "1,235"
    assert number(-0.5, 2).text == "−0.50"
    assert number(-0.3).text == "0"
    assert number(np.inf).text == "∞"
    assert number(float("nan")) == "–"
    assert within(-1.5, 2.25, 1) == "[−1.5, 2.2]"
    assert within(-0.004, 0.5, 2) == "[0.00, 0.50]"


def test_markdown():
    shown = to_markdown(table([["cheetah-run", number(329, detail="[249, 429]", bold=True)]]))
    assert "| Task | Value |\n|---|---:|\n| cheetah-run | **329** \\[249, 429\\] |\n" in shown


def test_markdown_escapes():
    for text in EVIL:
        lines = to_markdown(table([[text, number(1)]])).split("\n")
        (row,) = [line for line in lines if line.endswith("| 1 |")]
        assert len(re.findall(r"(?<!\\)\|", row)) == 3  # two cells, whatever the text
        assert not re.search(r"(?<!\\)[<>`*\[\]]", row)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\t"])
def test_csv_text_is_no_formula(start):
    text = to_csv(table([], records=[{"reason": start + "1+1", "value": -1.5}]))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["reason"].startswith("'")
    assert row["value"] == "-1.5"  # a number stays one


def test_csv_reads_back():
    records = [
        {"env": "a,b", "x": 0.1 + 0.2, "n": np.int64(3)},
        {"env": 'say "hi"\nthere', "ok": np.bool_(True)},
    ]
    rows = list(csv.DictReader(io.StringIO(to_csv(table([], records=records)))))
    assert rows[0] == {"env": "a,b", "x": repr(0.1 + 0.2), "n": "3", "ok": ""}
    assert rows[1] == {"env": 'say "hi" there', "x": "", "n": "", "ok": "true"}
    assert to_csv(table([], records=[{"x": float("nan")}])) == 'x\n""\n'


def test_html_escapes_and_sorts_by_value():
    made = to_html(table([[text, number(1000.5, 1, detail="<i>")] for text in EVIL]))
    assert "<script>" not in made
    assert "<i>" not in made
    assert 'onmouseover="' not in made
    assert made.count('data-value="1000.5">1,000.5 <small>&lt;i&gt;</small>') == len(EVIL)
    assert 'href="../a%20b/"' in to_html(table([[Link("0", "../a%20b/"), "x"]]))


def test_terminal_fits_80_columns_and_shortens_no_number():
    rows = [
        [
            "a-task-with-a-name-that-goes-on-and-on-" * 3,
            "an-algorithm-" * 9,
            number(-12345.0, detail="[-20000, 3]"),
        ]
    ]
    lines = to_terminal(table(rows, ("Task", "Algorithm", "Value"))).splitlines()
    assert {len(line) for line in lines} == {80}
    assert "−12,345 [-20000, 3]" in lines[2]
    assert "…" in lines[2]


@pytest.mark.parametrize(
    ("names", "width"),
    [
        (["sac actor_q=min critic_loss=sum init=torch", "sac actor_q=min critic_loss=sum init=haiku"], 40),
        (["qsm M_q=50 T=5 score_scale=true", "qsm M_q=20 T=5 score_scale=true"], 24),
        (["dime T=44", "dime T=45"], 14),
    ],
)
def test_names_that_differ_look_different_on_a_terminal(names, width):
    rows = [[name, number(1.0)] for name in [*names, names[0]]]
    lines = to_terminal(table(rows, ("A", "V")), width).splitlines()
    assert {len(line) for line in lines} == {width}
    one, other, again = lines[2:]
    assert one == again != other


def test_write_gives_three_files(tmp_path):
    paths = write_table(table([["a", number(1)]], records=[{"a": 1}]), tmp_path)
    assert [path.name for path in paths] == ["name.csv", "name.md", "name.tex"]
    assert b"\r" not in b"".join(path.read_bytes() for path in paths)


PDFLATEX = shutil.which("pdflatex")
BOOKTABS = PDFLATEX and subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).returncode == 0


def test_latex_breaks_long_text_and_no_long_word():
    columns = ("Short", "Long", "Word", "n")
    made = to_latex(Table("n", "A title", columns, [["a b", "several words " * 4, "a" * 64, number(1)]], ()))
    assert "\\begin{tabular}{lp{11.0em}lr}" in made


@pytest.mark.parametrize(("width", "size"), [(10, "scriptsize"), (200, "tiny")])
def test_what_stands_beside_a_number_in_latex_is_never_larger_than_it(width, size):
    rows = [["a" * width, number(1, detail="[0, 2]")]]
    assert f"1 {{\\{size} [0, 2]}}" in to_latex(table(rows))


@pytest.mark.parametrize("rows", [8, 20])
def test_latex_sets_columns_that_do_not_fit_in_blocks(rows):
    """Ten algorithms with their intervals: each once, each block a line wide, with the task beside it."""
    columns = ["Task", *(f"Algorithm {i} (n = 10)" for i in range(10))]
    body = [["quadruped-walk", *(number(100.0 + i, detail="[1,000, 1,000]") for i in range(10))]] * rows
    made = Table("n", "A title", columns, body, ())
    size, blocks = latex._layout(made)
    assert [column for block in blocks for column in block[1:]] == list(range(1, 11))
    assert all(block[0] == 0 for block in blocks)
    assert all(latex._width(latex._widths(made), block, size) <= latex.LINE for block in blocks)
    text = to_latex(made)
    assert text.count("\\caption") == 1
    assert text.count("quadruped-walk") == rows * len(blocks)
    assert [text.count(f"Algorithm {i} ") for i in range(10)] == [2 if rows * len(blocks) > 45 else 1] * 10


def test_every_block_says_which_row_it_is():
    """One task and algorithm has several rows: each block repeats the step and the source too."""
    rows = [
        [
            "cartpole-swingup",
            "SAC",
            number(step),
            source,
            *[number(1000.0, detail="[1,000, 1,000] n = 10")] * 2,
        ]
        for step in (20_000, 40_000)
        for source in ("pytorch_sac", "drq_table_sac_state")
    ]
    columns = ("Task", "Algorithm", "Env steps", "Source (external)", "External", "Ours at this step")
    assert latex._layout(Table("n", "A title", columns, rows, ()))[1] == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 5]]


def test_a_float_is_no_longer_than_a_page():
    """The heads of blocks and the caption take lines too."""
    columns = ("P(row > column)", *(f"Algorithm {i}" for i in range(10)))
    rows = [[f"Algorithm {i}", *[number(0.5, 2, detail="[0.44, 0.56] n = 10")] * 10] for i in range(10)]
    made = to_latex(Table("n", "A title", columns, rows, (), ["A note. " * 40]))
    assert "\\begin{longtable}" in made
    assert "\\begin{table}" in to_latex(Table("n", "A title", columns, rows[:4], ()))


def test_latex_breaks_a_table_longer_than_a_page():
    made = to_latex(table([["a", number(i)] for i in range(100)]))
    assert "\\usepackage{longtable}" in made
    assert "\\begin{table}" not in made
    assert made.count("Task & Value") == 2  # on the first page, and on the others


def compile_latex(folder, body):
    """What pdflatex says of a document with this body, which must compile."""
    head = "\\documentclass{article}\\usepackage{booktabs,longtable}"
    (folder / "main.tex").write_text(f"{head}\\begin{{document}}{body}\\end{{document}}")
    command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "main.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "main.pdf").stat().st_size > 1000
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not BOOKTABS, reason="no pdflatex with booktabs (texlive-latex-recommended)")
@pytest.mark.parametrize("columns", [*range(3, 8), 10, 20])
def test_latex_fits_a_line(tmp_path, columns):
    rows = [["cartpole-swingup", *[number(123456.0)] * columns]]
    made = to_latex(Table("n", "A title", ("Task", *["Parameters"] * columns), rows, ()))
    assert "Overfull" not in compile_latex(tmp_path, made)


@pytest.mark.slow
@pytest.mark.skipif(not BOOKTABS, reason="no pdflatex with booktabs (texlive-latex-recommended)")
def test_every_table_of_a_report_fits_its_page(tmp_path):
    """Ten algorithms on eight tasks: the numbers below zero, and all that stands beside numbers."""
    envs = [
        "manipulator-bring_ball",
        "swimmer-swimmer6",
        "finger-turn_easy",
        *(f"walker-run{i}" for i in range(5)),
    ]
    algos = ["qsm", "dql", "sac", "td3", "simba", "redq", "droq", "tqc", "xqc", "random"]
    make_study(
        tmp_path,
        "made-up",
        envs,
        algos,
        range(2),
        10,
        np.random.default_rng(0),
        episodes=2,
        origin=helpers.ORIGIN,
    )
    tables = sorted(path for path in build(tmp_path, "made-up") if path.suffix == ".tex")
    assert len(tables) > 8
    for table in tables:
        said = compile_latex(tmp_path, table.read_text())
        assert "Overfull" not in said, table.name
        assert "Float too large" not in said, table.name


@pytest.mark.slow
@pytest.mark.skipif(not BOOKTABS, reason="no pdflatex with booktabs (texlive-latex-recommended)")
def test_latex_compiles_whatever_the_text(tmp_path):
    rows = [[text, number(-1.5, 1, detail="[−2, 3]†", bold=True)] for text in EVIL]
    (tmp_path / "table.tex").write_text(to_latex(Table("n", "100% & more_", ("A_b", "% †"), rows, (), EVIL)))
    # no float holds it
    (tmp_path / "long.tex").write_text(to_latex(table([*rows, *[["a", number(1)]] * 5000])))
    said = compile_latex(tmp_path, "\\input{table}\\input{long}")
    assert "etc/passwd" not in re.sub(r"\s", "", said)
