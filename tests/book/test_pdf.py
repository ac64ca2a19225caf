"""The PDF of the book: every page in order, with its titles, figures and language, and nothing left out."""

import base64
import io
import logging
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import yaml
from bs4 import BeautifulSoup
from click.testing import CliRunner
from PIL import Image
from pypdf import PdfReader

from wdlg.book import pdf
from wdlg.book.checkout import BookError, find_checkout
from wdlg.cli import main
from wdlg.errors import InputError
from wdlg.figures import Frame, Slider

REPOSITORY = Path(__file__).parents[2]
PRINTED = REPOSITORY / "book" / "_build" / "wdlg.pdf"

pytestmark = pytest.mark.xdist_group("browser")
needs_browser = pytest.mark.skipif(pdf.find_browser() is None, reason="no Chromium")


def words(page):
    """The text of a page in plain letters: some fonts have one sign for the letters fi."""
    return unicodedata.normalize("NFKC", page.extract_text())


LONG = "A heading that is so long that it does not fit on a single line of the paper, whatever the font is"


def page(title, body):
    return (
        '<html lang="en"><head><link rel="stylesheet" href="../_static/wdlg.css"></head><body>'
        f'<main><article class="bd-article"><h1>{title}<a class="headerlink" href="#top">#</a></h1>{body}'
        "</article></main></body></html>"
    )


def slider():
    frames = [Frame(f"place {n}", [np.full((1, 4, 4), n / 9)], [f"note {n}"]) for n in range(10)]
    return Slider(frames, columns=["one <column>"], variable="Place")._repr_html_()


@pytest.fixture
def checkout(tmp_path):
    """A checkout with two small pages, as a build leaves them."""
    (tmp_path / "notebooks").mkdir()
    shutil.copy(REPOSITORY / "_config.yml", tmp_path)
    toc = {
        "format": "jb-book",
        "root": "notebooks/a",
        "parts": [{"caption": "Part", "chapters": [{"file": "book/b"}]}],
    }
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    pages = tmp_path / "book" / "_build" / "html"
    for folder in ("notebooks", "book", "_images", "_static"):
        (pages / folder).mkdir(parents=True)
    shutil.copy(REPOSITORY / "book" / "_static" / "wdlg.css", pages / "_static")
    Image.new("RGB", (40, 30), "red").save(pages / "_images" / "red.png")
    (pages / "index.html").write_text("the front")
    (pages / "notebooks" / "a.html").write_text(
        page(
            "The first page",
            '<p>To <a href="../book/b.html#deep">there</a>.</p>'
            '<figure><img src="../_images/red.png" alt="A red rectangle on paper."></figure>'
            '<div class="cell_input"><details class="hide"><summary>Show</summary>hidden code</details>'
            "</div>",
        )
    )
    (pages / "book" / "b.html").write_text(
        page(
            LONG,
            f'<h2 id="deep">Deep</h2><details><summary>Answer</summary>forty-two</details>{slider()}'
            '<p><a href="../_downloads/x.ipynb">a file</a></p>',
        )
    )
    return tmp_path


def text(reader):
    return "\n".join(words(page) for page in reader.pages)


def titles(entries):
    return [entry.title for entry in entries if not isinstance(entry, list)]


def alternative_texts(reader):
    """The texts of all figures that a PDF has for those who cannot see it, in reading order."""

    def search(element):
        element = element.get_object()
        if isinstance(element, list):
            for part in element:
                yield from search(part)
        elif isinstance(element, dict):
            if element.get("/S") == "/Figure":
                yield str(element.get("/Alt", ""))
            if "/K" in element:
                yield from search(element["/K"])

    # An element figure around a picture has no text of its own.
    return [text for text in search(reader.root_object["/StructTreeRoot"]["/K"]) if text]


@needs_browser
def test_a_pdf_has_all_pages_in_order_unfolded_and_described(checkout):
    made = pdf.make(checkout)
    assert made == checkout / "book" / "_build" / "wdlg.pdf"
    assert [path.name for path in made.parent.iterdir() if path.is_file()] == ["wdlg.pdf"]
    assert not list(checkout.rglob("whole-book.html"))
    reader = PdfReader(made)
    assert len(reader.pages) == 4  # a title, contents, two pages
    assert titles(reader.outline) == ["The first page", LONG]
    assert titles(reader.outline[-1]) == ["Deep"]
    settings = yaml.safe_load((checkout / "_config.yml").read_text())
    assert reader.metadata.title == settings["title"]
    assert reader.metadata.author == settings["author"]
    assert reader.root_object["/Lang"] == "en"
    assert reader.root_object["/MarkInfo"]["/Marked"]
    contents = words(reader.pages[1])
    assert "The first page 3" in " ".join(contents.split())
    everything = text(reader)
    assert "forty-two" in everything, "an answer stays folded"
    assert "hidden code" not in everything
    assert "#" not in reader.pages[2].extract_text()
    assert alternative_texts(reader) == [
        "A red rectangle on paper.",
        *(f"one <column>, place {n}, note {n}" for n in (0, 2, 4, 7, 9)),
    ]
    assert "place 9" in everything


@needs_browser
def test_links_lead_to_pages_of_the_pdf_or_out_of_it_but_to_no_file(checkout):
    reader = PdfReader(pdf.make(checkout))
    inner, outer = [], set()
    for number, sheet in enumerate(reader.pages):
        for note in sheet.get("/Annots", []):
            link = note.get_object()
            action = link.get("/A", {})
            if "/URI" in action:
                outer.add(action["/URI"])
            else:
                inner.append((number, str(link.get("/Dest") or action.get("/D"))))
    address = yaml.safe_load((checkout / "_config.yml").read_text())["repository"]["url"]
    assert {link.rstrip("/") for link in outer} == {address}
    assert [number for number, _ in inner] == [1, 1, 2]
    assert str(checkout) not in str(outer)


def test_a_picture_that_is_not_there_stops_the_print(checkout):
    if pdf.find_browser() is None:
        pytest.skip("no Chromium")
    next(checkout.rglob("red.png")).unlink()
    with pytest.raises(BookError, match="red.png"):
        pdf.make(checkout)
    assert not list(checkout.rglob("*.pdf*"))


def test_without_pages_the_message_says_what_makes_them(checkout):
    shutil.rmtree(checkout / "book" / "_build")
    with pytest.raises(InputError, match="run `make book` first"):
        pdf.make(checkout)


def test_without_a_browser_the_message_says_which_to_install(checkout, monkeypatch):
    monkeypatch.setattr(pdf, "find_browser", lambda: None)
    with pytest.raises(InputError, match=r"chromium.*apt-get install chromium"):
        pdf.make(checkout)


def test_a_page_that_was_not_built_is_named(checkout):
    (checkout / "book" / "_build" / "html" / "book" / "b.html").unlink()
    with pytest.raises(BookError, match="lists book/b"):
        pdf.read_chapters(find_checkout(checkout), "https://example.org")


def test_a_slider_becomes_a_table_of_its_first_its_last_and_a_few_more_places():
    soup = BeautifulSoup(pdf.still(BeautifulSoup(slider(), "html.parser").div), "html.parser")
    assert [row.text for row in soup.select("th[scope=row]")] == [f"place {n}" for n in (0, 2, 4, 7, 9)]
    assert [column.text for column in soup.select("th[scope=col]")] == ["one <column>"]
    last = soup.select("img")[-1]["src"].partition(",")[2]
    assert np.array(Image.open(io.BytesIO(base64.b64decode(last)))).min() == 255


def printed_after_the_pages():
    """Is there a PDF of the pages that are there? To print one takes minutes."""
    pages = find_checkout(REPOSITORY).pages / "index.html"
    return pages.exists() and PRINTED.exists() and PRINTED.stat().st_mtime > pages.stat().st_mtime


@pytest.mark.skipif(not printed_after_the_pages(), reason="no PDF of these pages: run make book, make pdf")
def test_the_book_is_printed_whole():
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    chapters = pdf.read_chapters(find_checkout(REPOSITORY), "https://example.org")
    reader = PdfReader(PRINTED)
    assert len(reader.pages) > len(chapters)
    assert titles(reader.outline) == [chapter.title for chapter in chapters]
    pictures = [
        " ".join(image["alt"].split())
        for chapter in chapters
        for image in BeautifulSoup(chapter.content, "html.parser").find_all("img")
    ]
    printed = [" ".join(words.split()) for words in alternative_texts(reader)]
    assert printed == pictures
    assert all(sheet.extract_text().strip() for sheet in reader.pages), "a blank page"


def test_the_command_says_in_a_sentence_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["pdf"])
    assert result.exit_code == 2
    assert result.stderr.startswith("wdlg: the working folder is")
    assert result.stderr.count("\n") == 1
