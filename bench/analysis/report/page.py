"""One page that shows a study, or the experiments: opens from disk, offline, on a phone and in print.

All text is escaped by Jinja. Curves are drawn by uPlot (uplot/, MIT licence), which becomes part of the page; where
scripts are off, and in print, the figure itself is shown.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from matplotlib.collections import QuadMesh
from matplotlib.image import AxesImage

from bench.analysis import coverage, style
from bench.analysis.report import charts
from bench.analysis.report.sections import Picture, Section
from bench.analysis.scores import runs as run_tables
from bench.analysis.scores.results import Results
from bench.analysis.scores.tables import count
from bench.analysis.table import Table, to_html

HERE = Path(__file__).parent
STYLES = ("uplot/uPlot.min.css", "report.css")
SCRIPTS = ("uplot/uPlot.iife.min.js", "charts.js", "report.js")
SHORT = 30  # rows of a table that is shown open
WARNINGS = 6  # lines of what to know first that are shown open
FEW_ROWS = 8  # of a table that needs no filter
CSS_PIXELS_PER_INCH = 96


@dataclass(frozen=True)
class Heading:
    """What stands at the top of a page. name: of the study, or experiments; warnings: what to know first."""

    name: str
    title: str
    facts: Sequence[str]
    warnings: Sequence[str] = ()
    index: str = "../../index.html"  # the page over all studies


def heading(results: Results) -> Heading:
    """The top of a study's report."""
    return Heading(results.study, results.title, facts(results), run_tables.warnings(results))


def page(top: Heading, sections: Sequence[Section], folder: Path) -> str:
    """The HTML of a report; its pictures are read from folder/figures and become part of the page."""
    captions = [picture.caption for section in sections for picture in section.pictures]
    notes = [note for section in sections for table in section.tables for note in table.notes]
    return _render(
        "report.html",
        SCRIPTS,
        top=top,
        few=coverage.FEW if any(coverage.FEW in text for text in (*captions, *notes)) else "",
        sections=[_view(section, folder) for section in sections],
        open_warnings=WARNINGS,
        count=count,
    )


def index_page(table: Table) -> str:
    """The HTML of the page over all studies."""
    return _render("index.html", SCRIPTS[-1:], table=_table_view(table, 0))


def _render(template: str, scripts: Sequence[str], **values: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    styles, scripts = (
        [(HERE / name).read_text(encoding="utf-8") for name in names] for names in (STYLES, scripts)
    )
    return environment.get_template(template).render(
        styles=[Markup(text) for text in styles],
        scripts=[Markup(text) for text in scripts],
        style_hashes=[_digest(text) for text in styles],
        script_hashes=[_digest(text) for text in scripts],
        **values,
    )


def _digest(text: str) -> str:
    """The sources of a content security policy that lets nothing but these texts run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def facts(results: Results) -> list[str]:
    """The line under the title: tasks, algorithms, runs by state, steps, days."""
    found = Counter(score.state for score in results.runs)
    states = ", ".join(f"{found[state]} {state}" for state in run_tables.STATES if found[state])
    steps = results.settings.get("steps")
    days = run_tables.days(results)
    return [
        f"{len(results.envs)} task" + "s" * (len(results.envs) != 1),
        f"{len(results.learners)} algorithm" + "s" * (len(results.learners) != 1),
        f"{len(results.runs)} runs: {states}",
        *([f"{steps:,} environment steps"] if isinstance(steps, int) else []),
        *([f"run {' to '.join(days)}"] if days else []),
    ]


def _view(section: Section, folder: Path) -> dict[str, object]:
    """A section as the template wants it."""
    return {
        "id": section.id,
        "title": section.title,
        "text": section.text,
        "detail": section.detail,
        "verdicts": section.verdicts,
        "figures": [_picture(picture, folder) for picture in section.pictures],
        "tables": [
            _table_view(table, i, closed=bool(section.verdicts)) for i, table in enumerate(section.tables)
        ],
        "videos": [{"source": quote(video), "caption": video.lstrip("./")} for video in section.videos],
        "commands": section.commands,
    }


def _table_view(table: Table, place: int, closed: bool = False) -> dict[str, object]:
    """A table, the place-th of its section: the first is open where it is short."""
    return {
        "name": table.name,
        "title": table.title,
        "notes": [_without_few(note) for note in table.notes],
        "html": Markup(to_html(table)),
        "rows": len(table.rows),
        "open": place == 0 and len(table.rows) <= SHORT and not closed,
        "filter": len(table.rows) > FEW_ROWS,
    }


def _picture(picture: Picture, folder: Path) -> dict[str, object]:
    data = (folder / "figures" / f"{picture.name}.png").read_bytes()
    width, height, per_metre = _png_size(data)
    scale = CSS_PIXELS_PER_INCH / (per_metre * 0.0254)
    chart = charts.chart(picture.figure)
    return {
        "name": picture.name,
        "caption": _without_few(picture.caption),
        "source": "data:image/png;base64," + base64.b64encode(data).decode(),
        "width": round(width * scale * 1.3),  # a little larger than on paper
        "height": round(height * scale * 1.3),
        "pdf": f"figures/{quote(picture.name)}.pdf",
        "png": f"figures/{quote(picture.name)}.png",
        "chart": chart and Markup(chart),
        "photo": any(isinstance(artist, AxesImage | QuadMesh) for artist in picture.figure.findobj()),
        "wide": width > 1.5 * CSS_PIXELS_PER_INCH * style.COLUMN / scale,  # more than one column of a paper
    }


def _without_few(text: str) -> str:
    """The notes without the one on †, which the page shows once."""
    return text.replace(coverage.FEW, "").strip()


def _png_size(data: bytes) -> tuple[int, int, int]:
    """Width and height in pixels and pixels per metre, from a PNG's IHDR and pHYs chunks."""
    width, height = struct.unpack(">II", data[16:24])
    at = data.index(b"pHYs") + 4
    return width, height, struct.unpack(">I", data[at : at + 4])[0]
