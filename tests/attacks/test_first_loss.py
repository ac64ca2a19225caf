"""``first_loss``: optimiser and ``stop_loss`` see an attack's loss in units of its value at the dummy."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.attacks import DLG, IDLG, Observation, Status, reconstruct
from wdlg.errors import InputError
from wdlg.losses import SquaredEuclidean
from wdlg.networks import LeNet
from wdlg.optimizers import LBFGS, Adam, GradientDescent

NETWORK = LeNet((1, 8, 8), 4)
OPTIMIZERS = (LBFGS(), GradientDescent(0.1), Adam(0.05))


def setting(attacks=3):
    """Observation, dummy images and dummy labels, each of a network of its own."""
    stream = torch.Generator().manual_seed(4)
    parameters = NETWORK.initial_parameters(attacks, generator=stream, dtype=torch.float64)
    truth = torch.rand(attacks, 1, 8, 8, generator=stream, dtype=torch.float64)
    gradient = NETWORK.gradient(parameters, truth, F.one_hot(torch.arange(attacks) % 4, 4).double())
    return (
        Observation(NETWORK, parameters, gradient),
        torch.randn(attacks, 1, 8, 8, generator=stream, dtype=torch.float64),
        torch.randn(attacks, 4, generator=stream, dtype=torch.float64),
    )


@dataclass(frozen=True)
class Scaled:
    """The squared distance in another unit; a power of two changes no rounding."""

    factor: float

    def __call__(self, dummy, shared):
        return self.factor * SquaredEuclidean()(dummy, shared)


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [(DLG, LBFGS()), *((IDLG, one) for one in OPTIMIZERS)],
    ids=lambda one: getattr(one, "name", type(one).__name__),
)
def test_the_course_of_an_attack_does_not_depend_on_the_unit_of_its_loss(method, optimizer):
    attack = replace(method, optimizer=optimizer, evaluations=25, first_loss=8.0)
    results = [
        reconstruct(replace(attack, loss=Scaled(factor)), *setting()) for factor in (1.0, 2.0**-40, 2.0**30)
    ]
    for factor, result in zip((2.0**-40, 2.0**30), results[1:], strict=True):
        assert torch.equal(result.images, results[0].images)
        assert torch.equal(result.best_images, results[0].best_images)
        assert torch.equal(result.status, results[0].status)
        # Written down in the loss's own unit.
        torch.testing.assert_close(
            result.loss_trace, factor * results[0].loss_trace, rtol=0, atol=0, equal_nan=True
        )
        assert torch.equal(result.best_loss, factor * results[0].best_loss)


def test_without_it_the_unit_decides_when_torchs_tolerances_end_an_attack():
    plain = replace(IDLG, evaluations=40)
    own, small = (reconstruct(replace(plain, loss=Scaled(factor)), *setting()) for factor in (1.0, 2.0**-40))
    assert not torch.equal(own.images, small.images)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: type(one).__name__)
def test_an_attack_whose_first_loss_is_that_already_takes_its_own_course(optimizer):
    observation, images, labels = setting(1)
    plain = replace(IDLG, optimizer=optimizer, evaluations=30)
    own = reconstruct(plain, observation, images, labels)
    same = reconstruct(replace(plain, first_loss=own.first_loss.item()), observation, images, labels)
    assert torch.equal(same.images, own.images)
    assert torch.equal(same.loss_trace.nan_to_num(), own.loss_trace.nan_to_num())


def test_the_stopping_value_is_in_the_same_unit():
    descent = replace(IDLG, optimizer=GradientDescent(0.02), evaluations=60, first_loss=100.0)
    free = reconstruct(replace(descent, stop_loss=1e-300), *setting(1))
    relative = 100 * free.loss_trace[0] / free.first_loss[0]
    ended = reconstruct(replace(descent, stop_loss=0.5 * (relative[19] + relative[20]).item()), *setting(1))
    assert (relative[1:] < relative[:-1]).all()
    assert ended.evaluations.tolist() == [21]
    assert ended.status.tolist() == [Status.CONVERGED]


def test_a_first_loss_of_zero_counts_as_it_is():
    attack = replace(IDLG, loss=Scaled(0.0), first_loss=8.0, evaluations=3)
    result = reconstruct(attack, *setting(1))
    assert result.status.tolist() == [Status.CONVERGED]
    assert result.loss.tolist() == [0.0]


def test_a_loss_below_zero_stays_below_zero():
    attack = replace(IDLG, loss=Scaled(-1.0), evaluations=3)
    for one in (attack, replace(attack, first_loss=8.0)):
        result = reconstruct(one, *setting(1))
        assert (result.status.tolist(), result.evaluations.tolist()) == ([Status.CONVERGED], [1])


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), "big"])
def test_another_first_loss_is_refused(value):
    with pytest.raises(InputError, match="^first_loss is .* but must be a finite number above 0"):
        replace(IDLG, first_loss=value)
