"""The normal matrix of a gradient by its image is that of the Jacobian written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wdlg import compiled
from wdlg.errors import InputError
from wdlg.networks import LeNet, ModuleNetwork
from wdlg.networks.base import Network, Parameters
from wdlg.networks.jacobian import (
    derivatives,
    inner_products,
    load_forward_mode,
    mean_normal_matrix,
    normal_matrices,
)
from wdlg.sharing import FedAvg, FedSGD
from wdlg.sharing.federated import Sharing


@pytest.fixture(autouse=True)
def _forward_mode() -> None:
    load_forward_mode()


def case(shape: tuple[int, int, int], classes: int, activation: str, attacks: int = 1, seed: int = 3):
    """A LeNet for each image, images and label probabilities, in double precision."""
    stream = torch.Generator().manual_seed(seed)
    network = LeNet(shape, classes, activation)
    parameters = network.initial_parameters(attacks, generator=stream, dtype=torch.float64)
    images = torch.rand(attacks, *shape, generator=stream, dtype=torch.float64)
    target = torch.softmax(torch.randn(attacks, classes, generator=stream, dtype=torch.float64), dim=1)
    return network, parameters, images, target


def written_out(
    network: Network, parameters: Parameters, image: Tensor, target: Tensor, *, by_labels: bool
) -> Tensor:
    """The Jacobian by torch: rows for every entry of the gradient of the cross-entropy."""
    weights = [tensor[0] for tensor in parameters.tensors]
    pixels = image.numel()

    def gradient(variables: Tensor) -> Tensor:
        labels = torch.softmax(variables[pixels:], dim=0) if by_labels else target[0]

        def loss(weights: list[Tensor]) -> Tensor:
            scores = network.scores(weights, variables[:pixels].view_as(image))[0]
            return torch.logsumexp(scores, 0) - (labels * scores).sum()

        return torch.cat([part.flatten() for part in torch.func.grad(loss)(weights)])

    at = torch.cat((image.flatten(), target[0].log())) if by_labels else image.flatten()
    return torch.func.jacfwd(gradient)(at)


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal to rounding where each variable is measured by its own column's length."""
    length = expected.diagonal().sqrt()
    torch.testing.assert_close(found / (length[:, None] * length), expected / (length[:, None] * length))


@pytest.mark.parametrize("by_labels", [False, True])
@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize(
    ("shape", "activation"),
    [((2, 7, 6), "sigmoid"), ((2, 7, 6), "tanh"), ((2, 7, 6), "relu"), ((1, 5, 8), "sigmoid")],
)
def test_normal_matrix_of_lenet_is_that_of_its_jacobian(
    shape: tuple[int, int, int], activation: str, by_labels: bool, is_compiled: bool
) -> None:
    network, parameters, image, target = case(shape, 4, activation)
    jacobian = written_out(network, parameters, image, target, by_labels=by_labels)
    if is_compiled:
        (found,) = normal_matrices(network, parameters, image, target, by_labels=by_labels)
    else:
        with compiled.turned_off():
            (found,) = normal_matrices(network, parameters, image, target, by_labels=by_labels)
    assert_same(found, jacobian.T @ jacobian)


def test_normal_matrices_of_a_batch_are_those_of_its_attacks() -> None:
    network, parameters, images, target = case((1, 6, 6), 3, "tanh", attacks=3)
    one = parameters.select(torch.tensor([1]))
    together = normal_matrices(network, parameters, images, target)
    assert torch.equal(together[1], normal_matrices(network, one, images[1:2], target[1:2])[0])
    shared = normal_matrices(network, one, images, target)
    assert torch.equal(shared[1], together[1])
    assert not torch.equal(shared[0], together[0])


def test_normal_matrix_in_single_precision_is_that_in_double_rounded() -> None:
    network, parameters, image, target = case((3, 8, 8), 10, "sigmoid")
    singles = Parameters(tuple(tensor.float() for tensor in parameters.tensors))
    (single,) = normal_matrices(network, singles, image.float(), target.float())
    (double,) = normal_matrices(network, parameters, image, target)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5 * float(double.max()))


@pytest.mark.parametrize("by_labels", [False, True])
def test_normal_matrix_of_any_module_is_that_of_its_jacobian(by_labels: bool) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 6),
        nn.Tanh(),
        nn.Linear(6, 4),
    ).double()
    network = ModuleNetwork(module, (1, 6, 6))
    image, target = torch.rand(1, 1, 6, 6).double(), torch.softmax(torch.randn(1, 4).double(), dim=1)
    (found,) = normal_matrices(network, network.parameters(), image, target, by_labels=by_labels)
    jacobian = written_out(network, network.parameters(), image, target, by_labels=by_labels)
    torch.testing.assert_close(found, jacobian.T @ jacobian)


@pytest.mark.parametrize("sharing", [FedSGD(), FedAvg(rate=0.2, steps=2)])
def test_inner_products_are_those_of_all_entries_that_several_images_send(sharing: Sharing) -> None:
    network, parameters, images, target = case((1, 5, 5), 3, "sigmoid", attacks=2)
    parameters = parameters.select(torch.tensor([0]))
    at, along = derivatives(sharing, network, parameters, images[None], target[None])
    rows = []
    for pixel in range(50):  # central differences of what is sent, written out
        step = torch.zeros(50, dtype=torch.float64)
        step[pixel] = 1e-5
        sent = [
            sharing(network, parameters, (images.flatten() + sign * step).view(1, 2, 1, 5, 5), target[None])
            for sign in (1, -1)
        ]
        ends = [torch.cat([tensor.flatten() for tensor in one.tensors()]) for one in sent]
        rows.append((ends[0] - ends[1]) / 2e-5)
    jacobian = torch.stack(rows)
    weights = [(tensor > 0).double() * 2 for tensor in at.tensors()]
    scale = torch.cat([weight.flatten() for weight in weights])
    for found, expected in (
        (inner_products(at, along, None), jacobian @ jacobian.T),
        (inner_products(at, along, weights), (jacobian * scale) @ jacobian.T),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_target_that_does_not_fit_is_refused() -> None:
    network, parameters, image, target = case((1, 5, 5), 3, "sigmoid")
    with pytest.raises(InputError, match="target has shape"):
        normal_matrices(network, parameters, image, target[:, :2])


# Of several images together


def several(network: Network, count: int, seed: int = 5):
    """One network, the images of one participant and their label probabilities."""
    stream = torch.Generator().manual_seed(seed)
    parameters = network.initial_parameters(generator=stream, dtype=torch.float64)
    images = torch.rand(1, count, *network.image_shape, generator=stream, dtype=torch.float64)
    target = torch.randn(1, count, network.classes, generator=stream, dtype=torch.float64).softmax(-1)
    return parameters, images, target


def jacobian_of_mean(network: Network, parameters: Parameters, images: Tensor, target: Tensor) -> Tensor:
    """Of every entry of the mean gradient by all pixels, row by row in reverse mode."""

    def gradient(pixels: Tensor) -> Tensor:
        sent = network.mean_gradient(parameters, pixels.view_as(images), target)
        return torch.cat([part.flatten() for part in sent.tensors()])

    return torch.autograd.functional.jacobian(gradient, images.flatten())


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize(("shape", "activation"), [((1, 8, 8), "sigmoid"), ((2, 9, 7), "tanh")])
def test_the_joint_matrix_of_several_images_is_that_of_the_jacobian(shape, activation, is_compiled):
    network = LeNet(shape, 5, activation)
    given = several(network, 3)
    if is_compiled:
        found = mean_normal_matrix(network, *given)
    else:
        with compiled.turned_off():
            found = mean_normal_matrix(network, *given)
    jacobian = jacobian_of_mean(network, *given)
    assert_same(found, jacobian.T @ jacobian)


@pytest.mark.parametrize("mode", ["evaluation", "training"])
def test_images_that_see_each_other_are_differentiated_together(mode):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4)
    ).double()
    network = ModuleNetwork(module, (1, 6, 6), mode)
    _, images, target = several(network, 2)
    found = mean_normal_matrix(network, network.parameters(), images, target)
    jacobian = jacobian_of_mean(network, network.parameters(), images, target)
    assert_same(found, jacobian.T @ jacobian)
    # What one image alone would have is another matrix where they do.
    block = normal_matrices(network, network.parameters(), images[0, :1], target[0, :1])[0] / 4
    assert torch.allclose(found[:36, :36], block) == (mode == "evaluation")


def test_of_one_image_the_joint_matrix_is_its_own():
    network = LeNet((1, 8, 8), 10)
    parameters, images, target = several(network, 1)
    own = normal_matrices(network, parameters, images[:, 0], target[:, 0])[0]
    assert_same(mean_normal_matrix(network, parameters, images, target), own)


def test_the_joint_matrix_needs_one_participant_and_its_images():
    network = LeNet((1, 8, 8), 10)
    parameters, images, target = several(network, 2)
    with pytest.raises(InputError, match="^images has shape"):
        mean_normal_matrix(network, parameters, images[0], target)
    with pytest.raises(InputError, match="^images holds 2 participants and parameters 1 networks, but must"):
        mean_normal_matrix(network, parameters, images.repeat(2, 1, 1, 1, 1), target.repeat(2, 1, 1))
