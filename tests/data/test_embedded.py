"""The embedded images are the libraries', the same every time, with labels that mean what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import lfw_subset
from sklearn.datasets import load_digits

from wdlg import data
from wdlg.data.order import balanced_order


@pytest.mark.parametrize("name", data.EMBEDDED)
def test_a_sample_fits_its_catalogue_entry(name):
    entry, sample = data.CATALOGUE[name], data.load(name)
    assert sample.images.shape[1:] == entry.shape
    assert sample.images.dtype == np.uint8
    assert set(np.unique(sample.labels)) == set(range(entry.num_classes))
    assert len(sample.class_names) == entry.num_classes


@pytest.mark.parametrize("name", data.EMBEDDED)
def test_a_sample_is_the_same_every_time_and_has_no_image_twice(name):
    first, second = data.load(name), data.load(name)
    np.testing.assert_array_equal(first.images, second.images)
    assert len(set(first.source)) == len(first)


@pytest.mark.parametrize("name", data.EMBEDDED)
def test_the_first_images_are_spread_over_the_classes(name):
    sample = data.load(name)
    counts = np.bincount(sample.labels[: 5 * sample.num_classes], minlength=sample.num_classes)
    assert counts.min() == counts.max() == 5


def place(source):
    return int(source.split("[")[1].rstrip("]"))


def test_digits_are_scikit_learns_with_its_labels():
    sample, original = data.load("digits"), load_digits()
    for image, label, source in zip(sample.images[:50], sample.labels, sample.source, strict=False):
        np.testing.assert_allclose(image[..., 0], original.images[place(source)] * 255 / 16, atol=0.51)
        assert label == original.target[place(source)]


def test_faces_are_the_first_half_of_scikit_images_subset():
    sample, original = data.load("faces"), lfw_subset()
    for image, label, source in zip(sample.images[:50], sample.labels, sample.source, strict=False):
        np.testing.assert_allclose(image[..., 0], original[place(source)] * 255, atol=0.51)
        assert label == (place(source) >= 100)


def test_no_tile_of_the_photographs_is_blank():
    assert data.load("photographs").images.reshape(256, -1).std(axis=1).min() > 1


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 2**31))
def test_balanced_order_is_a_permutation_whose_beginnings_are_balanced(labels, seed):
    labels = np.array(labels)
    order = balanced_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    total = np.bincount(labels, minlength=6)
    for end in range(len(labels)):
        counts = np.bincount(labels[order[:end]], minlength=6)
        behind = counts[counts < total]
        assert behind.size == 0 or counts.max() - behind.min() <= 1
