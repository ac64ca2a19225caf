"""The built pages in a browser: nothing broken, nothing too wide, usable without a mouse and without eyes.

Needs pages (`make book`) and a Chromium; skipped where one of them is missing, unless WDLG_BROWSER is
"required": then that is a failure, so that nobody takes pages for checked that nobody has looked at.
"""

import functools
import http.server
import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from PIL import Image

from wdlg.book.pdf import find_browser

PAGES = Path(__file__).parents[2] / "book" / "_build" / "html"
BROWSER = find_browser()
NAMES = sorted(
    str(path.relative_to(PAGES))
    for path in PAGES.rglob("*.html")
    if path.parent.name in ("notebooks", "book", "html")
)
TEXTS = {name: (PAGES / name).read_text() for name in NAMES}
FRONT = "notebooks/00_summary.html"
REDIRECT = "index.html"
"""Leads to the front page at once, and holds nothing of its own."""

OF_EACH_PAGE = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NAMES]
)
"""All tests of a page go to one process, which then opens it once for them."""

CONTENT = [name for name in NAMES if name != REDIRECT]
CHAPTERS = [name for name in CONTENT if "/" in name]
WIDTHS = {"desktop": (1280, 900), "phone": (375, 700)}
MODES = ("light", "dark")

MISSING = "no page: run `make book`" if not NAMES else "no Chromium" if BROWSER is None else ""
if MISSING and os.environ.get("WDLG_BROWSER") == "required":
    raise RuntimeError(f"WDLG_BROWSER is 'required', but there is {MISSING}")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]

# Scrolls through the page, so that what is loaded late is loaded, and waits for pictures and formulas.
SETTLE = """async () => {
    for (let y = 0; y < document.body.scrollHeight; y += 600) {
        scrollTo(0, y);
        await new Promise(requestAnimationFrame);
    }
    await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
    await document.fonts.ready;
    await window.MathJax?.startup?.promise;
    scrollTo(0, 0);
}"""

TOO_WIDE = """() => {
    const width = document.documentElement.clientWidth;
    const beyond = [...document.querySelectorAll("article *")]
        .filter(element => element.getBoundingClientRect().right > width + 1)
        .slice(0, 3).map(element => element.outerHTML.slice(0, 80));
    const needed = document.documentElement.scrollWidth;
    return needed > width ? [needed, ...beyond] : [];
}"""

BROKEN = "() => [...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(0, 80))"

UNSET = "() => [...document.querySelectorAll('mjx-merror')].map(formula => formula.textContent)"

CUT = """() => [...document.querySelectorAll("div.math mjx-container")]
    .filter(formula => formula.scrollWidth > formula.clientWidth + 1)
    .map(formula => formula.closest("div.math").id || formula.textContent)"""

SHOWN = "element => element.checkVisibility({visibilityProperty: true})"

HEADINGS = """() => [...document.querySelectorAll("main :is(h1, h2, h3, h4, h5, h6)")]
    .filter(heading => heading.checkVisibility()).map(heading => Number(heading.tagName[1]))"""


@dataclass
class Look:
    """What a browser finds on one page, by width and mode."""

    complaints: dict = field(default_factory=dict)
    too_wide: dict = field(default_factory=dict)
    broken_images: dict = field(default_factory=dict)
    broken_formulas: dict = field(default_factory=dict)
    headings: dict = field(default_factory=dict)
    loaded: set = field(default_factory=set)


@pytest.fixture(scope="module")
def windows(browser):
    """A window for each width and mode. No network; a page is opened from its file, as a reader does."""
    windows = {}
    for (width, size), mode in itertools.product(WIDTHS.items(), MODES):
        context = browser.new_context(
            viewport=dict(zip(("width", "height"), size, strict=True)),
            color_scheme=mode,
            reduced_motion="reduce",
            offline=True,
        )
        page = windows[width, mode] = context.new_page()
        page.complaints, page.loaded = [], set()
        complain = page.complaints.append
        page.on("console", lambda message, say=complain: message.type == "error" and say(message.text))
        page.on("pageerror", lambda error, say=complain: say(str(error)))
        page.on("request", lambda request, page=page: page.loaded.add(request.url))
    yield windows
    for page in windows.values():
        page.context.close()


@pytest.fixture(scope="module")
def look(windows):
    """Looks at a page in all windows, once."""

    @functools.cache
    def look(name):
        seen = Look()
        for (width, mode), page in windows.items():
            place = f"{width}, {mode}"
            page.complaints.clear()
            page.loaded.clear()
            page.goto((PAGES / name).as_uri())
            if name == REDIRECT:
                page.wait_for_url(f"**/{FRONT}")
            page.evaluate(SETTLE)
            assert page.evaluate("document.documentElement.dataset.theme") == mode
            seen.too_wide[place] = page.evaluate(TOO_WIDE)
            seen.broken_images[place] = page.evaluate(BROKEN)
            seen.broken_formulas[place] = page.evaluate(UNSET)
            seen.headings[place] = page.evaluate(HEADINGS)
            seen.loaded |= page.loaded
            seen.complaints[place] = list(page.complaints)
        return seen

    return look


def barriers(page):
    """What axe-core finds anywhere on the page, be it minor, with the first elements."""
    # The files that a page loads are checked by the browser itself; reading them anew fails without a server.
    found = Axe().run(page, options={"preload": False, "resultTypes": ["violations"]}).response["violations"]
    return {entry["id"]: [node["html"][:200] for node in entry["nodes"][:3]] for entry in found}


def nothing(found):
    """What was found by width and mode, without the places where it is empty."""
    return {place: what for place, what in found.items() if what}


@OF_EACH_PAGE
def test_the_console_has_no_complaint(look, name):
    assert nothing(look(name).complaints) == {}


@OF_EACH_PAGE
def test_a_page_never_scrolls_sideways(look, name):
    assert nothing(look(name).too_wide) == {}


@OF_EACH_PAGE
def test_every_picture_and_formula_is_shown(look, name):
    assert nothing(look(name).broken_images) == {}
    assert nothing(look(name).broken_formulas) == {}


@OF_EACH_PAGE
def test_headings_start_at_one_and_leave_out_no_level(look, name):
    for place, levels in look(name).headings.items():
        assert levels.count(1) == 1, place
        assert levels[0] == 1, place
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), place


@OF_EACH_PAGE
def test_a_page_has_no_barrier(windows, name):
    found = {}
    for mode in MODES:  # colours and names are the same at every width
        page = windows["desktop", mode]
        page.goto((PAGES / name).as_uri())
        if name == REDIRECT:
            page.wait_for_url(f"**/{FRONT}")
        page.evaluate(SETTLE)
        found[mode] = barriers(page)
    assert nothing(found) == {}


@OF_EACH_PAGE
def test_a_page_is_small_with_all_that_it_loads(look, name):
    """Style sheets, scripts and fonts too, as they lie on the disk; a server would send them compressed."""
    sizes = {}
    for address in look(name).loaded:
        parts = urlsplit(address)
        if parts.scheme != "data":
            assert parts.scheme == "file", f"{name} loads {address}"
            path = Path(unquote(parts.path))
            sizes[path.name] = path.stat().st_size
    assert name == REDIRECT or Path(name).name in sizes
    heaviest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert sum(sizes.values()) < (1e6 if name in (FRONT, REDIRECT) else 4e6), heaviest


# What the text of the pages shows without a browser


@functools.cache
def parsed(name):
    return BeautifulSoup(TEXTS[name], "html.parser")


def with_element(selector):
    return [name for name in CHAPTERS if parsed(name).select_one(selector)]


@functools.cache
def anchors(path):
    """All that a link into a page may name."""
    page = BeautifulSoup(path.read_text(), "html.parser")
    return {element[key] for key in ("id", "name") for element in page.find_all(attrs={key: True})}


@pytest.mark.parametrize("name", NAMES)
def test_a_link_within_the_book_leads_somewhere(name):
    here = (PAGES / name).as_uri()
    broken = []
    for link in parsed(name).find_all("a", href=True):
        target = urlsplit(urljoin(here, link["href"]))
        if target.scheme != "file":
            continue
        path, anchor = Path(unquote(target.path)), unquote(target.fragment)
        inside = path.resolve().is_relative_to(PAGES.resolve())
        wanted = path.suffix == ".html" and anchor not in ("", "#")
        if not inside or not path.is_file() or (wanted and anchor not in anchors(path)):
            broken.append(link["href"])
    assert broken == []


def test_every_chapter_is_reached_from_every_page():
    for name in CONTENT:
        here = (PAGES / name).as_uri()
        links = parsed(name).find_all("a", href=True)
        linked = {urljoin(here, link["href"]).partition("#")[0] for link in links}
        assert {(PAGES / other).as_uri() for other in CHAPTERS} - {here} <= linked, name


@pytest.mark.parametrize("name", with_element("div.math"))
def test_no_formula_is_cut_on_a_phone(browser, name):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((PAGES / name).as_uri())
    page.evaluate(SETTLE)
    page.evaluate(
        "document.querySelectorAll('.toggle-hidden').forEach(e => e.classList.remove('toggle-hidden'))"
    )
    assert page.evaluate(CUT) == []
    page.close()


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_table_has_a_caption_and_a_word_above_each_column(name):
    for table in parsed(name).select("article table"):
        if table.find_parent(class_="highlight"):
            continue
        assert table.caption is not None, table.text[:80]
        assert table.caption.get_text(strip=True)
        assert [cell for cell in table.select("thead th") if not cell.get_text(strip=True)] == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_figure_is_so_wide_that_a_phone_makes_its_letters_small(name):
    """Letters of 10 points at 120 dots an inch, on a column of 358 of a figure's pixels: at least 9 high."""
    for image in parsed(name).select("article figure > img"):
        if not image["src"].startswith("data:"):
            with Image.open((PAGES / name).parent / image["src"]) as picture:
                assert picture.width <= 640, image["alt"]


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_figure_is_told_in_a_sentence(name):
    images = parsed(name).select("article img")
    for image in images:
        text = image.get("alt", "")
        assert text.strip(), str(image)[:200]
        assert not re.search(r"_|\.(png|svg|jpe?g)\b|^\S+$|[0-9a-f]{16}", text), f"{text!r} is a name"
        if not image.find_parent(class_="wdlg-slider"):
            assert len(text.split()) >= 6, f"{text!r} is no sentence"


def test_no_two_figures_are_told_in_the_same_words():
    places = defaultdict(set)
    for name in CHAPTERS:
        for image in parsed(name).select("article figure > img, article p > img"):
            places[image["alt"]].add((name, image["src"]))
    assert {text: pages for text, pages in places.items() if len(pages) > 1} == {}


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_page_says_its_language_and_has_a_title_of_its_own(name):
    page = parsed(name)
    assert page.html["lang"] == "en"
    assert [other for other in CHAPTERS if parsed(other).title.text == page.title.text] == [name]


# What readers do


@pytest.fixture(scope="module")
def served():
    """The address of the pages on a server, for what a browser refuses to pages from a file."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Silent, directory=PAGES)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser, served):
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
    )
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", with_element(".wdlg-slider"))
def test_a_slider_moves_with_the_keyboard(windows, name, width):
    page = windows[width, "light"]
    page.goto((PAGES / name).as_uri())
    for slider in page.locator(".wdlg-slider").all():
        control = slider.locator("input")
        control.focus()
        seen = []
        for key in ("Home", "ArrowRight", "End"):
            page.keyboard.press(key)
            image = slider.locator("img").first
            shown = [image.get_attribute(attribute) for attribute in ("alt", "src")]
            seen.append((slider.locator("output").inner_text(), *shown))
        assert len({place for place, _, _ in seen}) == 3
        assert len({source for _, _, source in seen}) == 3
        assert all(place in alt for place, alt, _ in seen)
        assert control.get_attribute("aria-valuetext").startswith(seen[-1][0])
        alts = slider.locator("img").evaluate_all("images => images.map(image => image.alt)")
        assert len(set(alts)) == len(alts)


def test_there_are_sliders_over_iterations_eps_and_plans():
    assert sum(len(parsed(name).select(".wdlg-slider")) for name in CHAPTERS) >= 3


@pytest.mark.parametrize("name", with_element("div.highlight pre"))
def test_a_copy_button_copies_the_code(page, served, name):
    page.goto(f"{served}/{name}")
    buttons = page.locator("button.copybtn")
    shown = [button for button in buttons.all() if button.evaluate(SHOWN)]
    assert shown, "there is code without a copy button"
    for button in (shown[0], shown[-1]):
        page.evaluate("navigator.clipboard.writeText('nothing')")
        button.focus()
        page.keyboard.press("Enter")
        page.wait_for_function("navigator.clipboard.readText().then(text => text !== 'nothing')")
        copied = page.evaluate("navigator.clipboard.readText()")
        code = button.evaluate("button => button.parentElement.querySelector('pre').textContent")
        # Prompts ($, >>>) and what a command prints are left out on purpose.
        assert copied.strip()
        assert all(line.strip() in code for line in copied.splitlines())
        if not re.search(r"^(\$|>>>) ", code, flags=re.MULTILINE):
            assert copied.strip() == code.strip()


@pytest.mark.parametrize("name", with_element("details, .admonition.dropdown, .toggle"))
def test_what_is_folded_opens_with_the_keyboard(windows, name):
    page = windows["desktop", "light"]
    page.goto((PAGES / name).as_uri())
    closed = "article details:not([open]) > summary, article .toggle-hidden button.toggle-button"
    folded = page.locator(closed)
    count = folded.count()
    assert count or not parsed(name).select("article details:not([open]), article .admonition.dropdown")
    for place in reversed(range(count)):  # from the end, since what is open leaves the list
        summary = folded.nth(place)
        if not summary.evaluate(SHOWN):
            continue  # folded itself, inside another
        handle = summary.element_handle()
        handle.focus()
        assert handle.evaluate("element => document.activeElement === element")
        page.keyboard.press("Enter")
        opened = "element => (element.closest('details')?.open) ?? !element.closest('.toggle-hidden')"
        page.wait_for_function(opened, arg=handle, timeout=2000)


def test_the_switch_changes_the_colour_mode_and_the_next_page_keeps_it(page, served):
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    page.goto(f"{served}/{FRONT}")
    seen = {}
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.focus()
        page.keyboard.press("Enter")
        mode = page.evaluate("document.documentElement.dataset.mode")
        seen[mode] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        if mode == "dark":
            page.goto(f"{served}/{CHAPTERS[0]}")
            assert page.evaluate("document.documentElement.dataset.theme") == "dark"
            page.goto(f"{served}/{FRONT}")
    assert set(seen) == {"auto", "light", "dark"}
    assert sum(map(int, re.findall(r"\d+", seen["dark"])[:3])) < 150
    assert sum(map(int, re.findall(r"\d+", seen["light"])[:3])) > 600
    assert seen["auto"] == seen["light"]


@pytest.mark.parametrize("width", WIDTHS)
def test_search_finds_sinkhorn(page, served, width):
    page.set_viewport_size(dict(zip(("width", "height"), WIDTHS[width], strict=True)))
    page.goto(f"{served}/{FRONT}")
    page.locator("button.search-button__button:visible, button.search-button:visible").first.click()
    page.locator("dialog input[type=search]").first.fill("Sinkhorn")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=Sinkhorn*")
    # Results come in one by one.
    chapter = page.locator("#search-results li a", has_text="Wasserstein distance").first
    chapter.wait_for(timeout=20_000)
    assert "03_3_wasserstein_distance" in chapter.get_attribute("href")


def test_without_a_browser_or_pages_a_required_look_fails(tmp_path):
    """A copy of this file far from any pages."""
    shutil.copy(__file__, tmp_path / "test_browser.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "test_browser.py"]
    for required, code in (("required", 2), ("", 0)):
        result = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "WDLG_BROWSER": required},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stdout
        assert "there is no page: run `make book`" in result.stdout or not required
