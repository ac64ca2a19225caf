"""What is reported of an attack is what was seen of it: its last and its best image, its end, its time."""

import time
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.attack import DIVERGENCE, DLG, IDLG, WDLG, Observation, Status
from wdlg.engine import reconstruct
from wdlg.gradients import Gradient
from wdlg.labels import UNDECIDED
from wdlg.losses import SquaredEuclidean
from wdlg.networks import LeNet
from wdlg.optimizers import LBFGS, Adam, GradientDescent

NETWORK = LeNet((1, 8, 8), 4)
SLOW_DESCENT = replace(IDLG, optimizer=GradientDescent(learning_rate=1e-3), stop_loss=1e-300)


def setting(attacks, *, seed=0):
    """Observation, dummy images and dummy labels of some attacks."""
    stream = torch.Generator().manual_seed(seed)
    parameters = NETWORK.initial_parameters(attacks, generator=stream, dtype=torch.float64)
    truth = torch.rand(attacks, 1, 8, 8, generator=stream, dtype=torch.float64)
    gradient = NETWORK.gradient(parameters, truth, F.one_hot(torch.arange(attacks) % 4, 4).double())
    return (
        Observation(NETWORK, parameters, gradient),
        torch.randn(attacks, 1, 8, 8, generator=stream, dtype=torch.float64),
        torch.randn(attacks, 4, generator=stream, dtype=torch.float64),
    )


class Seen:
    """An observer that keeps every image with its number, its evaluation and its loss."""

    def __init__(self):
        self.images, self.losses = {}, {}

    def __call__(self, attacks, evaluations, iterations, images, loss):
        for place, key in enumerate(zip(attacks.tolist(), evaluations.tolist(), strict=True)):
            self.images[key] = images[place].clone()
            self.losses[key] = loss[place].item()


@dataclass(frozen=True)
class Scripted:
    """A loss of given values, one for each evaluation of a batch in step; its derivative is near zero."""

    values: tuple[tuple[float, ...], ...]
    """Of each evaluation, of each attack."""

    def __call__(self, dummy: Gradient, shared: Gradient) -> torch.Tensor:
        self.calls.append(1)
        value = torch.tensor(self.values[len(self.calls) - 1], dtype=torch.float64)
        return value + 1e-30 * SquaredEuclidean()(dummy, shared)

    def __post_init__(self):
        object.__setattr__(self, "calls", [])


def scripted(values, *, attack=SLOW_DESCENT, **settings):
    """The result of an attack, or of several side by side, whose losses are these."""
    table = tuple(value if isinstance(value, tuple) else (value,) for value in values)
    attack = replace(attack, loss=Scripted(table), **{"evaluations": len(table), **settings})
    return reconstruct(attack, *setting(len(table[0])))


@pytest.mark.parametrize(
    ("method", "rate"), [(DLG, 1.0), (IDLG, 3.0), (WDLG, 1.0)], ids=lambda value: getattr(value, "name", None)
)
def test_the_best_image_is_that_of_the_least_loss_and_the_image_is_the_last(method, rate):
    seen = Seen()
    # The rate is too large for a descent: losses rise and fall.
    attack = replace(method, optimizer=Adam(learning_rate=rate), evaluations=12)
    result = reconstruct(attack, *setting(4), observers=[seen], batch_size=3)
    best = result.loss_trace.nan_to_num(nan=torch.inf).argmin(1)
    last = result.evaluations - 1
    assert (best < last).any()
    assert (best > 0).any()
    for number in range(4):
        assert torch.equal(result.best_images[number], seen.images[number, int(best[number])])
        assert torch.equal(result.images[number], seen.images[number, int(last[number])])
        assert result.best_loss[number] == seen.losses[number, int(best[number])]
        assert result.loss[number] == seen.losses[number, int(last[number])]
        assert result.first_loss[number] == seen.losses[number, 0]


def test_the_first_of_equal_losses_is_the_best():
    observation, dummies, _ = setting(1)
    attack = replace(SLOW_DESCENT, loss=Scripted(((2.0,), (1.0,), (1.0,))), evaluations=3)
    seen = Seen()
    result = reconstruct(attack, observation, dummies, observers=[seen])
    seen.losses = {key: round(value, 9) for key, value in seen.losses.items()}
    assert list(seen.losses.values()) == [2.0, 1.0, 1.0]
    assert torch.equal(result.best_images[0], seen.images[0, 1])


def test_an_attack_that_converges_on_its_last_evaluation_has_converged():
    assert scripted([1.0, 1.0, 0.1], stop_loss=0.5).status.tolist() == [Status.CONVERGED]
    assert scripted([1.0, 1.0, 0.6], stop_loss=0.5).status.tolist() == [Status.BUDGET_SPENT]


def test_an_attack_that_diverges_on_its_last_evaluation_has_diverged():
    assert scripted([1.0, 1.01 * DIVERGENCE]).status.tolist() == [Status.DIVERGED]
    assert scripted([1.0, 0.99 * DIVERGENCE]).status.tolist() == [Status.BUDGET_SPENT]


def test_a_loss_that_is_no_number_on_the_last_evaluation_is_reported_as_such():
    for value in (torch.nan, torch.inf):
        assert scripted([1.0, value]).status.tolist() == [Status.NON_FINITE]


def test_an_attack_ends_at_the_first_reason_that_it_has_and_its_neighbours_go_on():
    losses = [(1.0, 1.0, 1.0, 1.0), (1.0, 0.1, 1e7, torch.nan)]
    result = reconstruct(
        replace(SLOW_DESCENT, loss=Scripted((*losses, (1.0,))), stop_loss=0.5, evaluations=3), *setting(4)
    )
    expected = [Status.BUDGET_SPENT, Status.CONVERGED, Status.DIVERGED, Status.NON_FINITE]
    assert result.status.tolist() == expected
    assert result.evaluations.tolist() == [3, 2, 2, 2]


def test_divergence_is_measured_from_the_attacks_own_start():
    result = scripted([(1e-3, 1e4), (1e4, 1e9)])
    assert result.status.tolist() == [Status.DIVERGED, Status.BUDGET_SPENT]


def test_convergence_is_below_the_stopping_value_and_not_at_it():
    observation, dummies, _ = setting(1)
    start = reconstruct(replace(IDLG, evaluations=1), observation, dummies).loss.item()
    at = reconstruct(replace(IDLG, evaluations=1, stop_loss=start), observation, dummies)
    assert at.status.tolist() == [Status.BUDGET_SPENT]


def test_an_optimiser_at_rest_ends_the_attack_as_stalled():
    observation, dummies, _ = setting(2)
    # No entry of the gradient is above this, so that the first evaluation is the last.
    attack = replace(IDLG, optimizer=LBFGS(tolerance_grad=1e6), evaluations=5)
    result = reconstruct(attack, observation, dummies)
    assert result.status.tolist() == [Status.STALLED] * 2
    assert result.evaluations.tolist() == [1, 1]
    assert torch.equal(result.images, dummies)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_seconds_of_all_attacks_are_shares_of_the_time_that_passed(batch_size):
    within = []

    class Timed(SquaredEuclidean):
        def __call__(self, dummy, shared):
            began = time.perf_counter()
            value = super().__call__(dummy, shared)
            time.sleep(1e-3)
            within.append(time.perf_counter() - began)
            return value

    began = time.perf_counter()
    result = reconstruct(
        replace(SLOW_DESCENT, loss=Timed(), evaluations=8), *setting(8), batch_size=batch_size
    )
    passed = time.perf_counter() - began
    assert sum(within) <= result.seconds.sum() <= passed
    if batch_size == 8:  # side by side from first to last: equal shares
        torch.testing.assert_close(result.seconds, result.seconds.mean().expand(8))


def test_an_attack_without_a_label_brings_its_start_and_no_number():
    observation, dummies, _ = setting(3)
    zero = observation.gradient.error * torch.tensor([[1.0], [0.0], [1.0]])
    blank = replace(observation, gradient=replace(observation.gradient, error=zero))
    result = reconstruct(replace(WDLG, evaluations=2), blank, dummies)
    assert result.status.tolist() == [Status.BUDGET_SPENT, Status.UNDECIDED, Status.BUDGET_SPENT]
    assert result.labels.tolist() == [0, UNDECIDED, 2]
    assert torch.equal(result.images[1], dummies[1])
    assert torch.equal(result.best_images[1], dummies[1])
    assert result.evaluations.tolist() == [2, 0, 2]
    assert result.iterations[1] == 0
    assert result.seconds[1] == 0
    assert result.best_loss[1] == torch.inf
    assert result.loss[1].isnan()
    assert result.first_loss[1].isnan()
    assert result.loss_trace[1].isnan().all()
    assert result.iteration_trace[1].tolist() == [-1, -1]
