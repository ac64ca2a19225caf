"""The looks behind the attack show what is known of the losses."""

import pytest
import torch

from wdlg.losses import Euclidean, SquaredEuclidean, Wasserstein
from wdlg.study import Design, draw
from wdlg.study.mechanism import at_the_truth, kept_share, loss_along, plans


@pytest.fixture(scope="module")
def cases(digits):
    return draw(digits, Design(networks=3, images=1))


def test_the_private_image_is_a_zero_of_the_euclidean_losses_only(cases):
    table = at_the_truth(
        cases, {"squared": SquaredEuclidean(), "root": Euclidean(), "transport": Wasserstein()}
    ).set_index("loss")
    for name in ("squared", "root"):
        assert (table.loc[name, "at_truth"] == 0).all()
        assert (table.loc[name, "slope_at_truth"] == 0).all()
    assert (table.loc["transport", "at_truth"] > 0).all()
    assert (table.loc["transport", "slope_at_truth"] > 0).all()


def test_lines_pass_through_the_private_image_and_the_other_end(cases):
    table = at_the_truth(cases, {"squared": SquaredEuclidean()})
    values = loss_along(cases, SquaredEuclidean(), cases.dummy_images, torch.tensor([0.0, 0.5, 1.0]))
    assert (values[:, 0] == 0).all()
    torch.testing.assert_close(values[:, 2], torch.tensor(table["at_dummy"].to_list()))


def test_small_eps_keeps_the_mass_of_equal_gradients_in_place(cases):
    for plan in plans(cases, cases.truth, Wasserstein(eps=1e-6, max_iterations=2000)).values():
        n = plan.shape[-1]
        torch.testing.assert_close(plan.sum(1), torch.full((3, n), 1 / n))
        assert (kept_share(plan) > 0.5).all()


def test_large_eps_spreads_the_mass_evenly(cases):
    for plan in plans(cases, cases.truth, Wasserstein(eps=1e6)).values():
        torch.testing.assert_close(kept_share(plan), torch.full((3,), 1 / plan.shape[-1]))


def test_plans_are_named_after_the_parameters_of_the_lenet(cases):
    names = list(plans(cases, cases.truth, Wasserstein()))
    assert names == [
        f"{layer} {kind}" for layer in ("conv1", "conv2", "conv3", "linear") for kind in ("weight", "bias")
    ]


def test_plans_of_another_network_are_named_after_its_own_parameters(faces):
    cases = draw(faces, Design(networks=1, network={"name": "resnet", "width": 2}))
    found = plans(cases, cases.truth, Wasserstein())
    module = cases.network.as_module(cases.parameters)
    assert [name.replace(" ", ".") for name in found] == [name for name, _ in module.named_parameters()]
