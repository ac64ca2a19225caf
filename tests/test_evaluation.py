"""Fidelity measures agree with their definitions and with scikit-image; failures stay in the tables."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from wdlg import evaluation
from wdlg.attacks import IDLG, Reconstruction, Status, reconstruct
from wdlg.data import Sample
from wdlg.errors import InputError
from wdlg.evaluation import (
    SUCCESS_THRESHOLDS,
    MSETrace,
    Snapshots,
    evaluate,
    first_success,
    matched,
    mse,
    psnr,
    ssim,
)
from wdlg.study import Design, draw, run_paired


def pictures(seed, channels=3):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(2, channels, 9, 10, generator=generator)
    return truth, truth + 0.1 * torch.randn(truth.shape, generator=generator)


@given(st.integers(0, 2**31), st.sampled_from([1, 3]))
def test_measures_are_scikit_images_on_clamped_pictures(seed, channels):
    truth, noisy = pictures(seed, channels)
    assert mse(noisy, truth)[0].item() == pytest.approx(float(np.mean((noisy - truth)[0].numpy() ** 2)))
    original = truth[0].permute(1, 2, 0).double().numpy()
    picture = noisy[0].clamp(0, 1).permute(1, 2, 0).double().numpy()
    assert psnr(noisy, truth)[0] == pytest.approx(peak_signal_noise_ratio(original, picture, data_range=1))
    expected = structural_similarity(original, picture, data_range=1, channel_axis=-1)
    assert ssim(noisy, truth)[0] == pytest.approx(expected)


def test_equal_pictures_are_perfect():
    truth, _ = pictures(0)
    assert mse(truth, truth).tolist() == [0, 0]
    assert psnr(truth, truth).tolist() == [np.inf, np.inf]
    assert ssim(truth, truth) == pytest.approx([1, 1])


def test_an_image_too_small_for_the_window_of_ssim_keeps_its_result_with_ssim_undefined():
    stream = np.random.default_rng(0)
    for side, defined in ((7, True), (6, False), (1, False)):
        images = stream.integers(0, 256, (3, side, 9, 1), dtype=np.uint8)
        small = Sample("small", images, [0, 1, 1], (), 2, ["own"] * 3, ["own"] * 3)
        records = run_paired(draw(small, Design(networks=1)), [replace(IDLG, evaluations=3)]).records
        assert np.isfinite(records[["mse", "psnr"]]).all(axis=None)
        assert np.isfinite(records["ssim"]).all() == defined


def test_psnr_is_minus_ten_log_mse_inside_the_range():
    truth = torch.full((1, 1, 8, 8), 0.5)
    assert psnr(truth + 0.1, truth)[0] == pytest.approx(20, abs=1e-5)


def test_a_picture_that_is_no_number_has_infinite_error_and_a_finite_psnr():
    truth, noisy = pictures(1)
    noisy[0, 0, 0, 0] = torch.nan
    assert torch.isinf(mse(noisy, truth)[0])
    assert torch.isfinite(mse(noisy, truth)[1])
    assert np.isfinite(psnr(noisy, truth)).all()


def test_pictures_of_different_shape_are_refused():
    truth, noisy = pictures(0)
    with pytest.raises(InputError, match=r"^images is a float32 tensor of shape \(1, 3, 9, 10\)"):
        mse(noisy[:1], truth)


@pytest.mark.parametrize("size", [torch.inf, -torch.inf, torch.nan])
def test_the_error_of_an_infinite_picture_is_infinite(size):
    truth, _ = pictures(0)
    assert mse(torch.full_like(truth, size), truth).tolist() == [torch.inf, torch.inf]


def test_a_normalised_truth_is_refused_and_not_clamped():
    truth, noisy = pictures(0)
    normalised = (truth - 0.5) / 0.25
    for measure in (psnr, ssim):
        with pytest.raises(
            InputError, match=r"^truth has values from -\d\.?\d* to \d\.?\d*, but must be within"
        ):
            measure(noisy, normalised)
        with pytest.raises(InputError, match="^truth has values from nan"):
            measure(noisy, truth * torch.nan)


def test_an_evaluation_refuses_what_does_not_go_together(digits):
    cases = draw(digits, Design(networks=2, images=1))
    attack = replace(IDLG, evaluations=2)
    result = reconstruct(attack, cases.observation(), cases.dummy_images)
    good = {"truth": cases.truth, "labels": cases.labels, "start": cases.dummy_images}
    assert len(evaluate(result, **good)) == 2
    for changes, sentence in (
        ({"truth": 2 * cases.truth - 1}, "truth has values from -1 to 1"),
        ({"truth": cases.truth[:1]}, "images is a float32 tensor of shape"),
        ({"labels": cases.labels[:1]}, r"labels has shape \(1,\)"),
        ({"start": cases.dummy_images[:1]}, "images is a float32 tensor of shape"),
    ):
        with pytest.raises(InputError, match=f"^{sentence}"):
            evaluate(result, **good | changes)


def test_traces_and_snapshots_agree_with_the_records(digits):
    cases = draw(digits, Design(networks=5, images=1, seed=3))
    attack = replace(IDLG, evaluations=90)
    trace = MSETrace(cases.truth, attack.evaluations)
    snapshots = Snapshots((0, 1, 3, 100), cases.dummy_images)
    result = reconstruct(attack, cases.observation(), cases.dummy_images, observers=(trace, snapshots))
    records = evaluate(result, cases.truth, cases.labels, cases.dummy_images)
    for case in range(5):
        made = int(result.evaluations[case])
        assert trace.values[case, made - 1].item() == pytest.approx(records["mse"][case], rel=1e-5)
        assert torch.isnan(trace.values[case, made:]).all()
    assert torch.equal(snapshots.images[0], cases.dummy_images)
    assert torch.equal(snapshots.images[3], result.images)
    # Iteration 1 starts at evaluation 20, unless a stopping rule ended iteration 0 before.
    first = [int((result.iteration_trace[case] == 1).nonzero()[0]) for case in range(5)]
    expected = torch.stack([trace.values[case, place] for case, place in enumerate(first)])
    torch.testing.assert_close(mse(snapshots.images[1], cases.truth), expected)


def test_success_is_an_error_below_each_threshold_of_idlgs_figure(digits):
    cases = draw(digits, Design(networks=1, images=1))
    result = reconstruct(replace(IDLG, evaluations=1), cases.observation(), cases.dummy_images)
    close = replace(result, images=cases.truth + 0.05)
    records = evaluate(close, cases.truth, cases.labels, cases.dummy_images)
    reached = {bound: bool(records[f"below_{bound:g}"][0]) for bound in SUCCESS_THRESHOLDS}
    assert reached == {1e-2: True, 5e-3: True, 1e-3: False, 5e-4: False, 1e-4: False}


def test_explosion_is_a_last_value_above_ten_times_its_start(digits):
    cases = draw(digits, Design(networks=3, images=1))
    result = reconstruct(replace(IDLG, evaluations=5), cases.observation(), cases.dummy_images)
    images = result.images.clone()
    images[0] = 100.0
    images[1] = torch.nan
    changed = replace(result, images=images)
    records = evaluate(changed, cases.truth, cases.labels, cases.dummy_images)
    assert records["exploded"].tolist() == [True, True, False]
    louder = replace(result, loss=result.first_loss * torch.tensor([11.0, 9.0, torch.nan]))
    records = evaluate(louder, cases.truth, cases.labels, cases.dummy_images)
    assert records["exploded"].tolist() == [True, False, True]


def test_the_first_success_is_the_first_evaluation_below_the_loosest_threshold():
    nan = float("nan")
    trace = torch.tensor([[1.0, 0.02, 0.009, 1e-5], [1.0, 0.5, 0.5, nan], [0.001, 2.0, 0.001, 0.001]])
    iterations = torch.tensor([[0, 0, 1, 2], [0, 1, 2, -1], [0, 0, 0, 1]])
    found = first_success(trace, iterations)
    assert {str(kind) for kind in found.dtypes} == {"float64"}
    assert found["evaluations_to_success"].tolist()[::2] == [2, 0]
    assert found["iterations_to_success"].tolist()[::2] == [1, 0]
    assert found.isna().iloc[1].all()


def reconstruction(images, **fields):
    """Of as many attacks as there are images, each with numbers of its own."""
    count = len(images)
    number = torch.arange(count)
    return Reconstruction(
        **{
            "images": images,
            "best_images": images,
            "labels": number,
            "status": torch.full((count,), Status.BUDGET_SPENT.value),
            "loss": number + 0.25,
            "best_loss": number + 0.125,
            "first_loss": number + 0.5,
            "iterations": number + 10,
            "evaluations": number + 20,
            "seconds": (number + 0.75).double(),
            "loss_trace": torch.zeros(count, 30),
            "iteration_trace": torch.zeros(count, 30, dtype=torch.int32),
        }
        | fields
    )


def test_each_column_is_what_its_name_says():
    truth, noisy = pictures(0)
    _, other = pictures(1)
    start = torch.zeros_like(truth)
    status = torch.tensor([Status.CONVERGED.value, Status.STALLED.value])
    result = reconstruction(noisy, best_images=other, status=status)
    records = evaluate(result, truth, torch.tensor([0, 4]), start)
    expected = {
        "status": ["converged", "stalled"],
        "label_true": [0, 4],
        "label_recovered": [0, 1],
        "label_correct": [True, False],
        "iterations": [10, 11],
        "evaluations": [20, 21],
        "seconds": [0.75, 1.75],
        "loss": [0.25, 1.25],
        "loss_first": [0.5, 1.5],
        "loss_best": [0.125, 1.125],
        "mse": mse(noisy, truth).tolist(),
        "mse_start": mse(start, truth).tolist(),
        "mse_best": mse(other, truth).tolist(),
        "psnr": psnr(noisy, truth).tolist(),
        "ssim": ssim(noisy, truth).tolist(),
        "exploded": [False, False],
        **{
            f"below_{bound}": (mse(noisy, truth) < float(bound)).tolist()
            for bound in ("0.01", "0.005", "0.001", "0.0005", "0.0001")
        },
    }
    assert records.to_dict("list") == expected


def test_a_value_at_a_bound_has_neither_exploded_nor_succeeded(monkeypatch):
    truth, start = torch.zeros(3, 1, 8, 8), torch.full((3, 1, 8, 8), 0.5)
    images = torch.ones(3, 1, 8, 8)
    images[:, :, ::2] = 2.0  # MSE 2.5, ten times that of the start
    images[1, 0, 0, 0] = 2.25
    images[2] = 0.5
    monkeypatch.setattr(evaluation, "SUCCESS_THRESHOLDS", (0.25,))
    monkeypatch.setattr(evaluation, "SUCCESS", 0.25)
    result = reconstruction(images, loss=torch.tensor([10.0, 1.0, 10.5]), first_loss=torch.ones(3))
    records = evaluate(result, truth, torch.arange(3), start)
    assert records["mse"].tolist()[::2] == [2.5, 0.25]
    assert records["exploded"].tolist() == [False, True, True]
    assert records["below_0.25"].tolist() == [False] * 3
    found = first_success(
        torch.tensor([[0.25, 0.2], [0.3, 0.25]]), torch.zeros(2, 2, dtype=torch.int32).long()
    )
    assert found["evaluations_to_success"].fillna(-1).tolist() == [1, -1]


def test_an_attack_that_never_started_has_no_loss_and_has_not_exploded():
    truth, noisy = pictures(0)
    result = reconstruction(
        noisy, evaluations=torch.tensor([0, 1]), loss=torch.full((2,), torch.nan), first_loss=torch.ones(2)
    )
    records = evaluate(result, truth, torch.arange(2), torch.zeros_like(truth))
    assert records["exploded"].tolist() == [False, True]


def test_the_ends_of_the_range_and_a_graph_are_no_obstacle_to_a_measure():
    truth = torch.tensor([0.0, 1.0] * 32).reshape(1, 1, 8, 8)
    picture = (0.5 * truth).requires_grad_()
    assert psnr(picture, truth)[0] == pytest.approx(-10 * np.log10(0.125))
    assert ssim(picture, truth)[0] < 1
    for outside in (truth - 1e-3, truth + 1e-3):
        with pytest.raises(InputError, match="^truth has values from"):
            ssim(truth, outside)


def test_what_is_no_number_is_black_in_a_picture():
    truth = torch.full((1, 1, 8, 8), 0.5)
    assert psnr(torch.full_like(truth, torch.nan), truth)[0] == pytest.approx(psnr(0 * truth, truth)[0])


def test_snapshots_are_those_of_their_iterations_for_each_attack():
    start = torch.zeros(2, 1, 1, 1)
    seen = Snapshots((0, 2, 3), start)
    for number, iterations in enumerate(([0, 0], [0, 1], [1, 2], [2, 2])):
        images = torch.tensor([10.0, 20.0]).reshape(2, 1, 1, 1) + number
        seen(
            torch.tensor([0, 1]),
            torch.full((2,), number),
            torch.tensor(iterations),
            images,
            torch.zeros(2),
        )
    assert seen.images.flatten(1).tolist() == [[10.0, 20.0], [13.0, 22.0], [13.0, 23.0]]


def test_a_trace_holds_the_errors_at_their_places():
    truth = torch.zeros(3, 1, 1, 1)
    trace = MSETrace(truth, 2)
    attacks, evaluations = torch.tensor([[2, 0], [1, 0]])
    trace(attacks, evaluations, torch.zeros(2), torch.tensor([2.0, 3.0]).reshape(2, 1, 1, 1), torch.zeros(2))
    assert trace.values.nan_to_num(-1).tolist() == [[9.0, -1.0], [-1.0, -1.0], [-1.0, 4.0]]


# Several images of a participant


@given(st.integers(0, 2**31), st.integers(1, 5))
def test_images_are_matched_as_the_best_of_all_orders_does(seed, count):
    stream = torch.Generator().manual_seed(seed)
    truth = torch.rand(2, count, 1, 2, 2, generator=stream)
    images = truth[:, torch.randperm(count, generator=stream)] + torch.randn(truth.shape, generator=stream)
    found, errors = matched(images, truth)
    for row in range(2):
        least = min(
            float(mse(images[row, list(order)], truth[row]).sum()) for order in permutations(range(count))
        )
        assert float(errors[row].sum()) == pytest.approx(least, rel=1e-5)
        torch.testing.assert_close(errors[row], mse(found[row], truth[row]))
        assert sorted(map(tuple, found[row].flatten(1).tolist())) == sorted(
            map(tuple, images[row].flatten(1).tolist())
        )


def test_images_that_came_in_another_order_are_all_right():
    truth = torch.rand(1, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    found, errors = matched(truth[:, [2, 0, 3, 1]], truth)
    assert torch.equal(found, truth)
    assert errors.tolist() == [[0.0] * 4]


def test_an_image_that_is_not_finite_takes_no_place_from_another():
    truth = torch.arange(3.0).view(1, 3, 1, 1, 1)
    images = torch.tensor([torch.nan, 2.1, 0.1]).view(1, 3, 1, 1, 1)
    found, errors = matched(images, truth)
    assert errors[0].tolist() == [pytest.approx(0.01, rel=1e-5), torch.inf, pytest.approx(0.01, rel=1e-4)]
    assert found[0, ::2].flatten().tolist() == images.flatten()[[2, 1]].tolist()


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(InputError, match="^images is a float32 tensor of shape"):
        matched(torch.zeros(1, 2, 1, 4, 4), torch.zeros(1, 3, 1, 4, 4))
    with pytest.raises(InputError, match="^truth is a float32 tensor of shape"):
        matched(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
