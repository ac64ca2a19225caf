"""The catalogue says of each data set what the rest of the library relies on."""

import dataclasses

import pytest

from wdlg import data


def test_the_five_sets_of_the_paper_and_the_three_embedded_ones_are_all_there_are():
    assert data.PAPER == ("mnist", "fashion_mnist", "svhn", "cifar100", "lfw")
    assert data.EMBEDDED == ("digits", "faces", "photographs")
    assert tuple(data.CATALOGUE) == data.PAPER + data.EMBEDDED


def test_shapes_and_class_counts_are_those_of_the_paper():
    assert {name: (data.CATALOGUE[name].shape, data.CATALOGUE[name].num_classes) for name in data.PAPER} == {
        "mnist": ((28, 28, 1), 10),
        "fashion_mnist": ((28, 28, 1), 10),
        "svhn": ((32, 32, 3), 10),
        "cifar100": ((32, 32, 3), 100),
        "lfw": ((32, 32, 3), 5749),
    }


@pytest.mark.parametrize("entry", data.CATALOGUE.values(), ids=data.CATALOGUE)
def test_an_entry_is_complete_is_found_by_its_name_and_cannot_be_changed(entry):
    assert data.CATALOGUE[entry.name] is entry
    assert all(getattr(entry, field) for field in ("title", "labels", "licence", "source", "citation"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.num_classes = 3
