"""Small checkouts of a book: stand-in notebooks, and everything else from the repository."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml
from nbformat import v4

REPOSITORY = Path(__file__).parents[2]

COMMAND = [sys.executable, "-c", "from wdlg.cli import main; main(prog_name='wdlg')", "book"]


def notebook(*cells, parameters="results_dir = 'results'"):
    """A notebook of (kind, source[, metadata]) cells behind a parameters cell."""
    make = {"text": v4.new_markdown_cell, "code": v4.new_code_cell}
    first = v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    title, *rest = [make[kind](source, metadata=dict(*metadata)) for kind, source, *metadata in cells]
    return v4.new_notebook(
        cells=[title, first, *rest],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )


def checkout(root, notebooks, profile=None):
    """A small checkout: stand-in notebooks, everything else from the repository."""
    (root / "notebooks" / "profiles").mkdir(parents=True)
    (root / "notebooks" / "profiles" / "quick.yaml").write_text(yaml.safe_dump(profile or {}))
    for name, content in notebooks.items():
        nbformat.write(content, root / "notebooks" / f"{name}.ipynb")
    shutil.copy(REPOSITORY / "_config.yml", root)
    shutil.copytree(REPOSITORY / "book" / "_static", root / "book" / "_static")
    for name in ("references.bib", "references.md"):
        shutil.copy(REPOSITORY / "book" / name, root / "book")
    front, *chapters = sorted(notebooks)
    toc = {
        "format": "jb-book",
        "root": f"notebooks/{front}",
        "chapters": [{"file": f"notebooks/{name}"} for name in chapters] + [{"file": "book/references"}],
    }
    (root / "_toc.yml").write_text(yaml.safe_dump(toc))
    return root


def simple(*code):
    """A notebook with a title and code cells."""
    return notebook(("text", "# Title"), *(("code", source) for source in code))


def wdlg_book(root, *arguments):
    """Run the command as a reader does."""
    command = [*COMMAND, *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=300)
