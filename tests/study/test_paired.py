"""Paired runs: the same cases for every method, every run in the table with traces that fit it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from wdlg.attacks import DLG, IDLG, WDLG
from wdlg.errors import InputError
from wdlg.study import Design, draw, paired, records, run_paired


@pytest.fixture(scope="module")
def outcome(digits):
    attacks = [replace(method, evaluations=60) for method in (DLG, IDLG, WDLG)]
    return run_paired(draw(digits, Design(networks=4, images=2)), attacks, snapshot_iterations=(0, 2))


def test_every_method_has_every_case(outcome):
    counts = outcome.records.groupby("method")["case"].apply(list)
    assert counts.to_dict() == {name: list(range(8)) for name in ("DLG", "iDLG", "WDLG")}
    starts = outcome.records.pivot_table(index="case", columns="method", values="mse_start")
    assert (starts.nunique(axis=1) == 1).all()


def test_the_private_image_has_loss_zero_for_idlg_and_not_for_wdlg(outcome):
    at_truth = outcome.records.groupby("method")["loss_at_truth"]
    assert at_truth.max()["iDLG"] == 0
    assert at_truth.min()["WDLG"] > 0


def test_traces_start_at_the_first_loss_and_end_at_the_last(outcome):
    for column in ("loss", "mse"):
        traces = outcome.records[f"trace_{column}"]
        first = "loss_first" if column == "loss" else "mse_start"
        np.testing.assert_allclose([trace[0] for trace in traces], outcome.records[first], rtol=1e-5)
        np.testing.assert_allclose([trace[-1] for trace in traces], outcome.records[column], rtol=1e-5)


def test_a_large_output_layer_is_shared_with_the_same_results(digits, monkeypatch):
    cases = draw(digits, Design(networks=2, images=3))
    attack = [replace(IDLG, evaluations=15)]
    copied = run_paired(cases, attack, snapshot_iterations=(1,))
    monkeypatch.setattr(paired, "SHARE_ABOVE_CLASSES", 1)
    shared = run_paired(cases, attack, snapshot_iterations=(1,))
    for one, other in zip(shared.records["trace_loss"], copied.records["trace_loss"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-2)
        np.testing.assert_allclose(one[:5], other[:5], rtol=1e-4)
    assert shared.records["image"].tolist() == copied.records["image"].tolist()
    assert shared.snapshots["iDLG"].shape == copied.snapshots["iDLG"].shape


def test_all_that_an_attack_works_on_goes_to_its_device_and_its_result_comes_back(digits, monkeypatch):
    seen = []

    def watch(start, device):
        seen.append((str(device), start.dummy_labels is not None, len(start)))
        return start

    monkeypatch.setattr(records.Start, "to", watch)
    monkeypatch.setattr(paired, "require_device", lambda _, value: value)
    monkeypatch.setattr(records, "require_device", lambda _, value: value)
    cases = draw(digits, Design(networks=2, images=1))
    outcome = run_paired(cases, [replace(DLG, evaluations=3)], device="cuda:1")
    assert seen == [("cuda:1", True, 2)]
    assert len(outcome.records) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_brings_what_the_cpu_does_at_first(digits):
    cases = draw(digits, Design(networks=4, images=2))
    attacks = [replace(method, evaluations=15) for method in (DLG, IDLG, WDLG)]
    cpu, gpu = (run_paired(cases, attacks, device=name).records for name in ("cpu", "cuda"))
    for one, other in zip(cpu["trace_loss"], gpu["trace_loss"], strict=True):
        np.testing.assert_allclose(one[:5], other[:5], rtol=1e-3)
    assert (cpu["label_recovered"] == gpu["label_recovered"]).all()


def test_several_processes_bring_what_one_does(digits):
    cases = draw(digits, Design(networks=4, images=2))
    attacks = [replace(method, evaluations=10) for method in (DLG, WDLG)]
    alone, together = (
        run_paired(cases, attacks, snapshot_iterations=(1,), processes=number) for number in (1, 2)
    )
    columns = [name for name in alone.records if name != "seconds"]
    pd.testing.assert_frame_equal(alone.records[columns], together.records[columns], rtol=1e-3)
    for method in ("DLG", "WDLG"):
        np.testing.assert_allclose(alone.snapshots[method], together.snapshots[method], rtol=1e-3, atol=1e-3)


def test_ctrl_c_is_passed_on_so_that_no_partial_result_looks_whole(digits, monkeypatch):
    cases = draw(digits, Design(networks=2, images=1))

    def interrupted(self, attacks, evaluation, iterations, images, loss):
        raise KeyboardInterrupt

    monkeypatch.setattr(records.MSETrace, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_paired(cases, [IDLG])


def test_images_are_the_last_ones_whose_error_is_in_the_records(outcome):
    for method, rows in outcome.records.groupby("method"):
        errors = np.mean((outcome.images[method] - outcome.truth) ** 2, axis=(1, 2, 3))
        np.testing.assert_allclose(errors, rows["mse"], rtol=1e-5)


def test_truth_is_handed_on_unchanged(outcome, digits):
    images = outcome.records[outcome.records["method"] == "DLG"]["image"].to_numpy()
    assert torch.equal(torch.from_numpy(outcome.truth), digits.tensor(images))


REFUSED = {
    "one name twice": ({"attacks": [IDLG, WDLG, replace(IDLG, evaluations=3)]}, "^attacks holds 'iDLG' more"),
    "no attack": ({"attacks": []}, "^attacks is empty"),
    "one attack without a list": ({"attacks": IDLG}, "^attacks is the attack 'iDLG', but must be a list"),
    "a name for an attack": (
        {"attacks": ["idlg"]},
        "^attacks holds 'idlg', but must hold at least one",
    ),
    "iterations that go back": ({"snapshot_iterations": (0, 5, 2)}, r"^snapshot_iterations is \(0, 5, 2\)"),
    "an iteration twice": ({"snapshot_iterations": (1, 1)}, r"^snapshot_iterations is \(1, 1\)"),
    "half an iteration": ({"snapshot_iterations": (0.5,)}, "^snapshot_iterations is 0.5"),
    "an empty batch": ({"batch_size": 0, "processes": 2}, "^batch_size is 0"),
}


@pytest.mark.parametrize(("changes", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_a_table_could_not_tell_apart_is_refused_before_anything_runs(digits, changes, sentence):
    cases = draw(digits, Design(networks=1))
    with pytest.raises(InputError, match=sentence):
        run_paired(cases, **({"attacks": [replace(IDLG, evaluations=3)]} | changes))


def test_attacks_may_come_one_by_one(digits):
    cases = draw(digits, Design(networks=1))
    outcome = run_paired(cases, (replace(attack, evaluations=3) for attack in (IDLG, DLG)))
    assert outcome.records["method"].tolist() == ["iDLG", "DLG"]
