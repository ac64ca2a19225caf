"""Verdicts as cards: all that a reader needs, whatever the texts hold."""

from dataclasses import replace

import pytest
from bs4 import BeautifulSoup

from wdlg.book.cards import Cards
from wdlg.verdicts.claims import CONDITION, FAILED, UNDECIDED, VERDICTS
from wdlg.verdicts.ledger import ledger
from wdlg.verdicts.result import Records, Result

ENTRY = replace(ledger(Records(), command="")[0], claim="A < B & C")


def shown(verdict, *, condition="", headline="", figure="notebooks/04_4_ledger"):
    entry = replace(ENTRY, result=Result(verdict, "", condition, headline=headline), figure=figure)
    return BeautifulSoup(Cards([entry])._repr_html_(), "html.parser").li


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_card_has_claim_verdict_number_and_where_to_read_why(verdict):
    card = shown(verdict, headline="3 < 4")
    assert card["data-verdict"] == card.select_one(".wdlg-verdict").get_text() == verdict
    assert "A < B & C" in card.get_text()
    assert card.strong.get_text() == "3 < 4"
    assert card.a["href"] == "04_4_ledger.html"
    assert card.a["aria-label"] == "Why: A < B & C"


def test_a_condition_stands_on_the_card_and_a_failure_says_its_number_once():
    assert "on LFW" in shown(CONDITION, condition="on LFW", headline="1").get_text()
    assert "too few" in shown(UNDECIDED, condition="too few").get_text()
    assert shown(UNDECIDED, condition="too few").strong is None
    assert "worse in 2" not in shown(FAILED, condition="worse in 2", headline="better in 0").get_text()
    assert "worse in 2" in shown(FAILED, condition="worse in 2").get_text()


def test_a_page_in_another_folder_is_found():
    assert shown(FAILED, figure="book/data").a["href"] == "../book/data.html"


def test_without_html_a_list_of_verdicts_is_there():
    assert repr(Cards([ENTRY])) == f"A < B & C {ENTRY.result.verdict}."
