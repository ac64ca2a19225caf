"""Verdicts as cards: claim, verdict, one number, and where to read why. They stack on a phone."""

from __future__ import annotations

import html
from collections.abc import Sequence

from wdlg.verdicts.claims import FAILED
from wdlg.verdicts.ledger import Entry


class Cards:
    """A list of verdicts, shown by a notebook as HTML.

    Args:
        entries: of a ledger.
        folder: of the page that shows them, as in the names of figures ("notebooks").
    """

    def __init__(self, entries: Sequence[Entry], *, folder: str = "notebooks") -> None:
        self.entries = list(entries)
        self.folder = folder

    def _repr_html_(self) -> str:
        return f'<ul class="wdlg-cards">{"".join(map(self._card, self.entries))}</ul>'

    def __repr__(self) -> str:
        return "\n".join(f"{entry.claim} {entry.result.verdict}." for entry in self.entries)

    def _card(self, entry: Entry) -> str:
        result = entry.result
        number = f"<strong>{html.escape(result.headline)}</strong> " if result.headline else ""
        # Where a claim failed, the number says by how much, as its condition does.
        told = bool(number) and result.verdict == FAILED
        condition = "" if told or not result.condition else f"<p>{html.escape(result.condition)}</p>"
        folder, _, page = entry.figure.rpartition("/")
        address = f"{page}.html" if folder == self.folder else f"../{entry.figure}.html"
        return (
            f'<li class="wdlg-card" data-verdict="{html.escape(result.verdict)}">'
            f"<p>{html.escape(entry.claim)}</p>"
            f'<p class="wdlg-verdict">{html.escape(result.verdict)}</p>{condition}'
            f'<p>{number}<a href="{address}" aria-label="Why: {html.escape(entry.claim)}">Why</a></p></li>'
        )
