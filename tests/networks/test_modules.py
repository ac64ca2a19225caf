"""The general path for torch modules equals the hand-written one on LeNet, and works on other networks."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from wdlg.attacks import IDLG, METHODS, Observation, Status, reconstruct
from wdlg.errors import InputError
from wdlg.networks import ACTIVATIONS, ConvNet, LeNet, ModuleNetwork, Parameters, ResNet, module_checks
from wdlg.networks.functional import MODES

TYPE = {"dtype": torch.float64}


def problem(attacks, classes, *, seed=0, shape=(1, 8, 8)):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(attacks, *shape, generator=generator, **TYPE)
    dummies = torch.randn(attacks, *shape, generator=generator, **TYPE)
    logits = torch.randn(attacks, classes, generator=generator, **TYPE)
    target = F.one_hot(torch.arange(attacks) % classes, classes).double()
    return truth, target, dummies, logits


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("networks", [1, 3])
def test_gradient_and_its_derivative_are_those_of_the_hand_written_lenet(activation, networks):
    lenet = LeNet((1, 8, 8), 4, activation)
    parameters = lenet.initial_parameters(networks, generator=torch.Generator().manual_seed(1), **TYPE)
    general = ModuleNetwork(lenet.as_module(parameters), (1, 8, 8))
    module_shapes = [tensor.shape[1:] for tensor in general.parameters().tensors]
    same = Parameters(
        tuple(
            tensor.reshape(networks, *shape)
            for tensor, shape in zip(parameters.tensors, module_shapes, strict=True)
        )
    )
    images, target, _, _ = problem(3, 4)
    results = []
    for network, weights in ((lenet, parameters), (general, same)):
        leaf, label = images.clone().requires_grad_(), target.clone().requires_grad_()
        gradient = network.gradient(weights, leaf, label)
        total = sum((tensor**3).sum() for tensor in gradient.tensors())
        results.append([*gradient.detach().tensors(), *torch.autograd.grad(total, (leaf, label))])
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_attacks_take_the_same_course_on_either_path(method):
    lenet = LeNet((1, 8, 8), 4)
    parameters = lenet.initial_parameters(1, generator=torch.Generator().manual_seed(2), **TYPE)
    general = ModuleNetwork(lenet.as_module(parameters), (1, 8, 8))
    truth, target, dummies, logits = problem(3, 4)
    attack = replace(method, evaluations=10)
    ours, theirs = (
        reconstruct(
            attack, Observation(network, weights, network.gradient(weights, truth, target)), dummies, logits
        )
        for network, weights in ((lenet, parameters), (general, general.parameters()))
    )
    torch.testing.assert_close(ours.images, theirs.images)
    torch.testing.assert_close(ours.loss_trace, theirs.loss_trace, equal_nan=True)


class Residual(nn.Module):
    """A small network with what LeNet lacks: a skip connection, a normalisation, layers without bias."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.output = nn.Linear(96, 5)

    def forward(self, images):
        hidden = torch.tanh(self.norm(self.first(images)))
        hidden = torch.tanh(hidden + self.second(hidden))
        return self.output(hidden.flatten(1))


def test_gradient_of_another_network_is_that_of_autograd():
    torch.manual_seed(0)
    module = Residual().double()
    network = ModuleNetwork(module, (1, 8, 8))
    images, target, _, _ = problem(2, 5)
    gradient = network.gradient(network.parameters(), images, target)
    module.eval()
    for place in range(2):
        loss = F.cross_entropy(module(images[place : place + 1]), target[place : place + 1])
        for ours, theirs in zip(
            gradient.tensors(), torch.autograd.grad(loss, list(module.parameters())), strict=True
        ):
            torch.testing.assert_close(ours[place], theirs.view_as(ours[place]))


def by_autograd(module, images, target):
    """The gradient of the mean loss over the images, and the derivative of the sum of its cubes by them."""
    leaf = images.clone().requires_grad_()
    loss = F.cross_entropy(module(leaf), target)
    gradient = torch.autograd.grad(loss, list(module.parameters()), create_graph=True)
    (back,) = torch.autograd.grad(sum((part**3).sum() for part in gradient), leaf)
    return [part.detach() for part in gradient], back


def require_close(ours, theirs):
    """Relative to the norm: numbers may be of any size."""
    assert (ours - theirs).norm() <= 1e-9 * theirs.norm()
    assert theirs.norm() > 0


@pytest.mark.parametrize("mode", MODES)
def test_mean_gradient_in_both_modes_and_its_derivative_are_those_of_autograd(mode):
    torch.manual_seed(0)
    module = Residual().double().train(mode == "training")
    with torch.no_grad():  # statistics of a network that has seen something
        module.norm.running_mean.normal_()
        module.norm.running_var.uniform_(0.5, 2)
    network = ModuleNetwork(module, (1, 8, 8), mode)
    images, target, _, _ = problem(6, 5)
    for count in (1, 3):
        batch = [tensor.unflatten(0, (-1, count)) for tensor in (images, target)]
        leaf = batch[0].clone().requires_grad_()
        gradient = network.mean_gradient(network.parameters(), leaf, batch[1])
        (back,) = torch.autograd.grad(sum((part**3).sum() for part in gradient.tensors()), leaf)
        for place in range(6 // count):
            exact, exact_back = by_autograd(module, batch[0][place], batch[1][place])
            for ours, theirs in zip(gradient.tensors(), exact, strict=True):
                require_close(ours[place].detach(), theirs.view_as(ours[place]))
            require_close(back[place], exact_back)


def test_in_training_mode_images_see_each_other_and_scores_are_those_of_the_batch():
    torch.manual_seed(0)
    module = Residual().double()
    network = ModuleNetwork(module, (1, 8, 8), "training")
    images, _, _, _ = problem(3, 5)
    weights = tuple(tensor[0] for tensor in network.parameters().tensors)
    torch.testing.assert_close(network.scores(weights, images), module.train()(images))
    alone = torch.cat([network.scores(weights, image[None]) for image in images])
    assert not torch.allclose(network.scores(weights, images), alone)


def test_running_statistics_are_each_networks_own():
    torch.manual_seed(0)
    modules = [Residual().double().eval() for _ in range(2)]
    with torch.no_grad():
        for module in modules:
            module.norm.running_mean.normal_()
    networks = [ModuleNetwork(module, (1, 8, 8)) for module in modules]
    both = Parameters.join([network.parameters() for network in networks])
    images, target, _, _ = problem(2, 5)
    gradient = networks[0].gradient(both, images, target)
    for place, module in enumerate(modules):
        exact, _ = by_autograd(module, images[place : place + 1], target[place : place + 1])
        for ours, theirs in zip(gradient.tensors(), exact, strict=True):
            require_close(ours[place], theirs.view_as(ours[place]))
    with pytest.raises(InputError, match="^parameters holds 0 buffers, but the network has 3"):
        networks[0].gradient(Parameters(both.tensors), images, target)


def test_a_batch_normalisation_of_single_values_is_refused_where_it_cannot_be():
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()
    network = ModuleNetwork(module, (1, 4, 4), "training")
    images, target, _, _ = problem(2, 3, shape=(1, 4, 4))
    network.mean_gradient(network.parameters(), images[None], target[None])
    with pytest.raises(InputError, match="^images gives a batch normalisation in training mode a single"):
        network.gradient(network.parameters(), images, target)


def test_threads_with_weights_of_their_own_do_not_meet_in_the_module():
    network = ResNet((1, 8, 8), 4, width=2)
    images, target, _, _ = problem(2, 4)
    many = [
        network.initial_parameters(generator=torch.Generator().manual_seed(seed), **TYPE) for seed in range(8)
    ]

    def gradient(parameters):
        return network.gradient(parameters, images, target).tensors()

    alone = [gradient(parameters) for parameters in many]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(gradient, many))
    for ours, theirs in zip(together, alone, strict=True):
        assert all(map(torch.equal, ours, theirs))


def test_an_image_is_recovered_from_another_network():
    torch.manual_seed(0)
    network = ModuleNetwork(Residual().double(), (1, 8, 8))
    parameters = network.parameters()
    truth, target, dummies, _ = problem(4, 5)
    observation = Observation(network, parameters, network.gradient(parameters, truth, target))
    # Features of tanh may sum to a negative number, where iDLG's own label rule is wrong.
    attack = replace(IDLG, label_rule="bias_sign", evaluations=600)
    result = reconstruct(attack, observation, dummies)
    assert torch.equal(result.labels, target.argmax(1))
    errors = (result.images - truth).square().flatten(1).mean(1)
    assert errors.min() < 1e-4
    assert (result.status == Status.CONVERGED).any()


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Flatten()),
        nn.Linear(4, 2, bias=False),
        nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)),
    ],
)
def test_a_module_that_does_not_end_in_a_linear_layer_is_refused(module):
    with pytest.raises(InputError, match=r"must end in a torch\.nn\.Linear with bias"):
        ModuleNetwork(module, (1, 2, 2))


def test_images_of_another_shape_are_refused():
    network = ModuleNetwork(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))
    with pytest.raises(InputError, match=r"^images has shape \(1, 1, 3, 3\)"):
        network.gradient(network.parameters(), torch.rand(1, 1, 3, 3), torch.ones(1, 2) / 2)


class Classifier(nn.Module):
    """A linear layer, tanh, and an output layer, with something done to its scores or features."""

    def __init__(self, *, scores=lambda logits: logits, features=lambda hidden: hidden, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(16, 6)
        self.output = nn.Linear(6, 3, bias=bias)
        self.scores, self.features = scores, features

    def forward(self, images):
        hidden = torch.tanh(self.first(images.flatten(1)))
        return self.scores(self.output(self.features(hidden)))


class RegisteredFirst(Classifier):
    """Its output layer comes before the others among its parameters."""

    def __init__(self):
        super().__init__()
        first = self.first
        del self.first
        self.first = first


class Tied(Classifier):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.second = nn.Linear(16, 6)
        self.second.weight = self.first.weight
        self.output = self.__dict__["_modules"].pop("output")


class UsedTwice(nn.Module):
    """One linear layer, used as hidden and as output layer."""

    def __init__(self):
        super().__init__()
        self.output = nn.Linear(16, 16)

    def forward(self, images):
        return self.output(torch.tanh(self.output(images.flatten(1))))


class Drifting(Classifier):
    """It counts its calls."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images):
        self.calls += 1
        return super().forward(images)


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (
            Classifier(scores=lambda logits: logits.softmax(1)),
            "module gives other class scores than the linear layer",
        ),
        (
            Classifier(scores=lambda logits: logits / 0.5),
            "module gives other class scores than the linear layer",
        ),
        (
            Classifier(scores=lambda logits: 3 * logits),
            "module gives other class scores than the linear layer",
        ),
        (Classifier(scores=torch.relu), "module gives other class scores than the linear layer"),
        (
            Classifier(scores=lambda logits: logits + torch.zeros(3)),
            "module gives other class scores than the linear layer",
        ),
        (Classifier(scores=lambda logits: logits[:, :2]), "module gives a float32 tensor of shape"),
        (Classifier(scores=lambda logits: (logits, 1)), "module gives of type tuple"),
        (RegisteredFirst(), "module gives .* as many as the linear layer that is registered last"),
        (Tied(), "module ties second.weight to first.weight"),
        (UsedTwice(), "module uses its last linear layer 2 times"),
        (Classifier(features=F.dropout), "module gives other class scores .* second time"),
        (Drifting(), "module changes its buffers in evaluation mode"),
        (Classifier(bias=False), "module is a Classifier whose last parameter is output.weight"),
        (Classifier().half(), "module holds float16 on cpu, but must hold float32 or float64"),
        (Classifier().bfloat16(), "module holds bfloat16 on cpu"),
        (Classifier().to("meta"), "module holds float32 on meta"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "module has weights without a shape yet"),
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), "module does not take images of shape"),
        (Classifier(features=Classifier().first), "module does not take images"),
        (Classifier(features=nn.Linear(6, 6).forward), "module computes with weights of another module"),
        ("LeNet", "module is 'LeNet'"),
        (
            Classifier(features=lambda hidden: hidden if bool(hidden.sum() > -9) else 2 * hidden),
            "module cannot be",
        ),
    ],
)
def test_a_module_whose_gradient_would_be_wrong_is_refused_in_a_sentence(module, sentence):
    with pytest.raises(InputError, match=f"^{sentence}"):
        ModuleNetwork(module, (1, 4, 4))


def test_dropout_is_refused_in_training_mode_alone():
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Dropout(), nn.Linear(6, 3))
    ModuleNetwork(module, (1, 4, 4))
    with pytest.raises(InputError, match=r"^module gives other class scores .* in training mode"):
        ModuleNetwork(module, (1, 4, 4), "training")
    with pytest.raises(InputError, match="^mode is 'test'"):
        ModuleNetwork(module, (1, 4, 4), "test")


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_module_without_a_second_derivative_is_refused():
    def attention(hidden):
        rows = hidden.view(-1, 1, 2, 3)
        return F.scaled_dot_product_attention(rows, rows, rows).flatten(1)

    with pytest.raises(InputError, match=r"^module cannot be differentiated by torch\.func, twice"):
        ModuleNetwork(Classifier(features=attention), (1, 4, 4))


def test_a_second_derivative_that_torch_gets_wrong_is_refused(monkeypatch):
    # Without the plain operations of wdlg.networks.normalisation, vmap is wrong for this layer.
    monkeypatch.setattr("wdlg.networks.functional.PlainNormalisations", nullcontext)
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(16, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)
    module = nn.Sequential(*layers).double()
    with pytest.raises(InputError, match="^module's second derivative by autograd differs by"):
        ModuleNetwork(module, (1, 4, 4))


def test_initial_weights_of_a_module_are_those_that_torch_gives_its_layers():
    torch.manual_seed(0)
    network = ModuleNetwork(Residual(), (1, 8, 8))
    stream = torch.Generator().manual_seed(3)
    state = torch.random.get_rng_state()
    parameters = network.initial_parameters(50, generator=stream)
    first, scale, shift, second, weight, bias = parameters.tensors
    for tensor, inputs in ((first, 9), (second, 54), (weight, 96), (bias, 96)):
        assert 0.95 * inputs**-0.5 < tensor.abs().max() <= inputs**-0.5
    assert (scale == 1).all()
    assert (shift == 0).all()
    mean, variance, count = parameters.buffers
    assert [tensor.shape for tensor in parameters.buffers] == [(50, 6), (50, 6), (50,)]
    assert (mean == 0).all()
    assert (variance == 1).all()
    assert (count == 0).all()
    uniform = network.initial_parameters(50, generator=stream, distribution="uniform", bound=0.25)
    assert all(0.2 < tensor.abs().max() <= 0.25 for tensor in uniform.tensors)
    assert torch.equal(torch.random.get_rng_state(), state)
    odd = ModuleNetwork(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(), nn.Flatten(), nn.Linear(144, 3)), (1, 8, 8)
    )
    with pytest.raises(InputError, match=r"^distribution is 'torch', .* has a PReLU: take 'uniform'"):
        odd.initial_parameters(generator=stream)


def test_a_module_stays_as_it_was_and_what_happens_to_it_later_is_not_seen():
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3))
    module[3].eval()
    modes = [layer.training for layer in module.modules()]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    network = ModuleNetwork(module, (1, 4, 4))
    assert [layer.training for layer in module.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    images, target = torch.rand(1, 1, 4, 4), torch.eye(3)[:1]
    first = network.gradient(network.parameters(), images, target)
    with torch.no_grad():
        module(torch.rand(8, 1, 4, 4))  # moves the running means
        module[4].weight.zero_()
    again = network.gradient(network.parameters(), images, target)
    assert all(map(torch.equal, first.tensors(), again.tensors()))


def test_a_number_as_parameter_and_an_unused_one_have_gradients_too():
    class Scaled(Classifier):
        def __init__(self):
            super().__init__()
            output = self.output
            del self.output
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.unused = nn.Parameter(torch.ones(2, 2))
            self.output = output

        def forward(self, images):
            return self.output(self.scale * torch.tanh(self.first(images.flatten(1))))

    network = ModuleNetwork(Scaled(), (1, 4, 4))
    gradient = network.gradient(network.parameters(), torch.rand(2, 1, 4, 4), torch.eye(3)[:2])
    shapes = [tuple(tensor.shape) for tensor in gradient.tensors()]
    assert shapes[:2] == [(2, 1, 1), (2, 2, 2)]
    assert (gradient.hidden[0] != 0).all()
    assert (gradient.hidden[1] == 0).all()


def test_a_module_that_leaves_noise_of_the_image_in_single_precision_is_not_refused_for_it():
    # Eight layers of sigmoids between a pixel and the scores: of the second derivative only rounding is left.
    deep = ConvNet((1, 28, 28), 10, "sigmoid", width=4)
    parameters = deep.initial_parameters(generator=torch.Generator().manual_seed(0))
    module = deep.make_module().to_empty(device="cpu")
    with torch.no_grad():
        for theirs, ours in (
            *zip(module.parameters(), parameters.tensors, strict=True),
            *zip(module.buffers(), parameters.buffers, strict=True),
        ):
            theirs.copy_(ours[0])
    network = ModuleNetwork(module, (1, 28, 28))
    first, second = module_checks._missed_by_autograd(network, network._attacked, network.parameters())
    assert first < 1e-3 < second
