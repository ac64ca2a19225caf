"""What the commands share: options, JSON, and one sentence for a mistake."""

from __future__ import annotations

import json
import math
from typing import Any

import click

from wdlg.errors import InputError


class PoliteGroup(click.Group):
    """Turns a user's mistake into one sentence on standard error and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"wdlg: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("wdlg: stopped.", err=True)
            ctx.exit(130)


def option(*names: str, **settings: Any) -> Any:
    """A click option that shows its default if it has one."""
    return click.option(*names, **{"show_default": settings.get("default") is not None, **settings})


data_dir_option = option(
    "--data-dir",
    metavar="DIR",
    help="Folder of the sample files. Default: the environment variable WDLG_DATA, else your data folder.",
)
seed_option = option("--seed", type=int, default=0, metavar="S", help="Decides every random draw.")
json_option = option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


def json_text(value: Any) -> str:
    """JSON text; what is not a finite number becomes null."""

    def clean(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: clean(entry) for key, entry in part.items()}
        if isinstance(part, list):
            return [clean(entry) for entry in part]
        part = part.item() if hasattr(part, "item") else part
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(clean(value), indent=2, allow_nan=False)
