"""The label rules follow from the gradient of the cross-entropy, and say so where they cannot decide."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

from wdlg.attacks import labels
from wdlg.attacks.labels import BiasMin, BiasSign, Joint, Known, RowSum
from wdlg.errors import InputError
from wdlg.networks import LeNet
from wdlg.sharing import FedSGD
from wdlg.updates import Gradient
from wdlg.updates.output_layer import Dense, Product


def shared_gradient(activation, seed, label, classes=6):
    network = LeNet((1, 8, 8), classes, activation)
    generator = torch.Generator().manual_seed(seed)
    parameters = network.initial_parameters(generator=generator, dtype=torch.float64)
    image = torch.rand(1, 1, 8, 8, generator=generator, dtype=torch.float64)
    return network.gradient(parameters, image, F.one_hot(torch.tensor([label]), classes).double())


@given(st.sampled_from(["sigmoid", "relu", "tanh"]), st.integers(0, 2**31), st.integers(0, 5))
def test_bias_sign_finds_the_label_under_every_activation(activation, seed, label):
    assert BiasSign()(shared_gradient(activation, seed, label)).tolist() == [label]


@given(st.sampled_from(["sigmoid", "tanh"]), st.integers(0, 2**31), st.integers(0, 5))
def test_row_sum_finds_the_label_exactly_when_the_features_sum_to_a_positive_number(activation, seed, label):
    gradient = shared_gradient(activation, seed, label)
    found = labels.row_sum(gradient.last_weight).tolist() == [label]
    assert found == bool(gradient.output.features.sum() > 0)
    assert RowSum()(gradient).tolist() == labels.row_sum(gradient.last_weight).tolist()


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8))
def test_bias_sign_decides_only_if_one_entry_is_negative(values):
    negative = [place for place, value in enumerate(values) if value < 0]
    expected = negative[0] if len(negative) == 1 else labels.UNDECIDED
    assert labels.bias_sign(torch.tensor([values], dtype=torch.float64)).tolist() == [expected]


def test_a_gradient_of_zeros_is_undecided_and_never_class_0():
    assert labels.bias_sign(torch.zeros(1, 5)).tolist() == [labels.UNDECIDED]
    assert labels.row_sum(torch.zeros(1, 5, 3)).tolist() == [labels.UNDECIDED]


def test_a_saturated_softmax_leaves_no_label_in_the_gradient():
    scores = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    F.cross_entropy(scores, torch.tensor([0])).backward()
    assert labels.bias_sign(scores.grad).tolist() == [labels.UNDECIDED]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_refused(value):
    with pytest.raises(InputError, match="^bias_gradient has an entry"):
        labels.bias_sign(torch.tensor([[value, 1.0]]))
    with pytest.raises(InputError, match="^weight_gradient has an entry"):
        labels.row_sum(torch.tensor([[[value], [1.0]]]))


def test_steps_differ_by_the_width_of_the_last_hidden_layer():
    sizes = {"classes": 100, "features": 768}
    assert RowSum().steps(**sizes) == 768 * BiasSign().steps(**sizes)
    assert Joint().steps(**sizes) is None


def test_an_unknown_rule_is_refused():
    with pytest.raises(InputError, match="^label_rule is 'guess', but must be one of bias_sign, "):
        labels.label_rule("guess")
    for stranger in (BiasSign, labels.bias_sign, None):
        with pytest.raises(InputError, match="^label_rule is .* but must be a rule of wdlg.attacks.labels"):
            labels.label_rule(stranger)


@pytest.mark.parametrize(
    ("rule", "gradient"),
    [
        *((rule, given) for rule in (labels.bias_sign, labels.bias_min)
          for given in (torch.zeros(3), torch.zeros(1, 1), torch.zeros(1, 3, 2), torch.zeros(1, 3).long(),
                        torch.zeros(1, 3).numpy(), torch.zeros(0, 3), [[0.0, 1.0]])),
        *((labels.row_sum, given) for given in (torch.zeros(3), torch.zeros(1, 3), None)),
    ],
)  # fmt: skip
def test_a_rule_refuses_what_is_no_gradient_of_an_output_layer(rule, gradient):
    with pytest.raises(InputError, match=r"^(bias|weight)_gradient"):
        rule(gradient)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8))
def test_bias_min_is_the_place_of_the_least_entry_if_that_is_negative(values):
    expected = values.index(min(values)) if min(values) < 0 else labels.UNDECIDED
    assert labels.bias_min(torch.tensor([values], dtype=torch.float64)).tolist() == [expected]


def test_an_entry_of_exactly_zero_is_not_negative():
    assert labels.bias_sign(torch.tensor([[0.5, -0.5, 0.0]])).tolist() == [1]
    for rule in (labels.bias_sign, labels.bias_min):
        assert rule(torch.tensor([[0.5, 0.0, 0.5]])).tolist() == [labels.UNDECIDED]


def test_a_rule_by_name_reads_what_the_rule_itself_reads():
    stream = torch.Generator().manual_seed(0)
    error = torch.tensor([[0.4, -0.1, -0.6, 0.3], [0.2, 0.1, 0.1, -0.4], [-0.7, -0.1, 0.4, 0.4]])
    features = torch.rand(3, 5, generator=stream) * torch.tensor([[1.0], [-1.0], [1.0]])
    for output in (Product(error, features), Dense(error, features, torch.randn(3, 4, 5, generator=stream))):
        gradient = Gradient((), output)
        assert BiasSign()(gradient).tolist() == [labels.UNDECIDED, 3, labels.UNDECIDED]
        assert BiasMin()(gradient).tolist() == [2, 3, 0]
        assert torch.equal(RowSum()(gradient), labels.row_sum(gradient.last_weight))


def test_the_rule_that_optimises_the_label_reads_none():
    assert Joint().joint
    assert Joint()(shared_gradient("sigmoid", 0, 0)).tolist() == [labels.UNDECIDED]


def test_rules_for_several_images_name_each_label_once_and_say_when_they_cannot():
    bias = torch.tensor([[0.4, -0.3, -0.4, 0.3], [0.4, -0.3, -0.4, -0.1], [0.4, 0.1, -0.6, 0.1]])
    gradient = Gradient((), Dense.of(bias[:, :, None] * torch.ones(3, 1, 5), bias))
    undecided = [labels.UNDECIDED] * 2
    assert BiasSign()(gradient, 2).tolist() == [[1, 2], undecided, undecided]
    for rule in (BiasMin(), RowSum()):
        assert rule(gradient, 2).tolist() == [[1, 2], [1, 2], undecided]
    assert Joint()(gradient, 2).tolist() == [undecided] * 3
    assert BiasMin()(gradient, 5).tolist() == [[labels.UNDECIDED] * 5] * 3


@given(st.integers(0, 2**31), st.permutations(range(6)))
def test_labels_of_several_images_are_read_off_the_mean_gradient_of_an_untrained_network(seed, order):
    """With small weights probabilities are near 1/K, and their sum less the labels has N negative entries."""
    network = LeNet((1, 8, 8), 6)
    stream = torch.Generator().manual_seed(seed)
    parameters = network.initial_parameters(generator=stream, bound=0.1, dtype=torch.float64)
    images = torch.rand(1, 3, 1, 8, 8, generator=stream, dtype=torch.float64)
    target = F.one_hot(torch.tensor([order[:3]]), 6).double()
    sent = FedSGD()(network, parameters, images, target).as_sent()
    assert BiasSign()(sent, 3).tolist() == [sorted(order[:3])]


def test_steps_are_counted_for_two_classes_and_one_feature_or_more():
    counts = {rule: labels.label_rule(rule).steps(classes=2, features=1) for rule in labels.RULES}
    assert counts == {"bias_sign": 2, "bias_min": 2, "row_sum": 2, "joint": None}
    with pytest.raises(InputError, match="^classes is 1"):
        BiasSign().steps(classes=1, features=1)
    with pytest.raises(InputError, match="^features is 0"):
        BiasSign().steps(classes=2, features=0)


def test_known_labels_are_those_of_every_gradient():
    gradient = Gradient((), Dense.of(torch.zeros(2, 4, 5), torch.zeros(2, 4)))
    assert Known((3, 1, 3))(gradient, 3).tolist() == [[3, 1, 3]] * 2
    assert Known([2])(gradient).tolist() == [2, 2]
    assert labels.label_rule(Known((2,))) == Known((2,))
    assert Known((2,)).steps(classes=4, features=5) == 0
    for given_labels, images in (((3, 1), 3), ((4,), 1)):
        with pytest.raises(InputError, match="^labels is .* but must be . of the classes 0 to 3"):
            Known(given_labels)(gradient, images)
    for wrong in ((), 3, None, "12"):
        with pytest.raises(InputError, match="^labels is .* but must be a tuple of at least one class"):
            Known(wrong)
    for wrong in ((-1,), (0.5,), (True,)):
        with pytest.raises(InputError, match="^labels is"):
            Known(wrong)


@given(st.sampled_from(["sigmoid", "relu", "tanh"]), st.integers(0, 2**31), st.integers(0, 5))
def test_the_products_of_rows_find_the_label_without_the_bias(activation, seed, label):
    weight = shared_gradient(activation, seed, label).last_weight
    for scale in (1.0, -3.0, 1e-30):
        assert labels.row_product(scale * weight).tolist() == [label]


def test_products_of_rows_say_nothing_of_two_classes_or_of_zeros():
    assert labels.row_product(torch.tensor([[[1.0, 2.0], [-1.0, -2.0]]])).tolist() == [labels.UNDECIDED]
    assert labels.row_product(torch.zeros(1, 5, 3)).tolist() == [labels.UNDECIDED]
    with pytest.raises(InputError, match="^weight_gradient has an entry"):
        labels.row_product(torch.full((1, 3, 2), torch.nan))
    with pytest.raises(InputError, match="^weight_gradient is"):
        labels.row_product(torch.zeros(3, 2))


@given(st.floats(-30, 30), st.integers(0, 1))
def test_one_score_tells_its_label_by_the_sign(score, label):
    value = torch.tensor([[score]], dtype=torch.float64, requires_grad=True)
    F.binary_cross_entropy_with_logits(value, torch.tensor([[label]], dtype=torch.float64)).backward()
    assert labels.one_logit_sign(value.grad).tolist() == [label]


def test_one_score_needs_one_entry():
    with pytest.raises(InputError, match="^bias_gradient is"):
        labels.one_logit_sign(torch.zeros(1, 2))
    with pytest.raises(InputError, match="^bias_gradient has 1 class"):
        labels.bias_sign(torch.zeros(1, 1))
