"""`wdlg book`, `wdlg slides` and `wdlg pdf`: make the book."""

from __future__ import annotations

import sys

import click

from wdlg.cli.options import data_dir_option, option
from wdlg.interruption import exit_code_of_request


@click.command("book")
@option(
    "--profile",
    metavar="quick|paper",
    default="quick",
    help="quick computes everything on embedded images; paper uses the five data sets of the paper.",
)
@option("--jobs", type=int, metavar="N", help="Notebooks that run side by side.  [default: the cores]")
@option(
    "--solutions", metavar="DIR", help="Leave the exercises' solutions out of the pages; write them here."
)
@data_dir_option
def book_command(profile: str, jobs: int | None, solutions: str | None, data_dir: str | None) -> None:
    """Execute the notebooks and build the book. Run it in a checkout of the repository."""
    from wdlg.book.build import BookError, build

    try:
        with exit_code_of_request():
            build(profile, data_dir=data_dir, jobs=jobs, solutions=solutions)
    except BookError as error:
        click.echo(f"wdlg: {error}", err=True)
        sys.exit(1)


@click.command("slides")
def slides_command() -> None:
    """Make the slides of the lectures in book/slides again, from the pages of the last `wdlg book`."""
    from wdlg.book.build import slides

    for path in slides():
        click.echo(path)


@click.command("pdf")
def pdf_command() -> None:
    """Print the built book into one PDF, book/_build/wdlg.pdf. Needs `wdlg book` first, and a Chromium."""
    from wdlg.book import pdf
    from wdlg.book.build import BookError

    try:
        pdf.make()
    except BookError as error:
        click.echo(f"wdlg: {error}", err=True)
        sys.exit(1)
