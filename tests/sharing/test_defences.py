"""Each defence does what its definition says."""

from dataclasses import replace

import pytest
import torch
from defended import each_defence, flat, shared, streams
from scipy.stats import chi2, gamma, norm

from wdlg.errors import InputError
from wdlg.sharing import defences
from wdlg.sharing.defences import (
    ClippedNoise,
    LaplaceNoise,
    Noise,
    NoOutputBias,
    Pruning,
    Quantisation,
    Rounding,
    Unprotected,
)
from wdlg.updates import Gradient, from_tensors

# Each defence by its definition


def test_noise_is_normal_with_the_stated_standard_deviation():
    """Mean, variance and shape over 40 attacks; a right draw fails each of them with probability 1e-6."""
    exact = shared(40)
    sent = Noise(0.25)(exact, streams(40))
    entries = flat(exact).shape[1]
    z = (flat(sent) - flat(exact)) * entries**0.5 / (0.25 * flat(exact).norm(dim=1, keepdim=True))
    count = z.numel()
    assert abs(z.mean().item()) * count**0.5 < norm.isf(0.5e-6)
    low, high = chi2.ppf([0.5e-6, 1 - 0.5e-6], count)
    assert low < z.square().sum().item() < high
    assert abs((z.abs() < 1).double().mean().item() - 0.682689) < 5 * (0.6827 * 0.3173 / count) ** 0.5


def test_the_level_of_the_noise_is_the_relative_error_of_what_is_sent():
    exact = shared(20)
    price = defences.relative_error(Noise(0.03)(exact, streams(20)), exact)
    # The norm of n normal numbers has a relative standard deviation of 1 / sqrt(2 n).
    entries = flat(exact).shape[1]
    assert torch.allclose(price, torch.tensor(0.03).double(), rtol=6 / (2 * entries) ** 0.5)


def test_laplace_noise_has_the_size_of_normal_noise_and_laplaces_distribution():
    """With the scale 1, |z| is exponential: mean 1, and its square has the mean 2."""
    exact = shared(40)
    sent = LaplaceNoise(0.25)(exact, streams(40))
    entries = flat(exact).shape[1]
    scale = 0.25 * flat(exact).norm(dim=1, keepdim=True) / (2 * entries) ** 0.5
    z = (flat(sent) - flat(exact)) / scale
    count = z.numel()
    low, high = gamma.ppf([0.5e-6, 1 - 0.5e-6], count)
    assert low < z.abs().sum().item() < high
    assert abs(z.mean().item()) < 5 * (2 / count) ** 0.5
    assert abs(z.square().mean().item() - 2) < 5 * (20 / count) ** 0.5
    for bound in (0.1, 1.0, 5.0):
        share = -torch.expm1(torch.tensor(-bound)).item()
        assert (
            abs((z.abs() < bound).double().mean().item() - share) < 5 * (share * (1 - share) / count) ** 0.5
        )


def test_without_the_output_bias_all_else_is_sent_as_it_is():
    exact = shared(3, torch.float32)
    sent = NoOutputBias()(exact)
    *others, bias = sent.tensors()
    assert not bias.any()
    for ours, true in zip(others, exact.tensors(), strict=False):
        assert torch.equal(ours, true)


def test_clipping_shortens_to_the_bound_and_leaves_shorter_gradients_alone():
    exact = shared(4)
    lengths = flat(exact).norm(dim=1)
    bound = lengths.sort().values[1:3].mean().item()
    sent = flat(ClippedNoise(bound, 0.0)(exact, streams(4)))
    expected = flat(exact) * (bound / lengths).clamp_max(1)[:, None]
    assert torch.allclose(sent, expected, rtol=1e-12, atol=1e-15)
    assert (lengths < bound).sum() == 2
    assert torch.allclose(sent.norm(dim=1), lengths.clamp_max(bound))


def test_the_noise_after_clipping_is_in_units_of_the_bound():
    exact = shared(20)
    z = flat(ClippedNoise(0.1, 2.0)(exact, streams(20))) - flat(ClippedNoise(0.1, 0.0)(exact, streams(20)))
    low, high = chi2.ppf([0.5e-6, 1 - 0.5e-6], z.numel())
    assert low < (z / 0.2).square().sum().item() < high


@pytest.mark.parametrize("share", [0.0, 0.29, 0.5, 0.99])
def test_pruning_sends_the_largest_entries_as_they_are_and_no_others(share):
    exact = shared(4)
    for sent, true in zip(Pruning(share)(exact).tensors(), exact.tensors(), strict=True):
        kept = sent != 0
        entries = true[0].numel()
        most_sent = entries - int(share * 100 + 0.5) * entries // 100
        # Of images as small as these, some weights see nothing but padding: zeros that are there before.
        assert torch.equal(kept.flatten(1).sum(1), (true != 0).flatten(1).sum(1).clamp_max(most_sent))
        assert torch.allclose(sent[kept], true[kept], rtol=1e-12)
        least = torch.where(kept, true.abs(), torch.inf).amin((1, 2))
        most = torch.where(kept, 0.0, true.abs()).amax((1, 2))
        assert (most <= least).all()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_rounding_is_torchs_own(name):
    exact = shared(4, torch.float32)
    sent = Rounding(name)(exact)
    for ours, true in zip(sent.hidden, exact.hidden, strict=True):
        assert torch.equal(ours, true.to(getattr(torch, name)).float())
    assert torch.equal(sent.bias, exact.bias.to(getattr(torch, name)).float())
    expected = exact.last_weight.to(getattr(torch, name)).float()
    # Put together from factors and the rest, so exact to a few units in the last place of their product.
    assert torch.allclose(sent.last_weight, expected, rtol=0, atol=4e-7 * expected.abs().max().item())


def test_float16_that_overflows_is_refused():
    gradient = shared(1, torch.float32)
    huge = replace(gradient, hidden=tuple(1e9 * tensor for tensor in gradient.hidden))
    with pytest.raises(InputError, match="NaN or infinite"):
        Rounding("float16")(huge)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("stochastic", [False, True])
def test_quantisation_sends_whole_multiples_within_the_bits(bits, stochastic):
    exact = shared(4)
    most = 2 ** (bits - 1) - 1
    sent = Quantisation(bits, stochastic)(exact, streams(4))
    for ours, true in zip(sent.tensors(), exact.tensors(), strict=True):
        multiples = ours * most / true.abs().amax((1, 2), keepdim=True)
        assert torch.allclose(multiples, multiples.round(), atol=1e-6)
        assert multiples.abs().max() <= most + 1e-6
        unit = true.abs().amax((1, 2), keepdim=True) / most
        assert ((ours - true).abs() <= (1.0 if stochastic else 0.5) * unit * (1 + 1e-9)).all()


def test_stochastic_rounding_is_right_on_average():
    """The mean of 1,000 draws against its own spread; an entry is off by 6 of it with probability 2e-9."""
    exact = shared(1)
    repeated = exact.select(torch.zeros(1000, dtype=torch.long))
    sent = Quantisation(3, stochastic=True)(repeated, streams(1000)).hidden[0].flatten(1)
    true = exact.hidden[0].flatten(1)
    unit = true.abs().max() / 3
    below = (true / unit - (true / unit).floor()) * unit
    spread = (below * (unit - below)).clamp_min(0).sqrt() / 1000**0.5
    assert ((sent.mean(0, keepdim=True) - true).abs() <= 6 * spread + 1e-12).all()


def test_unprotected_sends_the_gradient_itself():
    exact = shared()
    assert Unprotected()(exact) is exact


# What all have in common


@each_defence
def test_what_is_sent_depends_on_the_gradient_and_its_own_generator_alone(defence):
    exact = shared(4)
    together = flat(defence(exact, streams(4)))
    assert torch.equal(together, flat(defence(exact, streams(4))))
    for number in range(4):
        alone = defence(exact.select(torch.tensor([number])), [streams(4)[number]])
        assert torch.allclose(flat(alone)[0], together[number], rtol=1e-12, atol=1e-15)


@each_defence
def test_the_factors_are_read_off_what_is_sent(defence):
    """A Gradient must not carry features that only the participant knows."""
    sent = defence(shared(), streams(3))
    again = from_tensors(sent.tensors(), rank_one=False)
    assert torch.allclose(again.output.features, sent.output.features, rtol=1e-9)
    assert torch.allclose((sent.bias[:, None, :] @ sent.output.rest), torch.zeros(()).double(), atol=1e-10)


@each_defence
def test_its_text_and_its_description_bring_it_back(defence):
    assert defences.parse(defences.title(defence)) == defence
    described = defences.DEFENCES.describe(defence)
    assert defences.DEFENCES[described.pop("name")](**described) == defence


def test_the_price_is_the_distance_and_the_angle_of_the_written_out_gradients():
    exact = shared(4)
    sent = ClippedNoise(0.5, 0.05)(exact, streams(4))
    x, y = flat(sent), flat(exact)
    assert torch.allclose(defences.relative_error(sent, exact), (x - y).norm(dim=1) / y.norm(dim=1))
    expected = torch.cosine_similarity(x, y, dim=1)
    assert torch.allclose(defences.cosine(sent, exact), expected)
    nothing = Gradient.of_one(
        tuple(0 * tensor for tensor in exact.hidden), 0 * exact.bias, exact.output.features
    )
    assert defences.cosine(nothing, exact).tolist() == [0.0] * 4
    assert defences.relative_error(nothing, nothing).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LaplaceNoise(float("inf")), "^level is inf, but must be a finite number, 0 or above"),
        (lambda: Noise(-0.1), "^level is -0.1, but must be a finite number, 0 or above"),
        (lambda: ClippedNoise(0.0, 1.0), "^clip is 0.0, but must be a finite number above 0"),
        (lambda: ClippedNoise(1.0, float("nan")), "^multiplier is nan"),
        (lambda: Pruning(1.0), "^share is 1.0, but must be below 1"),
        (lambda: Rounding("float8"), "^format is 'float8', but must be one of float16, bfloat16"),
        (lambda: Quantisation(1), "^bits is 1, but must be a whole number, at least 2 and at most 16"),
        (lambda: Quantisation(8, stochastic="yes"), "^stochastic is 'yes', but must be True or False"),
        (
            lambda: Noise(0.1)(shared(), streams(2)),
            "^generators holds 2, but must hold one for each of the 3",
        ),
        (lambda: defences.parse("fog"), "^defence is 'fog', but must be one of none, noise"),
        (lambda: defences.parse("noise"), "^defence noise has no 'level'"),
        (
            lambda: defences.parse("noise,size=1"),
            "^defence noise has 'size=1', but allowed after its name is level",
        ),
        (lambda: defences.parse("noise,level=1,level=2"), "^defence noise has 'level=2'"),
        (lambda: defences.parse("noise,level=much"), "^level is 'much', but must be a finite number"),
        (
            lambda: defences.parse("none,level=1"),
            "^defence none has 'level=1', but allowed after its name is nothing",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e25])
def test_the_price_is_told_where_squares_overflow(size):
    """In single precision the squares of entries above 2e19 are infinite."""
    exact = shared(3, torch.float32)
    sent = Noise(size)(exact, streams(3))
    double = sent.double(), exact.double()
    found, true = flat(sent.double()), flat(exact.double())
    error = (found - true).norm(dim=1) / true.norm(dim=1)
    torch.testing.assert_close(defences.relative_error(sent, exact).double(), error, rtol=1e-3, atol=0)
    torch.testing.assert_close(defences.relative_error(*double), error)
    angle = (found * true).sum(1) / (found.norm(dim=1) * true.norm(dim=1))
    torch.testing.assert_close(defences.cosine(sent, exact).double(), angle, rtol=1e-3, atol=1e-6)
