"""A table, and what it looks like as CSV, Markdown, LaTeX, HTML and on a terminal. Every text is escaped.

What a table shows and what its CSV holds differ: shown are cells such as "329 [249, 429]", the CSV has
one number per column and one row per observation, to be read by a program.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape as html_escape

import numpy as np


@dataclass(frozen=True)
class Number:
    """A number as shown, with what it is sorted by, and its interval or count beside it."""

    value: float
    text: str
    detail: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Link:
    """A text that leads somewhere in HTML. href: a relative address, quoted by whoever makes it."""

    text: str
    href: str


Entry = str | Number | Link
MISSING = "–"


@dataclass(frozen=True)
class Table:
    """name: the stem of its files. notes: lines below it. records: the rows of its CSV."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    records: Sequence[Mapping[str, object]]
    notes: Sequence[str] = field(default=())

    @cached_property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers; those are set flush right."""
        return tuple(any(isinstance(row[i], Number) for row in self.rows) for i in range(len(self.columns)))


def number(value: float, digits: int = 0, *, detail: str = "", bold: bool = False) -> Entry:
    """A number with so many decimals; a dash where there is none."""
    if np.isnan(value):
        return MISSING
    return Number(float(value), _rounded(value, digits), detail, bold)


def within(low: float, high: float, digits: int = 0) -> str:
    """An interval: "[249, 429]"; "" where there is none."""
    if np.isnan(low):
        return ""
    return f"[{_rounded(low, digits)}, {_rounded(high, digits)}]"


def _rounded(value: float, digits: int) -> str:
    """With a true minus, and no minus before a zero."""
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:z,.{digits}f}".replace("-", "−")


# --- CSV --------------------------------------------------------------------------------------------------


def to_csv(table: Table) -> str:
    """One header line, then the records; floats as Python writes them, "" for what is missing."""
    columns = list(dict.fromkeys(key for record in table.records for key in record))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_csv_cell(column) for column in columns])
    for record in table.records:
        writer.writerow([_csv_cell(record.get(column)) for column in columns])
    return out.getvalue()


def _csv_cell(value: object) -> str:
    """Text that a spreadsheet would take for a formula gets an apostrophe in front, as spreadsheets have
    it.
    """
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else repr(float(value))
    if isinstance(value, int | np.integer):
        return str(int(value))
    text = re.sub(r"[\0-\x08\n-\x1f\x7f]+", " ", str(value))
    return "'" + text if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] == "\t" else text


# --- Markdown and the terminal ----------------------------------------------------------------------------


def to_markdown(table: Table) -> str:
    """A GitHub table under its title, with the notes below."""
    ruler = ["---:" if table.numeric[i] else "---" for i in range(len(table.columns))]
    lines = [f"### {markdown_escape(table.title)}", ""]
    lines.append("| " + " | ".join(markdown_escape(column) for column in table.columns) + " |")
    lines.append("|" + "|".join(ruler) + "|")
    lines += ["| " + " | ".join(_markdown_entry(entry) for entry in row) + " |" for row in table.rows]
    lines += [line for note in table.notes for line in ("", markdown_escape(note))]
    return "\n".join(lines) + "\n"


def markdown_escape(text: str) -> str:
    """No character of `text` acts as markup."""
    return re.sub(r"([\\`*_{}<>\[\]|#~!])", r"\\\1", re.sub(r"[\r\n]+", " ", text))


def _markdown_entry(entry: Entry) -> str:
    if not isinstance(entry, Number):
        return markdown_escape(entry_text(entry))
    text = f"**{entry.text}**" if entry.bold else entry.text
    return f"{text} {markdown_escape(entry.detail)}".strip()


def to_terminal(table: Table, width: int = 80) -> str:
    """An aligned Markdown table of at most `width` columns; texts are shortened for it, numbers never."""
    cells = [list(table.columns)] + [[plain_entry(entry) for entry in row] for row in table.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    texts = [i for i in range(len(widths)) if not table.numeric[i]]
    while sum(widths) + 3 * len(widths) + 1 > width and texts:
        longest = max(texts, key=lambda i: widths[i])
        if widths[longest] <= 6:
            break
        widths[longest] -= 1
    fitted = [_fitted([row[i] for row in cells[1:]], size) for i, size in enumerate(widths)]
    lines = []
    for row in [[_cut(text, size) for text, size in zip(cells[0], widths)], *zip(*fitted)]:
        shown = [
            text.rjust(size) if table.numeric[i] else text.ljust(size)
            for i, (text, size) in enumerate(zip(row, widths))
        ]
        lines.append("| " + " | ".join(shown) + " |")
    dashes = ["-" * (size + 1) + (":" if table.numeric[i] else "-") for i, size in enumerate(widths)]
    lines.insert(1, "|" + "|".join(dashes) + "|")
    return "\n".join(lines) + "\n"


def entry_text(entry: str | Link) -> str:
    return entry.text if isinstance(entry, Link) else entry


def plain_entry(entry: Entry) -> str:
    if not isinstance(entry, Number):
        return re.sub(r"[\r\n|]+", " ", entry_text(entry))
    return f"{'*' if entry.bold else ''}{entry.text} {entry.detail}".strip()


def _cut(text: str, size: int, end: int = 0) -> str:
    """`text` in at most `size` characters, the last of which are its `end` last ones where it is shortened."""
    return text if len(text) <= size else f"{text[: size - 1 - end]}…{text[len(text) - end :]}"


def _fitted(texts: Sequence[str], size: int) -> list[str]:
    """The texts in at most `size` characters; what differs keeps differing, by its end or, at worst, by a number."""
    different = list(dict.fromkeys(texts))
    for end in (0, (size - 1) // 2, size - 1):
        short = {text: _cut(text, size, end) for text in different}
        if len(set(short.values())) == len(different):
            return [short[text] for text in texts]
    for place, text in enumerate(different, start=1):
        if len(text) > size:
            short[text] = _cut(f"{text}{place}", size, len(str(place)))
    return [short[text] for text in texts]


# --- HTML -------------------------------------------------------------------------------------------------


def to_html(table: Table) -> str:
    """The table element; `data-value` is what a column is sorted by."""
    css = [' class="number"' if numeric else "" for numeric in table.numeric]
    heads = "".join(
        f'<th scope="col"{css[i]}><button type="button">{html_escape(column)}</button></th>'
        for i, column in enumerate(table.columns)
    )
    rows = "\n".join(
        "<tr>" + "".join(_html_entry(entry, css[i]) for i, entry in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    return (
        f'<table class="sortable" id="table-{html_escape(table.name)}">\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    )


def _html_entry(entry: Entry, css: str) -> str:
    if isinstance(entry, Link):
        return f'<td{css}><a href="{html_escape(entry.href)}">{html_escape(entry.text)}</a></td>'
    if isinstance(entry, str):
        return f"<td{css}>{html_escape(entry)}</td>"
    text = f"<b>{html_escape(entry.text)}</b>" if entry.bold else html_escape(entry.text)
    detail = f" <small>{html_escape(entry.detail)}</small>" if entry.detail else ""
    return f'<td{css} data-value="{entry.value:.8g}">{text}{detail}</td>'
