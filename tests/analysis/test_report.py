"""The page in a real headless Chromium: loads offline, sorts, enlarges, fits a phone, prints, and runs
nobody's script.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from bench.analysis import build
from tests.analysis import helpers
from tests.analysis.browser import CHROMIUM, browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")  # a GIF of one pixel
EVIL = '<script>document.title="owned"</script><img src=x onerror="document.title=1">{{ 7 * 7 }}'


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A report whose texts try to act."""
    root = tmp_path_factory.mktemp("results")
    folder = helpers.study(root, envs=["a-run", "b-walk"], algos=["qsm", "sac", "td3"], seeds=12)
    helpers.with_config(folder, hidden=[256, 256], batch_size=256, T=5)
    helpers.change_study(folder, title=EVIL)
    helpers.diverge(folder / "a-run/sac/seed-3", 2000, [10])
    helpers.seal(folder / "a-run/sac/seed-3", reason=EVIL)
    run = folder / "b-walk/qsm/seed-0"
    meta = json.loads((run / "run.json").read_text())
    meta["attempts"][-1]["provenance"]["hardware"] = {EVIL: EVIL}
    helpers.change_meta(run, attempts=meta["attempts"])
    (folder / "b-walk/qsm/seed-1/done.json").unlink()
    (folder / "b-walk/qsm/seed-2/video.gif").write_bytes(PIXEL)
    helpers.timing(root)
    build(root, "made-up")
    return folder / "report/index.html"


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as page:
        page.size(1280, 900)
        page.open(report)
        yield page


def column(page, table: str, index: int) -> list[str]:
    return page.run(
        f"[...document.querySelectorAll('#table-{table} tbody tr')].map(r => r.cells[{index}].textContent)"
    )


def click(page, selector: str) -> None:
    page.run(f"document.querySelector({json.dumps(selector)}).click()")


def test_no_complaints_and_nothing_from_the_network(page):
    assert page.complaints() == []
    assert {urlparse(address).scheme for address in page.requested()} <= {"file", "data"}


def test_every_image_loads(page):
    sizes = page.run(
        "[...document.querySelectorAll('main .enlarge img')].map(i => [i.complete, i.naturalWidth, i.alt.length])"
    )
    assert len(sizes) >= 7
    assert all(complete and width > 300 and alt > 10 for complete, width, alt in sizes)


def test_a_video_is_shown_where_a_run_has_one(page):
    assert page.run("[...document.querySelectorAll('.video img')].map(i => i.naturalWidth)") == [1]
    assert (
        page.run("document.querySelector('.video figcaption').textContent") == "b-walk/qsm/seed-2/video.gif"
    )


def test_every_link_leads_somewhere(page, report):
    links = page.run("[...document.links].map(a => a.getAttribute('href'))")
    assert len(links) > 60
    for link in links:
        if link.startswith("#"):
            assert page.run(f"document.querySelector({json.dumps(link)}) !== null")
        else:
            assert (report.parent / unquote(link)).exists(), link


def test_no_text_acts(page):
    assert page.run("document.title").startswith("made-up – <script>")
    assert page.run("document.querySelector('h1').textContent") == EVIL
    assert page.run("document.querySelectorAll('script').length") == 1


def test_a_script_that_got_in_all_the_same_would_not_run(page):
    page.run(
        "(() => { const s = document.createElement('script'); s.textContent = 'document.title = 1';"
        "document.body.append(s); s.remove(); })()"
    )
    assert page.run("document.title") != "1"
    page.events.clear()  # the browser's word about it


def test_sorting_by_number_and_back(page):
    final = "#table-runs thead th:nth-child(6) button"
    before = page.run("document.querySelectorAll('#table-runs tbody tr').length")
    click(page, final)
    shown = column(page, "runs", 5)
    numbers = [float(text.replace(",", "")) for text in shown if text != "–"]
    assert numbers == sorted(numbers)
    assert len(numbers) > 60
    assert shown[-1] == "–"  # what has no score stays last
    click(page, final)
    shown = column(page, "runs", 5)
    assert [float(text.replace(",", "")) for text in shown if text != "–"] == sorted(numbers, reverse=True)
    assert shown[-1] == "–"
    assert page.run("document.querySelectorAll('#table-runs tbody tr').length") == before
    assert (
        page.run("document.querySelector('#table-runs th[aria-sort]').getAttribute('aria-sort')")
        == "descending"
    )


def test_sorting_by_text_and_by_seed(page):
    click(page, "#table-runs thead th:nth-child(1) button")
    tasks = column(page, "runs", 0)
    assert tasks == sorted(tasks)
    click(page, "#table-runs thead th:nth-child(3) button")
    seeds = [int(text) for text in column(page, "runs", 2)]
    assert seeds == sorted(seeds)  # 2 before 10


def test_enlarging_and_closing(page):
    click(page, "button.enlarge")
    assert page.run("document.querySelector('dialog').open")
    assert page.run(
        "document.querySelector('dialog img').src === document.querySelector('button.enlarge img').src"
    )
    page.size(390, 800, phone=True)
    shown = page.run(
        "[...document.querySelectorAll('dialog img, button.enlarge img')].map(i => i.clientWidth)"
    )
    assert shown[-1] > 1.5 * shown[0]  # larger than on the page on a phone, too
    page.size(1280, 900)
    click(page, "dialog img")
    assert not page.run("document.querySelector('dialog').open")


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_the_page_itself_never_scrolls_sideways(page, width):
    page.size(width, 800, phone=width < 500)
    assert page.run("document.documentElement.scrollWidth") <= width
    page.size(1280, 900)


def test_print(page, tmp_path):
    page.print(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().count(b"/Type /Page\n") >= 3
    page.screenshot(tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 50_000
