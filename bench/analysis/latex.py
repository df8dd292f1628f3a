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
PAGE_LINES, CAPTION_LINE = (
    45,
    75,
)  # lines of a page, which the float of `table` cannot break; characters of a caption's
SIZES = ("", r"\small", r"\footnotesize", r"\scriptsize", r"\tiny")
DIGIT = (
    5.0,
    4.63,
    4.25,
    3.98,
    3.41,
)  # points: the width of a digit at these sizes of `article`, in Computer Modern
LINE = 345  # points, in `article`
# How many hundredths of a digit's width a character is wide, in cmr10, or in cmr5 where that is more; 100: all others
_HUNDREDTHS = {
    character: width
    for width, characters in {
        56: "ijl.,:;[]|'!·",
        67: " -",
        79: "frst()",
        111: "bdhnpu&",
        106: "kqvxyS",
        146: "ABCDEFGHKLNOPQRTUVXYZ",
        167: "−+=<>±×≥≤~^",
        168: "mw%@M",
        206: "W∞—",
        234: "…",
    }.items()
    for character in characters
}
BOLD = 1.15  # times as wide


def latex_escape(text: str) -> str:
    """No character of `text` acts as a command; what pdfLaTeX cannot set becomes a question mark."""
    return "".join(_LATEX.get(c, c if " " <= c <= "~" else " " if c.isspace() else "?") for c in text)


def to_latex(table: Table) -> str:
    """A booktabs table for \\input: needs \\usepackage{booktabs}, and longtable where it is longer than a page.

    Columns that do not fit a line at the smallest size are set in several blocks below each other, each with the first
    columns, which tell the rows apart.
    """
    size, blocks = _layout(table)
    detail = SIZES[_detail(size)]
    caption = f"\\caption{{{latex_escape(' '.join([table.title + '.', *table.notes]))}}}"
    smaller = [rf"{SIZES[size]}\setlength{{\tabcolsep}}{{3pt}}"] if size else []
    head_lines = 3  # and the space above a block
    if len(blocks) * (len(table.rows) + head_lines) + len(caption) / CAPTION_LINE > PAGE_LINES:
        lines = ["% needs \\usepackage{booktabs} and \\usepackage{longtable}", "\\begingroup", *smaller]
        lines += ["\\setlength{\\LTcapwidth}{\\linewidth}"]
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
    widths = _widths(table)
    every = list(range(len(table.columns)))
    for size in range(len(SIZES)):
        if _width(widths, every, size) <= LINE:
            return size, [every]
    smallest, leading = SIZES.index(r"\scriptsize"), _leading(table)
    rest = every[len(leading) :]
    if len(rest) < 2 or any(_width(widths, [*leading, column], smallest) > LINE for column in rest):
        return len(SIZES) - 1, [every]  # nothing to be won
    layouts = [_blocks(widths, leading, rest, size) for size in range(smallest + 1)]
    return next(
        (size, made)
        for size, made in enumerate(layouts)
        if len(made) == len(layouts[smallest]) and all(_width(widths, block, size) <= LINE for block in made)
    )


def _leading(table: Table) -> list[int]:
    """The first columns that tell the rows apart."""
    rows = [tuple(map(plain_entry, row)) for row in table.rows]
    for count in range(1, len(table.columns)):
        if len({row[:count] for row in rows}) == len(rows):
            return list(range(count))
    return [0]


def _blocks(
    widths: Sequence[Sequence[float]], leading: Sequence[int], rest: Sequence[int], size: int
) -> list[list[int]]:
    """The other columns filled into lines in their order, the leading ones repeated."""
    blocks = [[*leading]]
    for column in rest:
        if len(blocks[-1]) > len(leading) and _width(widths, [*blocks[-1], column], size) > LINE:
            blocks.append([*leading])
        blocks[-1].append(column)
    ends = [round(i * len(rest) / len(blocks)) for i in range(len(blocks) + 1)]
    even = [[*leading, *rest[low:high]] for low, high in itertools.pairwise(ends)]
    return even if all(_width(widths, block, size) <= LINE for block in even) else blocks


def _widths(table: Table) -> list[list[float]]:
    """Points of the widest entry: [size][column]."""
    found: list[list[float]] = [[] for _ in SIZES]
    for i, name in enumerate(table.columns):
        broken = not table.numeric[i] and _text_column(table, i)[0] == "p"
        entries = {(float(LONG), 0.0)} if broken else {_digits_of(row[i]) for row in table.rows}
        entries.add((_digits(name), 0.0))
        for size, widest in enumerate(found):
            widest.append(max(DIGIT[size] * main + DIGIT[_detail(size)] * beside for main, beside in entries))
    return found


def _width(widths: Sequence[Sequence[float]], columns: Sequence[int], size: int) -> float:
    """Points of these columns at a size. Between columns: 12 points, in sizes below the first 6."""
    return sum(widths[size][i] for i in columns) + (6 if size else 12) * len(columns)


def _digits_of(entry: Entry) -> tuple[float, float]:
    """How wide an entry is, and what stands beside its number in a size of its own, in digits."""
    if not isinstance(entry, Number):
        return _digits(entry_text(entry)), 0.0
    text = _digits(entry.text) * (BOLD if entry.bold else 1.0)
    return (text + _digits(" "), _digits(entry.detail)) if entry.detail else (text, 0.0)


def _digits(text: str) -> float:
    """How wide a text is, in digits."""
    return sum(_HUNDREDTHS.get(character, 100) for character in text) / 100


def _detail(size: int) -> int:
    """The size of what stands beside a number: an index in SIZES."""
    return SIZES.index(r"\tiny" if size >= SIZES.index(r"\scriptsize") else r"\scriptsize")


def _latex_entry(entry: Entry, detail: str) -> str:
    """`detail`: the size of what stands beside a number, never larger than the number."""
    if not isinstance(entry, Number):
        # a row that begins with a bracket would be taken for the optional argument of \\ above it
        return ("{}" if entry_text(entry)[:1] in ("[", "*") else "") + latex_escape(entry_text(entry))
    text = f"\\textbf{{{latex_escape(entry.text)}}}" if entry.bold else latex_escape(entry.text)
    return text + (f" {{{detail} {latex_escape(entry.detail)}}}" if entry.detail else "")
