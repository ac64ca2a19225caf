"""What becomes of a notebook once it has run: checked, told from, and made one that readers can download."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wdlg.book.checkout import BookError
from wdlg.book.pages import MISSING

ADDED = {"injected-parameters", "papermill-error-cell-tag", "times"}
"""Tags of the cells that a build adds, and that a count of the source's cells leaves out."""

WORDS_A_MINUTE = 200
"""How fast text with mathematics is read: a round number for adults, who read plain text at 240 or so."""

HIDING = {"hide-cell", "hide-input", "remove-cell", "remove-input"}
"""Tags that say how much of a cell a page shows."""

_QUOTED = re.compile(r"\{glue:text\}`([^`]+)`")


def _outputs(notebook: Path) -> Iterator[tuple[int, Any]]:
    """Every output of a notebook's code cells, with the cell's number (from 1, as counted in its source)."""
    import nbformat

    if not notebook.exists():
        return
    cells = nbformat.read(notebook, as_version=4).cells
    own = [cell for cell in cells if not ADDED & set(cell.metadata.get("tags", ()))]
    for number, cell in enumerate(own, start=1):
        for output in cell.get("outputs", []):
            yield number, output


def failure(notebook: Path) -> str | None:
    """Notebook, cell and error of a failed execution; None if the notebook shows none."""
    for number, output in _outputs(notebook):
        if output.output_type == "error":
            return f"notebook {notebook.stem} failed in cell {number}: {output.ename}: {output.evalue}"
    return None


def finish(notebook: Path, memory: int) -> None:
    """Check that each figure is a picture, and make the notebook one that readers can download.

    What an alternative text quotes, as ``{glue:text}`name```, stands in it as a number: a page reads it as it
    is. What the figure itself tells of what it drew (``wdlg.figures.Picture.told``) follows after it. The
    parameters that papermill adds are shown if the notebook shows its own, no folder of this machine is left
    in the file, and below the title stands how long the page takes. The status page finds the peak memory, in
    bytes, beside what papermill has recorded.

    Raises:
        BookError: a cell with a caption shows no picture, or an alternative text quotes what is not there.
    """
    import nbformat

    content = nbformat.read(notebook, as_version=4)
    numbers = _glued(content)
    for cell in content.cells:
        image = cell.metadata.get("mystnb", {}).get("image", {})
        if "alt" in image:
            try:
                image["alt"] = _QUOTED.sub(lambda quoted: numbers[quoted[1]], image["alt"])
            except KeyError as name:
                raise BookError(
                    f"notebook {notebook.stem} quotes {name} in an alternative text, but glues nothing of "
                    "that name."
                ) from None
            image["alt"] = " ".join([image["alt"], *_told(cell)])
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption")
        if caption and not any("image/png" in output.get("data", {}) for output in cell.outputs):
            raise BookError(f"notebook {notebook.stem} shows no picture above the caption {caption!r}.")
    by_tag = {tag: cell for cell in content.cells for tag in cell.metadata.get("tags", ())}
    if "injected-parameters" in by_tag:
        shown_as = HIDING & set(by_tag["parameters"].metadata["tags"])
        by_tag["injected-parameters"].metadata["tags"] += sorted(shown_as)
    for path in ("input_path", "output_path"):
        content.metadata.papermill.pop(path, None)
    content.metadata["peak_memory"] = memory
    content.cells.insert(1, nbformat.v4.new_markdown_cell(_times(content), metadata={"tags": ["times"]}))
    nbformat.write(content, notebook)


def _glued(notebook: Any) -> dict[str, str]:
    """Texts that the prose of an executed notebook quotes, by name."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return {
        output.metadata["scrapbook"]["name"]: text.strip("'\"")
        for output in outputs
        if "scrapbook" in output.get("metadata", {})
        for kind, text in output.data.items()
        if kind.endswith("text/plain")
    }


def _told(cell: Any) -> Iterator[str]:
    """What the pictures of an executed cell tell of themselves."""
    for output in cell.get("outputs", []):
        told = output.get("metadata", {}).get("image/png", {}).get("told")
        if told:
            yield told


def _times(notebook: Any) -> str:
    """How long an executed notebook takes to read, counted in words, and took to run."""
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    minutes, seconds = math.ceil(words / WORDS_A_MINUTE), round(notebook.metadata.papermill.duration)
    return f"*About {minutes} min to read; ran in {seconds} s.*"


def missing(notebook: Path) -> list[str]:
    """What a notebook reported as missing."""
    return [
        line
        for _, output in _outputs(notebook)
        if output.output_type == "stream"
        for line in output.text.splitlines()
        if line.startswith(MISSING)
    ]
