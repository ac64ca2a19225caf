"""`wdlg data`: the data sets, and sample files of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from wdlg.cli.options import MISTAKE, complain, data_dir_option, json_option, json_text, option
from wdlg.errors import InputError, require_choice, require_count


@click.group("data")
def data_group() -> None:
    """List the data sets, or make sample files from the official downloads."""


@data_group.command("list")
@data_dir_option
@json_option
def data_list(data_dir: str | None, as_json: bool) -> None:
    """Show which data sets are there, which are missing, and whose sample file cannot be read."""
    from wdlg import data

    folder = data.data_dir(data_dir)
    rows = [
        {
            "name": entry.name,
            "title": entry.title,
            "shape": list(entry.shape),
            "classes": entry.num_classes,
            **_state(entry.name, folder),
            "embedded": entry.embedded,
            "licence": entry.licence,
            "source": entry.source,
        }
        for entry in data.CATALOGUE.values()
    ]
    if as_json:
        click.echo(json_text({"data_dir": str(folder), "datasets": rows}))
        return
    for row in rows:
        there = "embedded" if row["embedded"] else "present" if row["present"] else "missing"
        state = "unreadable" if row["problem"] else there
        shape = "x".join(map(str, row["shape"]))
        click.echo(f"{row['name']:<14} {state:<10} {shape:<8} {row['classes']:>5} classes  {row['title']}")
    click.echo(f"Sample files are read from {folder}.")
    for row in rows:
        if row["problem"]:
            click.echo(row["problem"])
    if wanted := [row["name"] for row in rows if not row["present"]]:
        click.echo(f"Make those that are not there with: wdlg data fetch {' '.join(wanted)}")


def _state(name: str, folder: Path) -> dict[str, Any]:
    """Whether a data set is present, and what is wrong with its sample file, if that is there."""
    from wdlg import data

    try:
        return {"present": data.is_present(name, folder), "problem": None}
    except InputError as error:
        return {"present": False, "problem": str(error)}


@data_group.command("fetch")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@option("--images", type=int, default=1000, metavar="N", help="Images in each sample, drawn by class.")
@option("--seed", type=int, default=20230101, metavar="S", help="Decides the draw.")
@data_dir_option
def data_fetch(names: tuple[str, ...], images: int, seed: int, data_dir: str | None) -> None:
    """Download data sets and make their sample files; without a NAME, all five of the paper.

    One that fails is reported, the others are fetched all the same, and the exit code is 2.
    """
    from wdlg import data

    for name in names:
        require_choice("NAME", name, data.FETCHED)
    require_count("--images", images)
    require_count("--seed", seed, at_least=0)
    folder = data.data_dir(data_dir)
    failures = 0
    for name in dict.fromkeys(names or data.PAPER):
        try:
            path = data.fetch(name, folder, images=images, seed=seed, progress=sys.stderr.isatty())
            click.echo(f"{name}: {path}")
        except InputError as error:
            complain(error)
            failures += 1
    if failures:
        sys.exit(MISTAKE)
