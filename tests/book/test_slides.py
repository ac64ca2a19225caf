"""Slides are cut out of the pages: they show what the book shows, in one file that needs nothing else."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from click.testing import CliRunner
from PIL import Image
from test_browser import BROWSER, PAGES

from wdlg.book import build as book
from wdlg.book.slides import ROWS, read_lecture, write_slides
from wdlg.cli import main
from wdlg.errors import InputError

ROOT = Path(__file__).parents[2]
LECTURES = sorted((ROOT / "book" / "slides").glob("*.yaml"))

PAGE = """<html><body><article>
<section id="a-page"><h1>A page<a class="headerlink" href="#a-page">#</a></h1>
<figure id="fig-one"><img src="../_images/one.png" alt="A red square."/>
<figcaption>See <a href="other.html">elsewhere</a> and <a href="https://example.invalid">far away</a>.
</figcaption>
</figure>
<div class="math" id="equation-eq-one"><span class="eqno">(1)</span>\\[x < 1\\]</div>
<div class="proof theorem admonition" id="thm-one"><p class="admonition-title">Theorem 1</p>
<p>It holds.</p></div>
<figure id="fig-mute"><img src="../_images/one.png"/></figure>
<section id="in-short"><h2>In short</h2><p>Words to read.</p><ul><li>A point<ul><li>below</li></ul></li></ul>
<div class="cell_input"><pre>code()</pre></div>
<div class="output"><style>td {color: red}</style><table><tr><td>cell</td></tr></table></div></section>
</section><section id="long">LONG</section></article></body></html>"""

LONG = "".join(f"<tr><td>row {number}</td></tr>" for number in range(2 * ROWS + 1))
LONG = f"<table><thead><tr><th>A</th></tr></thead><tbody>{LONG}</tbody></table>"


@pytest.fixture
def made(tmp_path):
    """A function that makes the slides of one lecture from one page, and returns what they are."""
    pages, lectures = tmp_path / "html", tmp_path / "lectures"
    for folder in (pages / "notebooks", pages / "_images", pages / "_static" / "mathjax", lectures):
        folder.mkdir(parents=True)
    (pages / "notebooks" / "01_page.html").write_text(PAGE.replace("LONG", LONG))
    (pages / "_static" / "mathjax" / "tex-svg.js").write_text("/* sets mathematics */")
    Image.new("RGB", (2, 2), "red").save(pages / "_images" / "one.png")
    for name in ("slides.css", "slides.js"):
        shutil.copy(ROOT / "book" / "slides" / name, lectures)

    def make(*slides):
        slides = [{"minutes": 1} | slide for slide in slides]
        content = {"title": "A & B", "subtitle": "First", "slides": slides}
        (lectures / "lecture.yaml").write_text(yaml.safe_dump(content))
        [path] = write_slides(lectures, pages)
        assert path == pages / "slides" / "lecture.html"
        return BeautifulSoup(path.read_text(), "html.parser")

    return make


def test_a_slide_shows_figures_equations_and_theorems_by_their_names(made):
    shown = made(
        {"title": "1 < 2", "show": ["fig-one", "eq-one", "thm-one"], "text": ["Why?"], "notes": "Wait."}
    )
    slide = shown.select_one("#slide-2")
    assert slide.h2.get_text() == "1 < 2"
    assert slide.figure.img["alt"] == "A red square."
    assert slide.figure.img["src"].startswith("data:image/png;base64,iVBOR")
    assert "x < 1" in slide.select_one("div.math").get_text()
    assert "It holds." in slide.select_one(".theorem").get_text()
    assert slide.select_one(".words").get_text() == "Why?"
    assert slide.select_one("aside.notes").get_text() == "Minute 0 to 1. Wait."
    assert slide.footer.a["href"] == "../notebooks/01_page.html"
    assert slide.footer.a.get_text() == "A page"


def test_of_a_section_a_slide_takes_lists_and_tables_once_and_no_paragraphs_or_code(made):
    slide = made({"title": "Short", "show": ["01_page#in-short"]}).select_one("#slide-2")
    assert [item.get_text(strip=True) for item in slide.select(".shown li")] == ["A pointbelow", "below"]
    assert slide.td.get_text() == "cell"
    assert "color: red" in slide.style.get_text()
    assert "Words to read" not in slide.get_text()
    assert "code()" not in slide.get_text()


def test_a_table_too_long_for_a_slide_goes_on_on_the_next(made):
    shown = made({"title": "Long", "show": ["01_page#long"], "notes": "Wait."}, {"title": "After"})
    slides = shown.select(".slide")[1:]
    assert [slide.h2.get_text() for slide in slides] == ["Long", "Long", "Long", "After"]
    assert [slide["id"] for slide in slides] == [f"slide-{number}" for number in range(2, 6)]
    cells = [[cell.get_text() for cell in slide.select("td")] for slide in slides[:3]]
    assert [len(part) for part in cells] == [ROWS, ROWS, 1]
    assert [cell for part in cells for cell in part] == [f"row {number}" for number in range(2 * ROWS + 1)]
    assert all(slide.th.get_text() == "A" for slide in slides[:3])


def test_the_clock_goes_on_from_slide_to_slide(made):
    shown = made({"title": "One", "minutes": 5}, {"title": "Two", "minutes": 10, "notes": "Wait."})
    notes = [note.get_text() for note in shown.select("aside.notes")]
    assert notes == ["Minute 0 to 5. ", "Minute 5 to 15. Wait."]


def test_what_is_asked_comes_before_what_answers_it(made):
    slide = made({"title": "One", "ask": "Why?", "show": ["fig-one"]}).select_one("#slide-2")
    assert slide.select_one(".ask").get_text() == "Why?"
    assert "step" not in slide.select_one(".ask")["class"]
    assert "step" in slide.select_one(".shown")["class"]
    slide = made({"title": "One", "text": ["A", "B"], "show": ["fig-one"]}).select_one("#slide-2")
    assert "step" not in slide.select_one(".shown")["class"]
    assert [line.get_text() for line in slide.select(".words .step")] == ["A", "B"]


def test_nothing_in_the_file_leads_elsewhere_but_to_the_book(made):
    shown = made({"title": "One", "show": ["fig-one"]})
    assert "A & B" in shown.title.get_text()
    assert [link["href"] for link in shown.select("[href]")] == ["../notebooks/01_page.html"]
    assert all(image["src"].startswith("data:") for image in shown.select("[src]"))
    assert "elsewhere and far away" in shown.figcaption.get_text()


def test_a_name_that_no_page_has_is_refused(made):
    with pytest.raises(InputError, match=r"lecture\.yaml shows 'fig-none', but no page"):
        made({"title": "None", "show": ["fig-none"]})
    with pytest.raises(InputError, match="'02_page#in-short'"):
        made({"title": "None", "show": ["02_page#in-short"]})


def test_a_picture_without_a_description_is_refused(made):
    with pytest.raises(InputError, match=r"one\.png of 01_page\.html, which has no description"):
        made({"title": "Mute", "show": ["fig-mute"]})


@pytest.mark.parametrize(
    ("slide", "complaint"),
    [
        ({"show": ["fig-one"]}, "without a title"),
        ({"title": "A", "minutes": 0}, "minutes of the slide 'A' in lecture.yaml is 0, but must be"),
        ({"title": "A", "minutes": None}, "minutes .* is None"),
        ({"title": "A", "ask": "Why?"}, "asks on 'A', which must show what answers it"),
        ({"title": "A", "shows": ["fig-one"]}, "'shows'.*show, text, ask"),
    ],
)
def test_a_lecture_with_a_mistake_is_refused(made, slide, complaint):
    with pytest.raises(InputError, match=complaint):
        made(slide)


def test_a_file_that_is_no_lecture_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("title: A")
    with pytest.raises(InputError, match=r"a\.yaml is no lecture"):
        read_lecture(tmp_path / "a.yaml")


def test_slides_before_the_pages_are_refused(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_toc.yml").touch()
    with pytest.raises(InputError, match="run `wdlg book`"):
        book.slides(tmp_path)


def test_the_command_outside_a_checkout_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(main, ["slides"])
    assert answer.exit_code == 2
    assert "must be in a checkout" in answer.stderr


# The lectures of this book


def names_in_the_book():
    """Labels of figures, equations, theorems and exercises, and the sections of pages."""
    names = set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if "mystnb" in cell.metadata:
                names.add(cell.metadata["mystnb"]["figure"]["name"])
            if cell.cell_type == "markdown":
                names |= set(re.findall(r"^:label: (\S+)", cell.source, flags=re.MULTILINE))
                for heading in re.findall(r"^##+ (.+)", cell.source, flags=re.MULTILINE):
                    slug = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
                    names.add(f"{path.stem}#{slug}")
    return names


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_all_that_a_lecture_shows_is_in_the_book(path):
    shown = {name for slide in read_lecture(path)["slides"] for name in slide["show"]}
    assert shown
    assert sorted(shown - names_in_the_book()) == []


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_a_lecture_takes_the_time_that_the_page_for_teachers_says(path):
    text = (ROOT / "book" / "teaching.md").read_text()
    number = path.stem.removeprefix("lecture")
    plan = text.split(f"## Lecture {number}:")[1].split("\n## ")[0]
    minutes = [int(row) for row in re.findall(r"^\| (\d+) \|", plan, flags=re.MULTILINE)]
    assert sum(minutes) == sum(slide["minutes"] for slide in read_lecture(path)["slides"]) == 90


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_no_measured_number_is_typed_on_a_slide(path):
    for slide in read_lecture(path)["slides"]:
        typed = " ".join(
            [slide["title"], *slide["text"], slide.get("ask", ""), slide.get("notes", "")]
        ).replace('"100 %"', "")
        assert not re.search(r"\d", typed), typed


@pytest.mark.xdist_group("browser")
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_the_slides_work_with_the_keyboard_from_a_file_without_a_network(browser, path, tmp_path):
    source = PAGES / "slides" / f"{path.stem}.html"
    if not source.exists():
        pytest.skip("no slides: run make book")
    alone = tmp_path / "alone.html"  # nothing beside it
    shutil.copy(source, alone)
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(alone.as_uri())
    page.wait_for_function("window.MathJax.startup && MathJax.startup.promise")
    page.evaluate("MathJax.startup.promise")
    count = page.locator(".slide").count()
    assert count >= len(read_lecture(path)["slides"]) + 1  # a long table takes several
    current = page.locator(".slide.current")
    titles = []
    for number in range(1, count + 1):
        assert current.get_attribute("id") == f"slide-{number}"
        assert page.locator("#place").inner_text() == f"{number} / {count}"
        titles.append(current.locator("h1, h2").first.inner_text())
        body = current.locator(".body")
        if body.count():
            room = "b => [b.scrollHeight - b.clientHeight, b.scrollWidth - b.clientWidth]"
            assert max(body.evaluate(room)) <= 1, f"slide {number} does not fit"
        for step in current.locator(".step").all():
            assert not step.is_visible()
            page.keyboard.press("ArrowRight")
            assert step.is_visible()
        page.keyboard.press("ArrowRight")
    assert list(dict.fromkeys(titles[1:])) == [slide["title"] for slide in read_lecture(path)["slides"]]
    page.keyboard.press("ArrowLeft")
    assert current.get_attribute("id") == f"slide-{count - 1}"
    assert all(step.is_visible() for step in current.locator(".step").all())
    page.keyboard.press("Home")
    assert current.get_attribute("id") == "slide-1"
    page.locator("#next").click()
    assert current.get_attribute("id") == "slide-2"
    assert page.locator("mjx-container").count() > 0
    assert page.locator("mjx-merror").count() == 0
    assert page.evaluate("[...document.images].filter(i => !i.alt || !i.naturalWidth).length") == 0
    assert {address for address in asked if not address.startswith("data:")} == {alone.as_uri()}
    assert complaints == []
    assert source.stat().st_size < 4e6
    page.close()
