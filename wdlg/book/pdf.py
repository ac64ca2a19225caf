"""The book as one PDF: the built pages in one document, printed by a browser.

The pages are taken as they are built, so that the numbers of figures and equations are those of the pages.
What paper cannot do is replaced: folded text is unfolded, a slider shows a few of its places below each
other, and a link within the book leads to its page of the PDF. The listings that the pages fold away (what
draws a figure) are left to the notebooks.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import click
import yaml

from wdlg import __version__
from wdlg.book.checkout import BookError, Checkout, find_checkout
from wdlg.errors import InputError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Names under which a Chromium is installed."""

SLIDER_PLACES = 5
"""Places of a slider that the PDF shows, the first and the last among them."""

LEFT_OUT = (
    "a.headerlink, .cell_input:has(> details.hide), details.hide.below-input, details.hide.above-input, "
    ".prev-next-footer, script:not([type^='math/']), button, .wdlg-attack-live"
)
"""What a printed page does without."""

FOOTER = """<div style="font: 8pt sans-serif; width: 100%; text-align: center; color: #333">
<span class="pageNumber"></span></div>"""


@dataclass(frozen=True)
class Heading:
    """A heading: page of the book, number on that page, text."""

    name: str
    number: int
    text: str


@dataclass(frozen=True)
class Chapter:
    """A page of the book in the PDF.

    Attributes:
        name: of the page, such as "notebooks/05_conclusion".
        part: caption of the part that starts with it, or "".
        headings: the first is the chapter's title.
        content: its article, changed for paper.
    """

    name: str
    part: str
    headings: tuple[Heading, ...]
    content: str

    @property
    def title(self) -> str:
        """The text of its first heading."""
        return self.headings[0].text


def find_browser() -> str | None:
    """The program of a Chromium, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def make(root: Path | None = None) -> Path:
    """Print the built pages into ``book/_build/wdlg.pdf``.

    Args:
        root: a folder in the checkout; None for the working folder.

    Returns:
        The PDF.

    Raises:
        InputError: no checkout, no built pages, or no Chromium.
        BookError: a page that the table of contents lists was not built or has no heading; a picture is not
            there; or the browser lists other headings than the pages have.
    """
    checkout = find_checkout(root)
    if not (checkout.pages / "index.html").exists():
        raise InputError(f"the pages {checkout.pages} are not there, but must be: run `make book` first.")
    browser = find_browser()
    if browser is None:
        raise InputError(
            f"the PDF is printed by a browser, but none of {', '.join(BROWSERS)} is installed "
            "(on Debian and Ubuntu: apt-get install chromium)."
        )
    settings = yaml.safe_load((checkout.root / "_config.yml").read_text())
    chapters = read_chapters(checkout, settings["repository"]["url"])
    target = checkout.pages.with_name("wdlg.pdf")
    with tempfile.TemporaryDirectory() as folder:
        draft, final = Path(folder, "draft.pdf"), Path(folder, "final.pdf")
        # Once for the page numbers of the contents, and once with them.
        _print(browser, checkout, _document(checkout, settings, chapters, {}), draft)
        headings = [heading for chapter in chapters for heading in chapter.headings]
        pages = dict(zip(headings, heading_pages(draft), strict=True))
        numbers = {chapter.name: pages[chapter.headings[0]] for chapter in chapters}
        _print(browser, checkout, _document(checkout, settings, chapters, numbers), final)
        _finish(final, target, settings, [heading.text for heading in headings])
    click.echo(f"The PDF is ready: {target}")
    return target


def read_chapters(checkout: Checkout, repository: str) -> list[Chapter]:
    """The pages of the table of contents in its order, changed for paper.

    Args:
        checkout: whose pages.
        repository: address where a file that the pages offer for download can be found.

    Raises:
        BookError: a page was not built, or has no heading.
    """
    toc = yaml.safe_load((checkout.root / "_toc.yml").read_text())
    parts = toc.get("parts", [{"chapters": toc.get("chapters", [])}])
    listed = [(toc["root"], "")]
    for part in parts:
        names = [chapter["file"] for chapter in part["chapters"]]
        captions = [part.get("caption", ""), *[""] * len(names)]
        listed += zip(names, captions, strict=False)
    names = [name for name, _ in listed]
    return [_chapter(checkout, name, part, names, repository) for name, part in listed]


def _chapter(checkout: Checkout, name: str, part: str, names: Iterable[str], repository: str) -> Chapter:
    from bs4 import BeautifulSoup

    path = checkout.pages / f"{name}.html"
    if not path.exists():
        raise BookError(f"the table of contents lists {name}, but {path} was not built: run `make book`.")
    article = BeautifulSoup(path.read_text(), "html.parser").select_one("article.bd-article")
    if article is None or article.h1 is None:
        raise BookError(f"the page {name} has no heading.")
    for slider in article.select(".wdlg-slider"):
        slider.replace_with(BeautifulSoup(still(slider), "html.parser"))
    for element in article.select(LEFT_OUT):
        element.decompose()
    for folded in article.find_all("details"):
        folded["open"] = ""
    headings = tuple(
        Heading(name, number, " ".join(heading.get_text().split()))
        for number, heading in enumerate(article.find_all(["h1", "h2", "h3", "h4", "h5", "h6"]))
    )
    # An id is one of many in the whole document: the page's name goes before it.
    for element in article.find_all(True):
        for reference in ("id", "aria-labelledby", "aria-describedby", "for"):
            if element.get(reference):
                element[reference] = _anchor(name, str(element[reference]))
        if element.name == "a" and element.get("href"):
            element["href"] = paper_link(str(element["href"]), name, names, repository)
        if element.name == "img" and not str(element["src"]).startswith("data:"):
            element["src"] = _from_top(name, str(element["src"]))
    return Chapter(name, part, headings, str(article))


def _from_top(name: str, address: str) -> str:
    """An address on a page, as seen from the folder of all pages."""
    return urljoin(f"/{name}.html", address).lstrip("/")


def _anchor(name: str, fragment: str = "") -> str:
    return f"{PurePosixPath(name).name}--{fragment}"


def paper_link(address: str, name: str, names: Iterable[str], repository: str) -> str:
    """Where a link of a page leads in the PDF.

    >>> names = ["notebooks/05_conclusion", "book/data"]
    >>> paper_link("../book/data.html#sample-files", names[0], names, "https://example.org/book")
    '#data--sample-files'
    >>> paper_link("../book/data.html", names[0], names, "https://example.org/book")
    '#data--'
    >>> paper_link("https://example.org", names[0], names, "https://example.org/book")
    'https://example.org'
    >>> paper_link("../_downloads/1/x.ipynb", names[0], names, "https://example.org/book")
    'https://example.org/book'
    """
    target = urlsplit(urljoin(f"file:///{name}.html", address))
    if target.scheme != "file":
        return address
    page = unquote(target.path).lstrip("/").removesuffix(".html")
    return f"#{_anchor(page, unquote(target.fragment))}" if page in names else repository


def still(slider: Any) -> str:
    """A few places of a slider below each other, as a table of pictures.

    Args:
        slider: its element, with the frames as JSON (see :class:`wdlg.figures.Slider`).
    """
    from html import escape

    frames = json.loads(slider.select_one("script[type='application/json']").string)
    last = len(frames) - 1
    chosen = sorted({round(last * place / (SLIDER_PLACES - 1)) for place in range(SLIDER_PLACES)})
    titles = [column.find(string=True, recursive=False) for column in slider.select(".wdlg-slider-row > div")]
    head = "".join(f"<th scope='col'>{escape(title or '')}</th>" for title in titles)
    rows = [
        f"<tr><th scope='row'>{escape(frame['name'])}</th>"
        + "".join(
            f"<td><img alt='{escape(alt)}' src='data:image/png;base64,{image}'>{escape(note)}</td>"
            for alt, image, note in zip(frame["alts"], frame["images"], frame["notes"], strict=True)
        )
        + "</tr>"
        for frame in (frames[place] for place in chosen)
    ]
    return f"<table class='wdlg-still'><tr><td></td>{head}</tr>{''.join(rows)}</table>"


def _document(
    checkout: Checkout, settings: Mapping[str, Any], chapters: Iterable[Chapter], numbers: Mapping[str, int]
) -> str:
    """All chapters as one page behind a title and contents, with the style sheets of the pages."""
    from html import escape

    from bs4 import BeautifulSoup

    chapters = list(chapters)
    front = BeautifulSoup((checkout.pages / f"{chapters[-1].name}.html").read_text(), "html.parser")
    sheets = "".join(
        f'<link rel="stylesheet" href="{_from_top(chapters[-1].name, str(sheet["href"]))}">'
        for sheet in front.select("link[rel=stylesheet]")
    )
    contents, bodies = [], []
    for chapter in chapters:
        if chapter.part:
            contents.append(f"<li class='wdlg-part'>{escape(chapter.part)}</li>")
        number = numbers.get(chapter.name, "")
        link = f"<a href='#{_anchor(chapter.name)}'>{escape(chapter.title)}</a>"
        contents.append(f"<li>{link}<span>{number}</span></li>")
        bodies.append(
            f"<section class='wdlg-chapter' id='{_anchor(chapter.name)}'>{chapter.content}</section>"
        )
    title, address = escape(settings["title"]), settings["repository"]["url"]
    mathjax = json.dumps(
        {"options": {"processHtmlClass": "tex2jax_process|mathjax_process|math|output_area"}}
    )
    return f"""<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light" class="wdlg-pdf">
<head><meta charset="utf-8"><title>{title}</title>{sheets}
<script>window.MathJax = {mathjax};</script>
<script defer src="_static/mathjax/tex-chtml.js"></script></head>
<body><main class="bd-content">
<section class="wdlg-title"><p class="wdlg-name">{title}</p>
<p>{escape(settings["author"])}</p><p>Version {__version__}. {escape(settings["copyright"])}.</p>
<p><a href="{address}">{address}</a></p>
<p>The same book as pages, with sliders to move, is made by <code>make book</code>.</p></section>
<nav class="wdlg-contents" aria-label="Contents">
<p class="wdlg-name">Contents</p><ul>{"".join(contents)}</ul></nav>
{"".join(bodies)}</main></body></html>"""


def _print(browser: str, checkout: Checkout, document: str, target: Path) -> None:
    """Print a document that stands where the pages are, so that it finds their pictures and style sheets."""
    from playwright.sync_api import sync_playwright

    source = checkout.pages / "whole-book.html"
    source.write_text(document)
    try:
        with sync_playwright() as playwright:
            started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            page = started.new_context(offline=True, color_scheme="light").new_page()
            page.goto(source.as_uri())
            page.evaluate("window.MathJax?.startup?.promise")
            page.evaluate("document.fonts.ready")
            broken = page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)")
            if broken:
                raise BookError(f"the PDF would lack the pictures {', '.join(map(str, broken[:5]))}.")
            page.pdf(
                path=target,
                format="A4",
                margin={"top": "18mm", "bottom": "20mm", "left": "20mm", "right": "20mm"},
                print_background=True,
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=FOOTER,
                tagged=True,
                outline=True,
            )
            started.close()
    finally:
        source.unlink()


def heading_pages(path: Path) -> list[int]:
    """The page, from 1, of every heading that the browser listed in a PDF, in order."""
    reader = _reader(path)

    def pages(entries: Any) -> Iterable[int]:
        for entry in entries:
            if isinstance(entry, list):
                yield from pages(entry)
            else:
                yield (reader.get_destination_page_number(entry) or 0) + 1

    return list(pages(reader.outline))


def _reader(path: Path) -> Any:
    """A reader that keeps to itself what it finds in every PDF of this browser: a count that is too low."""
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.ERROR)
    return PdfReader(path)


def _finish(source: Path, target: Path, settings: Mapping[str, Any], headings: Iterable[str]) -> None:
    """Say in the file what it is; a file of that name is replaced whole or not at all.

    The browser's bookmarks get the text of their headings: it repeats parts of a heading of several lines.
    """
    from pypdf import PdfWriter
    from pypdf.generic import NameObject, TextStringObject

    reader = _reader(source)
    writer = PdfWriter(clone_from=reader)
    writer.pdf_header = reader.pdf_header

    def bookmarks(entry: Any) -> Iterable[Any]:
        while entry is not None:
            entry = entry.get_object()
            yield entry
            if "/First" in entry:
                yield from bookmarks(entry["/First"])
            entry = entry.get("/Next")

    outlines: Any = writer.root_object["/Outlines"]
    for entry, text in zip(bookmarks(outlines["/First"]), headings, strict=True):
        entry[NameObject("/Title")] = TextStringObject(text)
    writer.add_metadata(
        {
            "/Title": settings["title"],
            "/Author": settings["author"],
            "/Subject": "An executable book on gradient leakage",
        }
    )
    viewer: Any = writer.create_viewer_preferences()
    viewer.display_doctitle = True
    draft = target.with_suffix(".pdf.new")
    writer.write(draft)
    draft.replace(target)
