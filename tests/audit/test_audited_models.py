"""A model of somebody's own sends what autograd says, whatever it ends in, and stays as it is."""

from __future__ import annotations

from pathlib import Path

import models_for_tests as models
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from models_for_tests import assert_sent, gradients, of
from torch import nn

from wdlg import audit
from wdlg.audit.message import one_hot
from wdlg.errors import InputError
from wdlg.sharing.defences import LaplaceNoise, Noise
from wdlg.sharing.federated import FedSGD

HERE = Path(__file__).parent / "models_for_tests.py"


@pytest.mark.parametrize("make", [models.lenet, models.Pooled, models.without_bias])
@pytest.mark.parametrize("indices", [(3,), (3, 7)])
def test_what_a_model_sends_is_its_gradient_by_autograd(make, indices):
    torch.manual_seed(1)
    model = make()
    system, private, message = of(model, *indices)
    assert_sent(system, message, gradients(model, private))
    assert system.own_output == (make is models.lenet)
    assert message.complete == system.own_output


def test_a_single_score_is_a_class_against_zero():
    model = models.one_score()
    system, private, message = of(model, 4)
    assert system.one_score
    assert system.classes == 2
    expected = gradients(
        model, private, lambda scores, y: F.binary_cross_entropy_with_logits(scores[:, 0], y.float())
    )
    assert_sent(system, message, expected)


def test_images_are_normalised_before_the_model():
    model = models.lenet()
    system, private, message = of(model, mean=(0.25,), deviation=(0.5,))
    assert system.own_output
    assert_sent(system, message, gradients(model, private, change=lambda images: (images - 0.25) / 0.5))


def test_frozen_layers_are_not_sent():
    model = models.Pooled()
    model.body[0].requires_grad_(False)
    system, private, message = of(model)
    assert message.sent[:2] == (False, False)
    assert [layer.name for layer in audit.leak(system, message, private).layers] == ["body.1", "head"]


def test_weights_of_a_file_are_those_that_are_audited(tmp_path):
    torch.manual_seed(9)
    model = models.lenet()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pt")
    loaded = audit.load(f"{HERE}:lenet", (1, 8, 8), weights=tmp_path / "weights.pt", seed=1)
    for one, other in zip(loaded.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    state = model.state_dict()
    state.pop("0.bias")
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(InputError, match=r"has no 0\.bias"):
        audit.load(f"{HERE}:lenet", (1, 8, 8), weights=tmp_path / "less.pt")


def test_targets_are_one_hot():
    system, private, _ = of(models.Pooled(), 1, 2)
    assert torch.equal(one_hot(system, private, torch.zeros(1)), F.one_hot(private.labels, 4).float()[None])


@pytest.mark.parametrize("make", [models.lenet, models.Pooled])
def test_noise_has_its_level_relative_to_what_is_sent(make):
    _, _, message = of(make())
    noisy = message.defended(Noise(0.2), seed=1)
    gap = (
        sum(float((a - b).square().sum()) for a, b in zip(noisy.parts(), message.parts(), strict=True)) ** 0.5
    )
    assert gap / message.size == pytest.approx(0.2, rel=0.2)
    for tensor, sent in zip(noisy.gradient.tensors(), message.sent, strict=True):
        assert sent or not tensor.any()


def test_the_model_and_torch_s_random_numbers_stay_as_they_are():
    model = models.Pooled().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    audit.system(model, (1, 8, 8))
    assert all(part.training for part in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    audit.load(f"{HERE}:lenet", (1, 8, 8), seed=5)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("images", "labels", "told"),
    [
        (torch.zeros(1, 1, 8, 7), torch.tensor([1]), "must be of shape"),
        (torch.zeros(1, 8, 8), torch.tensor([1]), "must be of shape"),
        (torch.full((1, 1, 8, 8), 1.5), torch.tensor([1]), "outside"),
        (torch.full((1, 1, 8, 8), torch.nan), torch.tensor([1]), "outside"),
        (torch.zeros(1, 1, 8, 8), torch.tensor([1.0]), "whole numbers"),
        (torch.zeros(1, 1, 8, 8), torch.tensor([1, 2]), "one for each"),
        (torch.zeros(1, 1, 8, 8), torch.tensor([10]), "from 0 to 9"),
        (torch.zeros(1, 1, 8, 8), torch.tensor([-1]), "from 0 to 9"),
        ("pictures", torch.tensor([1]), "must be of shape"),
    ],
)
def test_private_images_that_do_not_fit_are_refused(images, labels, told):
    system = audit.system(models.lenet(), (1, 8, 8))
    with pytest.raises(InputError) as caught:
        audit.private(system, images, labels)
    assert told in str(caught.value)


@pytest.mark.parametrize("make", [models.lenet, models.Pooled])
def test_laplace_noise_has_its_level_relative_to_what_is_sent(make):
    _, _, message = of(make())
    noisy = message.defended(LaplaceNoise(0.2), seed=1)
    pairs = zip(noisy.parts(), message.parts(), strict=True)
    assert sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5 / message.size == pytest.approx(
        0.2, rel=0.3
    )


def test_one_score_of_a_linear_layer_is_a_class_against_zero_too():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    system, private, message = of(model, 4)
    assert (system.one_score, system.classes, system.own_output) == (True, 2, False)
    expected = gradients(
        model, private, lambda scores, y: F.binary_cross_entropy_with_logits(scores[:, 0], y.float())
    )
    assert_sent(system, message, expected)


class Twice(nn.Module):
    """Uses its last layer twice, and gives what came first."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 5)

    def forward(self, images):
        first = self.layer(images.flatten(1))
        return first + 0 * self.layer(2 * images.flatten(1)).sum() if self.training else self._kept(images)

    def _kept(self, images):
        first = self.layer(images.flatten(1))
        self.layer(2 * images.flatten(1))
        return first


def test_a_last_layer_that_is_used_twice_is_not_read_as_the_output():
    model = Twice()
    system, private, message = of(model)
    assert not system.own_output
    assert_sent(system, message, gradients(model, private))


@pytest.mark.parametrize("kind", [Noise, LaplaceNoise])
def test_noise_on_a_part_of_a_message_has_its_level_relative_to_that_part(kind):
    model = models.lenet()
    system, private, _ = of(model)
    part = {name: one for name, one in gradients(model, private).items() if name == "0.weight"}
    message = audit.read(system, private, part, FedSGD(), partial=True)
    noisy = message.defended(kind(0.2), seed=1)
    (gap,) = [a - b for a, b in zip(noisy.parts(), message.parts(), strict=True)]
    assert float(gap.norm()) / message.size == pytest.approx(0.2, rel=0.2)
