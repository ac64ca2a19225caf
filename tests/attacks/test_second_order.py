"""Levenberg-Marquardt as an attack: it recovers what there is, and its work is counted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch.func import functional_call, grad, jvp, vjp
from torch.nn.functional import cross_entropy

from wdlg import data
from wdlg.attacks import LM, Observation, Status, attack, precision, reconstruct
from wdlg.attacks.base import Start
from wdlg.attacks.labels import BiasSign, Joint
from wdlg.attacks.objective import Objective
from wdlg.attacks.priors import Box, TotalVariation
from wdlg.errors import InputError
from wdlg.evaluation import MSETrace, mse
from wdlg.losses import Cosine, Euclidean, SentEntries, SquaredEuclidean, Wasserstein, WeightedEuclidean
from wdlg.networks import LeNet, ModuleNetwork
from wdlg.optimizers import GradientDescent, LevenbergMarquardt
from wdlg.optimizers.levenberg_marquardt import BEND
from wdlg.sharing import FedSGD
from wdlg.sharing.defences import Pruning
from wdlg.study import Design, draw
from wdlg.study.records import record

STEP = 64 + round(64 / 4) + BEND
"""What a step of an attack on 64 pixels takes: matrix, solution, and how the path bends."""


def cases(count: int = 1, **settings):
    return draw(data.load("digits"), Design(networks=count, images=1, seed=5, **settings))


@pytest.mark.parametrize(
    ("activation", "initial"), [("sigmoid", "uniform"), ("sigmoid", "torch"), ("tanh", "torch")]
)
def test_images_come_back_from_single_precision_gradients(activation, initial):
    some = cases(2, activation=activation, initial=initial)
    found = attack(some.observation(), LM)
    for name in ("images", "best_images", "loss", "best_loss", "first_loss", "loss_trace"):
        assert getattr(found, name).dtype == torch.float32, name
    assert mse(found.images, some.truth).max() < 1e-6
    assert found.labels.tolist() == some.labels.tolist()
    assert found.iterations.max() < 40
    assert (found.loss <= found.first_loss).all()


def test_image_and_label_come_back_together():
    images, seen = sent(3)
    # Below this the loss falls slowly: a label of ones and zeros has logits without end.
    found = attack(seen, replace(LM, label_rule="joint", stop_loss=1e-8))
    assert mse(found.images, images[0]).max() < 1e-6
    assert found.labels.tolist() == [3]
    # The label's five variables have columns, too: 41 for the matrix, 10 for the solution.
    assert found.loss_trace[0, : 1 + 41 + 10 + BEND].unique().tolist() == [found.first_loss.item()]


def test_traces_never_rise_and_hold_each_loss_for_as_long_as_its_work():
    some = cases(2)
    found = attack(some.observation(), LM)
    for row, count in enumerate(found.evaluations.tolist()):
        trace, iterations = found.loss_trace[row, :count], found.iteration_trace[row, :count]
        assert torch.isfinite(trace).all()
        assert (trace.diff() <= 0).all()
        assert found.loss_trace[row, count:].isnan().all()
        assert (found.iteration_trace[row, count:] == -1).all()
        assert (iterations.diff() >= 0).all()
        # The first loss stands while the first matrix, of 64 columns, and the first step are made.
        assert (trace[: 1 + STEP] == trace[0]).all()
        assert trace[1 + STEP] < trace[0]
        assert iterations[-1] == found.iterations[row]


def test_the_trace_of_the_error_has_no_gaps():
    some = cases(2)
    observation = some.observation()
    method = replace(LM, evaluations=1500)
    trace = MSETrace(some.truth, method.evaluations)
    found = reconstruct(method, observation, some.dummy_images, observers=[trace])
    trace.end(found.evaluations)
    for row, count in enumerate(found.evaluations.tolist()):
        assert torch.isfinite(trace.values[row, :count]).all()
        assert trace.values[row, count:].isnan().all()
        same = found.loss_trace[row, : count - 1] == found.loss_trace[row, 1:count]
        assert torch.equal(trace.values[row, : count - 1][same], trace.values[row, 1:count][same])


@pytest.mark.parametrize("left", [0, 1, STEP, STEP + 1, STEP + 2, 200])
def test_no_more_is_spent_than_allowed(left):
    some = cases()
    found = attack(some.observation(), replace(LM, evaluations=1 + left))
    assert found.status.tolist() == [Status.BUDGET_SPENT]
    assert int(found.evaluations) <= 1 + left
    # A step has one more for its trial.
    assert (int(found.evaluations) == 1) == (left < STEP + 1)


def test_the_matrix_by_which_an_attack_stalls_is_counted():
    some = cases()
    found = attack(some.observation(), LM)
    assert found.status.tolist() == [Status.STALLED]
    assert int(found.iterations) > 0
    trials = int((found.loss_trace[0].diff() < 0).sum())
    assert int(found.evaluations) >= (trials + 1) * (64 + 16 + 1)


@dataclass(frozen=True)
class ManySolutions(LevenbergMarquardt):
    """Whose every update is worth far more than it costs at least, as where no small damping helps."""

    def update(self, *arguments, **settings):
        state = super().update(*arguments, **settings)
        return replace(state, spent=state.spent + 10_000)


@pytest.mark.parametrize("evaluations", [STEP + 2, STEP + 9, 500])
def test_work_that_takes_more_than_is_left_ends_the_attack(evaluations):
    some = cases()
    found = attack(some.observation(), replace(LM, optimizer=ManySolutions(), evaluations=evaluations))
    assert found.status.tolist() == [Status.BUDGET_SPENT]
    # The trial has its place, and all before it are spent on the way to it.
    assert int(found.evaluations) == evaluations
    assert found.loss_trace[0, : evaluations - 1].unique().tolist() == [found.first_loss.item()]


def test_a_batch_is_as_its_attacks_alone_whatever_its_size():
    some = cases(3)
    observation = some.observation()
    together = reconstruct(LM, observation, some.dummy_images)
    two = reconstruct(LM, observation, some.dummy_images, batch_size=2)
    torch.testing.assert_close(together.images, two.images, rtol=0, atol=1e-6)
    assert together.evaluations.tolist() == two.evaluations.tolist()


def test_each_attack_of_a_batch_has_the_matrix_of_the_entries_that_it_was_sent():
    pruned = cases(2, defence=Pruning(share=0.3))
    method = replace(LM, label_rule="bias_min", loss=SentEntries())
    together = reconstruct(method, pruned.observation(), pruned.dummy_images)
    last = torch.tensor([1])
    alone = reconstruct(method, pruned.observation().select(last), pruned.dummy_images[last])
    assert together.evaluations[last].tolist() == alone.evaluations.tolist()
    torch.testing.assert_close(together.images[last], alone.images, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("numbers", "asked", "together"), [(2 * 74**2, 9, 2), (2 * 74**2 - 1, 9, 1), (1, 9, 1), (2 * 74**2, 1, 1)]
)
def test_a_batch_is_as_large_as_its_matrices_allow(monkeypatch, numbers, asked, together):
    """The attacks have 64 pixels and ten labels; those of one network still have it together."""
    monkeypatch.setattr(precision, "MOST_NUMBERS", numbers)
    some, seen = cases(), []

    def run(starts, observers, batch_size):
        seen.extend((start.observation.parameters, batch_size) for start in starts)
        return iter(())

    start = Start(some.observation(), some.dummy_images, some.dummy_labels)
    assert list(precision.run_in_double(run, [start, start], (), asked)) == []
    assert [size for _, size in seen] == [together] * 2
    assert seen[0][0] is seen[1][0]
    assert seen[0][0].tensors[0].dtype == torch.float64


def test_a_module_gives_the_same_image_as_its_lenet():
    some = cases()
    observation = some.observation()
    module = ModuleNetwork(
        observation.network.as_module(observation.parameters), observation.network.image_shape
    )
    other = Observation(module, module.parameters(), observation.gradient)
    found = reconstruct(LM, other, some.dummy_images)
    assert mse(found.images, some.truth).max() < 1e-6


def sent(*labels):
    """Images of 6x6 pixels, (1, N, 1, 6, 6), and what a participant who has them sends."""
    stream = torch.Generator().manual_seed(1)
    network = LeNet((1, 6, 6), 5)
    parameters = network.initial_parameters(generator=stream, dtype=torch.float64)
    images = torch.rand(1, len(labels), 1, 6, 6, generator=stream, dtype=torch.float64)
    target = torch.eye(5, dtype=torch.float64)[None, list(labels)]
    if len(labels) == 1:
        gradient = network.gradient(parameters, images[0], target[0]).detach()
    else:
        gradient = FedSGD()(network, parameters, images, target).as_sent()
    return images, Observation(network, parameters, gradient, images=len(labels))


def bent_by_torch(seen, x, labels, step, weights):
    """``Jᵀ W r''`` by torch's own modules and derivatives; label logits come after the pixels."""
    module = seen.network.as_module(seen.parameters)
    tensors = {name: tensor.detach() for name, tensor in module.named_parameters()}
    pixels = 36 * seen.images

    def entries(x):
        target = labels if len(x) == pixels else x[pixels:].view(seen.images, 5).softmax(-1)

        def risk(tensors):
            scores = functional_call(module, tensors, (x[:pixels].view(seen.images, 1, 6, 6),))
            return cross_entropy(scores, target)

        return torch.cat([each.flatten() for each in grad(risk)(tensors).values()])

    def along(x):
        return jvp(entries, (x,), (step,))[1]

    second = jvp(along, (x,), (step,))[1]
    return vjp(entries, x)[1](second if weights is None else weights * second)[0]


@pytest.mark.parametrize("loss", [SquaredEuclidean(), WeightedEuclidean(), SentEntries()])
@pytest.mark.parametrize(("labels", "joint"), [((3,), False), ((3,), True), ((1, 3), False)])
def test_how_a_path_bends_is_what_torch_says(loss, labels, joint):
    _, seen = sent(*labels)
    seen = replace(seen, gradient=Pruning(share=0.3)(seen.gradient))
    objective = Objective(seen, Joint() if joint else BiasSign(), loss)
    stream = torch.Generator().manual_seed(3)
    count = 36 * len(labels) + (5 if joint else 0)
    x, step = torch.randn(2, count, generator=stream, dtype=torch.float64)
    target = torch.eye(5, dtype=torch.float64)[list(labels)]
    weights = loss.square_weights(seen.gradient)
    flat = None if weights is None else torch.cat([each.flatten() for each in weights])
    known = None if joint else target.view(1, *seen.label_shape)
    # Of a short step, where a tenth of it is next to nothing.
    step = step / 100
    found = objective.bend(x[None], known, seen.parameters, seen.gradient, step[None])[0]
    expected = bent_by_torch(seen, x, target, step, flat)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_without_acceleration_images_come_back_too_and_a_step_takes_less():
    some = cases(4)
    found = attack(some.observation(), replace(LM, optimizer=LevenbergMarquardt(acceleration=0)))
    assert mse(found.images, some.truth).max() < 1e-6
    for trace in found.loss_trace:
        assert (trace[: 1 + STEP - BEND] == trace[0]).all()
        assert trace[1 + STEP - BEND] < trace[0]


def test_two_images_of_one_participant_come_back():
    images, seen = sent(1, 3)
    found = attack(seen, replace(LM, evaluations=20_000))
    assert found.labels.tolist() == [[1, 3]]
    error = [(found.images - other).square().mean() for other in (images, images.flip(1))]
    assert min(error) < 1e-6


def test_what_was_pruned_is_left_out_and_a_weighted_loss_has_the_same_zero():
    pruned = cases(defence=Pruning(share=0.3))
    for loss in (SentEntries(), SquaredEuclidean()):
        found = attack(pruned.observation(), replace(LM, label_rule="bias_min", loss=loss))
        error = float(mse(found.images, pruned.truth))
        assert (error < 1e-6) == (loss == SentEntries())
    some = cases()
    found = attack(some.observation(), replace(LM, loss=WeightedEuclidean()))
    assert float(mse(found.images, some.truth)) < 1e-6


@pytest.mark.parametrize("loss", [Cosine(), Euclidean(), Wasserstein()])
def test_a_loss_that_is_no_sum_of_squares_is_refused(loss):
    with pytest.raises(InputError, match="^loss is .*, but must be a sum of squares for LevenbergMarquardt"):
        replace(LM, loss=loss)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"priors": (TotalVariation(0.1),)}, "^priors is .*, but must be empty for LevenbergMarquardt"),
        ({"projection": Box()}, "^projection is .*, but must be None for LevenbergMarquardt"),
        ({"first_loss": 1.0}, "^first_loss is 1.0, but must be None for LevenbergMarquardt"),
    ],
)
def test_what_does_not_go_with_squares_is_refused(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(LM, **settings)
    replace(LM, optimizer=GradientDescent(), **settings)


def test_records_have_no_learning_rate_and_traces_without_gaps():
    records, _, _ = record(cases(2), LM, batch_size=2, snapshot_iterations=(2,))
    assert (records["mse"] < 1e-6).all()
    assert not records["exploded"].any()
    for trace in records["trace_mse"]:
        assert torch.isfinite(torch.from_numpy(trace)).all()
