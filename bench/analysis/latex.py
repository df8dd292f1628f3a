"""Tables for a paper: booktabs, and no text that acts as a command."""

from __future__ import annotations

import numpy as np

from bench.analysis.tables import Entry, Number, Table, entry_text, plain_entry

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


def latex_escape(text: str) -> str:
    """No character of `text` acts as a command; what pdfLaTeX cannot set becomes a question mark."""
    return "".join(_LATEX.get(c, c if " " <= c <= "~" else " " if c.isspace() else "?") for c in text)


def to_latex(table: Table) -> str:
    """A booktabs table for \\input: needs \\usepackage{booktabs} and nothing else."""
    align = "".join("r" if table.numeric[i] else _text_column(table, i) for i in range(len(table.columns)))
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        *_latex_size(table),
        f"\\caption{{{latex_escape(' '.join([table.title + '.', *table.notes]))}}}",
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
        " & ".join(latex_escape(column) for column in table.columns) + r" \\",
        "\\midrule",
        *(" & ".join(_latex_entry(entry) for entry in row) + r" \\" for row in table.rows),
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


def _latex_size(table: Table) -> list[str]:
    """Type small enough that a wide table has a chance to fit a page; characters per line as in `article`."""
    cells = [list(table.columns), *([plain_entry(entry) for entry in row] for row in table.rows)]
    widest = [max(map(len, column)) for column in zip(*cells)]
    characters = sum(
        2 + (LONG if _text_column(table, i)[0] == "p" else size) for i, size in enumerate(widest)
    )
    sizes = ((75, ""), (90, r"\small"), (105, r"\footnotesize"), (130, r"\scriptsize"), (np.inf, r"\tiny"))
    size = next(name for most, name in sizes if characters <= most)
    return [rf"{size}\setlength{{\tabcolsep}}{{3pt}}"] if size else []


def _latex_entry(entry: Entry) -> str:
    if not isinstance(entry, Number):
        # a row that begins with a bracket would be taken for the optional argument of \\ above it
        return ("{}" if entry_text(entry)[:1] in ("[", "*") else "") + latex_escape(entry_text(entry))
    text = f"\\textbf{{{latex_escape(entry.text)}}}" if entry.bold else latex_escape(entry.text)
    return text + (f" {{\\scriptsize {latex_escape(entry.detail)}}}" if entry.detail else "")
