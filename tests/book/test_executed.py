"""What becomes of a notebook that has run: its alternative texts quote numbers, its parameters hide alike."""

import nbformat
import pytest
from nbformat import v4
from stand_ins import simple

from wdlg.book.checkout import BookError
from wdlg.book.executed import finish


@pytest.mark.parametrize("tag", ["remove-cell", "hide-input", None])
def test_parameters_of_a_profile_are_shown_as_the_notebooks_own_are(tmp_path, tag):
    content = simple("1 + 1")
    content.cells[1].metadata["tags"] += [tag] if tag else []
    added = v4.new_code_cell("size = 2", metadata={"tags": ["injected-parameters"]})
    content.cells.insert(2, added)
    content.metadata["papermill"] = {"duration": 1.0}
    nbformat.write(content, tmp_path / "a.ipynb")
    finish(tmp_path / "a.ipynb", memory=7)
    cells = nbformat.read(tmp_path / "a.ipynb", as_version=4).cells
    (tags,) = (cell.metadata["tags"] for cell in cells if cell.source == added.source)
    assert set(tags) - {"injected-parameters"} == ({tag} if tag else set())


def glued(**values):
    """A code cell that has run, and what it glued."""
    cell = v4.new_code_cell("pages.say()")
    for name, value in values.items():
        kind = "application/papermill.record/"
        data = {f"{kind}text/plain": repr(value)}
        scrapbook = {"name": name, "mime_prefix": kind}
        cell.outputs.append(v4.new_output("display_data", data, metadata={"scrapbook": scrapbook}))
    return cell


def test_numbers_stand_in_an_alternative_text_as_in_the_prose(tmp_path):
    content = simple("figure", "rest")
    image = {"alt": "Two curves meet at {glue:text}`here` of {glue:text}`all`."}
    content.cells[2].metadata["mystnb"] = {"image": image}
    content.cells.append(glued(here="1e-3", all=7))
    content.metadata["papermill"] = {"duration": 1.0}
    nbformat.write(content, tmp_path / "a.ipynb")
    finish(tmp_path / "a.ipynb", memory=7)
    alts = [
        cell.metadata["mystnb"]["image"]["alt"]
        for cell in nbformat.read(tmp_path / "a.ipynb", as_version=4).cells
        if "mystnb" in cell.metadata
    ]
    assert alts == ["Two curves meet at 1e-3 of 7."]


def test_what_a_figure_tells_of_itself_follows_its_alternative_text(tmp_path):
    content = simple("figure", "rest")
    content.cells[2].metadata["mystnb"] = {"image": {"alt": "A curve."}}
    content.metadata["papermill"] = {"duration": 1.0}
    picture = v4.new_output(
        "display_data", data={"image/png": ""}, metadata={"image/png": {"told": "It falls from 1 to 0.5."}}
    )
    content.cells[2].outputs = [picture]
    nbformat.write(content, tmp_path / "a.ipynb")
    finish(tmp_path / "a.ipynb", memory=7)
    [alt] = [
        cell.metadata["mystnb"]["image"]["alt"]
        for cell in nbformat.read(tmp_path / "a.ipynb", as_version=4).cells
        if "mystnb" in cell.metadata
    ]
    assert alt == "A curve. It falls from 1 to 0.5."


def test_an_alternative_text_that_quotes_nothing_stops_the_build(tmp_path):
    content = simple("figure")
    content.cells[2].metadata["mystnb"] = {"image": {"alt": "A curve at {glue:text}`nowhere`."}}
    nbformat.write(content, tmp_path / "a.ipynb")
    with pytest.raises(BookError, match="notebook a quotes 'nowhere' in an alternative text"):
        finish(tmp_path / "a.ipynb", memory=7)
