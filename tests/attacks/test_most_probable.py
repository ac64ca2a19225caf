"""The most probable picture: a minimum of what it says, between its two limits, and close to its bound."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import wdlg
from wdlg.attacks import Attack, Observation, Status, reconstruct
from wdlg.attacks.exact import Exact
from wdlg.attacks.most_probable import MostProbable, NormalPrior
from wdlg.errors import InputError
from wdlg.limits import limits, van_trees
from wdlg.networks import LeNet
from wdlg.sharing.defences import Noise

NETWORK = LeNet((1, 4, 5), 3)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def prior():
    """Neighbours are alike."""
    place = torch.cartesian_prod(torch.arange(4), torch.arange(5)).double()
    covariance = 0.04 * torch.exp(-torch.cdist(place, place) / 2)
    return NormalPrior(torch.full((1, 4, 5), 0.5), covariance)


def noisy(level, count=3, *, bound=0.5):
    parameters = NETWORK.initial_parameters(generator=stream(), dtype=torch.float64, bound=bound)
    truth = prior().draw(count, stream(1))
    labels = torch.arange(count) % 3
    exact = NETWORK.gradient(parameters, truth, F.one_hot(labels, 3).double()).detach()
    sent = Noise(level)(exact, [stream(50 + n) for n in range(count)])
    return truth, labels, Observation(NETWORK, parameters, sent), exact


def test_its_slope_is_zero_at_the_end():
    """Of what it minimises, by automatic differentiation, with nothing of the attack's own code."""
    level, known = 0.3, prior()
    _, labels, observation, _ = noisy(level, 2)
    result = wdlg.attack(observation, MostProbable(known, level))
    assert torch.equal(result.labels, labels)
    entries = sum(part[0].numel() for part in observation.gradient.tensors())
    for row in range(2):
        sent = torch.cat([part[row].flatten() for part in observation.gradient.tensors()])
        variance = level**2 * sent.square().sum() / (1 + level**2) / entries
        precision = torch.linalg.inv(known.covariance)

        def improbable(image, row=row, sent=sent, variance=variance, precision=precision):
            weights = [one.clone().requires_grad_() for one in observation.parameters.tensors]
            stride, values = (2, 2, 1), image
            for layer in range(3):
                kernel = weights[2 * layer][0]
                kernel = kernel.view(12, values.shape[1], 5, 5)
                values = torch.sigmoid(
                    F.conv2d(values, kernel, weights[2 * layer + 1][0], stride[layer], padding=2)
                )
            loss = F.cross_entropy(values.flatten(1) @ weights[6][0].T + weights[7][0], labels[row : row + 1])
            found = torch.autograd.grad(loss, weights, create_graph=True)
            gap = torch.cat([one.flatten() for one in found]) - sent
            away = (image - known.mean).flatten()
            return gap.square().sum() / variance + away @ precision @ away

        def slope(image, improbable=improbable):
            image = image.detach().requires_grad_()
            return torch.autograd.grad(improbable(image), image)[0].norm()

        image = result.images[row : row + 1]
        assert slope(image) < 1e-4 * slope(known.mean[None])


def test_without_noise_it_is_the_image_and_with_endless_noise_the_mean():
    truth, _, observation, _ = noisy(1e-6)
    assert (wdlg.attack(observation, MostProbable(prior(), 1e-6)).images - truth).abs().max() < 1e-3
    _, _, observation, _ = noisy(1e4)
    # The label is drowned as well: here it is the pictures that are looked at.
    found = wdlg.attack(observation, MostProbable(prior(), 1e4))
    assert (found.images - prior().mean).abs().max() < 0.02


def test_its_mean_error_is_close_to_the_bound_of_van_trees_and_below_that_of_cramer_and_rao():
    """Over 60 images that are drawn from its prior; chance moves the mean by some 5 %."""
    level, known = 0.5, prior()
    truth, labels, observation, _ = noisy(level, 60)
    error = float((wdlg.attack(observation, MostProbable(known, level)).images - truth).square().mean())
    several = [
        limits(NETWORK, observation.parameters, *one) for one in zip(truth, labels.tolist(), strict=True)
    ]
    least = van_trees(several, level, known.covariance)
    assert 0.9 * least < error < 1.15 * least
    assert error < 0.5 * sum(one.bound(level) for one in several) / len(several)
    plain = wdlg.attack(observation, Exact("bias_min", refine=2)).images
    assert error < 0.5 * float((plain - truth).square().mean())


def test_no_step_makes_a_picture_less_probable():
    """From a mean far away, in a network with large weights, whole steps would: they are halved.

    With whole steps four of these six end far from the level of the noise.
    """
    level, far = 0.1, NormalPrior(torch.full((1, 4, 5), 5.0), prior().covariance * 400)
    _, _, observation, _ = noisy(level, 6, bound=1.0)
    trace = []
    attack = MostProbable(far, level)
    dummies = torch.zeros(6, 1, 4, 5)
    result = reconstruct(attack, observation, dummies, observers=[lambda *what: trace.append(what)])
    entries = sum(part[0].numel() for part in observation.gradient.tensors())
    squared = sum(part.square().flatten(1).sum(1) for part in observation.gradient.tensors())
    variance = level**2 * squared / (1 + level**2) / entries
    precision = torch.linalg.inv(far.covariance)
    values = []
    for *_, images, loss in trace:
        away = (images - far.mean).flatten(1)
        values.append(loss.square() * squared / variance + ((away @ precision) * away).sum(1))
    values = torch.stack(values)
    assert (values.diff(dim=0) <= 1e-9 * values[:-1]).all()
    assert (result.loss < 1.1 * level).all()


def test_it_is_an_attack_that_tells_what_it_did():
    _, _, observation, _ = noisy(0.1)
    attack = MostProbable(prior(), 0.1, steps=4)
    assert isinstance(attack, Attack)
    result = wdlg.attack(observation, attack)
    assert [Status(code).name for code in result.status.tolist()] == ["CONVERGED"] * 3
    assert result.evaluations.tolist() == [attack.evaluations] * 3 == [5] * 3
    assert result.iterations.tolist() == [4] * 3
    assert result.loss_trace.shape == (3, 5)
    alone = wdlg.attack(observation.select(torch.tensor([2])), attack)
    torch.testing.assert_close(alone.images[0], result.images[2])


def test_a_prior_of_images_has_their_mean_and_their_covariance_spread_a_little():
    images = torch.rand(30, 2, 2, 3, generator=stream(), dtype=torch.float64)
    found = NormalPrior.of(images, shrinkage=0.25)
    flat = images.flatten(1) - images.flatten(1).mean(0)
    empirical = flat.T @ flat / 29
    torch.testing.assert_close(found.mean, images.mean(0))
    torch.testing.assert_close(
        found.covariance,
        0.75 * empirical + 0.25 * empirical.trace() / 12 * torch.eye(12, dtype=torch.float64),
    )
    assert found.variance == pytest.approx(float(empirical.trace()) / 12)
    drawn = found.draw(40_000, stream(1))
    torch.testing.assert_close(drawn.mean(0), found.mean, rtol=0, atol=0.01)
    torch.testing.assert_close(torch.cov(drawn.flatten(1).T), found.covariance, rtol=0, atol=0.003)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NormalPrior(torch.zeros(3), torch.eye(3)), "^mean is"),
        (lambda: NormalPrior(torch.zeros(1, 1, 3), torch.eye(2)), "^covariance is"),
        (lambda: NormalPrior(torch.zeros(1, 1, 3), -torch.eye(3)), "^covariance must be symmetric"),
        (lambda: NormalPrior.of(torch.zeros(1, 1, 2, 2)), "^images holds 1, but must hold at least 2"),
        (lambda: NormalPrior.of(torch.zeros(3, 1, 2, 2)), "^covariance must be"),
        (lambda: NormalPrior.of(torch.zeros(3, 1, 2, 2), 1.0), "^shrinkage is 1.0"),
        (lambda: MostProbable("faces", 0.1), "^prior is of type str, but must be a NormalPrior"),
        (lambda: MostProbable(prior(), 0.0), "^level is 0"),
        (lambda: MostProbable(prior(), 0.1, steps=0), "^steps is 0"),
        (lambda: MostProbable(prior(), 0.1, label_rule="joint"), "^label_rule is joint"),
        (lambda: MostProbable(prior(), 0.1, name=""), "^name is ''"),
    ],
)
def test_settings_are_checked(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_images_of_another_shape_or_number_are_refused():
    network = LeNet((1, 8, 8), 4)
    parameters = network.initial_parameters(generator=stream())
    gradient = network.gradient(parameters, torch.rand(1, 1, 8, 8), torch.eye(4)[:1]).detach()
    with pytest.raises(InputError, match=r"^prior is of images \(1, 4, 5\), but the network takes"):
        wdlg.attack(Observation(network, parameters, gradient), MostProbable(prior(), 0.1))
    mean = NETWORK.mean_gradient(
        NETWORK.initial_parameters(generator=stream()), torch.rand(1, 2, 1, 4, 5), torch.eye(3)[None, :2]
    )
    several = Observation(NETWORK, NETWORK.initial_parameters(generator=stream()), mean.as_sent(), images=2)
    with pytest.raises(InputError, match="^images is 2, but must be 1"):
        wdlg.attack(several, MostProbable(prior(), 0.1))
