"""One page that shows a study, or the experiments: opens from disk, offline, on a phone and in print.

All text is escaped by Jinja.
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

from bench.analysis.report.sections import Picture, Section
from bench.analysis.scores import runs as run_tables
from bench.analysis.scores.results import Results
from bench.analysis.scores.tables import count
from bench.analysis.table import to_html

HERE = Path(__file__).parent
LONG = 60  # rows; a longer table can be folded
CSS_PIXELS_PER_INCH = 96


@dataclass(frozen=True)
class Heading:
    """What stands at the top of a page. name: of the study, or experiments; warnings: what to know first."""

    name: str
    title: str
    facts: Sequence[str]
    warnings: Sequence[str] = ()


def heading(results: Results) -> Heading:
    """The top of a study's report."""
    return Heading(results.study, results.title, facts(results), run_tables.warnings(results))


def page(top: Heading, sections: Sequence[Section], folder: Path) -> str:
    """The HTML of a report; its pictures are read from folder/figures and become part of the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    css, js = ((HERE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return environment.get_template("report.html").render(
        top=top,
        sections=[_view(section, folder) for section in sections],
        css=Markup(css),
        js=Markup(js),
        css_hash=_digest(css),
        js_hash=_digest(js),
        count=count,
    )


def _digest(text: str) -> str:
    """As a content security policy names what may run: nothing but these two texts does."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def facts(results: Results) -> list[str]:
    """The line under the title: tasks, algorithms, runs by state, steps, days."""
    found = Counter(score.state for score in results.runs)
    states = ", ".join(f"{found[state]} {state}" for state in run_tables.STATES if found[state])
    steps = results.settings.get("steps")
    metas = [score.run.meta for score in results.runs if score.run.meta]
    days = sorted({str(attempt["started"])[:10] for meta in metas for attempt in meta["attempts"]})
    return [
        f"{len(results.envs)} task" + "s" * (len(results.envs) != 1),
        f"{len(results.learners)} algorithm" + "s" * (len(results.learners) != 1),
        f"{len(results.runs)} runs: {states}",
        *([f"{steps:,} environment steps"] if isinstance(steps, int) else []),
        *([f"run {' to '.join(dict.fromkeys((days[0], days[-1])))}"] if days else []),
    ]


def _view(section: Section, folder: Path) -> dict[str, object]:
    """A section as the template wants it."""
    return {
        "id": section.id,
        "title": section.title,
        "text": section.text,
        "verdicts": section.verdicts,
        "figures": [_picture(picture, folder) for picture in section.pictures],
        "tables": [
            {
                "name": table.name,
                "title": table.title,
                "notes": table.notes,
                "html": Markup(to_html(table)),
                "rows": len(table.rows),
                "long": len(table.rows) > LONG,
            }
            for table in section.tables
        ],
        "videos": [{"source": quote(video), "caption": video.lstrip("./")} for video in section.videos],
        "commands": section.commands,
    }


def _picture(picture: Picture, folder: Path) -> dict[str, object]:
    data = (folder / "figures" / f"{picture.name}.png").read_bytes()
    width, height, per_metre = _png_size(data)
    scale = CSS_PIXELS_PER_INCH / (per_metre * 0.0254)
    return {
        "caption": picture.caption,
        "source": "data:image/png;base64," + base64.b64encode(data).decode(),
        "width": round(width * scale * 1.3),  # a little larger than on paper
        "height": round(height * scale * 1.3),
        "pdf": f"figures/{quote(picture.name)}.pdf",
        "png": f"figures/{quote(picture.name)}.png",
    }


def _png_size(data: bytes) -> tuple[int, int, int]:
    """Width and height in pixels and pixels per metre, from a PNG's IHDR and pHYs chunks."""
    width, height = struct.unpack(">II", data[16:24])
    at = data.index(b"pHYs") + 4
    return width, height, struct.unpack(">I", data[at : at + 4])[0]
