"""Fidelity measures agree with their definitions and with scikit-image; failures stay in the tables."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from wdlg.attack import IDLG
from wdlg.data import Sample
from wdlg.engine import reconstruct
from wdlg.errors import InputError
from wdlg.evaluation import (
    SUCCESS_THRESHOLDS,
    MSETrace,
    Snapshots,
    evaluate,
    first_success,
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
    assert found["evaluations_to_success"].tolist()[::2] == [2, 0]
    assert found["iterations_to_success"].tolist()[::2] == [1, 0]
    assert found.isna().iloc[1].all()
