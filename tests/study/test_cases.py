"""The cases of a study are decided by its seed alone, case by case."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wdlg.attacks import IDLG, with_settings
from wdlg.errors import InputError
from wdlg.networks import Architecture, LeNet, ResNet
from wdlg.sharing.defences import Noise
from wdlg.study import Design, draw, run_paired


def same(first, second):
    return all(
        torch.equal(getattr(first, field), getattr(second, field))
        for field in ("truth", "labels", "dummy_images", "dummy_labels", "image_index")
    )


@given(st.integers(0, 2**31))
def test_the_seed_decides_images_networks_and_dummies(digits, seed):
    design = Design(networks=2, images=2, seed=seed)
    first, second = draw(digits, design), draw(digits, design)
    assert same(first, second)
    assert torch.equal(first.parameters.tensors[0], second.parameters.tensors[0])
    assert not same(first, draw(digits, Design(networks=2, images=2, seed=seed + 1)))


def test_a_larger_study_begins_with_the_smaller_one(digits):
    small = draw(digits, Design(networks=2, images=3))
    large = draw(digits, Design(networks=4, images=3))
    assert torch.equal(large.truth[:6], small.truth)
    assert torch.equal(large.dummy_images[:6], small.dummy_images)
    assert torch.equal(large.parameters.tensors[2][:2], small.parameters.tensors[2])


def test_observations_hold_the_gradient_of_each_case_in_its_own_network(digits):
    cases = draw(digits, Design(networks=3, images=2))
    whole = cases.observation().gradient
    for number in range(3):
        part = cases.select((cases.network_index == number).nonzero()[:, 0]).observation()
        assert len(part.parameters) == 1
        for ours, theirs in zip(
            part.gradient.tensors(), whole.select(cases.network_index == number).tensors(), strict=True
        ):
            torch.testing.assert_close(ours, theirs)


def test_fewer_classes_use_only_images_with_a_label_below(digits):
    cases = draw(digits, Design(networks=30, images=1, classes=3))
    assert cases.network.classes == 3
    assert int(cases.labels.max()) <= 2


def test_an_image_can_be_chosen_by_its_position(digits):
    cases = draw(digits, Design(networks=1, images=1, first_image=17))
    assert torch.equal(cases.truth[0], digits.tensor([17])[0])
    with pytest.raises(InputError, match="^first_image is 1797"):
        draw(digits, Design(networks=1, images=1, first_image=1797))


def test_the_images_after_a_chosen_one_are_the_next_of_its_pool_with_a_label_below_classes(digits):
    design = Design(networks=3, images=1, first_image=5, pool="development")
    assert draw(digits, design).image_index.tolist() == [5, 10, 15]
    end = replace(design, first_image=len(digits) - 2)  # 1795, after which the pool begins again
    assert draw(digits, end).image_index.tolist() == [1795, 0, 5]
    low = np.flatnonzero(digits.labels < 3)
    few = draw(digits, Design(networks=4, images=1, first_image=int(low[2]), classes=3))
    assert few.image_index.tolist() == low[2:6].tolist()
    assert few.dummy_labels.shape == (4, 3)


def test_a_chosen_image_outside_the_pool_or_the_classes_is_refused(digits):
    with pytest.raises(InputError, match=r"^first_image is 7, .* in the pool 'development': 0, 5, 10 and so"):
        draw(digits, Design(first_image=7, pool="development"))
    high = int(np.flatnonzero(digits.labels == 9)[0])
    with pytest.raises(InputError, match=rf"^first_image is {high}, an image with the label 9, .*, 3"):
        draw(digits, Design(first_image=high, classes=3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("networks", 0),
        ("images", -1),
        ("images", 1.5),
        ("seed", -1),
        ("network", "vgg"),
        ("network", {"width": 3}),
        ("activation", "elu"),
        ("initial", "normal"),
        ("classes", 1),
        ("classes", "3"),
        ("first_image", -1),
        ("first_image", True),
        ("first_network", 0.0),
        ("pool", ["all"]),
        ("defence", "noise,level=0.01"),
        ("defence", Noise),
    ],
)
def test_impossible_designs_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"^{name} is"):
        Design(**{name: value})


def test_every_case_has_its_own_dummy_and_every_network_its_own_weights(digits):
    cases = draw(digits, Design(networks=3, images=2))
    for drawn in (cases.dummy_images, cases.dummy_labels, cases.parameters.tensors[0]):
        assert len({tuple(one.flatten().tolist()) for one in drawn}) == len(drawn)
    assert len(set(cases.image_index.tolist())) == len(cases)
    pixels = draw(digits, Design(networks=40, images=2)).dummy_images.flatten()
    # N(0, 1), with four standard errors of room.
    assert abs(pixels.mean()) < 4 / len(pixels) ** 0.5
    assert abs(pixels.std() - 1) < 4 / (2 * len(pixels)) ** 0.5


def test_another_network_meets_the_same_images_and_dummies(digits):
    lenets = draw(digits, Design(networks=2, images=2))
    cases = draw(digits, Design(networks=2, images=2, network={"name": "resnet", "width": 4}))
    assert same(cases, lenets)
    assert (lenets.network, cases.network) == (LeNet((1, 8, 8), 10), ResNet((1, 8, 8), 10, width=4))
    assert len(cases.parameters.buffers) == len(cases.network.buffer_shapes) > 0
    second = cases.select(torch.tensor([2, 3]))
    assert all(map(torch.equal, second.parameters.buffers, (one[1:] for one in cases.parameters.buffers)))


@pytest.mark.parametrize("network", ["lenet", "resnet"])
def test_initial_weights_are_of_the_named_distribution_and_without_a_name_the_architectures_own(
    digits, network
):
    def largest(initial):
        parameters = draw(digits, Design(network=network, initial=initial, networks=1)).parameters
        return parameters.tensors[-2].abs().max()

    torch_bound = draw(digits, Design(network=network)).network.features ** -0.5
    assert 0.9 * torch_bound < largest("torch") <= torch_bound
    assert 0.45 < largest("uniform") <= 0.5
    assert largest(None) == largest({"lenet": "uniform", "resnet": "torch"}[network])


def test_a_design_says_the_same_by_a_name_a_table_and_an_architecture():
    designs = {
        Design(network="resnet"),
        Design(network={"name": "resnet", "width": 16}),
        Design(network=Architecture("resnet")),
    }
    assert len(designs) == 1
    assert Design() == Design(network="lenet")


def test_an_attack_runs_on_a_residual_network_in_both_modes(digits):
    attack = with_settings(IDLG, evaluations=30)
    for mode in ("evaluation", "training"):
        network = {"name": "resnet", "width": 4, "mode": mode}
        cases = draw(digits, Design(networks=2, images=1, network=network, activation="tanh"))
        records = run_paired(cases, [attack]).records
        assert (records["loss"] < records["trace_loss"].map(lambda trace: trace[0])).all()
        assert (records["loss_at_truth"] == 0).all()


def test_several_starts_of_an_image_are_cases_of_their_own(digits):
    design = Design(networks=3, images=2, starts=4, seed=5)
    cases, once = draw(digits, design), draw(digits, replace(design, starts=1))
    assert len(cases) == 24
    images = cases.image_index.view(6, 4)
    assert torch.equal(images, once.image_index[:, None].expand(6, 4))
    assert cases.network_index.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert len(cases.dummy_images.flatten(1).unique(dim=0)) == 24
    later = draw(digits, replace(design, networks=1, first_network=2))
    assert torch.equal(later.dummy_images, cases.dummy_images[16:])
    assert torch.equal(later.truth, cases.truth[16:])


def test_dummies_near_the_private_image_are_that_far_from_it(digits):
    design = Design(networks=20, seed=5)
    noise = draw(digits, design).dummy_images
    for distance in (0.0, 0.3):
        cases = draw(digits, replace(design, start_distance=distance))
        torch.testing.assert_close(cases.dummy_images, cases.truth + distance * noise, rtol=0, atol=0)
    assert (cases.dummy_images - cases.truth).std().item() == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize(
    ("setting", "value"), [("starts", 0), ("start_distance", -0.1), ("start_distance", "near")]
)
def test_other_starts_are_refused(setting, value):
    with pytest.raises(InputError, match=f"^{setting} is .*, but must be"):
        Design(**{setting: value})
