"""`wdlg data`: the data sets, and sample files of them."""

from __future__ import annotations

import sys
from typing import Any

import click

from wdlg.cli.options import data_dir_option, json_option, json_text, option
from wdlg.errors import require_choice


@click.group("data")
def data_group() -> None:
    """List the data sets, or make sample files from the official downloads."""


@data_group.command("list")
@data_dir_option
@json_option
def data_list(data_dir: str | None, as_json: bool) -> None:
    """Show which data sets are there and which are missing."""
    from wdlg import data

    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "title": entry.title,
            "shape": list(entry.shape),
            "classes": entry.num_classes,
            "present": data.is_present(entry.name, data_dir),
            "embedded": entry.embedded,
            "licence": entry.licence,
            "source": entry.source,
        }
        for entry in data.CATALOGUE.values()
    ]
    if as_json:
        click.echo(json_text({"data_dir": str(data.data_dir(data_dir)), "datasets": rows}))
        return
    for row in rows:
        state = "embedded" if row["embedded"] else "present" if row["present"] else "missing"
        shape = "x".join(map(str, row["shape"]))
        click.echo(f"{row['name']:<14} {state:<9} {shape:<8} {row['classes']:>5} classes  {row['title']}")
    click.echo(f"Sample files are read from {data.data_dir(data_dir)}.")
    missing = [row["name"] for row in rows if not row["present"]]
    if missing:
        click.echo(f"Make the missing ones with: wdlg data fetch {' '.join(missing)}")


@data_group.command("fetch")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@option("--images", type=int, default=1000, metavar="N", help="Images in each sample, drawn by class.")
@option("--seed", type=int, default=20230101, metavar="S", help="Decides the draw.")
@data_dir_option
def data_fetch(names: tuple[str, ...], images: int, seed: int, data_dir: str | None) -> None:
    """Download data sets and make their sample files; without a NAME, all five of the paper."""
    from wdlg import data

    for name in names:
        require_choice("NAME", name, data.PAPER)
    for name in names or data.PAPER:
        path = data.fetch(name, data_dir, images=images, seed=seed, progress=sys.stderr.isatty())
        click.echo(f"{name}: {path}")
