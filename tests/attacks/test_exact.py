"""The closed form: what it brings back, what it refuses, and how it ends where an assumption fails."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import wdlg
from wdlg.attacks import Attack, Observation, Status, exact, reconstruct
from wdlg.attacks.exact import CHUNK, EXPLAINED, Exact, invert
from wdlg.attacks.exact_stack import stack_of
from wdlg.attacks.gauss_newton import refined, residual
from wdlg.attacks.labels import UNDECIDED, BiasMin, BiasSign
from wdlg.errors import InputError
from wdlg.networks import ConvNet, LeNet, ModuleNetwork, ResNet
from wdlg.sharing import FedAvg
from wdlg.sharing.defences import Noise
from wdlg.updates.gradient import from_tensors

NETWORK = LeNet((1, 8, 8), 4)


def setting(network=NETWORK, attacks=3, *, dtype=torch.float64, networks=None, initial="uniform"):
    """Private images, labels, and what an attacker sees of them."""
    stream = torch.Generator().manual_seed(0)
    count = attacks if networks is None else networks
    parameters = network.initial_parameters(count, generator=stream, dtype=dtype, distribution=initial)
    truth = torch.rand(attacks, *network.image_shape, generator=stream, dtype=dtype)
    labels = torch.arange(attacks) % network.classes
    return truth, labels, seen(network, parameters, truth, labels)


def seen(network, parameters, truth, labels):
    target = F.one_hot(labels, network.classes).to(truth)
    return Observation(network, parameters, network.gradient(parameters, truth, target).detach())


def statuses(result):
    return [Status(code).name for code in result.status.tolist()]


def mse(images, truth):
    return (images - truth).square().flatten(1).mean(1)


# What comes back


@pytest.mark.parametrize(
    ("activation", "initial"), [("sigmoid", "uniform"), ("tanh", "torch"), ("relu", "torch")]
)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-9), (torch.float64, 1e-24)])
def test_a_lenet_gives_image_and_label_away(activation, initial, dtype, most):
    truth, labels, observation = setting(LeNet((2, 9, 8), 5, activation), 2, dtype=dtype, initial=initial)
    result = wdlg.attack(observation, Exact())
    assert statuses(result) == ["CONVERGED"] * 2
    assert result.images.dtype == dtype
    assert mse(result.images, truth).max() < most
    assert torch.equal(result.labels, labels)
    assert result.loss.max() < EXPLAINED


def stack(*layers, width, classes=5):
    torch.manual_seed(0)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, classes)).double()


MODULES = {
    "one layer": lambda: stack(nn.Conv2d(2, 6, (3, 2), padding=(1, 0)), nn.Tanh(), width=6 * 7 * 7),
    "leaky": lambda: stack(nn.Conv2d(2, 6, 3, padding=1), nn.LeakyReLU(0.2), width=6 * 56),
    "relu": lambda: stack(
        nn.Conv2d(2, 12, 3, padding=1), nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), width=12 * 56,
    ),
    "two strides": lambda: stack(
        nn.Conv2d(2, 10, 3, stride=(1, 2), padding=1), nn.Sigmoid(),
        nn.Conv2d(10, 12, 3, padding=1), nn.LeakyReLU(0.5), width=12 * 28,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_a_stack_of_any_kernels_strides_and_paddings_gives_its_image_away(name):
    truth = torch.rand(1, 2, 7, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    module = MODULES[name]()
    loss = nn.functional.cross_entropy(module(truth), torch.tensor([3]))
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    result = wdlg.attack_module(module, gradients, (2, 7, 8), Exact())
    assert statuses(result) == ["CONVERGED"]
    assert mse(result.images, truth) < 1e-20
    assert result.labels.tolist() == [3]


@pytest.mark.parametrize("name", MODULES)
def test_what_each_layer_hands_on_is_what_torch_computes_and_what_comes_back(name):
    module = MODULES[name]()
    network = ModuleNetwork(module, (2, 7, 8))
    truth = torch.rand(3, 2, 7, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    observation = seen(network, network.parameters(), truth, torch.tensor([0, 1, 2]))
    true = stack_of(network).handed_on(observation.parameters, truth)
    found = invert(observation, BiasSign()).handed_on
    layers = list(module)[:-2]
    for number, (ahead, back) in enumerate(zip(true, found, strict=True), start=1):
        torch.testing.assert_close(ahead, nn.Sequential(*layers[: 2 * number])(truth).detach())
        torch.testing.assert_close(back, ahead, rtol=0, atol=1e-9)


def test_what_relu_sets_to_zero_is_told_from_what_is_small(monkeypatch):
    network = LeNet((1, 12, 12), 4, "relu")
    truth, _, observation = setting(network, 6, dtype=torch.float32, initial="torch")
    found = invert(observation, BiasSign())
    true = stack_of(network).handed_on(observation.parameters, truth)
    for ahead, back in zip(true, found.handed_on, strict=True):
        assert (ahead == 0).float().mean() > 0.2
        torch.testing.assert_close(back.float(), ahead, rtol=0, atol=1e-3)
    assert mse(found.images, truth).max() < 1e-9
    # A threshold that takes many small values for zero shows in the equations below, and others are tried.
    monkeypatch.setattr(exact, "REST", 1e9)
    again = invert(observation, BiasSign())
    assert mse(again.images, truth).max() < 1e-9
    assert again.determined.all()
    assert again.misfit.max() < 1e-6
    monkeypatch.setattr(exact, "OTHER_RESTS", ())
    spoilt = wdlg.attack(observation, Exact())
    assert mse(spoilt.images, truth).max() > 1e-4
    assert {"UNSURE"} == {
        name for name, far in zip(statuses(spoilt), mse(spoilt.images, truth) > 1e-6, strict=True) if far
    }


def test_relu_may_leave_an_image_open_and_then_nothing_is_sure():
    module = stack(nn.Conv2d(2, 12, 3, padding=1), nn.ReLU(), width=12 * 56)
    truth = torch.rand(1, 2, 7, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for resting, status in ((0, "CONVERGED"), (11, "UNSURE")):  # one filter has 73 equations for 112 pixels
        with torch.no_grad():
            module[0].bias[:resting] = -10
        network = ModuleNetwork(module, (2, 7, 8))
        result = wdlg.attack(seen(network, network.parameters(), truth, torch.tensor([1])), Exact())
        assert statuses(result) == [status]
        assert (mse(result.images, truth) < 1e-20).tolist() == [status == "CONVERGED"]


def test_a_lenet_hands_on_the_features_that_its_scores_come_from():
    truth, _, observation = setting()
    *_, features = stack_of(NETWORK).handed_on(observation.parameters, truth)
    weight, bias = observation.parameters.tensors[-2:]
    for row in range(3):
        scores = weight[row] @ features[row].flatten() + bias[row]
        own = [one[row] for one in observation.parameters.tensors]
        torch.testing.assert_close(NETWORK.scores(own, truth[[row]])[0], scores)


def test_images_that_share_a_network_or_not_come_back_as_they_would_alone():
    for networks in (1, CHUNK + 2):
        truth, _, observation = setting(attacks=CHUNK + 2, networks=networks)
        result = wdlg.attack(observation, Exact())
        assert mse(result.images, truth).max() < 1e-24
        last = torch.tensor([CHUNK + 1])
        alone = wdlg.attack(observation.select(last), Exact())
        torch.testing.assert_close(alone.images, result.images[last], rtol=0, atol=1e-11)
        assert torch.equal(alone.labels, result.labels[last])


def test_an_attack_tells_what_it_did_and_observers_see_it():
    _, _, observation = setting(attacks=2)
    watched = []
    attack = Exact(refine=1)
    assert isinstance(attack, Attack)
    result = reconstruct(
        attack, observation, torch.zeros(2, 1, 8, 8), observers=[lambda *what: watched.append(what)]
    )
    assert [(what[0].tolist(), what[1].tolist(), what[2].tolist()) for what in watched] == [
        ([0, 1], [0, 0], [0, 0]), ([0, 1], [1, 1], [1, 1]),
    ]  # fmt: skip
    assert torch.equal(watched[-1][3], result.images)
    assert torch.equal(torch.stack([what[4] for what in watched], dim=1), result.loss_trace)
    assert result.evaluations.tolist() == [2, 2]
    assert result.iterations.tolist() == [1, 1]
    assert result.iteration_trace.tolist() == [[0, 1], [0, 1]]
    assert torch.equal(result.first_loss, result.loss_trace[:, 0])
    assert (result.seconds > 0).all()


# How it ends where an assumption does not hold


def test_a_gradient_with_noise_is_not_explained_by_its_picture():
    truth, labels, observation = setting()
    streams = [torch.Generator().manual_seed(n) for n in range(3)]
    for level in (1e-3, 1e-2):
        noisy = replace(observation, gradient=Noise(level)(observation.gradient, streams))
        result = wdlg.attack(noisy, Exact(BiasMin()))
        assert statuses(result) == ["UNSURE"] * 3
        assert torch.equal(result.labels, labels)
        assert (result.loss > EXPLAINED).all()
        assert mse(result.images, truth).max() < 2e3 * level**2


def test_the_gradient_of_two_images_gives_no_picture_that_looks_sure():
    network = LeNet((1, 8, 8), 4)
    parameters = network.initial_parameters(generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = torch.rand(1, 2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean = network.mean_gradient(parameters, truth, torch.eye(4, dtype=torch.float64)[None, [0, 2]])
    sent = from_tensors(mean.as_sent().tensors(), rank_one=False)
    result = wdlg.attack(Observation(network, parameters, sent), Exact(BiasMin()))
    assert statuses(result) == ["UNSURE"]
    with pytest.raises(InputError, match="^images is 2, but must be 1: a sum of images"):
        wdlg.attack(Observation(network, parameters, mean.as_sent(), images=2), Exact())


def test_a_saturated_network_says_that_it_hides_the_image():
    """Its gradient fits any picture, so that no residual could tell."""
    truth, labels, observation = setting(LeNet((1, 8, 8), 4), 1)
    tensors = list(observation.parameters.tensors)
    tensors[1] = tensors[1] + 100.0
    dark = replace(observation.parameters, tensors=tuple(tensors))
    observation = seen(observation.network, dark, truth, labels)
    found = invert(observation, BiasSign())
    assert found.residual.tolist() == pytest.approx([0.0], abs=EXPLAINED)
    assert found.determined.tolist() == [False]
    result = wdlg.attack(observation, Exact())
    assert statuses(result) == ["UNSURE"]
    assert mse(result.images, truth) > 0.01


def test_a_layer_that_passes_the_counts_and_leaves_something_open_is_found_out():
    module = stack(nn.Conv2d(3, 5, (4, 3), stride=(3, 2), padding=(0, 2)), nn.Sigmoid(), width=5 * 2 * 4)
    network = ModuleNetwork(module, (3, 7, 6))
    truth = torch.rand(2, 3, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    observation = seen(network, network.parameters(), truth, torch.tensor([1, 2]))
    result = wdlg.attack(observation, Exact())
    assert result.loss.max() < EXPLAINED
    assert statuses(result) == ["UNSURE"] * 2


def test_a_softmax_that_is_sure_of_its_label_leaves_nothing():
    _, _, observation = setting(attacks=2)
    nothing = replace(observation.gradient.output, error=torch.zeros(2, 4, dtype=torch.float64))
    hidden = tuple(torch.zeros_like(part) for part in observation.gradient.hidden)
    gradient = replace(observation.gradient, hidden=hidden, output=nothing)
    result = wdlg.attack(replace(observation, gradient=gradient), Exact())
    assert statuses(result) == ["UNDECIDED"] * 2
    assert result.labels.tolist() == [UNDECIDED] * 2
    assert torch.isnan(result.images).all()
    assert torch.isnan(result.loss).all()


def test_a_bad_gradient_does_not_touch_its_neighbours():
    truth, _, observation = setting(attacks=2)
    output = observation.gradient.output
    error = output.error * torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    gradient = replace(observation.gradient, output=replace(output, error=error))
    result = wdlg.attack(replace(observation, gradient=gradient), Exact())
    assert statuses(result) == ["CONVERGED", "UNDECIDED"]
    assert mse(result.images, truth)[0] < 1e-24


def test_it_computes_on_one_thread_and_leaves_the_number_as_it_was(monkeypatch):
    """On several its small operations wait for each other: on a busy machine seconds for an image."""
    cases = wdlg.draw(wdlg.data.load("digits"), wdlg.Design(networks=1))
    descend, seen = exact._descend, []

    def noted(*arguments):
        seen.append(torch.get_num_threads())
        return descend(*arguments)

    monkeypatch.setattr(exact, "_descend", noted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        exact.invert(cases.observation(), BiasSign())
        reconstruct(Exact(), cases.observation(), cases.dummy_images)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1]


# What is refused


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (ConvNet((1, 16, 16), 4), "^network has BatchNorm2d.*, but must be convolutions"),
        (ResNet((1, 16, 16), 4), "^network has .*, but must be convolutions"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_network_that_cannot_be_undone_is_refused(network, message):
    parameters = network.initial_parameters(generator=torch.Generator().manual_seed(0))
    truth = torch.rand(1, *network.image_shape)
    with pytest.raises(InputError, match=message):
        wdlg.attack(seen(network, parameters, truth, torch.tensor([1])), Exact())


@pytest.mark.parametrize(
    ("layers", "width"),
    [
        ((nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.Sigmoid()), 256),
        ((nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.Sigmoid()), 256),
        ((nn.Conv2d(1, 4, 3, padding=2, dilation=2), nn.Sigmoid()), 256),
        ((nn.Conv2d(1, 4, 3, padding=1), nn.ELU()), 256),
        ((nn.Conv2d(1, 4, 3, padding=1), nn.LeakyReLU(0.0)), 256),
        ((nn.Conv2d(1, 4, 3, padding=1), nn.Sigmoid(), nn.AvgPool2d(2)), 64),
        ((nn.Conv2d(1, 2, 1, stride=2), nn.Sigmoid()), 32),  # pixels that no window sees
        ((nn.Conv2d(1, 1, 3, stride=2, padding=1), nn.Sigmoid()), 16),  # too few equations
    ],
)
def test_a_module_with_another_layer_is_refused(layers, width):
    network = ModuleNetwork(stack(*layers, width=width), (1, 8, 8))
    truth = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    with pytest.raises(InputError, match="^network has "):
        wdlg.attack(seen(network, network.parameters(), truth, torch.tensor([1])), Exact())


def test_settings_and_sharing_are_checked():
    with pytest.raises(InputError, match="^label_rule is joint"):
        Exact("joint")
    with pytest.raises(InputError, match="^refine is -1"):
        Exact(refine=-1)
    with pytest.raises(InputError, match="^name is ''"):
        Exact(name="")
    _, _, observation = setting(attacks=1)
    with pytest.raises(InputError, match="^sharing is FedAvg"):
        wdlg.attack(replace(observation, sharing=FedAvg(0.1, steps=2, batch=1)), Exact())


# Gauss-Newton steps


def test_steps_bring_a_picture_close_by_to_the_private_one_quadratically():
    truth, labels, observation = setting()
    stream = torch.Generator().manual_seed(5)
    images = truth + 0.01 * torch.randn(truth.shape, generator=stream, dtype=torch.float64)
    errors = []
    for _ in range(4):
        errors.append(float(mse(images, truth).max()))
        images, left = refined(observation, images, labels)
    assert errors[1] < 1e-2 * errors[0]
    assert errors[2] < errors[1] ** 1.5
    assert mse(images, truth).max() < 1e-24
    torch.testing.assert_close(left, residual(observation, images, labels), rtol=0, atol=1e-12)


def test_refinement_lowers_residual_and_error_under_noise():
    truth, _, observation = setting()
    streams = [torch.Generator().manual_seed(n) for n in range(3)]
    noisy = replace(observation, gradient=Noise(1e-2)(observation.gradient, streams))
    result = wdlg.attack(noisy, Exact(BiasMin(), refine=2))
    plain = wdlg.attack(noisy, Exact(BiasMin()))
    assert torch.equal(plain.loss, result.first_loss)
    assert (result.loss < plain.loss).all()
    assert torch.equal(result.best_images, result.images)
    assert (mse(result.images, truth) < mse(plain.images, truth)).all()


def test_a_step_that_would_not_help_is_not_taken():
    _, labels, observation = setting()
    far = torch.full((3, 1, 8, 8), 30.0, dtype=torch.float64)
    before = residual(observation, far, labels)
    images, after = refined(observation, far, labels)
    assert (after <= before).all()
    stays = after == before
    assert torch.equal(images[stays], far[stays])
    nowhere = torch.full_like(far, torch.nan)
    images, after = refined(observation, nowhere, labels)
    assert torch.isnan(images).all()
    assert torch.isnan(after).all()
    images, after = refined(observation, far, torch.full((3,), UNDECIDED))
    assert torch.equal(images, far)
    assert torch.isnan(after).all()
