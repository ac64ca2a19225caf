"""The `wdlg` command: thin, and polite about mistakes."""

from __future__ import annotations

import click

from wdlg import __version__
from wdlg.cli.attack import attack, labels
from wdlg.cli.audit import audit
from wdlg.cli.book import book_command, pdf_command, slides_command
from wdlg.cli.data import data_group
from wdlg.cli.limits import limits
from wdlg.cli.options import PoliteGroup
from wdlg.cli.study import study_group


@click.group(
    cls=PoliteGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="wdlg")
def main() -> None:
    """Deep leakage from gradients: recover a private image and its label from a shared gradient.

    A participant of distributed training shares the gradient of a network's loss for one private image.
    These commands play the attacker who sees that gradient.
    """


for command in (
    attack,
    labels,
    limits,
    audit,
    data_group,
    study_group,
    book_command,
    slides_command,
    pdf_command,
):
    main.add_command(command)
