"""The three kinds of an output layer's gradient are the matrices that they stand for."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wdlg.errors import InputError
from wdlg.updates.distance import root
from wdlg.updates.output_layer import Dense, Product, Products

KINDS = ("product", "products", "three products", "dense", "written out")


def output(kind, stream, *, attacks=2, classes=4, features=5):
    def normal(*shape):
        return torch.randn(attacks, *shape, generator=stream, dtype=torch.float64)

    return {
        "product": lambda: Product(normal(classes), normal(features)),
        "products": lambda: Products(normal(2, classes), normal(2, features)),
        "three products": lambda: Products(normal(3, classes), normal(3, features)),
        "dense": lambda: Dense(normal(classes), normal(features), normal(classes, features)),
        "written out": lambda: Dense.of(normal(classes, features), normal(classes)),
    }[kind]()


def flat(one):
    return torch.cat((one.weight().flatten(1), one.bias), dim=1)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**31))
def test_what_a_kind_says_of_itself_is_true_of_its_matrix(kind, seed):
    stream = torch.Generator().manual_seed(seed)
    one = output(kind, stream)
    lines, factor = (torch.randn(*shape, generator=stream, dtype=torch.float64) for shape in ((5, 3), (2,)))
    torch.testing.assert_close(one.squared_norm(), flat(one).square().sum(1))
    torch.testing.assert_close(one.row_sums(), one.weight().sum(2))
    torch.testing.assert_close(one.projected(lines), one.weight() @ lines)
    torch.testing.assert_close(flat(one.scaled(factor)), factor[:, None] * flat(one))
    assert one.shape == tuple(one.weight().shape) == (len(one), *one.bias.shape[1:], 5)


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(KINDS, KINDS)))
@given(seed=st.integers(0, 2**31))
def test_the_distance_of_two_kinds_is_that_of_their_matrices_and_so_is_its_slope(ours, theirs, seed):
    stream = torch.Generator().manual_seed(seed)
    one, other = output(ours, stream), output(theirs, stream)
    leaves = [part.requires_grad_() for part in vars(one).values()]
    exact = (flat(one) - flat(other)).square().sum(1)
    found = one.squared_distance(other)
    torch.testing.assert_close(found, exact)
    for slope, true in zip(
        torch.autograd.grad(found.sum(), leaves), torch.autograd.grad(exact.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(slope, true)


@pytest.mark.parametrize("kind", KINDS[:-2])
def test_the_distance_of_two_that_are_close_keeps_its_digits(kind):
    """Differences of 1e-5 in float32, whose squares are far below the rounding of the squared norms."""
    stream = torch.Generator().manual_seed(0)
    one = output(kind, stream)
    near = [part + 1e-5 * torch.randn(part.shape, generator=stream) for part in vars(one).values()]
    other = type(one)(*(part.float() for part in near))
    one = type(one)(*(part.float() for part in vars(one).values()))
    exact, found = (
        first.squared_distance(second)
        for first, second in (
            [type(each)(*(part.double() for part in vars(each).values())) for each in (one, other)],
            (one, other),
        )
    )
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=0)


def test_parts_that_do_not_fit_together_are_refused():
    with pytest.raises(InputError, match=r"^features has shape \(3, 5\), but must have shape \(2, M\)"):
        Product(torch.zeros(2, 4), torch.zeros(3, 5))
    with pytest.raises(InputError, match=r"^features has shape \(2, 5\), but must have shape \(2, 3, M\)"):
        Products(torch.zeros(2, 3, 4), torch.zeros(2, 5))
    with pytest.raises(InputError, match=r"^rest has shape \(2, 4, 6\), but must have shape \(2, 4, 5\)"):
        Dense(torch.zeros(2, 4), torch.zeros(2, 5), torch.zeros(2, 4, 6))


def test_a_root_of_no_number_is_none_and_that_of_zero_has_no_slope():
    squared = torch.tensor([torch.nan, 0.0, -1e-12, 4.0, torch.inf], requires_grad=True)
    found = root(squared)
    torch.testing.assert_close(found, torch.tensor([torch.nan, 0.0, 0.0, 2.0, torch.inf]), equal_nan=True)
    (slope,) = torch.autograd.grad(found.sum(), squared)
    torch.testing.assert_close(slope[1:], torch.tensor([0.0, 0.0, 0.25, 0.0]))
