"""What is reported of an attack is what was seen of it: its last and its best image, its end, its time."""

import time
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.attacks import DLG, IDLG, WDLG, Observation, Start, Status, reconstruct, reconstruct_each
from wdlg.attacks.base import DIVERGENCE, require_device
from wdlg.attacks.labels import UNDECIDED
from wdlg.errors import InputError
from wdlg.losses import SquaredEuclidean
from wdlg.networks import LeNet
from wdlg.optimizers import LBFGS, Adam, GradientDescent
from wdlg.updates import Gradient

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


def with_error(gradient, error):
    """The gradient with another bias gradient of its output layer."""
    return replace(gradient, output=replace(gradient.output, error=error))


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
    reconstruct(replace(SLOW_DESCENT, evaluations=1), *setting(1))  # compiling is in nobody's seconds
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
    zero = observation.gradient.bias * torch.tensor([[1.0], [0.0], [1.0]])
    blank = replace(observation, gradient=with_error(observation.gradient, zero))
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


def test_attacks_without_a_label_bring_complete_results_even_alone_and_with_one_evaluation():
    observation, dummies, _ = setting(2)
    blank = replace(observation, gradient=with_error(observation.gradient, 0 * observation.gradient.bias))
    result = reconstruct(replace(WDLG, evaluations=1), blank, dummies)
    assert result.status.tolist() == [Status.UNDECIDED] * 2
    assert result.loss_trace.shape == result.iteration_trace.shape == (2, 1)
    assert result.first_loss.isnan().all()
    assert result.loss.isnan().all()
    assert result.seconds.dtype == torch.float64
    assert result.iteration_trace.dtype == torch.int32
    assert result.iteration_trace.tolist() == [[-1], [-1]]


@pytest.mark.parametrize("method", [IDLG, WDLG, DLG], ids=lambda method: method.name)
def test_an_interruption_leaves_the_evaluations_made_and_the_labels_read_so_far(method):
    observation, dummies, logits = setting(5)
    calls = []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    attack = replace(method, evaluations=5, optimizer=GradientDescent(learning_rate=1e-3))
    result = reconstruct(attack, observation, dummies, logits, observers=[interrupt], batch_size=2)
    assert result.interrupted
    assert result.status.tolist() == [Status.INTERRUPTED] * 5
    assert result.evaluations.tolist() == [2, 2, 0, 0, 0]
    assert result.loss_trace.isfinite().sum(1).tolist() == [2, 2, 0, 0, 0]
    assert (result.iteration_trace >= 0).sum(1).tolist() == [2, 2, 0, 0, 0]
    assert result.loss[:2].tolist() == result.loss_trace[:2, 1].tolist()
    assert torch.equal(result.images[2:], dummies[2:])
    assert result.best_loss[2:].isinf().all()
    if method is not DLG:
        assert result.labels.tolist() == [0, 1, 2, 3, 0]


def test_the_bar_tells_attacks_done_and_converged(capsys):
    observation, dummies, _ = setting(3)
    attack = replace(IDLG, evaluations=2, stop_loss=1e9)
    reconstruct(attack, observation, dummies, batch_size=2, progress=True)
    shown = capsys.readouterr().err.split("\r")[-1]
    assert shown.startswith("iDLG: 100%")
    assert "3/3" in shown
    assert "attack" in shown
    assert "3 converged" in shown
    reconstruct(attack, observation, dummies)
    assert capsys.readouterr().err == ""


def test_a_device_is_one_that_this_machine_has(monkeypatch):
    found = {"cpu": (0, 1, 2), "cuda": (1, 2), "cuda:0": (1, 2), "cuda:1": (2,)}
    for count in range(3):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        for name, counts in found.items():
            if count in counts:
                assert require_device("device", name) == torch.device(name)
            else:
                sentence = f"^device is '{name}', but torch .* finds {count or 'no'} CUDA devices"
                with pytest.raises(InputError, match=sentence):
                    require_device("device", name)
    for name in ("meta", "tpu", "cuda:x", ""):
        with pytest.raises(InputError, match=f"^device is '{name}', but must be cpu, cuda"):
            require_device("device", name)


def test_starts_are_selected_with_their_labels_and_moved_as_a_whole():
    start = Start(*setting(3))
    assert len(start) == 3
    chosen = start.select(torch.tensor([2, 0]))
    assert torch.equal(chosen.dummy_images, start.dummy_images[[2, 0]])
    assert torch.equal(chosen.dummy_labels, start.dummy_labels[[2, 0]])
    assert torch.equal(chosen.observation.gradient.bias, start.observation.gradient.bias[[2, 0]])
    moved = start.to("cpu")
    assert torch.equal(moved.dummy_labels, start.dummy_labels)
    bare = Start(start.observation, start.dummy_images)
    assert bare.select(torch.tensor([1])).dummy_labels is None
    assert bare.to("cpu").dummy_labels is None


def test_starting_labels_are_needed_by_the_joint_rule_alone_and_checked():
    observation, dummies, logits = setting(2)
    attack = replace(DLG, evaluations=1)
    with pytest.raises(InputError, match="^dummy_labels is missing"):
        reconstruct(attack, observation, dummies)
    with pytest.raises(InputError, match="^dummy_labels is a float64 tensor of shape"):
        reconstruct(attack, observation, dummies, logits[:, :3])
    with pytest.raises(InputError, match="^dummy_labels"):
        reconstruct(attack, observation, dummies, logits.float())
    with pytest.raises(InputError, match="^dummy_images"):
        reconstruct(attack, observation, dummies[:1], logits)
    for size in (0, -1):
        with pytest.raises(InputError, match="^batch_size is"):
            reconstruct(attack, observation, dummies, logits, batch_size=size)


def test_the_joint_rule_returns_the_class_of_the_largest_score():
    observation, dummies, logits = setting(4)
    result = reconstruct(
        replace(DLG, evaluations=1, optimizer=GradientDescent(1e-12)), observation, dummies, logits
    )
    assert torch.equal(result.labels, logits.argmax(1))


def test_a_batch_is_by_default_of_32():
    seen = []
    observation, dummies, _ = setting(33)
    attack = replace(SLOW_DESCENT, evaluations=1)
    reconstruct(attack, observation, dummies, observers=[lambda number, *_: seen.append(len(number))])
    list(reconstruct_each(attack, [Start(observation, dummies)],
                          observers=[lambda number, *_: seen.append(len(number))]))  # fmt: skip
    assert seen == [32, 1, 32, 1]
