"""Exercise notebooks, made from the chapters: the questions and what they start from, without the solutions.

A chapter ends with a section *Exercises*. There each question is an ``exercise`` directive in a cell of its
own, and its solution follows, either as a ``solution`` directive in one cell or as cells between
``solution-start`` and ``solution-end``. Code before the solution belongs to the question. In a solution,
code tagged ``check`` tests what the other code does: it stays in the exercise notebook, where it fails until
the exercise is solved, and then says the ``hint`` of its metadata. Code tagged ``remove-cell`` is the page's
alone. The cell of a question may name ``figures`` in its metadata: their pictures stand below the question.

A plain notebook knows none of the book's roles and directives, so a question has none, but for terms of the
glossary, which become their words.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from wdlg.errors import InputError

HEADING = "## Exercises"

GRADES = ("Read the figure", "Explain", "Measure", "Implement it")
"""Titles of exercises, from the easiest on; a title may go on after a colon."""

_QUESTION = re.compile(
    r"^(`{3,})\{exercise\} (?P<title>.+)\n:label: (?P<label>\S+)\n+(?P<text>[\s\S]+?)\n\1\s*$"
)
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]+\)")
_TERM = re.compile(r"\{term\}`([^`<]+?)(?:\s*<[^>`]*>)?`")
_ROLE = re.compile(r"\{[\w:+-]+\}(?=`)|(?:`{3,}|:{3,})\{[\w:+-]+\}")


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
        elif "remove-cell" in cell.metadata.get("tags", ()):
            continue
        elif not solving:
            yield "given", cell
        else:
            yield ("check" if "check" in cell.metadata.get("tags", ()) else "solution"), cell


def stub(source: str) -> str:
    """Code with the bodies of its functions and all other statements left out, for the reader to write.

    Imports stay, and of a function its decorators, its signature and its docstring.

    >>> print(stub("import math\\ndef area(radius):\\n    return math.pi * radius**2\\nprint(area(1))"))
    import math
    <BLANKLINE>
    <BLANKLINE>
    def area(radius):
        raise NotImplementedError("your turn")
    <BLANKLINE>
    <BLANKLINE>
    # Your turn.
    """
    lines = source.splitlines()
    imports: list[str] = []
    blocks: list[str] = []
    left_out = False
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports += lines[node.lineno - 1 : node.end_lineno]
        elif isinstance(node, ast.FunctionDef):
            blocks.append(_unwritten(node, lines))
        else:
            left_out = True
    if imports:
        blocks.insert(0, "\n".join(imports))
    if left_out:
        blocks.append("# Your turn.")
    return "\n\n\n".join(blocks)


def _unwritten(function: ast.FunctionDef, lines: list[str]) -> str:
    """A function without its body."""
    top = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    first = function.body[0]
    before = lines[first.lineno - 1][: first.col_offset].rstrip()
    if before:  # the body begins on the line where the signature ends
        head = [*lines[top - 1 : first.lineno - 1], before]
        indent = "    "
    else:
        # A comment above the body may give it away.
        head = [line for line in lines[top - 1 : first.lineno - 1] if not line.lstrip().startswith("#")]
        indent = " " * first.col_offset
        if ast.get_docstring(function) is not None:
            head += lines[first.lineno - 1 : first.end_lineno]
    return "\n".join([*head, indent + 'raise NotImplementedError("your turn")'])


def question(source: str) -> tuple[str, str, str]:
    """Title, label and text of an exercise, the text in words that any notebook shows.

    Raises:
        InputError: the cell is no exercise that can be read, or uses a role or directive of the book.
    """
    found = _QUESTION.match(source)
    if found is None:
        raise InputError(
            f"an exercise starts with {source.splitlines()[0]!r}, but must be one fenced directive "
            "```{exercise} TITLE with a label."
        )
    text = _TERM.sub(r"\1", _LINK.sub(r"\1", found["text"]))
    role = _ROLE.search(text)
    if role:
        raise InputError(
            f"the exercise {found['label']} uses {role.group()}, but must say it in words: a plain notebook "
            "does not know it."
        )
    return found["title"], found["label"], text


def hinting(check: str, hint: str) -> str:
    """A check that says a hint where it fails, and no more of the answer.

    >>> print(hinting("assert answer == 2", "Count again."))
    try:
        assert answer == 2
    except Exception as problem:
        raise AssertionError("Not yet. Count again.") from problem
    """
    body = textwrap.indent(check, "    ", lambda line: bool(line.strip()))
    said = json.dumps(f"Not yet. {hint}", ensure_ascii=False)
    return f"try:\n{body}\nexcept Exception as problem:\n    raise AssertionError({said}) from problem"


def pictures(executed: NotebookNode) -> dict[str, str]:
    """The figures of an executed chapter by name, as PNG in base64."""
    found = {}
    for cell in executed.cells:
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        for output in cell.get("outputs", []):
            if name and "image/png" in output.get("data", {}):
                found[name] = output.data["image/png"]
    return found


def exercise_notebook(chapter: NotebookNode, figures: Mapping[str, str] | None = None) -> NotebookNode | None:
    """The exercises of a chapter as a notebook without solutions; None if the chapter has none.

    Args:
        chapter: its source.
        figures: pictures by name, see :func:`pictures`; None where the chapter has not been executed.

    Raises:
        InputError: see :func:`question`.
    """
    found = list(section(chapter))
    if not found:
        return None
    title = chapter.cells[0].source.splitlines()[0].removeprefix("# ")
    cells = [
        new_markdown_cell(
            f"# Exercises: {title}\n\nMade from the chapter of this name, which has the solutions. A cell "
            "with `assert` checks your answer: run it when you think that you are done. Where it fails, its "
            "last line is a hint.",
            id="title",
        )
    ]
    cells += [
        new_code_cell(cell.source, id=cell.id)
        for cell in chapter.cells
        if "launch" in cell.metadata.get("tags", ())
    ]
    number = 0
    for part, cell in found:
        if part == "question" and "{exercise}" in cell.source:
            number += 1
            heading, _, text = question(cell.source)
            asked = new_markdown_cell(f"## {number}. {heading}\n\n{text}", id=cell.id)
            for name in cell.metadata.get("figures", ()):
                if figures and name in figures:
                    asked.setdefault("attachments", {})[f"{name}.png"] = {"image/png": figures[name]}
                    asked.source += f"\n\n![{name}](attachment:{name}.png)"
            cells.append(asked)
        elif part == "check" and "hint" in cell.metadata:
            cells.append(new_code_cell(hinting(cell.source, cell.metadata["hint"]), id=cell.id))
        elif part in {"given", "check"}:
            cells.append(new_code_cell(cell.source, id=cell.id))
        elif part == "solution" and cell.cell_type == "code":
            cells.append(new_code_cell(stub(cell.source), id=cell.id))
        elif part == "solution" and "{solution}" in cell.source:
            cells.append(new_markdown_cell("*Your answer:*", id=cell.id))
    return new_notebook(cells=cells, metadata={"kernelspec": chapter.metadata.kernelspec})


def write_exercises(chapters: Path, folder: Path, executed: Path | None = None) -> None:
    """Write the exercise notebook of each chapter in a folder under its name into another one.

    With a folder of the same chapters executed, questions have the figures that they speak of. Beside them
    stands ``list.md``, which the page for teachers includes: a link to download each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for path in sorted(chapters.glob("*.ipynb")):
        there = executed is not None and (executed / path.name).exists()
        found = pictures(nbformat.read(executed / path.name, as_version=4)) if executed and there else None
        made = exercise_notebook(nbformat.read(path, as_version=4), found)
        if made is not None:
            nbformat.write(made, folder / path.name)
            title = made.cells[0].source.splitlines()[0].removeprefix("# Exercises: ")
            lines.append(f"- {{download}}`{title} <../{folder.name}/{path.name}>`\n")
    (folder / "list.md").write_text("".join(lines), encoding="utf-8")


def take_out_solutions(chapters: Path, folder: Path) -> None:
    """Move the solutions of executed chapters out of their pages, so that exercises can be graded.

    Each chapter with exercises loses its solutions and checks; its exercises, with both and with what they
    printed, are written under its name into another folder.

    Args:
        chapters: folder of executed notebooks, which are changed.
        folder: of the solutions; made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(chapters.glob("*.ipynb")):
        chapter = nbformat.read(path, as_version=4)
        found = list(section(chapter))
        if not found:
            continue
        title = new_markdown_cell(
            f"# Solutions: {chapter.cells[0].source.splitlines()[0].removeprefix('# ')}"
        )
        whole = new_notebook(cells=[title, *(cell for _, cell in found)], metadata=chapter.metadata)
        nbformat.write(whole, folder / path.name)
        taken = {cell.id for part, cell in found if part in {"solution", "check"}}
        chapter.cells = [cell for cell in chapter.cells if cell.id not in taken]
        nbformat.write(chapter, path)
