"""The queue: places are handed on, starts are drawn when needed, and nothing of it shows in the results."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.attack import DLG, IDLG, METHODS, Observation, Status
from wdlg.engine import Start, reconstruct, reconstruct_each
from wdlg.networks import LeNet

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
    dummies, weights = whole.dummy_images.clone(), whole.observation.parameters.weights[0].clone()
    gathered(replace(DLG, evaluations=5, stop_loss=0.5), [whole], 2)
    assert all(map(torch.equal, kept, whole.observation.gradient.tensors()))
    assert torch.equal(dummies, whole.dummy_images)
    assert torch.equal(weights, whole.observation.parameters.weights[0])


def test_interruption_accounts_for_every_attack_of_the_start_in_hand():
    def stop(attacks, evaluations, iterations, images, loss):
        if attacks.max() == 5:
            raise KeyboardInterrupt

    whole = start(7)
    result = reconstruct(replace(IDLG, evaluations=5), *vars(whole).values(), observers=[stop], batch_size=2)
    assert result.status.tolist() == [Status.BUDGET_SPENT] * 4 + [Status.INTERRUPTED] * 3
    assert result.evaluations.tolist()[:4] == [5] * 4
    assert torch.equal(result.images[6], whole.dummy_images[6])
