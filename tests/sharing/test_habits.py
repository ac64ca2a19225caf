"""Smoothed labels and normalised images are sent as torch sends them, and recovered by who knows of them."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.attacks import LM, Observation, attack
from wdlg.attacks.labels import Known
from wdlg.attacks.soft_labels import soft_labels
from wdlg.errors import InputError
from wdlg.evaluation import matched, mse
from wdlg.losses import Cosine
from wdlg.networks import LeNet
from wdlg.sharing.federated import FedAvg
from wdlg.sharing.habits import Normalised, Smoothed
from wdlg.updates.gradient import from_tensors

NETWORK = LeNet((2, 8, 8), 5)
HABITS = Smoothed(0.1, Normalised((0.4, 0.5), (0.2, 0.3)))


def setting(images=1, dtype=torch.float64):
    stream = torch.Generator().manual_seed(4)
    parameters = NETWORK.initial_parameters(generator=stream, dtype=dtype)
    shape = (1, images, 2, 8, 8) if images > 1 else (1, 2, 8, 8)
    labels = torch.arange(images)[None] if images > 1 else torch.tensor([3])
    return parameters, torch.rand(shape, generator=stream, dtype=dtype), F.one_hot(labels, 5).to(dtype)


@pytest.mark.parametrize("images", [1, 3])
def test_what_is_sent_is_what_torch_computes(images):
    parameters, truth, target = setting(images)
    module = NETWORK.as_module(parameters)
    mean, deviation = (torch.tensor(some)[:, None, None].double() for some in ((0.4, 0.5), (0.2, 0.3)))
    seen = (truth.view(-1, 2, 8, 8) - mean) / deviation
    labels = target.argmax(-1).flatten()
    loss = F.cross_entropy(module(seen), labels, label_smoothing=0.1)
    for ours, theirs in zip(
        HABITS(NETWORK, parameters, truth, target).tensors(),
        torch.autograd.grad(loss, list(module.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(ours.flatten(), theirs.flatten(), rtol=1e-6, atol=1e-9)


def test_habits_go_around_any_rule_of_sharing():
    parameters, truth, target = setting(2)
    steps = FedAvg(rate=0.1, steps=2)
    ours = Smoothed(0.2, steps)(NETWORK, parameters, truth, target)
    theirs = steps(NETWORK, parameters, truth, 0.8 * target + 0.04)
    for one, other in zip(ours.tensors(), theirs.tensors(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("images", [1, 2])
def test_images_come_back_as_they_were_before_the_normalisation(images):
    parameters, truth, target = setting(images)
    sent = HABITS(NETWORK, parameters, truth, target).as_sent()
    labels = tuple(target.argmax(-1).flatten().tolist())
    if images == 1:
        assert soft_labels(sent, parameters).labels.tolist() == list(labels)
    seen = Observation(NETWORK, parameters, sent, sharing=HABITS, images=images)
    found = attack(seen, replace(LM, label_rule=Known(labels))).images
    error = mse(found, truth) if images == 1 else matched(found, truth)[1]
    assert error.max() < 1e-8
    inner = HABITS.sharing
    torch.testing.assert_close(inner.restored(inner.normalised(found)), found)


def test_a_gradient_of_unknown_scale_has_the_loss_of_the_picture_under_the_cosine():
    parameters, truth, target = setting()
    scaled = from_tensors(
        [0.01 * one for one in NETWORK.gradient(parameters, truth, target).tensors()], rank_one=False
    )
    Observation(NETWORK, parameters, scaled)  # is not refused
    assert float(Cosine()(NETWORK.gradient(parameters, truth, target), scaled)) < 1e-12


def test_settings_and_images_that_do_not_fit_are_refused():
    for value in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="^smoothing is "):
            Smoothed(value)
    for mean, deviation, message in (
        ((), (), "mean is"), ("0", (1.0,), "mean is"), ((0.5,), (0.0,), "deviation is 0"),
        ((0.5, 0.5), (1.0,), "deviation has 1 numbers, but must have 2"),
        ((float("nan"),), (1.0,), "mean is"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"^{message}"):
            Normalised(mean, deviation)
    parameters, truth, target = setting()
    with pytest.raises(InputError, match="^images is a float64 tensor of shape .* but must have 1 channels"):
        Normalised((0.5,), (1.0,))(NETWORK, parameters, truth, target)
