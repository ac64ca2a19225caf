"""A random layer hides the image from a search that does not know its noise, and not from a division."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from wdlg import attack
from wdlg.attacks import LM
from wdlg.attacks.base import Observation
from wdlg.attacks.bypass import below_noise
from wdlg.attacks.exact import invert
from wdlg.attacks.labels import BiasMin
from wdlg.errors import InputError
from wdlg.networks import LeNet
from wdlg.networks.bottleneck import Bottleneck
from wdlg.updates import from_tensors

NETWORK = Bottleneck((1, 8, 8), 5, width=20)
LABELS = torch.tensor([3, 1])


def seen(noise=True):
    stream = torch.Generator().manual_seed(0)
    weights = NETWORK.initial_parameters(generator=stream, dtype=torch.float64)
    private = torch.rand(2, 1, 8, 8, generator=stream, dtype=torch.float64)
    drawn = NETWORK.with_noise(weights, stream) if noise else weights
    gradient = NETWORK.gradient(drawn, private, one_hot(LABELS, 5).double()).detach()
    # The attacker holds the weights, and not the noise.
    return Observation(NETWORK, weights, from_tensors(gradient.tensors(), rank_one=False)), private, drawn


def test_its_scores_are_those_of_the_layers_with_the_noise_in_the_middle():
    _, private, drawn = seen()
    weights = [tensor[0] for tensor in drawn.tensors]
    encoder, shift, decoder, back, last, bias = weights[6:]
    lenet = LeNet((1, 8, 8), 40, activation="tanh")
    lower = [one.reshape(shape) for one, shape in zip(weights[:8], lenet.parameter_shapes, strict=True)]
    mean, log_variance = lenet.scores(lower, private).chunk(2, dim=1)
    z = mean + torch.exp(log_variance / 2) * drawn.buffers[0][0]
    scores = (z @ decoder.T + back) @ last.T + bias
    assert torch.allclose(NETWORK.scores(weights, private, [drawn.buffers[0][0]]), scores)
    assert encoder.shape == (40, 48)
    assert shift.shape == (40,)
    assert not torch.allclose(NETWORK.scores(weights, private, [torch.zeros(20).double()]), scores)


def test_its_gradient_is_that_of_autograd():
    observation, private, drawn = seen()
    module = NETWORK.as_module(drawn).double()
    for place in range(2):
        loss = cross_entropy(module(private[place : place + 1]), LABELS[place : place + 1])
        theirs = torch.autograd.grad(loss, list(module.parameters()))
        for ours, true in zip(observation.gradient.tensors(), theirs, strict=True):
            assert torch.allclose(ours[place].flatten(), true.flatten(), atol=1e-12)


def test_a_search_with_the_noise_left_out_fails_where_it_succeeds_without_noise():
    lm = replace(LM, label_rule=BiasMin(), evaluations=3000)
    errors = []
    for noise in (False, True):
        observation, private, _ = seen(noise)
        errors.append((attack(observation, lm, seed=1).images - private).square().mean())
    assert errors[0] < 1e-12
    assert errors[1] > 0.05


def test_the_layers_below_give_the_image_away_as_if_there_were_no_noise():
    observation, private, _ = seen()
    found = invert(below_noise(observation), BiasMin())
    assert (found.images - private).square().mean() < 1e-18


def test_what_is_below_is_the_stated_lenet():
    assert NETWORK.below == LeNet((1, 8, 8), 40, activation="tanh")
    assert below_noise(seen()[0]).network == NETWORK.below


def test_another_network_and_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match="^width is 0"):
        Bottleneck((1, 8, 8), 5, width=0)
    lenet = LeNet((1, 8, 8), 5)
    weights = lenet.initial_parameters(generator=torch.Generator().manual_seed(0))
    gradient = lenet.gradient(weights, torch.rand(1, 1, 8, 8), one_hot(LABELS[:1], 5).float()).detach()
    with pytest.raises(InputError, match="^observation is of LeNet.*, but must be of a Bottleneck"):
        below_noise(Observation(lenet, weights, gradient))
