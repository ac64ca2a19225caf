"""What a participant sends is read as it is, or refused in a sentence that says what it is instead."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

from wdlg.errors import InputError
from wdlg.losses import (
    Cosine,
    Euclidean,
    PseudoHuber,
    SentEntries,
    SlicedWasserstein,
    SquaredEuclidean,
    Wasserstein,
)
from wdlg.networks import LeNet
from wdlg.sharing.defences import Noise
from wdlg.updates import from_tensors

NETWORK = LeNet((1, 8, 8), 4)
LOSSES = [
    *(
        SquaredEuclidean(),
        Euclidean(),
        PseudoHuber(),
        Cosine(),
        SentEntries(),
        SlicedWasserstein(),
        Wasserstein(),
    ),
    *(Wasserstein(eps=0.0, points="scalars"), Wasserstein(points="kernels"), Wasserstein(points="tensors")),
]


def parameters(count=1, dtype=torch.float32):
    return NETWORK.initial_parameters(count, generator=torch.Generator().manual_seed(0), dtype=dtype)


def by_autograd(*, smoothing=0.0, dtype=torch.float32, label=1):
    """The gradients of one image as torch hands them out."""
    module = NETWORK.as_module(parameters(dtype=dtype))
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    loss = F.cross_entropy(module(image), torch.tensor([label]), label_smoothing=smoothing)
    return list(torch.autograd.grad(loss, list(module.parameters())))


def same(one, other, **close):
    for ours, theirs in zip(one.tensors(), other.tensors(), strict=True):
        torch.testing.assert_close(ours, theirs, **close)


def test_what_torch_hands_out_for_one_image_needs_no_leading_axis():
    gradients = by_autograd()
    same(from_tensors(gradients), from_tensors([tensor[None] for tensor in gradients]))
    for ours, sent in zip(from_tensors(gradients).tensors(), gradients, strict=True):
        torch.testing.assert_close(ours[0], sent.view_as(ours[0]), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "form",
    [
        lambda tensors: [tensor.numpy() for tensor in tensors],
        lambda tensors: [np.asfortranarray(tensor.numpy()) for tensor in tensors],
        lambda tensors: {str(place): tensor for place, tensor in enumerate(tensors)},
        lambda tensors: (tensor for tensor in tensors),
        lambda tensors: [tensor.clone().requires_grad_() for tensor in tensors],
    ],
)
def test_arrays_tables_and_iterators_are_read_like_lists(form):
    same(from_tensors(form(by_autograd())), from_tensors(by_autograd()), rtol=0, atol=0)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_short_formats_become_single_precision_and_are_as_near_to_rank_one_as_they_can_be(dtype, close):
    sent = [tensor.to(dtype) for tensor in by_autograd()]
    gradient = from_tensors(sent)
    assert gradient.bias.dtype == torch.float32
    exact = from_tensors(by_autograd())
    assert (gradient.output.features - exact.output.features).norm() < close * exact.output.features.norm()


def test_one_double_makes_all_double():
    first, *others = by_autograd()
    gradient = from_tensors([first.double(), *others])
    assert {tensor.dtype for tensor in gradient.tensors()} == {torch.float64}


def test_features_are_read_off_entries_whose_squares_underflow():
    exact = by_autograd()
    tiny = [tensor * 1e-30 for tensor in exact]
    torch.testing.assert_close(
        from_tensors(tiny).output.features, from_tensors(exact).output.features, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda g: g[0], "tensors is a float32 tensor"),
        (lambda _: "gradient", "tensors is of type str"),
        (lambda _: None, "tensors is of type NoneType"),
        (lambda _: [], "tensors ends with shapes of nothing"),
        (lambda g: [None, *g[1:]], "tensors has a parameter without gradient in place 0"),
        (lambda g: [3, *g[1:]], "tensors has of type int in place 0"),
        (lambda g: [g[0].int(), *g[1:]], "tensors has an int32 tensor of shape .* in place 0"),
        (lambda g: [np.array(["a"]), *g[1:]], "tensors has a numpy.ndarray .* in place 0"),
        (lambda g: [g[0].to_sparse(), *g[1:]], "tensors has a float32 tensor .* in place 0"),
        (lambda g: g[:-1], "tensors ends with shapes"),
        (lambda g: [*g[:-2], g[-1], g[-2]], "tensors ends with shapes"),
        (
            lambda g: [g[0][None], *g[1:-2], g[-2][None].repeat(2, 1, 1), g[-1].repeat(2, 1)],
            "tensors has a gradient",
        ),
        (lambda g: [torch.zeros(1, 0, 3), *(t[None] for t in g[1:])], "tensors has a gradient of shape"),
        (lambda g: [g[0] * torch.nan, *g[1:]], "gradient has an entry that is NaN"),
    ],
)
def test_what_is_no_list_of_gradients_is_named(change, sentence):
    with pytest.raises(InputError, match=f"^{sentence}"):
        from_tensors(change(by_autograd()))


def test_a_change_of_weights_a_smoothed_label_a_batch_and_another_loss_are_told_apart():
    one, two = by_autograd(label=1), by_autograd(label=2)
    with pytest.raises(InputError, match="divide a change of weights by minus the learning rate"):
        from_tensors([-0.01 * tensor for tensor in one])
    with pytest.raises(InputError, match="smoothed label"):
        from_tensors(by_autograd(smoothing=0.5))
    with pytest.raises(InputError, match="rank above one"):
        from_tensors([(a + b * torch.rand_like(b)) / 2 for a, b in zip(one, two, strict=True)])
    with pytest.raises(InputError, match="another loss is not covered"):
        from_tensors([*one[:-2], one[-2].abs(), one[-1].abs()])


def test_a_difference_of_weights_is_refused_for_its_rounding_and_says_so():
    weights = parameters().tensors
    change = [
        ((tensor[0] - 1e-5 * sent.view_as(tensor[0])) - tensor[0]) / -1e-5
        for tensor, sent in zip(weights, by_autograd(), strict=True)
    ]
    with pytest.raises(InputError, match="the rounding of a small difference of weights"):
        from_tensors(change)


@given(st.integers(2, 9), st.integers(1, 5), st.integers(0, 2**31))
def test_every_gradient_of_one_image_with_one_label_is_accepted(classes, features, seed):
    stream = torch.Generator().manual_seed(seed)
    logits = 30 * torch.randn(3, classes, generator=stream)
    target = F.one_hot(torch.randint(classes, (3,), generator=stream), classes)
    error = logits.softmax(-1) - target
    factors = torch.rand(3, features, generator=stream)
    gradient = from_tensors([error[:, :, None] * factors[:, None, :], error])
    seen = (error != 0).any(1)
    torch.testing.assert_close(gradient.output.features[seen], factors[seen])


def gradient(count=2, dtype=torch.float32, network=NETWORK):
    stream = torch.Generator().manual_seed(0)
    weights = network.initial_parameters(1, generator=stream, dtype=dtype)
    images = torch.rand(count, *network.image_shape, generator=stream).to(dtype)
    return network.gradient(weights, images, F.one_hot(torch.arange(count), network.classes).to(dtype))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize(
    "other",
    [
        gradient(1),
        gradient(dtype=torch.float64),
        gradient(network=LeNet((3, 8, 8), 4)),
        gradient(network=LeNet((1, 8, 8), 5)),
        gradient(network=LeNet((1, 12, 12), 4)),
    ],
)
def test_no_loss_compares_gradients_of_different_shapes_or_precisions(loss, other):
    for pair in ((gradient(), other), (other, gradient())):
        with pytest.raises(InputError, match="^dummy"):
            loss(*pair)


def test_a_rest_of_another_shape_is_refused():
    sent = Noise(0.1)(gradient(), [torch.Generator().manual_seed(number) for number in range(2)])
    with pytest.raises(InputError, match=r"^rest has shape \(2, \d+, 1\), but must have shape \(2, "):
        replace(sent.output, rest=sent.output.rest[:, :, :1])


def test_errors_of_two_gradients_do_not_make_up_for_each_other():
    error = torch.tensor([[0.3, -0.5, 0.1], [0.3, -0.5, 0.3]])  # -0.1 and +0.1
    with pytest.raises(InputError, match=r"entries add up to -0\.1, but"):
        from_tensors([error[:, :, None] * torch.ones(2, 1, 4), error])
