"""What the labels of a batch must be, what they may be, and what they are taken to be."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from wdlg import data
from wdlg.attacks.label_counts import ESTIMATES, LabelCounts, label_counts
from wdlg.attacks.labels import UNDECIDED, BiasSign
from wdlg.errors import InputError
from wdlg.networks import LeNet
from wdlg.sharing import FedSGD
from wdlg.updates import Gradient
from wdlg.updates.output_layer import Dense

CLASSES = 4


def of_bias(bias, features=3):
    return Gradient((), Dense.of(bias[:, :, None].expand(*bias.shape, features), bias))


def drawn(seed, images, classes=CLASSES, spread=3.0):
    """Probabilities (1, N, K) and counts (1, K) of a batch."""
    stream = torch.Generator().manual_seed(seed)
    scores = spread * torch.randn(1, images, classes, generator=stream, dtype=torch.float64)
    labels = torch.randint(classes, (1, images), generator=stream)
    return torch.softmax(scores, 2), F.one_hot(labels, classes).sum(1).double()


@given(st.integers(0, 2**31), st.integers(1, 6), st.floats(0.1, 20), st.sampled_from([0.0, 0.1, 0.5]))
def test_no_batch_has_fewer_of_a_class_than_is_certain(seed, images, spread, smoothing):
    probabilities, counts = drawn(seed, images, spread=spread)
    target = (1 - smoothing) * counts / images + smoothing / CLASSES
    found = label_counts(of_bias(probabilities.mean(1) - target), images, smoothing=smoothing)
    assert (found.certain <= counts).all()
    assert (found.open >= 0).all()
    assert (found.counts >= found.certain).all()
    assert found.counts.sum() == images
    if found.decided:
        assert torch.equal(found.counts, counts.long())


@given(st.integers(0, 2**31), st.integers(1, 5))
@settings(max_examples=50)
def test_all_that_the_bias_says_is_said(seed, images):
    """Brute force: every count above the bounds explains the gradient, none below does."""
    probabilities, counts = drawn(seed, images)
    bias = probabilities.mean(1) - counts / images
    found = label_counts(of_bias(bias), images)
    explain = []
    for labels in product(range(CLASSES), repeat=images):
        tried = F.one_hot(torch.tensor(labels), CLASSES).sum(0).double()
        needed = bias[0] + tried / images  # the mean of the probabilities that would explain it
        if (needed > 0).all():
            each = needed.expand(images, -1)
            torch.testing.assert_close(each.sum(1), torch.ones(images, dtype=torch.float64))
            torch.testing.assert_close(each.mean(0) - tried / images, bias[0])
            explain.append(tried)
    least = torch.stack(explain).amin(0)
    most = torch.stack(explain).amax(0)
    assert torch.equal(found.certain[0].double(), least)
    assert torch.equal(least + found.open, most)


@given(st.integers(0, 2**31), st.integers(2, 5))
def test_of_the_counts_that_sum_up_the_nearest_is_taken(seed, images):
    probabilities, counts = drawn(seed, images)
    bias = probabilities.mean(1) - counts / images
    found = label_counts(of_bias(bias), images)
    wanted = images * (1 / CLASSES - bias[0])
    best = min(
        float((wanted - tried).square().sum())
        for tried in torch.cartesian_prod(*[torch.arange(images + 1)] * CLASSES)
        if tried.sum() == images and (tried >= found.certain[0]).all()
    )
    assert float((wanted - found.counts[0]).square().sum()) == pytest.approx(best)


@given(st.integers(0, 2**31))
def test_of_one_image_it_is_the_rule_of_the_paper(seed):
    probabilities, counts = drawn(seed, 1)
    gradient = of_bias(probabilities.mean(1) - counts)
    found = label_counts(gradient, 1)
    assert found.decided
    assert found.labels[:, 0].tolist() == BiasSign()(gradient).tolist()


def batch(images, *, initial="uniform", repeated=True, seed=0, count=40):
    """Mean gradients of digits in networks of their own, the networks, and the true counts."""
    sample = data.load("digits")
    labels = torch.from_numpy(sample.labels)
    stream = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=stream)
    if repeated:
        index = order[: count * images].view(count, images)
    else:
        classes = [torch.randperm(10, generator=stream)[:images] for _ in range(count)]
        index = torch.stack(
            [torch.stack([(labels == c).nonzero()[row, 0] for c in some]) for row, some in enumerate(classes)]
        )
    network = LeNet((1, 8, 8), 10)
    weights = network.initial_parameters(count, generator=stream, distribution=initial)
    target = F.one_hot(labels[index], 10).float()
    private = sample.tensor(index.flatten().numpy()).view(count, images, 1, 8, 8)
    return FedSGD()(network, weights, private, target).as_sent(), weights, target.sum(1).long()


@pytest.mark.parametrize("initial", ["uniform", "torch"])
@pytest.mark.parametrize(("images", "repeated"), [(2, True), (8, True), (8, False), (16, True)])
def test_who_knows_the_network_counts_the_labels_of_digits(images, repeated, initial):
    gradient, weights, counts = batch(images, initial=initial, repeated=repeated)
    found = label_counts(gradient, images, weights)
    assert (found.certain <= counts).all()
    assert torch.equal(found.counts, counts.long())
    assert torch.equal(F.one_hot(found.labels, 10).sum(1), counts)
    # The bias alone does not.
    if images == 16:
        assert found.decided.double().mean() < 0.2
        assert (label_counts(gradient, images).counts == counts).all(1).double().mean() < 0.5


def test_features_of_each_class_count_them_too_but_for_a_few():
    gradient, weights, counts = batch(8)
    found = label_counts(gradient, 8, weights, by="class")
    assert (found.counts == counts).all(1).double().mean() > 0.8


@pytest.mark.parametrize("by", ESTIMATES)
def test_a_shared_network_is_as_good_as_its_copies(by):
    gradient, weights, _ = batch(4, count=3)
    one = weights.first(1)
    copies = weights.select(torch.zeros(3, dtype=torch.long))
    ours, theirs = (label_counts(gradient, 4, some, by=by) for some in (one, copies))
    assert torch.equal(ours.counts, theirs.counts)


@pytest.mark.parametrize("by", ESTIMATES)
def test_both_estimates_are_exact_where_all_images_are_alike(by):
    """Then each has the same features, and each row of the weights' gradient is a multiple of them."""
    stream = torch.Generator().manual_seed(3)
    network = LeNet((1, 8, 8), 5)
    weights = network.initial_parameters(generator=stream, dtype=torch.float64)
    image = torch.rand(1, 1, 1, 8, 8, generator=stream, dtype=torch.float64).expand(1, 30, -1, -1, -1)
    labels = [0] * 15 + [2] * 5 + [4] * 10
    target = 0.8 * F.one_hot(torch.tensor([labels]), 5).double() + 0.2 / 5
    sent = FedSGD()(network, weights, image, target).as_sent()
    found = label_counts(sent, 30, weights, by=by, smoothing=0.2)
    assert found.labels.tolist() == [labels]


def test_what_no_batch_of_so_many_sends_is_undecided():
    bias = torch.tensor([[-0.9, -0.9, 1.8], [0.5, -0.25, -0.25], [0.0, 0.0, 0.0]])
    found = label_counts(of_bias(bias), 2)
    assert found.open.tolist() == [-2, 0, 2]
    assert found.decided.tolist() == [False, True, False]
    assert found.counts[0].tolist() == [UNDECIDED] * 3
    assert found.labels[:2].tolist() == [[UNDECIDED] * 2, [1, 2]]


def test_a_gradient_of_zeros_says_nothing_to_who_asks_for_its_features():
    network = LeNet((1, 8, 8), 3)
    weights = network.initial_parameters(generator=torch.Generator().manual_seed(0))
    zeros = of_bias(torch.zeros(1, 3), network.features)
    for by in ESTIMATES:
        assert label_counts(zeros, 2, weights, by=by).labels.tolist() == [[UNDECIDED] * 2]


def test_an_entry_within_the_tolerance_of_a_bound_names_no_further_label():
    bias = torch.tensor([[-0.501, 0.501, 0.0]])
    assert label_counts(of_bias(bias), 2).certain.tolist() == [[2, 0, 0]]
    assert label_counts(of_bias(bias), 2, tolerance=0.01).certain.tolist() == [[1, 0, 0]]


def test_the_rows_of_what_is_found_can_be_taken():
    found = label_counts(of_bias(torch.tensor([[-0.5, 0.5], [0.5, -0.5]])), 2)
    assert isinstance(found.first(1), LabelCounts)
    assert found.select(torch.tensor([1])).certain.tolist() == [[0, 1]]
    assert len(found.first(1)) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": 0}, "images is 0"),
        ({"by": "guess"}, "by is 'guess'"),
        ({"smoothing": 1.0}, "smoothing is 1.0, but must be at least 0 and below 1"),
        ({"smoothing": -0.1}, "smoothing is -0.1"),
        ({"tolerance": -1.0}, "tolerance is -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    arguments = {"images": 2, **settings}
    with pytest.raises(InputError, match=f"^{message}"):
        label_counts(of_bias(torch.zeros(1, 3)), **arguments)


def test_gradients_and_networks_that_do_not_fit_are_refused():
    weights = LeNet((1, 8, 8), 5).initial_parameters(generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="^parameters has output weights of shape"):
        label_counts(of_bias(torch.zeros(1, 3)), 2, weights)
    with pytest.raises(InputError, match="^gradient has an entry that is NaN"):
        label_counts(of_bias(torch.tensor([[0.0, float("nan")]])), 2)
