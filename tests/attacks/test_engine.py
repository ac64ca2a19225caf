"""The queue: places are handed on, starts are drawn when needed, and results are those of the plain loop."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from ot.batch import bregman_log_projection_batch

from wdlg.attacks import DLG, IDLG, METHODS, Observation, Start, Status, reconstruct, reconstruct_each
from wdlg.errors import InputError
from wdlg.losses import Euclidean, SquaredEuclidean, Wasserstein
from wdlg.losses.wasserstein import squared_distances
from wdlg.networks import LeNet
from wdlg.optimizers import LBFGS, Adam, GradientDescent

NETWORK = LeNet((1, 8, 8), 4)


def start(attacks, *, seed=0, shared=False):
    generator = torch.Generator().manual_seed(seed)
    parameters = NETWORK.initial_parameters(
        1 if shared else attacks, generator=generator, dtype=torch.float64
    )
    truth = torch.rand(attacks, 1, 8, 8, generator=generator, dtype=torch.float64)
    target = F.one_hot(torch.arange(attacks) % 4, 4).double()
    gradient = NETWORK.gradient(parameters, truth, target)
    return Start(
        Observation(NETWORK, parameters, gradient),
        torch.randn(attacks, 1, 8, 8, generator=generator, dtype=torch.float64),
        torch.randn(attacks, 4, generator=generator, dtype=torch.float64),
    )


def gathered(attack, starts, batch_size):
    """Results by number."""
    found = {}
    for numbers, part in reconstruct_each(attack, starts, batch_size=batch_size):
        for place, number in enumerate(numbers.tolist()):
            assert number not in found
            found[number] = part.select(torch.tensor([place]))
    return found


def assert_same(ours, theirs):
    torch.testing.assert_close(ours.images, theirs.images)
    torch.testing.assert_close(ours.loss_trace, theirs.loss_trace, equal_nan=True)
    assert torch.equal(ours.evaluations, theirs.evaluations)
    assert torch.equal(ours.status, theirs.status)
    assert torch.equal(ours.labels, theirs.labels)
    assert torch.equal(ours.iteration_trace, theirs.iteration_trace)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_attacks_that_end_at_different_times_are_those_that_run_alone(method, batch_size):
    whole = start(9)
    first = reconstruct(replace(method, evaluations=1), *vars(whole).values()).loss
    # Some fall below this early, some late, some not at all.
    attack = replace(method, evaluations=14, stop_loss=0.5 * first.median().item())
    together = gathered(attack, [whole], batch_size)
    assert len({int(one.evaluations) for one in together.values()}) > 2
    for number in range(9):
        (alone,) = gathered(attack, [whole.select(torch.tensor([number]))], 1).values()
        assert_same(together[number], alone)


def test_starts_are_drawn_only_when_places_are_free():
    drawn = []

    def endless():
        while True:
            drawn.append(len(drawn))
            yield start(2, seed=len(drawn))

    results = reconstruct_each(replace(IDLG, evaluations=3), endless(), batch_size=4)
    assert drawn == []
    numbers, _ = next(results)
    assert sorted(numbers.tolist()) == [0, 1, 2, 3]
    assert len(drawn) <= 4


def test_starts_with_and_without_a_shared_network_run_together():
    starts = [start(3, shared=True), start(2, seed=1), start(1, seed=2), start(4, seed=3, shared=True)]
    attack = replace(IDLG, evaluations=6)
    together = gathered(attack, starts, 4)
    alone = [part for one in starts for part in gathered(attack, [one], 10).values()]
    assert len(together) == len(alone) == 10
    for number, theirs in enumerate(alone):
        assert_same(together[number], theirs)


def test_what_the_caller_holds_is_not_changed():
    whole = start(6)
    kept = [tensor.clone() for tensor in whole.observation.gradient.tensors()]
    dummies, weights = whole.dummy_images.clone(), whole.observation.parameters.tensors[0].clone()
    gathered(replace(DLG, evaluations=5, stop_loss=0.5), [whole], 2)
    assert all(map(torch.equal, kept, whole.observation.gradient.tensors()))
    assert torch.equal(dummies, whole.dummy_images)
    assert torch.equal(weights, whole.observation.parameters.tensors[0])


def test_interruption_accounts_for_every_attack_of_the_start_in_hand():
    def stop(attacks, evaluations, iterations, images, loss):
        if attacks.max() == 5:
            raise KeyboardInterrupt

    whole = start(7)
    result = reconstruct(replace(IDLG, evaluations=5), *vars(whole).values(), observers=[stop], batch_size=2)
    assert result.status.tolist() == [Status.BUDGET_SPENT] * 4 + [Status.INTERRUPTED] * 3
    assert result.evaluations.tolist()[:4] == [5] * 4
    assert torch.equal(result.images[6], whole.dummy_images[6])


def plain_loss(name, ours, theirs):
    """A matching loss written for one image and gradients as torch lists them."""
    if name == "Wasserstein":
        total = 0.0
        for x, y in zip(ours, theirs, strict=True):
            cost = squared_distances(x.reshape(len(x), -1), y.reshape(len(y), -1))
            log_kernel = (-cost / 0.1).detach()[None]
            plan = bregman_log_projection_batch(log_kernel, max_iter=40, tol=0.0)["T"][0]
            total = total + (plan * cost).sum()
        return total
    squared = sum(((x - y) ** 2).sum() for x, y in zip(ours, theirs, strict=True))
    return squared.sqrt() if name == "Euclidean" else squared


def plain_loop(name, optimizer, whole, number, evaluations):
    """One attack with torch's own optimiser, autograd twice, and gradients written out; image and losses."""
    observation = whole.observation
    module = observation.network.as_module(observation.parameters, number)
    parameters = list(module.parameters())
    shared = [
        tensor[number].view_as(parameter)
        for tensor, parameter in zip(observation.gradient.tensors(), parameters, strict=True)
    ]
    label = torch.tensor([number % 4])
    dummy = whole.dummy_images[number : number + 1].clone().requires_grad_()
    stepper = optimizer([dummy])
    losses, images = [], []

    def closure():
        gradient = torch.autograd.grad(F.cross_entropy(module(dummy), label), parameters, create_graph=True)
        loss = plain_loss(name, gradient, shared)
        (dummy.grad,) = torch.autograd.grad(loss, dummy)
        losses.append(loss.detach())
        images.append(dummy.detach().clone())
        return loss

    while len(losses) < evaluations:
        stepper.step(closure)
    return images[evaluations - 1][0], torch.stack(losses[:evaluations])


LOSSES = {
    "SquaredEuclidean": SquaredEuclidean(),
    "Euclidean": Euclidean(),
    "Wasserstein": Wasserstein(eps=0.1, max_iterations=40, threshold=1e-300),
}
# At a learning rate of 1, L-BFGS without a line search amplifies rounding (1e-16) to anything in 50 steps.
OPTIMIZERS = {
    "LBFGS": (LBFGS(learning_rate=0.1), partial(torch.optim.LBFGS, lr=0.1, history_size=100)),
    "GradientDescent": (GradientDescent(learning_rate=0.01), partial(torch.optim.SGD, lr=0.01)),
    "Adam": (Adam(learning_rate=0.05), partial(torch.optim.Adam, lr=0.05)),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_engine_takes_the_course_of_the_plain_loop(loss, optimizer):
    whole = start(3)
    ours, theirs = OPTIMIZERS[optimizer]
    attack = replace(IDLG, loss=LOSSES[loss], optimizer=ours, evaluations=50, stop_loss=1e-300)
    result = reconstruct(attack, *vars(whole).values(), batch_size=2)
    for number in range(3):
        image, losses = plain_loop(loss, theirs, whole, number, 50)
        torch.testing.assert_close(result.loss_trace[number], losses, rtol=1e-6, atol=1e-10)
        torch.testing.assert_close(result.images[number], image, rtol=1e-5, atol=1e-6)


def test_an_interruption_while_places_are_handed_on_counts_no_attack_twice():
    def interrupted():
        yield start(2)
        raise KeyboardInterrupt

    assert len(gathered(replace(IDLG, evaluations=3), interrupted(), 2)) == 2


def test_no_attacks_at_all_are_refused_by_name():
    with pytest.raises(InputError, match="^observation holds 0 attacks"):
        reconstruct(IDLG, *vars(start(2).select(torch.arange(0))).values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_gpu_takes_the_course_of_the_cpu(method):
    whole = start(5)
    attack = replace(method, evaluations=10)
    here = gathered(attack, [whole], 3)
    there = gathered(attack, [whole.to("cuda")], 3)
    for number in range(5):
        assert_same(there[number].to("cpu"), here[number])
