"""Targets come back from the gradient of one image, whether smoothed, mixed or of unknown scale."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

from wdlg.attacks.labels import UNDECIDED, bias_sign
from wdlg.attacks.soft_labels import soft_labels
from wdlg.errors import InputError
from wdlg.networks import LeNet
from wdlg.updates.gradient import from_tensors


def sent(seed, target=None, *, label=2, smoothing=0.0, scale=1.0, classes=6, dtype=torch.float64):
    """Gradient of one image, and its network; the output layer's gradient as any matrix."""
    network = LeNet((1, 8, 8), classes)
    stream = torch.Generator().manual_seed(seed)
    parameters = network.initial_parameters(generator=stream, dtype=dtype)
    image = torch.rand(1, 1, 8, 8, generator=stream, dtype=dtype)
    if target is None:
        target = (1 - smoothing) * F.one_hot(torch.tensor([label]), classes).to(dtype) + smoothing / classes
    gradient = network.gradient(parameters, image, target)
    scaled = [scale * tensor for tensor in gradient.tensors()]
    return from_tensors(scaled, rank_one=False), parameters


@given(st.integers(0, 2**31), st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_any_target_comes_back_from_a_gradient_of_known_scale(seed, other, scale):
    target = torch.randn(1, 6, generator=torch.Generator().manual_seed(other), dtype=torch.float64).softmax(1)
    gradient, parameters = sent(seed, target, scale=scale)
    found = soft_labels(gradient, parameters, scale=scale)
    torch.testing.assert_close(found.targets, target, rtol=1e-6, atol=1e-9)
    assert found.labels.tolist() == target.argmax(1).tolist()
    assert found.scale.tolist() == [scale]


@given(st.integers(0, 2**31), st.integers(0, 5), st.floats(0, 0.9), st.floats(1e-4, 1e4))
def test_label_smoothing_and_scale_come_back_together(seed, label, smoothing, scale):
    gradient, parameters = sent(seed, label=label, smoothing=smoothing, scale=scale)
    found = soft_labels(gradient, parameters, scale=None)
    if found.labels.tolist() == [UNDECIDED]:  # rare: another label fits to 1e-4, too
        return
    assert found.labels.tolist() == [label]
    assert float(found.smoothing) == pytest.approx(smoothing, abs=1e-4 * 6)
    assert float(found.scale) == pytest.approx(scale, rel=1e-2)


def test_nearly_all_are_decided():
    gradients = [sent(seed, smoothing=0.1, scale=0.01, dtype=torch.float32) for seed in range(40)]
    found = [soft_labels(*given, scale=None) for given in gradients]
    assert sum(one.labels.tolist() == [2] for one in found) >= 38
    assert all(one.labels.tolist() in ([2], [UNDECIDED]) for one in found)
    # Those of the paper's rule are fewer.
    assert sum(bias_sign(gradient.bias).tolist() == [2] for gradient, _ in gradients) < 36


def test_a_gradient_that_fits_no_label_is_undecided():
    gradient, parameters = sent(0)
    assert soft_labels(gradient, parameters, scale=0.3).labels.tolist() == [UNDECIDED]
    mixed = torch.tensor([[0.5, 0.3, 0.2, 0.0, 0.0, 0.0]], dtype=torch.float64)
    found = soft_labels(*sent(0, mixed), scale=None)
    assert found.labels.tolist() == [UNDECIDED]
    assert found.targets.isnan().all()
    assert found.scale.isnan().all()
    opposite, _ = sent(0, scale=-1.0)
    assert soft_labels(opposite, parameters, scale=None).labels.tolist() == [UNDECIDED]
    zeros, _ = sent(0, scale=0.0)
    for scale in (1.0, None):
        assert soft_labels(zeros, parameters, scale=scale).labels.tolist() == [UNDECIDED]


def test_of_three_classes_an_unknown_scale_tells_nothing():
    """Two entries of a target are equal at some scale for every label; one alone may be possible."""
    for seed in range(20):
        gradient, parameters = sent(seed, classes=3)
        assert soft_labels(gradient, parameters, scale=None).labels.tolist() == [UNDECIDED]
        assert soft_labels(gradient, parameters).labels.tolist() == [2]


@pytest.mark.parametrize("settings", [{"scale": 0.0}, {"scale": -1.0}, {"tolerance": 0.0}])
def test_numbers_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match=f"^{next(iter(settings))} is "):
        soft_labels(*sent(0), **settings)
