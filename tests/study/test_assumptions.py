"""What breaks the closed form's assumptions is what it is called, and each image is the same throughout."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.attacks import Status, attack
from wdlg.attacks.exact import Exact
from wdlg.errors import InputError
from wdlg.study import Design, draw
from wdlg.study.assumptions import DEFENCES, broken, of_two, saturated

DESIGN = Design(networks=3, seed=2)


def gradient_of(cases, image, network):
    parameters = cases.parameters.select(torch.tensor([network]))
    target = F.one_hot(cases.labels[[image]], cases.network.classes).to(cases.truth)
    return cases.network.gradient(parameters, cases.truth[[image]], target).detach().tensors()


def test_the_gradient_of_two_is_the_mean_of_theirs(digits):
    cases = draw(digits, DESIGN)
    found = of_two(cases)
    assert found.images == 1  # as who does not know takes it
    for row, other in ((0, 2), (1, 0), (2, 1)):
        both = zip(gradient_of(cases, row, row), gradient_of(cases, other, row), strict=True)
        for part, (one, two) in zip(found.gradient.tensors(), both, strict=True):
            torch.testing.assert_close(part[row], ((one + two) / 2)[0])


def test_a_saturated_first_layer_has_no_gradient(digits):
    found = saturated(draw(digits, DESIGN))
    assert all(part.abs().max() == 0 for part in found.gradient.hidden[:2])
    assert found.gradient.hidden[2].abs().max() > 0


def test_each_way_ends_unsure_or_refused_and_only_what_is_as_assumed_converges(digits):
    ways = broken(digits, DESIGN)
    assert next(iter(ways)) == "as assumed"
    assert set(DEFENCES) < set(ways)
    ends = {}
    for name, observation in ways.items():
        try:
            result = attack(observation, Exact("bias_min"))
        except InputError:
            ends[name] = {"refused"}
        else:
            ends[name] = {Status(code).name.lower() for code in result.status.tolist()}
    assert ends.pop("as assumed") == {"converged"}
    assert ends.pop("pooling") == {"refused"}
    assert set(map(frozenset, ends.values())) == {frozenset({"unsure"})}


def test_the_network_that_pools_is_the_same_each_time_and_leaves_the_random_state_alone(digits):
    torch.manual_seed(5)
    first = broken(digits, DESIGN)["pooling"]
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    again = broken(digits, DESIGN)["pooling"]
    assert torch.equal(first.gradient.bias, again.gradient.bias)


@pytest.mark.parametrize("name", ["two images", "saturated"])
def test_images_are_those_of_the_design(digits, name):
    """A network that sees only the first image of a design sends the same."""
    one, many = broken(digits, Design(seed=2, networks=1))[name], broken(digits, DESIGN)[name]
    assert torch.equal(one.parameters.tensors[0][0], many.parameters.tensors[0][0])
