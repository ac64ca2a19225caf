"""The built pages in a browser: nothing broken, nothing too wide, usable without a mouse and without eyes.

Needs pages (`make book`) and a Chromium; skipped where one of them is missing.
"""

import functools
import http.server
import itertools
import shutil
import threading
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

PAGES = Path(__file__).parent.parent / "book" / "_build" / "html"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NAMES = sorted(
    str(path.relative_to(PAGES))
    for path in PAGES.rglob("*.html")
    if path.parent.name in ("notebooks", "book")
)
WIDTHS = {"desktop": (1280, 900), "phone": (375, 700)}

pytestmark = [
    pytest.mark.skipif(not NAMES, reason="no pages: run make book"),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium"),
    pytest.mark.xdist_group("browser"),  # one browser serves all tests
]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=WIDTHS)
def visit(request, browser):
    """Opens a page from its file in a window of one width; complaints of the console are collected."""
    width, height = WIDTHS[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True)
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))

    def go(name):
        page.goto((PAGES / name).as_uri())
        return page

    yield go
    context.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_works_offline_at_every_width(visit, name):
    page = visit(name)
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    broken = """() => [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"""
    assert page.evaluate(broken) == []
    unnamed = """() => [...document.querySelectorAll("article img")].filter(i => !i.alt).map(i => i.src)"""
    assert [source[:80] for source in page.evaluate(unnamed)] == []


@pytest.mark.parametrize("name", NAMES)
def test_headings_leave_out_no_level(visit, name):
    levels = visit(name).evaluate(
        """() => [...document.querySelectorAll("article :is(h1, h2, h3, h4, h5, h6)")]
                 .map(heading => Number(heading.tagName[1]))"""
    )
    assert levels[:1] == [1]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_no_serious_barrier(browser, name, mode):
    context = browser.new_context(color_scheme=mode)
    page = context.new_page()
    page.add_init_script(f"localStorage.setItem('mode', '{mode}'); localStorage.setItem('theme', '{mode}')")
    page.goto((PAGES / name).as_uri())
    found = Axe().run(page, context="article").response["violations"]
    serious = {
        entry["id"]: [node["html"][:200] for node in entry["nodes"][:3]]
        for entry in found
        if entry["impact"] in ("serious", "critical")
    }
    context.close()
    assert serious == {}


@pytest.mark.parametrize("name", [name for name in NAMES if "wdlg-slider" in (PAGES / name).read_text()])
def test_a_slider_moves_with_the_keyboard(visit, name):
    page = visit(name)
    for slider in page.locator(".wdlg-slider").all():
        control = slider.locator("input")
        control.focus()
        seen = []
        for key in ("Home", "ArrowRight", "End"):
            page.keyboard.press(key)
            image = slider.locator("img").first
            seen.append(
                (
                    slider.locator("output").inner_text(),
                    image.get_attribute("alt"),
                    image.get_attribute("src"),
                )
            )
        assert len({name for name, _, _ in seen}) == 3
        assert len({source for _, _, source in seen}) == 3
        assert all(name in alt for name, alt, _ in seen)
        assert control.get_attribute("aria-valuetext") == seen[-1][0]


def test_there_are_sliders_over_iterations_eps_and_plans():
    labels = "".join((PAGES / name).read_text() for name in NAMES)
    assert labels.count('<div class="wdlg-slider"') >= 3


def test_search_finds_sinkhorn(browser):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=PAGES)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/search.html?q=Sinkhorn")
        first = page.locator("#search-results li a").first
        first.wait_for(timeout=20_000)
        assert "Wasserstein" in page.locator("#search-results").inner_text()
        page.close()
        server.shutdown()


def test_pages_are_small():
    for name in NAMES:
        text = (PAGES / name).read_text()
        images = [
            PAGES / "_images" / path.name for path in (PAGES / "_images").iterdir() if path.name in text
        ]
        size = len(text.encode()) + sum(path.stat().st_size for path in images)
        assert size < (1e6 if name == "notebooks/00_summary.html" else 4e6), name
