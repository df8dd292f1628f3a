"""Tables for a paper: booktabs, and no text that acts as a command."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from bench.analysis.table import Entry, Number, Table, entry_text, plain_entry

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    **{c: "\\" + c for c in "&%$#_{}"},
    "–": "--",
    "—": "---",
    "−": r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "≥": r"\ensuremath{\geq}",
    "≤": r"\ensuremath{\leq}",
    "∞": r"\ensuremath{\infty}",
    "·": r"\ensuremath{\cdot}",
    "†": r"\textsuperscript{\ensuremath{\dagger}}",
    "‡": r"\textsuperscript{\ensuremath{\ddagger}}",
    "…": r"\ldots{}",
    "’": "'",
}

LONG = 22  # characters of text that stay on one line
PAGE_ROWS = 45  # more need page breaks, which the float of `table` has not
SIZES = ("", r"\small", r"\footnotesize", r"\scriptsize", r"\tiny")
POINTS = (4.9, 4.5, 4.2, 3.9, 3.1)  # per character of a table's text at these sizes
LINE = 345  # points, in `article`


def latex_escape(text: str) -> str:
    """No character of `text` acts as a command; what pdfLaTeX cannot set becomes a question mark."""
    return "".join(_LATEX.get(c, c if " " <= c <= "~" else " " if c.isspace() else "?") for c in text)


def to_latex(table: Table) -> str:
    """A booktabs table for \\input: needs \\usepackage{booktabs}, and longtable where it is longer than a page.

    Columns that do not fit a line at the smallest size are set in several blocks below each other, each with the first
    columns, which say what a row is.
    """
    size, blocks = _layout(table)
    detail = r"\tiny" if size >= SIZES.index(r"\scriptsize") else r"\scriptsize"
    caption = f"\\caption{{{latex_escape(' '.join([table.title + '.', *table.notes]))}}}"
    smaller = [rf"{SIZES[size]}\setlength{{\tabcolsep}}{{3pt}}"] if size else []
    if len(table.rows) * len(blocks) > PAGE_ROWS:
        lines = ["% needs \\usepackage{booktabs} and \\usepackage{longtable}", "\\begingroup", *smaller]
        for number, columns in enumerate(blocks):
            align, head, rows = _block(table, columns, detail)
            lines += [
                *(["\\addtocounter{table}{-1}"] if number else []),  # one number for all blocks
                f"\\begin{{longtable}}{{{align}}}",
                *([] if number else [caption + r" \\"]),
                *head,
                "\\endfirsthead",
                *head,
                "\\endhead",
                "\\bottomrule",
                "\\endfoot",
                *rows,
                "\\end{longtable}",
            ]
        return "\n".join([*lines, "\\endgroup"]) + "\n"
    lines = ["% needs \\usepackage{booktabs}", "\\begin{table}", "\\centering", *smaller, caption]
    for number, columns in enumerate(blocks):
        align, head, rows = _block(table, columns, detail)
        lines += [
            *([r"\par\medskip"] if number else []),
            f"\\begin{{tabular}}{{{align}}}",
            *head,
            *rows,
            "\\bottomrule",
            "\\end{tabular}",
        ]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _block(table: Table, columns: Sequence[int], detail: str) -> tuple[str, list[str], list[str]]:
    """Alignment, the lines of the head and those of the rows of these columns."""
    align = "".join("r" if table.numeric[i] else _text_column(table, i) for i in columns)
    names = " & ".join(latex_escape(table.columns[i]) for i in columns)
    rows = [" & ".join(_latex_entry(row[i], detail) for i in columns) + r" \\" for row in table.rows]
    return align, ["\\toprule", names + r" \\", "\\midrule"], rows


def _text_column(table: Table, i: int) -> str:
    """Long text is broken into lines, where it has places to break."""
    texts = [plain_entry(row[i]) for row in table.rows]
    words = [len(word) for text in texts for word in text.split()]
    if max(map(len, texts), default=0) <= LONG or max(words, default=0) > LONG:
        return "l"
    return f"p{{{LONG / 2}em}}"


def _layout(table: Table) -> tuple[int, list[list[int]]]:
    """The index of a size in SIZES, and the columns of each block that stands on a line.

    One block at the first size at which it fits; else the fewest blocks that \\scriptsize allows, at the largest size
    that needs no more of them.
    """
    every = list(range(len(table.columns)))
    characters = _characters(table)
    for size in range(len(SIZES)):
        if _width(characters, every, size) <= LINE:
            return size, [every]
    smallest = SIZES.index(r"\scriptsize")
    if len(every) < 3 or _width(characters, [0], smallest) > LINE / 2:
        return len(SIZES) - 1, [every]  # nothing to be won
    layouts = [_blocks(table, characters, size) for size in range(smallest + 1)]
    return next((size, made) for size, made in enumerate(layouts) if len(made) == len(layouts[smallest]))


def _blocks(table: Table, characters: Sequence[int], size: int) -> list[list[int]]:
    """Columns filled into lines in their order, the leading texts repeated."""
    leading = [0] if len(table.columns) < 2 or table.numeric[0] or table.numeric[1] else [0, 1]
    leading = leading if _width(characters, leading, size) <= LINE / 2 and any(table.numeric) else [0]
    every, blocks = list(range(len(table.columns))), [list(leading)]
    for column in every[len(leading) :]:
        if len(blocks[-1]) > len(leading) and _width(characters, [*blocks[-1], column], size) > LINE:
            blocks.append(list(leading))
        blocks[-1].append(column)
    rest = every[len(leading) :]
    ends = [round(i * len(rest) / len(blocks)) for i in range(len(blocks) + 1)]
    even = [[*leading, *rest[low:high]] for low, high in itertools.pairwise(ends)]
    return even if all(_width(characters, block, size) <= LINE for block in even) else blocks


def _characters(table: Table) -> list[int]:
    """Of the widest entry of each column."""
    cells = [list(table.columns), *([plain_entry(entry) for entry in row] for row in table.rows)]
    widest = [max(map(len, column)) for column in zip(*cells)]
    return [LONG if _text_column(table, i)[0] == "p" else width for i, width in enumerate(widest)]


def _width(characters: Sequence[int], columns: Sequence[int], size: int) -> float:
    """Points of these columns at a size. Between columns: 12 points, in sizes below the first 6."""
    return POINTS[size] * sum(characters[i] for i in columns) + (6 if size else 12) * len(columns)


def _latex_entry(entry: Entry, detail: str) -> str:
    """`detail`: the size of what stands beside a number, never larger than the number."""
    if not isinstance(entry, Number):
        # a row that begins with a bracket would be taken for the optional argument of \\ above it
        return ("{}" if entry_text(entry)[:1] in ("[", "*") else "") + latex_escape(entry_text(entry))
    text = f"\\textbf{{{latex_escape(entry.text)}}}" if entry.bold else latex_escape(entry.text)
    return text + (f" {{{detail} {latex_escape(entry.detail)}}}" if entry.detail else "")
