"""Normalisations in plain operations are torch's, and right where torch's own second derivative is not."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.func import grad, vmap

from wdlg.errors import InputError
from wdlg.networks.normalisation import PlainNormalisations

LAYERS = {
    "batch": nn.BatchNorm2d(4),
    "batch, evaluation": nn.BatchNorm2d(4).eval(),
    "batch, no scale": nn.BatchNorm2d(4, affine=False, eps=0.1),
    "instance": nn.InstanceNorm2d(4, affine=True),
    "instance, evaluation": nn.InstanceNorm2d(4, track_running_stats=True).eval(),
    "layer": nn.LayerNorm((4, 3, 5), eps=0.1),
    "layer, one axis": nn.LayerNorm(5, bias=False),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_values_are_those_of_torch(layer):
    torch.manual_seed(0)
    layer = layer.double()
    with torch.no_grad():
        for tensor in layer.parameters():
            tensor.normal_()
    images = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    theirs = layer(images)
    with PlainNormalisations():
        torch.testing.assert_close(layer(images), theirs)


@pytest.mark.parametrize("name", ["batch", "instance", "layer"])
def test_second_derivatives_under_vmap_are_those_of_autograd_without(name):
    normalised = {
        "batch": lambda hidden: F.batch_norm(hidden, None, None, training=True),
        "instance": F.instance_norm,
        "layer": lambda hidden: F.layer_norm(hidden, (3, 5)),
    }[name]
    stream = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 4, 4, 3, 3, generator=stream, dtype=torch.float64)
    images = torch.randn(2, 3, 4, 3, 5, generator=stream, dtype=torch.float64)

    def loss(weight, images):
        return normalised(F.conv2d(images, weight, padding=1)).tanh().pow(3).sum()

    leaf = images.clone().requires_grad_()
    with PlainNormalisations():
        slopes = vmap(grad(loss))(weights, leaf)
    (ours,) = torch.autograd.grad(slopes.pow(3).sum(), leaf)
    for place in range(2):
        alone, weight = (tensor[place].clone().requires_grad_() for tensor in (images, weights))
        (slope,) = torch.autograd.grad(loss(weight, alone), weight, create_graph=True)
        (theirs,) = torch.autograd.grad(slope.pow(3).sum(), alone)
        torch.testing.assert_close(ours[place], theirs)


def test_statistics_of_a_single_value_are_refused():
    with PlainNormalisations(), pytest.raises(InputError, match="a single value for each channel"):
        nn.BatchNorm1d(3)(torch.zeros(1, 3))
