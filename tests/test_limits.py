"""Bounds on what any attack can see: against the Jacobian, estimators that attain them, and closed forms."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm as normal
from torch import nn

from wdlg.attacks import Observation
from wdlg.attacks.gauss_newton import refined
from wdlg.cli import main
from wdlg.errors import InputError
from wdlg.limits import Limits, epsilon, level_of, limits, multiplier_for, van_trees
from wdlg.networks import LeNet, ModuleNetwork
from wdlg.sharing.defences import Noise

NETWORK = LeNet((1, 8, 8), 4)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def case(network=NETWORK):
    parameters = network.initial_parameters(generator=stream(), dtype=torch.float64)
    return parameters, torch.rand(1, *network.image_shape, generator=stream(1), dtype=torch.float64)


def jacobian(network, parameters, image, label):
    """Of every entry of the gradient by the pixels, by central differences."""
    target = F.one_hot(torch.tensor([label]), network.classes).double()
    moves = 1e-5 * torch.eye(image.numel(), dtype=torch.float64).view(-1, *network.image_shape)
    images = torch.cat((image, image + moves, image - moves))
    gradient = network.gradient(parameters, images, target.expand(len(images), -1)).detach()
    entries = torch.cat([part.flatten(1) for part in gradient.tensors()], dim=1)
    up, down = entries[1:].chunk(2)
    return entries[0], (up - down).T / 2e-5


def small(*layers, width, shape=(1, 4, 4)):
    torch.manual_seed(0)
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, 3)).double()
    return ModuleNetwork(module, shape)


def test_spectrum_and_directions_are_those_of_the_jacobian():
    network = LeNet((2, 4, 5), 3)
    parameters, image = case(network)
    found = limits(network, parameters, image, 1)
    entries, J = jacobian(network, parameters, image, 1)
    assert found.entries == len(entries) == sum(math.prod(shape) for shape in network.parameter_shapes)
    assert found.size == pytest.approx(float(entries.norm()))
    torch.testing.assert_close(found.singular_values, torch.linalg.svdvals(J), rtol=1e-6, atol=1e-8)
    rows = found.vectors.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(40, dtype=torch.float64))
    # Each direction changes the gradient by its singular value.
    torch.testing.assert_close((J @ rows.T).norm(dim=0), found.singular_values, rtol=1e-6, atol=1e-8)
    assert found.vectors.shape == (40, 2, 4, 5)


def test_the_bound_is_the_trace_of_the_inverse_information():
    parameters, image = case()
    found = limits(NETWORK, parameters, image[0], 1)
    entries, J = jacobian(NETWORK, parameters, image, 1)
    level = 0.03
    sigma = level * entries.norm() / len(entries) ** 0.5
    covariance = sigma**2 * torch.linalg.inv(J.T @ J)
    assert found.bound(level) == pytest.approx(float(covariance.trace()) / 64, rel=1e-6)
    along = torch.einsum("ki,ij,kj->k", found.vectors.flatten(1), covariance, found.vectors.flatten(1))
    torch.testing.assert_close(found.deviations(level), along.sqrt(), rtol=1e-6, atol=0)
    assert found.directions(level, 0.02) == int((along.sqrt() <= 0.02).sum())
    assert 0 < found.directions(level, 0.02) < 64
    assert found.bound(found.level_for(0.01)) == pytest.approx(0.01)
    assert found.bound(0) == 0


def test_the_deviation_of_a_pixel_is_that_of_the_inverse_information():
    network = LeNet((2, 4, 5), 3)
    parameters, image = case(network)
    found = limits(network, parameters, image, 1)
    entries, J = jacobian(network, parameters, image, 1)
    sigma = 0.03 * entries.norm() / len(entries) ** 0.5
    expected = sigma * torch.linalg.inv(J.T @ J).diagonal().sqrt().view(2, 4, 5)
    torch.testing.assert_close(found.pixel_deviations(0.03), expected, rtol=1e-6, atol=0)
    assert float(found.pixel_deviations(0.03).square().mean()) == pytest.approx(found.bound(0.03))
    assert found.pixel_deviations(0).max() == 0


def test_pixels_that_no_window_sees_are_in_no_gradient():
    network = small(nn.Conv2d(1, 6, 2, stride=4), nn.Tanh(), width=6, shape=(1, 4, 4))
    parameters = network.parameters()
    image = torch.rand(1, 4, 4, generator=stream(1), dtype=torch.float64)
    found = limits(network, parameters, image, 0)
    assert found.rank == 4
    assert found.pixels == 16
    hidden = found.vectors[4:].abs()
    assert hidden[:, 0, :2, :2].max() < 1e-6
    assert found.constant == math.inf
    assert found.bound(0) == found.bound(0.1) == math.inf
    assert found.level_for(0.01) == 0
    assert found.directions(1e-9) == 4
    assert found.with_prior(1e-6, 0.3) == pytest.approx(12 / 16 * 0.3**2, rel=1e-3)
    seen = found.pixel_deviations(0.1)[0].isfinite()
    assert seen.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_gauss_newton_attains_the_bound():
    """A mean over noise and images within 0.9 to 1.1 of it, and no better than it beyond chance."""
    parameters, image = case()
    count, level = 60, 0.02
    found = limits(NETWORK, parameters, image, 1)
    labels = torch.ones(count, dtype=torch.long)
    target = F.one_hot(labels, 4).double()
    exact = NETWORK.gradient(parameters, image.expand(count, -1, -1, -1), target).detach()
    sent = Noise(level)(exact, [stream(100 + n) for n in range(count)])
    images, _ = refined(Observation(NETWORK, parameters, sent), image.repeat(count, 1, 1, 1), labels)
    ratio = float((images - image).square().mean()) / found.bound(level)
    assert 0.9 < ratio < 1.1


def test_a_prior_goes_below_the_bound_of_unbiased_estimates_and_not_below_that_of_van_trees():
    """Ridge regression to the mean: biased, and better than Cramér-Rao where noise is high."""
    network = small(nn.Conv2d(1, 6, 3, padding=1), nn.Sigmoid(), width=96)
    parameters, level, deviation = network.parameters(), 1.0, 0.05
    count = 20
    mean = torch.full((1, 4, 4), 0.5, dtype=torch.float64)
    truth = mean + deviation * torch.randn(count, 1, 4, 4, generator=stream(1), dtype=torch.float64)
    labels = torch.ones(count, dtype=torch.long)
    exact = network.gradient(parameters, truth, F.one_hot(labels, 3).double()).detach()
    sent = Noise(level)(exact, [stream(100 + n) for n in range(count)])
    several = [limits(network, parameters, one, 1) for one in truth]
    unit = float(torch.tensor([level**2 * one.size**2 / one.entries for one in several]).mean())
    precision = torch.eye(16, dtype=torch.float64) * unit / deviation**2
    images = mean.repeat(count, 1, 1, 1)
    for _ in range(3):
        images, _ = refined(Observation(network, parameters, sent), images, labels, prior=(mean, precision))
    error = float((images - truth).square().mean())
    unbiased = sum(one.bound(level) for one in several) / count
    assert error < 0.5 * unbiased
    bayes = van_trees(several, level, deviation)
    assert 0.9 * bayes < error < 1.1 * deviation**2
    assert bayes < unbiased


@given(level=st.floats(1e-4, 1.0), deviation=st.floats(0.01, 10.0))
def test_the_bound_of_van_trees_is_below_that_of_each_source_alone(level, deviation):
    found = Limits(
        (1, 1, 2), 100, 2.0, torch.tensor([3.0, 0.5]).double(), torch.eye(2).double().view(2, 1, 1, 2)
    )
    bayes = found.with_prior(level, deviation)
    assert bayes <= min(found.bound(level), deviation**2) * (1 + 1e-12)
    covariance = deviation**2 * torch.eye(2, dtype=torch.float64)
    assert van_trees([found], level, covariance) == pytest.approx(bayes)
    assert van_trees([found, found], level, deviation) == pytest.approx(bayes)


def test_the_bound_of_van_trees_of_a_linear_gradient_is_the_error_of_the_posterior():
    """Linear and normal: the posterior mean attains it, for any covariance of the prior."""
    matrix = torch.randn(7, 3, generator=stream(), dtype=torch.float64)
    root = torch.randn(3, 3, generator=stream(1), dtype=torch.float64)
    covariance = root @ root.T + torch.eye(3, dtype=torch.float64)
    _, singular, turned = torch.linalg.svd(matrix, full_matrices=False)
    found = Limits((1, 1, 3), 7, 7**0.5, singular, turned.view(3, 1, 1, 3))
    sigma = 0.4  # the level times the size over the root of the entries
    posterior = torch.linalg.inv(matrix.T @ matrix / sigma**2 + torch.linalg.inv(covariance))
    assert van_trees([found], sigma, covariance) == pytest.approx(float(posterior.trace()) / 3)


# Differential privacy


@given(multiplier=st.floats(1e-4, 20.0), delta=st.floats(1e-9, 0.1))
def test_epsilon_is_the_least_that_the_gaussian_mechanism_has(multiplier, delta):
    found = epsilon(multiplier, delta)
    if found == 0:
        assert normal.cdf(0.5 / multiplier) - normal.cdf(-0.5 / multiplier) <= delta * (1 + 1e-9)
        return
    assert multiplier_for(found, delta) == pytest.approx(multiplier, rel=1e-4)
    if found < 500:  # exp of more is no number
        reached = normal.cdf(0.5 / multiplier - multiplier * found) - math.exp(found) * normal.cdf(
            -0.5 / multiplier - multiplier * found
        )
        assert reached == pytest.approx(delta, rel=1e-4)
    # The classical bound (Dwork and Roth 2014, theorem A.1) asks for more noise.
    if found < 1:
        assert multiplier <= math.sqrt(2 * math.log(1.25 / delta)) / found


def test_noise_that_hides_an_image_gives_no_privacy_in_the_sense_of_epsilon():
    """A level of 0.05 for 13,426 entries: epsilon of a million."""
    multiplier = 0.05 / 13_426**0.5
    assert level_of(multiplier, 13_426) == pytest.approx(0.05)
    assert epsilon(multiplier, 1e-5) == pytest.approx(1 / (2 * multiplier**2), rel=0.01)
    assert epsilon(multiplier, 1e-5) > 1e6


# Refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, _: limits(NETWORK, p, "image", 1), "^image is of type str, but must be a tensor"),
        (lambda p, x: limits(NETWORK, p, x[:, :, 1:], 1), "^images has shape"),
        (lambda p, x: limits(NETWORK, p, x.float(), 1), "^images is float32"),
        (lambda p, x: limits(NETWORK, p, x.repeat(2, 1, 1, 1), 1), "^image holds 2 images"),
        (lambda p, x: limits(NETWORK, p, x, 4), "^label is 4, but must be a whole number"),
        (lambda p, x: limits(NETWORK, p, x, 1.5), "^label is 1.5"),
        (lambda p, x: limits(NETWORK, p, x * 1e200, 1), "^image has a gradient"),
        (lambda p, x: limits(NETWORK, p, x, 1).bound(-1), "^level is -1"),
        (lambda p, x: limits(NETWORK, p, x, 1).pixel_deviations(-1), "^level is -1"),
        (lambda p, x: limits(NETWORK, p, x, 1).level_for(0), "^mse is 0"),
        (lambda p, x: limits(NETWORK, p, x, 1).directions(0.1, math.nan), "^accuracy is nan"),
        (lambda p, x: limits(NETWORK, p, x, 1).with_prior(0, 1), "^level is 0"),
        (lambda p, x: limits(NETWORK, p, x, 1).with_prior(1, 0), "^deviation is 0"),
        (lambda p, x: limits(NETWORK, p, x, 1).with_prior(1, torch.eye(3)), "^deviation is a float32 tensor"),
        (lambda p, x: limits(NETWORK, p, x, 1).with_prior(1, -torch.eye(64)), "^deviation is a matrix"),
        (lambda *_: van_trees([], 1, 1), "^several must hold"),
        (lambda *_: epsilon(0, 0.1), "^multiplier is 0"),
        (lambda *_: epsilon(1, 1), "^delta is 1, but must be above 0 and below 1"),
        (lambda *_: multiplier_for(-1, 0.1), "^epsilon is -1"),
        (lambda *_: level_of(1, 0), "^entries is 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(call, message):
    with pytest.raises(InputError, match=message) as refused:
        call(*case())
    assert "\n" not in str(refused.value)


def test_an_image_too_large_for_its_spectrum_is_refused_before_the_work():
    network = LeNet((3, 64, 64), 4)
    parameters = network.initial_parameters(generator=stream())
    with pytest.raises(InputError, match="^image has 12288 pixels, but must have at most 4096"):
        limits(network, parameters, torch.rand(3, 64, 64), 1)


def test_a_network_that_does_not_look_at_its_image_is_refused():
    parameters, image = case()
    blind = [torch.zeros_like(one) if place == 0 else one for place, one in enumerate(parameters.tensors)]
    tensors = list(blind)
    tensors[2], tensors[6] = torch.zeros_like(tensors[2]), torch.zeros_like(tensors[6])
    with pytest.raises(InputError, match="^image has a gradient that is zero or does not depend on it"):
        limits(NETWORK, replace(parameters, tensors=tuple(tensors)), image, 1)


# The command line


def run(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_limits_prints_what_the_library_finds():
    answer = run("limits", "--dataset", "digits", "--index", 3, "--level", 0.01, "--json")
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert (told["rank"], told["pixels"], told["entries"]) == (64, 64, 8026)
    [row] = told["levels"]
    assert row["mse"] == pytest.approx(told["constant"] * 1e-4)
    assert told["level_for_mse"] == pytest.approx((0.01 / told["constant"]) ** 0.5)
    assert told["epsilon"] == pytest.approx(epsilon(told["level_for_mse"] / 8026**0.5, 1e-5))
    words = run("limits", "--dataset", "digits", "--index", 3)
    assert words.exit_code == 0
    assert words.stdout.count("  level ") == 4
    assert "64 of 64 directions" in words.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "digit"), "digit"),
        (("--dataset", "digits", "--level", "0"), "--level is 0"),
        (("--dataset", "digits", "--delta", "1"), "--delta is 1"),
        (("--dataset", "digits", "--mse", "nan"), "--mse is nan"),
        (("--dataset", "digits", "--accuracy", "-1"), "--accuracy is -1"),
        (("--dataset", "digits", "--index", "99999"), "--index is 99999"),
        (("--dataset", "digits", "--network", "vgg"), "--network is 'vgg'"),
        (("--dataset", "digits", "--seed", "-1"), "seed is -1"),
    ],
)
def test_limits_tells_mistakes_in_one_sentence(arguments, message):
    answer = run("limits", *arguments)
    assert answer.exit_code == 2
    assert answer.stderr.startswith("wdlg: ")
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
