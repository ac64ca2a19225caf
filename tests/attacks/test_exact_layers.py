"""Which layers give their input away: counts by stride phase against the rank of the equations."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wdlg.attacks.exact_layers import EXAMPLES, Layer
from wdlg.attacks.exact_solve import determined_in_a_draw
from wdlg.errors import InputError


def equations(layer, seed=0):
    """Forward and gradient equations of one draw of weights and delta, (equations, unknowns)."""
    stream = torch.Generator().manual_seed(seed)
    taps = layer.channels * layer.kernel[0] * layer.kernel[1]
    weights = torch.randn(layer.filters, taps, generator=stream, dtype=torch.float64)
    delta = torch.randn(layer.filters, layer.places, generator=stream, dtype=torch.float64)
    units = torch.eye(layer.channels * layer.pixels, dtype=torch.float64)
    patches = layer.patches(units.view(-1, layer.channels, layer.pixels))
    return (weights @ patches).flatten(1).T, (delta @ patches.transpose(1, 2)).flatten(1).T


def rank(*matrices):
    return int(torch.linalg.matrix_rank(torch.cat(matrices)))


sizes = st.integers(1, 4)
layers = st.tuples(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 5),
    st.tuples(sizes, sizes), st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
)  # fmt: skip


def drawn(parts):
    try:
        return Layer(*parts)
    except InputError:  # the kernel is larger than the image
        assume(False)


@settings(max_examples=40)
@given(parts=layers)
def test_no_layer_has_a_larger_rank_than_its_counts(parts):
    layer = drawn(parts)
    forward, gradient = equations(layer)
    unknown = layer.channels * layer.pixels
    of_gradient = rank(gradient)
    assert of_gradient <= unknown - layer.missing
    assert rank(forward, gradient) - of_gradient <= layer.forward_equations
    if not layer.may_be_determined:
        assert rank(forward, gradient) < unknown


SMALL = {
    "LeNet conv1": Layer(3, 12, 12, 12, (5, 5), (2, 2), (2, 2)),
    "LeNet conv2": Layer(2, 16, 16, 12, (5, 5), (2, 2), (2, 2)),
    "LeNet conv3": Layer(4, 8, 8, 12, (5, 5), (1, 1), (2, 2)),
    "VGG": Layer(3, 12, 12, 8, (3, 3), (1, 1), (1, 1)),
    "stem": Layer(3, 12, 12, 12, (7, 7), (2, 2), (3, 3)),
    "downsampling": Layer(6, 8, 8, 12, (3, 3), (2, 2), (1, 1)),
    "downsampling, few filters": Layer(6, 8, 8, 6, (3, 3), (2, 2), (1, 1)),
    "shortcut": Layer(4, 8, 8, 8, (1, 1), (2, 2), (0, 0)),
    "AlexNet": Layer(2, 16, 16, 8, (11, 11), (4, 4), (2, 2)),
    "patches": Layer(3, 12, 12, 48, (4, 4), (4, 4), (0, 0)),
    "patches, few filters": Layer(3, 12, 12, 5, (4, 4), (4, 4), (0, 0)),
    "narrow": Layer(3, 12, 12, 6, (3, 3), (2, 2), (1, 1)),
    "no padding, a row unseen": Layer(2, 8, 8, 12, (3, 3), (2, 2), (0, 0)),
}


@pytest.mark.parametrize("name", SMALL)
def test_layers_in_use_are_determined_just_where_the_counts_say_so(name):
    layer = SMALL[name]
    forward, gradient = equations(layer)
    unknown = layer.channels * layer.pixels
    # In a phase with equations enough, every seen pixel follows from them (part 4 of the theorem).
    if layer.sees_every_pixel:
        assert rank(gradient) == unknown - layer.missing
    assert (rank(forward, gradient) == unknown) == layer.may_be_determined


@pytest.mark.parametrize("name", SMALL)
def test_a_draw_determines_an_input_just_where_its_equations_have_full_rank(name):
    layer = SMALL[name]
    full = rank(*equations(layer, seed=7)) == layer.channels * layer.pixels
    assert determined_in_a_draw(layer, seed=3) == full


def test_a_draw_finds_out_layers_that_only_the_counts_allow():
    layer = Layer(3, 7, 6, 5, (4, 3), (3, 2), (0, 2))
    assert layer.may_be_determined
    assert not determined_in_a_draw(layer)
    with pytest.raises(InputError, match="^seed is -1"):
        determined_in_a_draw(layer, seed=-1)


def test_the_table_of_layers_in_use():
    table = {
        name: (one.channels * one.pixels, one.missing, one.forward_equations, one.may_be_determined)
        for name, one in EXAMPLES.items()
    }
    assert table == {
        "LeNet conv1, 28x28x1": (784, 484, 2208, True),
        "LeNet conv2, 14x14x12": (2352, 12, 444, True),
        "LeNet conv3, 7x7x12": (588, 0, 444, True),
        "LeNet conv1, 32x32x3": (3072, 2172, 2928, True),
        "LeNet conv2, 16x16x12": (3072, 192, 624, True),
        "LeNet conv3, 8x8x12": (768, 0, 624, True),
        "VGG conv1, 32x32x3": (3072, 1344, 26508, True),
        "ResNet stem, 32x32x3": (3072, 0, 12288, True),
        "ResNet downsampling, 16x16x64": (16384, 0, 0, True),
        "ResNet shortcut 1x1, 16x16x64": (16384, 12288, 0, False),
        "AlexNet conv1, 64x64x3": (12288, 0, 10304, True),
        "patches 4x4 of a transformer, 32x32x3": (3072, 0, 0, True),
        "narrow, 8 filters 3x3 stride 2, 32x32x3": (3072, 2856, 1984, False),
    }


def test_counts_are_necessary_but_not_sufficient():
    for layer in (
        Layer(3, 7, 6, 5, (4, 3), (3, 2), (0, 2)),
        Layer(6, 8, 9, 8, (3, 3), (2, 2), (1, 1)),
    ):
        assert layer.may_be_determined
        assert rank(*equations(layer)) < layer.channels * layer.pixels


def test_a_forward_equation_for_each_pair_of_filters_follows_from_the_gradient():
    layer = Layer(2, 9, 9, 3, (3, 3), (2, 2), (1, 1))
    forward, gradient = equations(layer)
    assert rank(forward, gradient) == rank(gradient) + layer.filters * layer.places - layer.filters**2


def test_a_phase_has_equations_of_its_own_that_all_channels_share():
    layer = Layer(2, 7, 8, 3, (5, 4), (2, 3), (2, 1))
    stream = torch.Generator().manual_seed(0)
    inputs = torch.randn(1, 2, layer.pixels, generator=stream, dtype=torch.float64)
    delta = torch.randn(1, 3, layer.places, generator=stream, dtype=torch.float64)
    shared = (delta @ layer.patches(inputs).transpose(1, 2)).unflatten(2, (2, -1))
    with_nowhere = torch.cat((delta, delta.new_zeros(1, 3, 1)), dim=2)
    for phase in layer.phases:
        matrix = with_nowhere[:, :, phase.places]
        told = torch.einsum("botn,bcn->boct", matrix, inputs[:, :, phase.pixels])
        torch.testing.assert_close(told, shared[..., phase.taps])
        grid = torch.arange(layer.pixels).view(layer.height, layer.width)
        assert torch.equal(grid[phase.where].flatten(), phase.pixels)
    assert sorted(torch.cat([phase.pixels for phase in layer.phases]).tolist()) == list(range(layer.pixels))
    assert sorted(torch.cat([phase.taps for phase in layer.phases]).tolist()) == list(range(20))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "^channels is 0"),
        ({"kernel": (0, 3)}, "^kernel is 0"),
        ({"stride": (1, 0)}, "^stride is 0"),
        ({"padding": (-1, 0)}, "^padding is -1"),
        ({"kernel": (9, 9)}, "^output height is -"),
    ],
)
def test_sizes_of_a_layer_are_checked(change, message):
    given = {"channels": 1, "height": 4, "width": 4, "filters": 1, "kernel": (3, 3), "stride": (1, 1)}
    with pytest.raises(InputError, match=message):
        Layer(**{**given, "padding": (0, 0), **change})
