"""How many images a mean gradient can determine: against the Jacobian written out, counting, and attacks."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.errors import InputError
from wdlg.identifiability import joint_limits, most_images, most_rank
from wdlg.limits import limits
from wdlg.networks import LeNet, ModuleNetwork


def case(network, count, seed=0):
    """A network, images and labels, in double precision."""
    stream = torch.Generator().manual_seed(seed)
    parameters = network.initial_parameters(generator=stream, dtype=torch.float64)
    images = torch.rand(count, *network.image_shape, generator=stream, dtype=torch.float64)
    return parameters, images, torch.randint(network.classes, (count,), generator=stream).tolist()


def jacobian(network, parameters, images, labels):
    """Of every entry of the mean gradient by all pixels, and that gradient."""
    target = F.one_hot(torch.tensor(labels), network.classes).double()[None]

    def gradient(pixels):
        sent = network.mean_gradient(parameters, pixels.view(1, *images.shape), target)
        return torch.cat([part.flatten() for part in sent.tensors()])

    return torch.autograd.functional.jacobian(gradient, images.flatten()), gradient(images)


def test_spectrum_and_constant_are_those_of_the_jacobian():
    network = LeNet((2, 5, 4), 3)
    parameters, images, labels = case(network, 3)
    found = joint_limits(network, parameters, images, labels)
    J, gradient = jacobian(network, parameters, images, labels)
    assert (found.images, found.pixels, found.entries) == (3, 120, len(gradient))
    assert found.size == pytest.approx(float(gradient.norm()))
    torch.testing.assert_close(found.singular_values, torch.linalg.svdvals(J), rtol=1e-5, atol=1e-8)
    exact = float(gradient.norm() ** 2 / len(gradient) * torch.linalg.inv(J.T @ J).trace() / 120)
    assert found.constant == pytest.approx(exact, rel=1e-4)
    assert found.level_for(0.01) == pytest.approx(math.sqrt(0.01 / exact), rel=1e-4)
    assert found.determined
    assert found.directions(0.0) == 120
    assert 0 < found.directions(0.1) < 120


def test_of_one_image_they_are_the_limits_of_that_image():
    network = LeNet((1, 8, 8), 10)
    parameters, images, labels = case(network, 1)
    one, joint = (
        limits(network, parameters, images, labels[0]),
        joint_limits(network, parameters, images, labels),
    )
    torch.testing.assert_close(one.singular_values, joint.singular_values)
    assert one.rank == joint.rank
    assert one.constant == pytest.approx(joint.constant)
    assert joint.last.shape == (0, 1, 1, 8, 8)


def test_single_precision_is_computed_in_double():
    network = LeNet((1, 8, 8), 10)
    parameters, images, labels = case(network, 2)
    exact = joint_limits(network, parameters, images, labels)
    short = joint_limits(network, parameters.in_precision(torch.float32), images.float(), labels)
    assert short.singular_values.dtype == torch.float64
    torch.testing.assert_close(short.singular_values, exact.singular_values, rtol=1e-4, atol=1e-8)


def test_the_last_directions_are_those_that_move_the_gradient_least():
    network = LeNet((1, 6, 6), 4)
    parameters, images, labels = case(network, 2)
    found = joint_limits(network, parameters, images, labels, last=3)
    J, _ = jacobian(network, parameters, images, labels)
    moved = (J @ found.last.flatten(1).T).norm(dim=0)
    torch.testing.assert_close(moved, found.singular_values[-3:], rtol=1e-4, atol=1e-10)
    torch.testing.assert_close(found.last.flatten(1).norm(dim=1), torch.ones(3, dtype=torch.float64))


def narrow():
    """A network that sees of each image the sums of its two halves."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.AvgPool2d((4, 2)), torch.nn.Flatten(), torch.nn.Linear(2, 5), torch.nn.Tanh(),
        torch.nn.Linear(5, 3),
    ).double()  # fmt: skip
    return ModuleNetwork(module, (1, 4, 4))


def test_what_the_network_does_not_see_is_not_in_the_gradient():
    network = narrow()
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = joint_limits(network, network.parameters(), images, [0, 2], last=28)
    assert found.rank == 4
    assert not found.determined
    assert found.constant == math.inf
    assert found.level_for() == 0
    # Of each pixel an eighth is seen: the part that it has in its half's mean.
    torch.testing.assert_close(found.unseen(), torch.full((2, 1, 4, 4), 7 / 8, dtype=torch.float64))
    few = joint_limits(network, network.parameters(), images, [0, 2], last=27)
    with pytest.raises(InputError, match="^last holds 27 directions, but must hold all 28 that are not in"):
        few.unseen()


@pytest.mark.parametrize(("shape", "images"), [((1, 8, 8), 2), ((3, 4, 4), 5), ((2, 5, 4), 9)])
def test_the_rank_is_never_above_the_count(shape, images):
    network = LeNet(shape, 3)
    found = joint_limits(network, *case(network, images))
    assert found.rank <= most_rank(network, images) <= found.pixels


def test_the_count_is_met_where_a_layer_is_too_narrow():
    """Third layer and up see 12 numbers of each image; below are only 12 (25 + 1) + 12 (300 + 1) weights."""
    network = LeNet((1, 4, 4), 2)
    assert network.layer_inputs[2] == (12, 1, 1)
    sizes = [12 * 26, 12 * 301, 12 * 301, 2 * 13]
    for images in (1, 10, 900, 1000, 5000):
        by_layer = [
            min(images * inputs, sum(sizes[layer:]) - 13) + sum(sizes[:layer])
            for layer, inputs in enumerate((16, 48, 12, 12))
        ]
        assert most_rank(network, images) == min(by_layer)


def test_the_output_layers_gradient_has_as_many_entries_too_many_as_it_has_columns():
    network = LeNet((1, 8, 8), 4)
    J, _ = jacobian(network, *case(network, 3))
    last = J[-4 * (network.features + 1) :]
    by_class = torch.cat((last[: 4 * network.features].view(4, network.features, -1), last[-4:, None]), 1)
    torch.testing.assert_close(by_class.sum(0), torch.zeros_like(by_class[0]))


@pytest.mark.parametrize("network", [LeNet((1, 8, 8), 10), LeNet((1, 28, 28), 10), LeNet((3, 32, 32), 100)])
def test_one_image_more_than_the_most_has_fewer_directions_than_pixels(network):
    most, pixels = most_images(network), math.prod(network.image_shape)
    assert most_rank(network, most) == most * pixels
    assert most_rank(network, most + 1) < (most + 1) * pixels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(1, 8, 8)}, "images is a float32 tensor of shape"),
        ({"images": torch.zeros(1, 1, 8, 8, dtype=torch.float64)}, "labels is"),
        ({"images": torch.zeros(2, 1, 7, 8, dtype=torch.float64)}, "images has shape"),
        ({"labels": [0]}, "labels is .* but must be 2 classes"),
        ({"labels": "01"}, "labels is .* but must be 2 classes"),
        ({"labels": [0, 10]}, "labels is 10"),
        ({"last": -1}, "last is -1"),
        ({"last": 129}, "last is 129"),
        ({"images": torch.zeros(129, 1, 8, 8, dtype=torch.float64), "labels": [0] * 129}, "images have 8256"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    network = LeNet((1, 8, 8), 10)
    parameters, images, labels = case(network, 2)
    settings = {"images": images, "labels": labels, **change}
    with pytest.raises(InputError, match=f"^{message}"):
        joint_limits(network, parameters, **settings)


def test_several_networks_and_no_gradient_are_refused():
    network = LeNet((1, 8, 8), 3, "relu")
    parameters, images, labels = case(network, 2)
    with pytest.raises(InputError, match="^parameters holds 2 networks, but must hold"):
        joint_limits(network, parameters.repeated(2), images, labels)
    dead = type(parameters)((*(torch.zeros_like(one) for one in parameters.tensors),))
    with pytest.raises(InputError, match="^images have a gradient that is zero or does not depend on them"):
        joint_limits(network, dead, images, labels)
    with pytest.raises(InputError, match="^images have a gradient that is NaN or infinite"):
        joint_limits(network, parameters, images * torch.nan, labels)


def test_counting_needs_a_lenet_and_an_image():
    with pytest.raises(InputError, match="^network is .* but must be a LeNet"):
        most_rank(narrow(), 2)
    with pytest.raises(InputError, match="^images is 0"):
        most_rank(LeNet((1, 8, 8), 10), 0)
