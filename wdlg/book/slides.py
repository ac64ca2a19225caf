"""Slides for lectures, cut out of the built pages, so that what they show cannot differ from the book.

A lecture is a file of ``book/slides``: a title, and slides that name what they show by its name in the book.
A slide shows figures, equations, theorems and exercises by their labels, and sections of pages, as
``03_1_label_prediction#in-short``, of which it takes all but the paragraphs and the code: those are for
reading. Each lecture becomes one HTML file with everything in it: pictures with their alternative texts,
the sliders, the program that sets the mathematics. It works from a file, without a network. A table or a list
of cards that is too long for a slide goes on on the next one, under the same title.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import yaml
from bs4 import BeautifulSoup, Tag

from wdlg.errors import InputError, require_choice, require_count

KEYS = ("title", "minutes", "show", "text", "ask", "notes")
"""What a slide may have; only the title and the minutes are needed.

The lines of a text come one by one. What is asked is asked before anything is shown: what the slide shows
comes with the next key. Minutes are what the slide takes; with the notes the clock is shown.
"""

NOT_SHOWN = (".headerlink", ".cell_input", ".toggle-details", "details.hide", ".copybtn")
"""Parts of a page that have no use on a slide."""

OF_A_SECTION = "figure, table, ul, ol, div.math, div.proof, div.exercise"
"""What a slide takes of a section."""

ROWS = 4
"""Rows of a table, or cards, that a slide has room for, where each takes up to three lines."""

A_ROW = "tbody tr, .wdlg-card"

ENCODED = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}


def write_slides(lectures: Path, pages: Path) -> list[Path]:
    """Make the slides of each lecture of a folder, in the folder ``slides`` of the built pages.

    Args:
        lectures: folder with ``*.yaml``, ``slides.css`` and ``slides.js``.
        pages: folder of the built pages.

    Returns:
        The files that were written, in the order of the lectures' names.

    Raises:
        InputError: a lecture that cannot be read, or that names what no page has.
    """
    book = _Pages(pages)
    written = []
    for path in sorted(lectures.glob("*.yaml")):
        content = read_lecture(path)
        slides: list[str] = []
        clock = 0
        for slide in content["slides"]:
            slides += _slides(len(slides) + 2, slide, book, path.name, clock)
            clock += slide["minutes"]
        target = pages / "slides" / f"{path.stem}.html"
        target.parent.mkdir(exist_ok=True)
        target.write_text(_document(content, slides, lectures, pages), encoding="utf-8")
        written.append(target)
    return written


def read_lecture(path: Path) -> dict[str, Any]:
    """The content of a lecture's file: title, subtitle and slides, each of these with a title and minutes.

    Raises:
        InputError: something is missing or unknown.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or set(content) != {"title", "subtitle", "slides"}:
        raise InputError(f"{path.name} is no lecture: it must have title, subtitle and slides, and no more.")
    for slide in content["slides"]:
        for key in slide:
            require_choice(f"a key of a slide in {path.name}", key, KEYS)
        if "title" not in slide:
            raise InputError(f"{path.name} has a slide without a title: {slide}.")
        require_count(f"minutes of the slide {slide['title']!r} in {path.name}", slide.get("minutes"))
        if slide.get("ask") and not slide.get("show"):
            raise InputError(f"{path.name} asks on {slide['title']!r}, which must show what answers it.")
        slide.update({key: slide.get(key, []) for key in ("show", "text")})
    return content


class _Pages:
    """The built pages, in which the parts of slides are looked up."""

    def __init__(self, folder: Path) -> None:
        files = [path for name in ("notebooks", "book") for path in sorted((folder / name).glob("*.html"))]
        self.texts = {path: path.read_text(encoding="utf-8") for path in files}
        self.parsed: dict[Path, BeautifulSoup] = {}

    def parts(self, name: str, lecture: str) -> tuple[Path, list[Tag]]:
        """The page that has what a name stands for, and copies of its parts.

        Raises:
            InputError: no page has it.
        """
        page, _, section = name.rpartition("#")
        wanted = [section] if page else [name, f"equation-{name}"]
        for path, text in self.texts.items():
            if page and path.stem != page:
                continue
            for label in wanted:
                if f'id="{label}"' in text:
                    parts = list(self._cut(self._page(path).find(id=label), bool(page)))
                    if parts:
                        return path, [_for_slide(part, path) for part in parts]
        raise InputError(f"{lecture} shows {name!r}, but no page of the book has it.")

    def title(self, path: Path) -> str:
        """The title of a page."""
        heading = self._page(path).find("h1")
        return "" if heading is None else heading.get_text().rstrip("#").strip()

    def _page(self, path: Path) -> BeautifulSoup:
        if path not in self.parsed:
            self.parsed[path] = BeautifulSoup(self.texts[path], "html.parser")
        return self.parsed[path]

    @staticmethod
    def _cut(found: Any, of_a_section: bool) -> Iterator[Tag]:
        if not of_a_section:
            yield found
            return
        chosen = found.select(OF_A_SECTION)
        for part in chosen:
            if not any(other is not part and other in part.parents for other in chosen):
                # The table of a notebook's cell brings its style along.
                yield part.parent if part.name == "table" and part.parent.find("style") else part


def _for_slide(part: Tag, page: Path) -> Tag:
    """A copy of a part of a page that stands on its own: pictures inside, links to text.

    Raises:
        InputError: a picture has no alternative text.
    """
    [alone] = [child for child in BeautifulSoup(str(part), "html.parser").children if isinstance(child, Tag)]
    for selector in NOT_SHOWN:
        for element in alone.select(selector):
            element.decompose()
    for link in alone.select("a"):
        link.unwrap()
    for image in alone.select("img"):
        source = str(image["src"])
        if not image.get("alt"):
            raise InputError(f"a slide shows the picture {source} of {page.name}, which has no description.")
        if not source.startswith("data:"):
            content = base64.b64encode((page.parent / source).read_bytes()).decode()
            image["src"] = f"data:{ENCODED[Path(source).suffix]};base64,{content}"
    return alone


def _slides(first: int, slide: Mapping[str, Any], book: _Pages, lecture: str, clock: int) -> Iterator[str]:
    """A slide as HTML, or several where a table is too long for one; it begins at a minute of the lecture."""
    shown, sources = [], {}
    for name in slide["show"]:
        page, parts = book.parts(name, lecture)
        shown += parts
        sources[f"../{page.parent.name}/{page.name}"] = book.title(page)
    words = "".join(f'<li class="step">{html.escape(line)}</li>' for line in slide["text"])
    asked = f'<p class="ask">{html.escape(slide["ask"])}</p>' if slide.get("ask") else ""
    time = f"Minute {clock} to {clock + slide['minutes']}."
    notes = f'<aside class="notes"><b>{time}</b> {html.escape(slide.get("notes", ""))}</aside>'
    origin = " · ".join(f'<a href="{address}">{html.escape(title)}</a>' for address, title in sources.items())
    layout = "both" if words and shown else "one"
    for number, portion in enumerate(_portions(shown), first):
        inside = (f'<ul class="words">{words}</ul>' if words else "") + (
            f'<div class="shown{" step" if asked else ""}">{"".join(map(str, portion))}</div>'
            if portion
            else ""
        )
        yield (
            f'<section class="slide" id="slide-{number}" aria-label="Slide {number}">'
            f"<h2>{html.escape(slide['title'])}</h2>{asked}"
            f'<div class="body {layout}">{inside}</div>{notes}'
            f'<footer><span>{origin}</span><span class="number">{number}</span></footer></section>'
        )


def _portions(parts: list[Tag]) -> list[list[Tag]]:
    """What a slide shows, spread over as many slides as its only table needs."""
    if len(parts) != 1 or len(parts[0].select(A_ROW)) <= ROWS:
        return [parts]
    count = -(-len(parts[0].select(A_ROW)) // ROWS)
    portions = []
    for number in range(count):
        portion = copy(parts[0])
        for index, row in enumerate(portion.select(A_ROW)):
            if index // ROWS != number:
                row.decompose()
        portions.append([portion])
    return portions


def _document(content: Mapping[str, Any], slides: list[str], lectures: Path, pages: Path) -> str:
    """The whole file."""
    style = (lectures / "slides.css").read_text(encoding="utf-8")
    script = (lectures / "slides.js").read_text(encoding="utf-8")
    mathematics = (pages / "_static" / "mathjax" / "tex-svg.js").read_text(encoding="utf-8")
    title, subtitle = html.escape(content["title"]), html.escape(content["subtitle"])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
<script>window.MathJax = {{options: {{enableMenu: false}}, svg: {{fontCache: "local"}}}};</script>
<script>{mathematics}</script>
</head>
<body>
<main>
<section class="slide front" id="slide-1" aria-label="Slide 1">
<h1>{title}</h1>
<p>{subtitle}</p>
<p class="keys">Arrow keys, space or the buttons below: next and back. Home and End. N: notes. F: full screen.
Print for a PDF with a slide on each page.</p>
</section>
{"".join(slides)}
</main>
<nav aria-label="Slides">
<button type="button" id="back">Back</button>
<output id="place" aria-live="polite"></output>
<button type="button" id="next">Next</button>
</nav>
<script>{script}</script>
</body>
</html>
"""
