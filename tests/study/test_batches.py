"""Batches: what is drawn does not depend on their size, and Levenberg-Marquardt recovers their images."""

from dataclasses import replace

import pytest
import torch

from wdlg import data
from wdlg.attacks import LM, Status
from wdlg.attacks.label_counts import label_counts
from wdlg.attacks.labels import Known
from wdlg.errors import InputError
from wdlg.evaluation import mse
from wdlg.networks import ModuleNetwork
from wdlg.study.batches import Batch, compare_counts, draw_batch, recover


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_a_smaller_batch_has_the_first_images_of_a_larger_one(digits):
    small, large = draw_batch(digits, 2, seed=3, number=1), draw_batch(digits, 5, seed=3, number=1)
    assert torch.equal(small.truth, large.truth[:2])
    assert small.labels == large.labels[:2]
    for ours, theirs in zip(small.parameters.tensors, large.parameters.tensors, strict=True):
        assert torch.equal(ours, theirs)
    for other in (draw_batch(digits, 2, seed=4, number=1), draw_batch(digits, 2, seed=3, number=2)):
        assert not torch.equal(small.truth, other.truth)


def test_labels_that_do_not_repeat(digits):
    for number in range(5):
        batch = draw_batch(digits, 10, number=number, repeated=False)
        assert sorted(batch.labels) == list(range(10))
    with pytest.raises(InputError, match="^images is 11, but digits has only 10 labels"):
        draw_batch(digits, 11, repeated=False)
    with pytest.raises(InputError, match="^images is 2000, but digits has only 1797 images"):
        draw_batch(digits, 2000)


def test_what_is_sent_is_the_mean_of_the_images_gradients(digits):
    batch = draw_batch(digits, 3)
    sent = batch.observation().gradient.tensors()
    module = batch.network.as_module(batch.parameters)
    loss = torch.nn.functional.cross_entropy(module(batch.truth), torch.tensor(batch.labels))
    for ours, theirs in zip(sent, torch.autograd.grad(loss, list(module.parameters())), strict=True):
        torch.testing.assert_close(ours.flatten(), theirs.flatten(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("images", [1, 2, 4])
def test_images_come_back_together_with_their_number_known(digits, images):
    batch = draw_batch(digits, images)
    method = replace(LM, label_rule=Known(batch.labels), evaluations=60 * 80 * images)
    found = recover(batch, method)
    assert found.images.shape == batch.truth.shape
    assert found.mse.shape == (images,)
    assert found.mse.max() < 1e-6
    torch.testing.assert_close(found.mse, mse(found.images, batch.truth))
    assert (found.result.loss <= found.result.first_loss).all()


def test_labels_that_were_counted_are_enough(digits):
    """From the gradient, the network and the number of images to the images."""
    batch = draw_batch(digits, 3, seed=2)
    seen = batch.observation()
    counted = label_counts(seen.gradient, seen.images, seen.parameters)
    [labels] = counted.labels.tolist()
    assert labels == sorted(batch.labels)
    found = recover(batch, replace(LM, label_rule=Known(labels), evaluations=60 * 80 * 3))
    assert found.mse.max() < 1e-6


def test_a_module_is_attacked_by_the_same_steps(digits):
    lenet = draw_batch(digits, 2)
    module = ModuleNetwork(lenet.network.as_module(lenet.parameters), (1, 8, 8))
    batch = Batch(module, module.parameters(), lenet.truth, lenet.labels)
    method = replace(LM, label_rule=Known(batch.labels), evaluations=60 * 80 * 2)
    ours, theirs = recover(batch, method), recover(lenet, method)
    assert ours.mse.max() < 1e-6
    assert int(ours.result.iterations) == int(theirs.result.iterations)


def test_a_wrong_label_has_no_images(digits):
    batch = draw_batch(digits, 2, seed=1, repeated=False)
    wrong = tuple((label + 1) % 10 for label in batch.labels)
    found = recover(batch, replace(LM, label_rule=Known(wrong), evaluations=40 * 80 * 2))
    assert found.result.status.tolist() != [Status.CONVERGED]
    assert found.mse.min() > 1e-2
    assert float(found.result.loss) > 1e-4


def test_who_knows_the_network_reads_more_labels_than_who_has_the_bias_alone(digits):
    table = compare_counts(digits, [1, 8], batches=30).set_index(["images", "way"])
    assert (table.loc[1, ["answers", "sets", "counts"]] == 1).all(axis=None)
    assert (table["wrong"] == 0).all()
    eight = table.loc[8]
    assert eight.loc["mean", "counts"] == 1
    assert eight.loc["certain", "counts"] == eight.loc["certain", "answers"] < 0.5
    # Its negative entries are as many as the images only where no label repeats.
    assert eight.loc["negative entries", "counts"] <= eight.loc["certain", "counts"]
    assert (eight["sets"] >= eight["counts"]).all()
    assert eight["open"].nunique() == 1
    assert eight["open"].iloc[0] > 1


def test_rules_for_labels_that_do_not_repeat(digits):
    table = compare_counts(digits, [4], batches=30, repeated=False, initial="torch").set_index("way")
    assert (table["counts"] == 1).all()
