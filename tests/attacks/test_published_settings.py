"""Attacks of the literature as values, on its networks, take the course of a plain loop in torch."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.attacks import Observation, Optimised, reconstruct
from wdlg.attacks.labels import BiasSign
from wdlg.attacks.priors import Box, TotalVariation
from wdlg.losses import Cosine
from wdlg.networks import ConvNet, ModuleNetwork, ResNet
from wdlg.optimizers import Adam

GEIPING = Optimised(
    "Geiping et al.",
    BiasSign(),
    loss=Cosine(),
    optimizer=Adam(0.1, signed=True, milestones=(2, 3)),
    priors=(TotalVariation(0.01),),
    projection=Box(),
    evaluations=5,
    stop_loss=1e-300,
)


def plain_course(module, buffers, shared, start, label):
    """Five images and losses of the attack as Geiping et al. describe it, with autograd and torch.optim."""
    image = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 3], gamma=0.1)
    flat = torch.cat([part.flatten() for part in shared])
    images, losses = [], []
    for _ in range(5):
        for place, buffer in enumerate(module.buffers()):
            buffer.copy_(buffers[place])
        loss = F.cross_entropy(module(image[None]), label[None])
        dummy = torch.cat(
            [part.flatten() for part in torch.autograd.grad(loss, module.parameters(), create_graph=True)]
        )
        value = 1 - F.cosine_similarity(dummy, flat, dim=0)
        value = value + 0.01 * (image.diff(dim=-1).abs().mean() + image.diff(dim=-2).abs().mean())
        images.append(image.detach().clone())
        losses.append(value.detach())
        (slope,) = torch.autograd.grad(value, image)
        image.grad = slope.sign()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            image.clamp_(0, 1)
    return torch.stack(images), torch.stack(losses)


@pytest.mark.parametrize("mode", ["evaluation", "training"])
@pytest.mark.parametrize("kind", [ConvNet, ResNet])
def test_the_cosine_attack_on_networks_with_batch_norm_takes_the_course_of_a_plain_loop(kind, mode):
    network = kind((3, 18, 18), 5, "sigmoid", width=2, mode=mode)
    stream = torch.Generator().manual_seed(0)
    parameters = network.initial_parameters(2, generator=stream, dtype=torch.float64)
    truth = torch.rand(2, 3, 18, 18, generator=stream, dtype=torch.float64)
    labels = torch.tensor([3, 1])
    sent = network.gradient(parameters, truth, F.one_hot(labels, 5).double()).as_sent()
    dummies = torch.randn(2, 3, 18, 18, generator=stream, dtype=torch.float64)
    seen = []
    result = reconstruct(
        GEIPING,
        Observation(network, parameters, sent),
        dummies,
        observers=[lambda *what: seen.append(what[3].clone())],
    )
    assert torch.equal(result.labels, labels)
    for number in range(2):
        module = copy.deepcopy(network.as_module(parameters, number)).train(mode == "training")
        buffers = [buffer.clone() for buffer in module.buffers()]
        shared = [part[number] for part in sent.tensors()]
        images, losses = plain_course(module, buffers, shared, dummies[number], labels[number])
        torch.testing.assert_close(result.loss_trace[number], losses)
        torch.testing.assert_close(torch.stack(seen)[:, number], images)


def test_a_batch_in_training_mode_shares_its_statistics():
    """The mean gradient of two images is that of plain training mode, and no mean of two gradients."""
    network = ResNet((3, 9, 9), 5, "sigmoid", width=2, mode="training")
    stream = torch.Generator().manual_seed(0)
    parameters = network.initial_parameters(1, generator=stream, dtype=torch.float64)
    truth = torch.rand(1, 2, 3, 9, 9, generator=stream, dtype=torch.float64)
    labels = torch.tensor([[0, 3]])
    target = F.one_hot(labels, 5).double()
    module = network.as_module(parameters).train()
    plain = torch.autograd.grad(F.cross_entropy(module(truth[0]), labels[0]), list(module.parameters()))
    sent = network.mean_gradient(parameters, truth, target).as_sent()
    for ours, theirs in zip(sent.tensors(), plain, strict=True):
        torch.testing.assert_close(ours[0].reshape(theirs.shape), theirs)
    alone = network.gradient(parameters, truth[0], target[0])
    assert not torch.allclose(alone.bias.mean(0), sent.bias[0], rtol=1e-5)
    own = ModuleNetwork(module, (3, 9, 9), "training")
    again = own.mean_gradient(own.parameters(), truth, target).as_sent()
    torch.testing.assert_close(again.bias, sent.bias)
