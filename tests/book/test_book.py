"""The build of the book, on small stand-in notebooks with the project's own settings and static files."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import urlsplit

import nbformat
import pytest
import yaml
from PIL import Image
from small_study import CONTENT
from stand_ins import REPOSITORY, checkout, notebook, simple, wdlg_book

from wdlg.book import build as book
from wdlg.book.checkout import find_checkout
from wdlg.errors import InputError

# These tests share a worker, and so the one book that most of them read.
pytestmark = pytest.mark.xdist_group("book")

FIGURE = {
    "figure": {"caption": "The method, drawn.", "name": "fig-stand-in"},
    "image": {"alt": "A flow chart of the attack."},
}

INTRODUCTION = """# 1 Introduction

An inline $x^2$, a citation {cite:p}`zhu2019dlg`, and an equation,

```{math}
:label: eq-stand-in
W = \\langle P, C \\rangle .
```"""

ANSWER = """## Answer

Equation {eq}`eq-stand-in` and {numref}`fig-stand-in` give {glue:text}`answer`.
See [the end](07_status)."""


LIST_RESULTS = """from pathlib import Path
print("found", sorted(path.name for path in Path(results_dir).iterdir()))"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A finished book of three pages: its folder, and what the build printed."""
    root = checkout(
        tmp_path_factory.mktemp("book"),
        {
            "00_summary": simple("print(1)"),
            "01_introduction": notebook(
                ("text", INTRODUCTION),
                ("code", "from wdlg.book import pages\npages.say(answer=size)", {"tags": ["remove-cell"]}),
                ("code", "from wdlg import figures\nfigures.method_diagram()", {"mystnb": FIGURE}),
                ("code", "from pathlib import Path\nPath(results_dir).mkdir(exist_ok=True)"),
                (
                    "code",
                    "(Path(results_dir) / 'one').touch()\nprint(f'{pages.MISSING} atlantis is not there.')",
                ),
                ("text", ANSWER),
                parameters="size = 1\nresults_dir = 'results'",
            ),
            "07_status": simple(LIST_RESULTS),
        },
        profile={"01_introduction": {"size": 4711}},
    )
    stale = root / "book" / "executed" / "notebooks" / "results"
    stale.mkdir(parents=True)
    (stale / "stale").touch()
    old = root / "results" / "quick" / "labels" / "digits"
    old.mkdir(parents=True)
    (old / "stale.parquet").touch()
    (root / "results" / "audit.json").write_text("{}")
    (root / "CHANGELOG.md").write_text("# Changelog")
    (root / "studies").mkdir()
    parts = {"labels": CONTENT["parts"]["labels"]}
    (root / "studies" / "quick.yaml").write_text(yaml.safe_dump(CONTENT | {"parts": parts}))
    # The figure and the glue are made by the library's own functions, as in the real notebooks.
    result = wdlg_book(root)
    assert result.returncode == 0, result.stdout + result.stderr
    return root, result.stdout


def test_the_quick_study_is_computed_from_scratch(built):
    root, _ = built
    records = root / "book" / "executed" / "results" / "quick" / "labels" / "digits"
    assert [path.name for path in records.iterdir()] == ["sigmoid.parquet"]


def test_what_pages_quote_from_the_top_of_the_repository_is_in_the_copy(built):
    root, _ = built
    for name in ("results/audit.json", "CHANGELOG.md"):
        assert (root / "book" / "executed" / name).exists()


def html(root, page="notebooks/01_introduction"):
    return (root / "book" / "_build" / "html" / f"{page}.html").read_text()


class Loads(HTMLParser):
    """Everything that a browser fetches by itself to show a page; links to follow are not among it."""

    def __init__(self, text):
        super().__init__()
        self.addresses = []
        self.images = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed") and "src" in values:
            self.addresses.append(values["src"])
        if tag == "img":
            self.images.append(values)
        if tag == "link" and not set(values.get("rel", "").split()) & {
            "next",
            "prev",
            "index",
            "search",
            "canonical",
        }:
            self.addresses.append(values["href"])
        if tag == "object":
            self.addresses.append(values.get("data", ""))


def test_every_notebook_reports_and_the_last_line_names_the_page_to_open(built):
    root, printed = built
    for name in ("00_summary", "01_introduction", "07_status"):
        assert re.search(rf"\[\d/3\] {name} .*done in \d+ s", printed)
    assert printed.strip().endswith(str(root / "book" / "_build" / "html" / "index.html"))
    assert (root / "book" / "_build" / "html" / "index.html").exists()


def test_the_status_page_runs_last_and_sees_the_results_of_this_build_only(built):
    root, _ = built
    assert "found ['one']" in html(root, "notebooks/07_status").replace("&#39;", "'")


def test_a_missing_data_set_is_reported_in_the_log_and_on_the_page(built):
    root, printed = built
    assert "atlantis is not there." in printed
    assert "atlantis is not there." in html(root)


def test_a_glued_number_from_a_profile_stands_in_the_prose(built):
    root, _ = built
    prose = re.sub(r"<[^>]+>", "", html(root))
    assert re.search(r"Equation\s+\(1\)\s+and\s+Fig\. 1\s+give\s+4711", prose)


def test_a_figure_is_an_opaque_image_with_caption_and_alternative_text(built):
    root, _ = built
    text = html(root)
    [image] = [values for values in Loads(text).images if values.get("alt") == FIGURE["image"]["alt"]]
    assert FIGURE["figure"]["caption"] in text
    with Image.open(root / "book" / "_build" / "html" / "notebooks" / image["src"]) as picture:
        assert picture.convert("RGBA").getchannel("A").getextrema() == (255, 255)


def test_nothing_on_any_page_is_loaded_from_elsewhere(built):
    root, _ = built
    pages = root / "book" / "_build" / "html"
    seen = 0
    for page in (*pages.glob("*.html"), *pages.glob("notebooks/*.html"), *pages.glob("book/*.html")):
        for address in Loads(page.read_text()).addresses:
            parts = urlsplit(address)
            if parts.scheme == "data":
                continue
            assert parts[:2] == ("", ""), f"{page.name} loads {address}"
            assert (page.parent / parts.path).exists(), f"{page.name} loads {address}, which is not there"
            seen += 1
    assert seen > 20
    for sheet in pages.rglob("*.css"):
        for address in re.findall(r"url\(\s*['\"]?([^'\")]+)", sheet.read_text()):
            parts = urlsplit(address)
            if parts.scheme == "data":
                continue
            assert parts[:2] == ("", ""), f"{sheet.name} loads {address}"
            assert (sheet.parent / parts.path).exists(), f"{sheet.name} loads {address}, which is not there"
        assert not re.search(r"@import[^;]*//", sheet.read_text())


def open_in_browser(browser, page, folder):
    """What a browser without a network shows for a page, and the addresses that the page asks for."""
    log = folder / "network.json"
    command = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update"),
        *(f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"),
        *(f"--log-net-log={log}", "--virtual-time-budget=8000", "--dump-dom", page.as_uri()),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    requests = re.findall(r'"initiator":"([^"]*)".*"url":"([^"]+)"', log.read_text())
    # What a browser asks for by itself has no page as its origin.
    return shown, {address for initiator, address in requests if initiator != "not an origin"}


def test_a_browser_sets_the_mathematics_without_a_network(built, tmp_path):
    root, _ = built
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip(f"none of the browsers {', '.join(names)} is installed")
    page = root / "book" / "_build" / "html" / "notebooks" / "01_introduction.html"
    shown, asked = open_in_browser(browser, page, tmp_path)
    assert shown.count("<mjx-container") >= 2
    assert "<mjx-merror" not in shown
    assert not asked
    # The same look at the page with one foreign script shows that it would have been seen.
    foreign = "https://example.invalid/script.js"
    other = page.with_name("foreign.html")
    other.write_text(page.read_text().replace("</head>", f'<script src="{foreign}"></script></head>'))
    assert open_in_browser(browser, other, tmp_path)[1] == {foreign}
    other.unlink()


def test_buttons_lead_to_the_source_in_the_repository(built):
    root, _ = built
    text = html(root)
    source = "notebooks/01_introduction.ipynb"
    url = yaml.safe_load((REPOSITORY / "_config.yml").read_text())["repository"]["url"]
    name = url.removeprefix("https://github.com/")
    assert f"https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/{source}" in text
    assert f"https://colab.research.google.com/github/{name}/blob/main/{source}" in text
    assert f'href="{url}"' in text
    assert (root / "book" / "_build" / "html" / "_sources" / source).exists()
    assert "executed/" not in text


def test_the_downloaded_notebook_names_no_folder_of_the_machine_that_built_it(built):
    root, _ = built
    for copy in (root / "book" / "_build" / "html" / "_sources").rglob("*.ipynb"):
        assert str(root) not in copy.read_text(), copy.name


def test_the_peak_memory_of_each_notebook_is_in_its_metadata(built):
    root, _ = built
    for path in (root / "book" / "executed" / "notebooks").glob("*.ipynb"):
        assert 30e6 < nbformat.read(path, as_version=4).metadata["peak_memory"] < 3e9


def test_a_warning_of_the_page_build_stops_it_and_leaves_no_pages(tmp_path):
    root = checkout(
        tmp_path, {"00_summary": notebook(("text", "# Title\n\nSee {cite:p}`nobody1900nothing`."))}
    )
    result = wdlg_book(root)
    assert result.returncode == 1
    assert "nobody1900nothing" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (root / "book" / "_build" / "html").exists()


def test_a_parameter_that_a_notebook_does_not_have_is_refused(tmp_path):
    root = checkout(tmp_path, {"00_summary": simple()}, profile={"00_summary": {"colour": "red"}})
    with pytest.raises(InputError, match=r"00_summary.*colour.*results_dir"):
        book.build(root=root)
    assert not (root / "book" / "_build").exists()


def test_a_profile_for_a_notebook_that_is_not_there_is_refused(tmp_path):
    root = checkout(tmp_path, {"00_summary": simple()}, profile={"99_nothing": {}})
    with pytest.raises(InputError, match="99_nothing"):
        book.build(root=root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("00_summary: {a: 1}\n00_summary: {a: 2}", "^the profile is .* the key '00_summary' is there twice"),
        ("00_summary: {a: 1, a: 2}", "^the profile is .* the key 'a' is there twice"),
        ("[", "^the profile is .* must be a readable YAML file"),
        ("00_summary: [a]", r"^00_summary in quick.yaml is \['a'\], but must be a table"),
        ("- 00_summary", r"^quick.yaml is \['00_summary'\], but must be a table"),
    ],
)
def test_a_profile_that_yaml_would_take_silently_or_answer_at_length_is_refused(tmp_path, text, message):
    root = checkout(tmp_path, {"00_summary": simple()}, profile={})
    (root / "notebooks" / "profiles" / "quick.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        book.build(root=root)
    assert not (root / "book" / "_build").exists()


def test_an_unknown_profile_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"'huge'.*quick, paper"):
        book.build("huge", root=checkout(tmp_path, {"00_summary": simple()}))


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True])
def test_a_count_of_jobs_that_is_not_a_whole_number_above_zero_is_refused(tmp_path, jobs):
    with pytest.raises(InputError, match="--jobs"):
        book.build(root=checkout(tmp_path, {"00_summary": simple()}), jobs=jobs)


def test_solutions_go_into_a_folder_and_nowhere_else(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--solutions is .*file', but must be a folder"):
        book.build(
            root=checkout(tmp_path / "book", {"00_summary": simple()}), solutions=str(tmp_path / "file")
        )
    with pytest.raises(InputError, match="--solutions is '', but must be a folder"):
        book.build(root=tmp_path / "book", solutions="")
    assert not (tmp_path / "book" / "book" / "executed").exists()


def test_outside_a_checkout_the_build_says_so(tmp_path):
    result = wdlg_book(tmp_path)
    assert result.returncode == 2
    assert re.fullmatch(r"wdlg: .*must be in a checkout of the repository.*\n", result.stderr)


def test_a_second_build_of_a_checkout_is_refused_and_deletes_nothing(tmp_path):
    root = checkout(tmp_path, {"00_summary": simple()})
    with book._alone(find_checkout(root)):
        (root / "book" / "executed").mkdir()
        (root / "book" / "executed" / "of-the-first").write_text("")
        with pytest.raises(InputError, match=r"is being built already, .* wait for the other, or stop it"):
            book.build(root=root)
        assert (root / "book" / "executed" / "of-the-first").exists()


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    root = checkout(tmp_path, {"00_summary": simple()})
    (root / "book" / "executed").write_text("a file where a folder must be")
    with pytest.raises(InputError, match=r"executed.*cannot be written"):
        book.build(root=root)
