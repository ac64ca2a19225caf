"""The tests of the claims on other networks, under other optimisers and for other readings."""

import numpy as np
import pandas as pd
import pytest
from test_ledger import attacks
from test_readings_map import CONTENT

from wdlg.study.specification import from_mapping
from wdlg.verdicts.claims import CONDITION, UNDECIDED, rules
from wdlg.verdicts.elsewhere import OURS, as_table, in_words, variants
from wdlg.verdicts.ledger import beside, ledger
from wdlg.verdicts.measures import MEASURES
from wdlg.verdicts.readings import OPPONENT
from wdlg.verdicts.result import Records

READING = "rows, exact"


def study(optimizers=None):
    """A study with one part, of the squared distance and a reading, in the five data sets of the paper.

    Args:
        optimizers: by method, where each has its own.
    """
    part = {**CONTENT["parts"]["relu"], "datasets": rules()["datasets"], "attacks": [OPPONENT, READING]}
    part["learning_rates"] = {OPPONENT: 0.1, READING: 0.3}
    if optimizers:
        del part["optimizer"]
        part["optimizers"] = {name: {"name": one} for name, one in optimizers.items()}
    return from_mapping(
        CONTENT
        | {
            "attacks": {
                OPPONENT: {"label_rule": "bias_sign"},
                READING: {"label_rule": "bias_sign", "loss": {"name": "wasserstein", "eps": 0}},
            },
            "parts": {"relu": part},
        }
    )


class Stored:
    """In the place of a store: records in which some methods recover everything and others nothing."""

    def __init__(self, good=(), bad=()):
        self.table = attacks(dict.fromkeys(good, 0.001) | dict.fromkeys(bad, 1.0))

    def read_all(self, cells):
        return self.table


def stored(good, bad):
    return Stored([good], [bad])


def judged(good, bad, claim="higher-success"):
    entries = ledger(Records(), command="", others=variants(study(), stored(good, bad)))
    return next(entry for entry in entries if entry.id == claim)


@pytest.mark.parametrize(("good", "bad", "gain"), [(READING, OPPONENT, 1.0), (OPPONENT, READING, -1.0)])
def test_a_reading_takes_the_place_of_wdlg_in_the_test_of_a_claim(good, bad, gain):
    entry = judged(good, bad)
    assert entry.result.verdict == UNDECIDED  # of no records: the main verdict stays what it was
    [one] = entry.by
    assert (one.variant.network, one.variant.optimizer, one.variant.reading) == (
        "relu, torch",
        "Adam",
        READING,
    )
    shown = entry.as_json()["by"][0]
    assert {"network", "optimizer", "reading", "verdict", "numbers"} <= set(shown)
    assert shown["numbers"]["mnist/iDLG"]["mean"] == gain
    # DLG was not run: of it nothing is said, and so nothing is decided for good.
    assert shown["verdict"] in (CONDITION, UNDECIDED)
    assert "not measured on" in shown["condition"]
    assert "mnist/DLG" not in shown["numbers"]


def test_what_the_test_says_elsewhere_is_what_its_measure_says_of_renamed_records():
    table = stored(READING, OPPONENT).read_all(study().cells)
    table["method"] = table["method"].replace({READING: "WDLG", **OURS})
    [claim] = [claim for claim in rules()["claims"] if claim["id"] == "higher-success"]
    alone = MEASURES[claim["measure"]](Records(attacks=table), **claim["settings"])
    [one] = judged(READING, OPPONENT).by
    assert (one.result.verdict, one.result.condition) == (alone.verdict, alone.condition)
    assert one.result.summary == alone.summary


@pytest.mark.parametrize("claim", ["faster", "order"])
def test_iterations_of_several_optimisers_decide_nothing(claim):
    planned = study({OPPONENT: "adam", READING: "lbfgs"})
    entries = ledger(Records(), command="", others=variants(planned, stored(READING, OPPONENT)))
    [one] = next(entry for entry in entries if entry.id == claim).by
    assert one.variant.against == ("Adam",)
    assert one.result.verdict == UNDECIDED
    assert "under Adam" in one.result.condition
    [success] = next(entry for entry in entries if entry.id == "higher-success").by
    assert success.result == judged(READING, OPPONENT).by[0].result
    [alike] = judged(READING, OPPONENT, claim).by  # one optimiser for all
    assert alike.variant.against == ()
    assert "mnist/iDLG" in alike.result.numbers or "iDLG" in alike.result.summary


def test_claims_about_the_loss_alone_are_judged_elsewhere():
    entries = ledger(Records(), command="", others=variants(study(), stored(READING, OPPONENT)))
    about = {entry.id for entry in entries if entry.by}
    assert about == {claim["id"] for claim in rules()["claims"] if claim.get("elsewhere")}
    assert {"higher-success", "lower-mse", "faster", "stable-updates"} < about
    assert not about & {"label-accuracy", "large-rates", "strongest-loss"}


def test_no_variant_without_an_opponent_a_reading_or_records():
    assert variants(study(), Stored()) == []
    none = from_mapping(
        CONTENT
        | {
            "parts": {
                "one": {**CONTENT["parts"]["relu"], "attacks": [OPPONENT], "learning_rates": {OPPONENT: 0.1}}
            }
        }
    )
    assert variants(none, stored(READING, OPPONENT)) == []
    content = {name: value for name, value in CONTENT.items() if name != "parts"}
    reading = {READING: {"label_rule": "bias_sign", "loss": {"name": "wasserstein", "eps": 0}}}
    part = {**CONTENT["parts"]["relu"], "attacks": [READING], "learning_rates": {READING: 0.3}}
    alone = from_mapping(content | {"attacks": reading, "parts": {"one": part}})
    assert variants(alone, stored(READING, OPPONENT)) == []


def test_a_table_and_words_say_the_same():
    entry = judged(READING, OPPONENT)
    shown = as_table([(entry.claim, entry.by)])
    assert isinstance(shown, pd.DataFrame)
    assert shown["Readings"].tolist() == [READING]
    assert shown["Verdict"].iloc[0].startswith(entry.by[0].result.verdict)
    twice = as_table([(entry.claim, [*entry.by, *entry.by])])  # one row a verdict, with all readings of it
    assert twice["Readings"].tolist() == [f"{READING}; {READING}"]
    assert in_words(entry.by) == f"{entry.by[0].result.verdict} in 1 of 1 variants"
    assert in_words([]) == "not measured elsewhere"
    assert np.array_equal(as_table([]).columns, shown.columns)


def test_studies_beside_the_paper_are_those_with_records():
    assert {study.name for study, _ in beside("paper")} <= {"map", "networks"}
    assert beside("quick") == []
