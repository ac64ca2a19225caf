"""Exercise notebooks, made from the chapters: the questions and what they start from, without the solutions.

A chapter ends with a section *Exercises*. There each question is an ``exercise`` directive in a cell of its
own, and its solution follows, either as a ``solution`` directive in one cell or as cells between
``solution-start`` and ``solution-end``. Code before the solution belongs to the question. In a solution,
code tagged ``check`` tests what the other code does: it stays in the exercise notebook, where it fails until
the exercise is solved.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HEADING = "## Exercises"

GRADES = ("Read the figure", "Explain", "Measure", "Implement it")
"""Titles of exercises, from the easiest on; a title may go on after a colon."""

_QUESTION = re.compile(r"^(`{3,})\{exercise\} (?P<title>.+)\n:label: \S+\n+(?P<text>[\s\S]+?)\n\1\s*$")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\([^)]+\)")


def section(chapter: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    """The cells of a chapter's exercises, each with its part: "question", "given", "solution" or "check"."""
    inside, solving = False, False
    for cell in chapter.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            inside = cell.source.startswith(HEADING)
            continue
        if not inside:
            continue
        if cell.cell_type == "markdown":
            start, end, whole = (
                f"{{{name}}}" in cell.source for name in ("solution-start", "solution-end", "solution")
            )
            solving = (solving or start) and not end
            yield ("solution" if solving or end or whole else "question"), cell
        elif not solving:
            yield "given", cell
        else:
            yield ("check" if "check" in cell.metadata.get("tags", ()) else "solution"), cell


def stub(source: str) -> str:
    """Code with the bodies of its functions and all other statements left out, for the reader to write.

    >>> print(stub("import math\\ndef area(radius):\\n    return math.pi * radius**2\\nprint(area(1))"))
    import math
    def area(radius):
        raise NotImplementedError("your turn")
    # Your turn.
    """
    lines = source.splitlines()
    kept: list[str] = []
    left_out = False
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            kept += lines[node.lineno - 1 : node.end_lineno]
        elif isinstance(node, ast.FunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            kept += lines[node.lineno - 1 : first.end_lineno if documented else first.lineno - 1]
            kept.append(" " * first.col_offset + 'raise NotImplementedError("your turn")')
        else:
            left_out = True
    if left_out:
        kept.append("# Your turn.")
    return "\n".join(kept)


def exercise_notebook(chapter: NotebookNode) -> NotebookNode | None:
    """The exercises of a chapter as a notebook without solutions; None if the chapter has none."""
    found = list(section(chapter))
    if not found:
        return None
    title = chapter.cells[0].source.splitlines()[0].removeprefix("# ")
    cells = [new_markdown_cell(f"# Exercises: {title}")]
    cells += [
        new_code_cell(cell.source) for cell in chapter.cells if "launch" in cell.metadata.get("tags", ())
    ]
    number = 0
    for part, cell in found:
        question = _QUESTION.match(cell.source)
        if part == "question" and question:
            number += 1
            text = _LINK.sub(r"\1", question["text"])
            cells.append(new_markdown_cell(f"## {number}. {question['title']}\n\n{text}"))
        elif part in {"given", "check"}:
            cells.append(new_code_cell(cell.source))
        elif part == "solution" and cell.cell_type == "code":
            cells.append(new_code_cell(stub(cell.source)))
        elif part == "solution" and "{solution}" in cell.source:
            cells.append(new_markdown_cell("*Your answer:*"))
    return new_notebook(cells=cells, metadata={"kernelspec": chapter.metadata.kernelspec})


def write_exercises(chapters: Path, folder: Path) -> None:
    """Write the exercise notebook of each chapter in a folder under its name into another one."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(chapters.glob("*.ipynb")):
        made = exercise_notebook(nbformat.read(path, as_version=4))
        if made is not None:
            nbformat.write(made, folder / path.name)
