"""Expectations are judged by what the records say, and a share that says nothing decides nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wdlg import figures
from wdlg.sharing import defences
from wdlg.study.specification import load
from wdlg.verdicts import expectations
from wdlg.verdicts.expectations import BROKEN, HELD, OPEN, SETTINGS

STUDY = load(Path(__file__).parents[2] / "studies" / "defences.yaml")


def always(count):
    return lambda *_: count


PARTS = {
    one["id"]: {check["part"] for check in one["checks"]} for one in expectations.rules()["expectations"]
}
"""Of which each expectation speaks."""


def records(succeed, read=None, *, parts=None):
    """Records of all parts, or of some, with ten runs a cell, of which ``succeed(cell)`` have success."""
    read = read or always(10)
    tables = []
    for cell in STUDY.cells:
        if parts is not None and cell.part not in parts:
            continue
        if cell.kind == "labels":
            for rule in ("bias_sign", "bias_min", "row_sum"):
                flags = np.arange(10) < read(rule, cell.defence)
                tables.append(pd.DataFrame({**cell.columns(), "rule": rule, "correct": flags}))
        else:
            mse = np.where(np.arange(10) < succeed(cell), 1e-3, 1.0)
            tables.append(pd.DataFrame({**cell.columns(), "network": np.arange(10), "mse": mse}))
    table = pd.concat(tables, ignore_index=True)
    return table.assign(relative_error=0.5, cosine=0.9, ssim=0.4)


def outcome_of(name, succeed, read=None):
    """One expectation, judged by the parts that it speaks of."""
    table = records(succeed, read, parts=PARTS[name])
    return next(one for one in expectations.judge(table) if one.id == name)


def protected(now):
    """All ten runs have success without a defence, and so many with any."""
    return lambda cell: 10 if type(cell.design.defence) is defences.Unprotected else now


def test_every_check_finds_its_runs_in_the_study():
    for one in expectations.judge(records(always(10))):
        assert one.outcome in (HELD, BROKEN), one.id
        assert "not run" not in one.found


@pytest.mark.parametrize(("now", "outcome"), [(0, BROKEN), (1, BROKEN), (4, BROKEN), (5, HELD), (10, HELD)])
def test_standing_is_half_of_the_unprotected_successes(now, outcome):
    assert outcome_of("rounding", protected(now)).outcome == outcome


@pytest.mark.parametrize(("now", "outcome"), [(0, HELD), (1, HELD), (2, BROKEN), (10, BROKEN)])
def test_stopped_is_at_most_a_tenth_of_the_runs(now, outcome):
    found = outcome_of("large-noise", protected(now))
    assert found.outcome == outcome
    assert f"iDLG, MNIST: {now} of 10, unprotected 10 of 10" in found.found


def test_one_strength_that_breaks_an_expectation_breaks_it():
    noise = defences.Noise(0.001)

    def succeed(cell):
        return 0 if cell.design.defence == noise else 10

    assert outcome_of("small-noise", succeed).outcome == BROKEN
    assert outcome_of("int8", succeed).outcome == HELD


def test_an_attack_that_fails_anyway_decides_nothing():
    assert outcome_of("large-noise", always(0)).outcome == OPEN
    assert outcome_of("rounding", always(0)).outcome == OPEN


def test_nothing_is_decided_without_records():
    assert {one.outcome for one in expectations.judge(pd.DataFrame())} == {OPEN}


def test_labels_are_judged_rule_by_rule():
    def read(rule, defence):
        small = defence == defences.Noise(0.01)
        return 0 if small and rule == "bias_sign" else 10

    judged = expectations.judge(records(always(10), read, parts=("labels",)))
    outcomes = {one.id: one.outcome for one in judged}
    assert outcomes["labels-sign"] == outcomes["labels-kept"] == HELD
    assert outcomes["labels-rows"] == BROKEN  # bias_min reads more than expected

    def pruned(_, defence):
        return 9 if defence == defences.Pruning(0.9) else 10

    assert outcome_of("labels-kept", always(10), pruned).outcome == BROKEN


def test_the_best_attack_on_each_strength_is_taken():
    table = expectations.successes(
        records(
            lambda cell: 7 if cell.attack.name == "sent entries only" else 3, parts=("pruning", "clipping")
        )
    )
    best = expectations.best_attack(table)
    pruned = best[(best["defence"] == "pruning") & (best["dataset"] == "mnist")]
    assert set(pruned["method"]) == {"sent entries only"}
    assert [one.successes for one in pruned["success"]] == [7] * len(pruned)
    tied = expectations.best_attack(
        table.assign(ssim=np.linspace(0, 1, len(table)), success=table["success"].iloc[0])
    )
    chosen = tied[(tied["defence"] == "none") & (tied["dataset"] == "mnist")]
    assert list(chosen["method"]) == ["cosine"]  # the last of them
    strength = [name for name in SETTINGS if name in best]
    assert not best.duplicated(["dataset", "defence", *strength]).any()


def test_a_row_is_named_by_its_defence_and_settings():
    rows = expectations.successes(records(always(3), parts=("rounding",))).to_dict("records")
    names = [expectations.name_of(row) for row in rows]
    assert "none" in names
    assert "rounding, format float16" in names
    assert "quantisation, bits 8, stochastic False" in names


def test_the_figures_draw_each_share_at_its_strength():
    table = expectations.successes(records(always(5), parts=("noise",)))
    figure = figures.share_by_strength(
        {"MNIST": table}, "method", "level", xlabel="level", ylabel="share", log=True
    )
    [axes] = figure.axes
    assert axes.get_xscale() == "log"
    containers = {one.get_label(): one for one in axes.containers}
    assert set(containers) == {"iDLG", "WDLG", "Strongest", "Strongest, least bias"}
    x, y = containers["iDLG"].lines[0].get_data()
    assert list(x) == [0.0001, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0]
    assert list(y) == [0.5] * 7
    few = table[table["level"].isna() | (table["level"] == 0.01)]
    both = figures.share_by_strength(
        {"MNIST": table, "CIFAR-100": few}, "method", "level", xlabel="level", ylabel="share", log=True
    )
    [axes] = both.axes  # one level is no panel
    assert "open markers: CIFAR-100" in axes.get_title()
    added = {one.get_label(): one for one in axes.containers}["iDLG, CIFAR-100"].lines[0]
    assert list(added.get_xdata()) == [0.01]
    assert added.get_markerfacecolor() == "white"
    assert "iDLG on CIFAR-100 50 % without and 50 % at 0.01" in both.told
    best = expectations.best_attack(table).assign(relative_error=np.geomspace(1e-4, 1, 8))
    recovered, likeness = figures.protection_by_price({"MNIST": best}).axes
    [points] = recovered.containers
    assert points.get_label() == "noise"
    assert len(points.lines[0].get_xdata()) == 7
    assert list(likeness.lines[0].get_ydata()) == [0.4] * 7
