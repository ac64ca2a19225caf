"""An audit agrees with honest records, on attacks computed alone, and finds those that were changed."""

import dataclasses
import math

import numpy as np
import pytest
from small_study import CONTENT, small_study

from wdlg import data
from wdlg.errors import InputError
from wdlg.evaluation import EXPLOSION
from wdlg.study import audit as auditing
from wdlg.study.audit import Finding, audit, compare
from wdlg.study.runner import compute, run
from wdlg.study.store import State, Store


@pytest.fixture(scope="module")
def study():
    """Gradient descent at a small rate: rounding is not amplified, so honest records must agree."""
    attacks = {
        name: {**settings, "optimizer": {"name": "gradient_descent", "learning_rate": 0.05}}
        for name, settings in CONTENT["attacks"].items()
    }
    return small_study(attacks=attacks)


@pytest.fixture(scope="module")
def filled(tmp_path_factory, study):
    store = Store(tmp_path_factory.mktemp("filled"))
    run(study, store, processes=1)
    return store


def test_honest_records_agree(study, filled):
    report = audit(study, filled, attacks=8, seed=0)
    assert report.passed
    assert [finding.verdict for finding in report.findings] == ["agrees"] * 8
    assert len({finding.attack for finding in report.findings}) == 8


def test_the_seed_decides_the_draw(study, filled):
    names = [
        {finding.attack for finding in audit(study, filled, attacks=3, seed=seed).findings}
        for seed in (0, 0, 1)
    ]
    assert names[0] == names[1]
    assert names[0] != names[2]


def tamper_label(records):
    records.loc[0, "label_recovered"] = 1 - min(1, records.loc[0, "label_recovered"])


def tamper_mse(records):
    records.loc[0, "mse"] = 1e-5


def tamper_mse_and_trace(records):
    records.loc[0, "mse"] = 1e-5
    for name in ("trace_mse", "trace_loss"):
        records.at[0, name] = records.at[0, name] / 3
    records.loc[0, "loss"] /= 3


def tamper_evaluations(records):
    records.loc[0, "evaluations"] = 7


def tamper_success(records):
    records.loc[0, "below_0.01"] = ~records.loc[0, "below_0.01"]


def tamper_image(records):
    records.loc[0, "image"] += 1


@pytest.mark.parametrize(
    "tamper",
    [tamper_label, tamper_mse, tamper_mse_and_trace, tamper_evaluations, tamper_success, tamper_image],
)
def test_a_changed_record_is_found_even_with_a_new_digest(study, filled, tmp_path, tamper):
    cell = study.part("main")[0]
    records = compute(cell, data.load("digits"))
    tamper(records)
    store = Store(tmp_path)
    store.write(cell, records, wall_seconds=1.0, sample=data.load("digits").digest())
    assert store.state(cell) is State.DONE  # its digest is right
    report = audit(study, store, attacks=2, seed=0)
    assert not report.passed
    assert "differs" in {finding.verdict for finding in report.findings}


def test_a_file_that_does_not_fit_its_digest_fails_the_audit(study, filled, tmp_path):
    good, bad = study.part("main")[:2]
    for cell in (good, bad):
        target = tmp_path / cell.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((filled.folder / cell.path).read_bytes()[: None if cell is good else -9])
    report = audit(study, Store(tmp_path), attacks=1, seed=0)
    assert report.bad_files == (f"{bad.path} cannot be read",)
    assert not report.passed


def test_records_of_other_images_are_refused(study, filled, tmp_path):
    cell = study.part("main")[0]
    store = Store(tmp_path)
    store.write(cell, compute(cell, data.load("digits")), wall_seconds=1.0, sample="another")
    with pytest.raises(InputError, match="^--data-dir holds other images of digits"):
        audit(study, store, attacks=1)


def test_an_empty_store_is_refused(study, tmp_path):
    with pytest.raises(InputError, match=r"^--store is .* but must hold attacks"):
        audit(study, Store(tmp_path), attacks=1)


def test_a_success_that_turned_into_a_failure_differs_late(study, filled):
    row = filled.read(study.part("main")[0]).iloc[0]
    found = row.copy()
    found["mse"] = row["mse"] / 1e6
    finding = compare("x", row, found, joint=False)
    assert finding.verdict == "differs late"


@pytest.fixture(scope="module")
def exploding(study):
    """A cell of gradient descent with a rate so large that its first step leaves the images' range."""
    cell = study.part("main")[0]
    optimizer = dataclasses.replace(cell.attack.optimizer, learning_rate=1e4)
    return dataclasses.replace(cell, attack=dataclasses.replace(cell.attack, optimizer=optimizer))


def test_after_an_explosion_nothing_is_compared_and_until_then_all_is(exploding):
    row = compute(exploding, data.load("digits")).iloc[0]
    first = row["trace_mse"][0]
    (exploded, *_) = np.flatnonzero(row["trace_mse"] > EXPLOSION * first)
    assert 0 < exploded < auditing.START - 1

    def verdict(place, factor):
        found = row.copy()
        for name in ("trace_mse", "trace_loss"):
            found[name] = row[name].copy()
            found[name][place] *= factor
        return compare("x", row, found, joint=False).verdict

    assert verdict(exploded + 1, 5.0) == "agrees"
    assert verdict(exploded, 1 + auditing.TOLERANCES.explosion / 2) == "agrees"
    assert verdict(exploded, 1 + auditing.TOLERANCES.explosion * 2) == "differs"
    assert verdict(exploded - 1, 1 + auditing.TOLERANCES.start * 2) == "differs"


def audited(late, total):
    verdicts = ["differs late"] * late + ["agrees"] * (total - late)
    return auditing.Audit(tuple(Finding("x", one, "", {}, {}) for one in verdicts), ())


@pytest.mark.parametrize("total", [1, 2, 3, 4, 20, 100])
def test_late_differences_may_be_rounding_until_chance_no_longer_explains_their_number(total):
    share, level = auditing.TOLERANCES.late, auditing.TOLERANCES.level
    for late in range(total + 1):
        by_chance = sum(
            math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(late, total + 1)
        )
        assert audited(late, total).passed == (by_chance >= level)


def test_a_lone_late_difference_is_no_evidence_and_three_of_three_are():
    assert audited(1, 1).passed
    assert audited(2, 3).passed
    assert not audited(3, 3).passed
    assert audited(7, 20).passed
    assert not audited(8, 20).passed


def test_no_number_of_agreeing_attacks_makes_up_for_a_bad_file_or_a_wrong_start():
    assert not dataclasses.replace(audited(0, 4), bad_files=("x",)).passed
    wrong = Finding("x", "differs", "", {}, {})
    assert not dataclasses.replace(audited(0, 4), findings=(*audited(0, 4).findings, wrong)).passed
