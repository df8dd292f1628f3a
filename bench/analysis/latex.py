"""Tables for a paper: booktabs, and no text that acts as a command."""

from __future__ import annotations

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
    """A booktabs table for \\input: needs \\usepackage{booktabs}, and longtable where it is longer than a page."""
    align = "".join("r" if table.numeric[i] else _text_column(table, i) for i in range(len(table.columns)))
    size = _size(table)
    detail = r"\tiny" if size >= SIZES.index(r"\scriptsize") else r"\scriptsize"
    caption = f"\\caption{{{latex_escape(' '.join([table.title + '.', *table.notes]))}}}"
    head = [
        "\\toprule",
        " & ".join(latex_escape(column) for column in table.columns) + r" \\",
        "\\midrule",
    ]
    rows = [" & ".join(_latex_entry(entry, detail) for entry in row) + r" \\" for row in table.rows]
    smaller = [rf"{SIZES[size]}\setlength{{\tabcolsep}}{{3pt}}"] if size else []
    if len(rows) > PAGE_ROWS:
        lines = [
            "% needs \\usepackage{booktabs} and \\usepackage{longtable}",
            "\\begingroup",
            *smaller,
            f"\\begin{{longtable}}{{{align}}}",
            caption + r" \\",
            *head,
            "\\endfirsthead",
            *head,
            "\\endhead",
            "\\bottomrule",
            "\\endfoot",
            *rows,
            "\\end{longtable}",
            "\\endgroup",
        ]
    else:
        lines = [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}",
            "\\centering",
            *smaller,
            caption,
            f"\\begin{{tabular}}{{{align}}}",
            *head,
            *rows,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
    return "\n".join(lines) + "\n"


def _text_column(table: Table, i: int) -> str:
    """Long text is broken into lines, where it has places to break."""
    texts = [plain_entry(row[i]) for row in table.rows]
    words = [len(word) for text in texts for word in text.split()]
    if max(map(len, texts), default=0) <= LONG or max(words, default=0) > LONG:
        return "l"
    return f"p{{{LONG / 2}em}}"


def _size(table: Table) -> int:
    """Of SIZES, the first at which the table fits a line, or the last. Between columns: 12 points, else 6."""
    cells = [list(table.columns), *([plain_entry(entry) for entry in row] for row in table.rows)]
    widest = [max(map(len, column)) for column in zip(*cells)]
    characters = sum(LONG if _text_column(table, i)[0] == "p" else size for i, size in enumerate(widest))
    widths = [points * characters + (6 if i else 12) * len(widest) for i, points in enumerate(POINTS)]
    return next((i for i, width in enumerate(widths) if width <= LINE), len(SIZES) - 1)


def _latex_entry(entry: Entry, detail: str) -> str:
    """`detail`: the size of what stands beside a number, never larger than the number."""
    if not isinstance(entry, Number):
        # a row that begins with a bracket would be taken for the optional argument of \\ above it
        return ("{}" if entry_text(entry)[:1] in ("[", "*") else "") + latex_escape(entry_text(entry))
    text = f"\\textbf{{{latex_escape(entry.text)}}}" if entry.bold else latex_escape(entry.text)
    return text + (f" {{{detail} {latex_escape(entry.detail)}}}" if entry.detail else "")
