"""The data sets that the book knows: five of the paper, three that ship inside libraries we depend on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSet:
    """An entry of the catalogue.

    Attributes:
        name: what commands and files call it.
        title: what tables and figures call it.
        shape: (height, width, channels).
        num_classes: number of classes that a network for it has.
        embedded: True if the images are there without a download.
        of_paper: True if the paper attacks its images.
        labels: what a label means, in a sentence.
        licence: terms of use, as far as they are stated.
        source: where the images are from.
        citation: key in references.bib.
    """

    name: str
    title: str
    shape: tuple[int, int, int]
    num_classes: int
    embedded: bool
    of_paper: bool
    labels: str
    licence: str
    source: str
    citation: str


_ENTRIES = (
    DataSet(
        name="mnist",
        title="MNIST",
        shape=(28, 28, 1),
        num_classes=10,
        embedded=False,
        of_paper=True,
        labels="The digit that is written.",
        licence="none stated on its page",
        source="torchvision.datasets.MNIST",
        citation="lecun1998gradient",
    ),
    DataSet(
        name="fashion_mnist",
        title="Fashion-MNIST",
        shape=(28, 28, 1),
        num_classes=10,
        embedded=False,
        of_paper=True,
        labels="The kind of garment.",
        licence="MIT, Zalando SE",
        source="torchvision.datasets.FashionMNIST",
        citation="xiao2017fashion",
    ),
    DataSet(
        name="svhn",
        title="SVHN",
        shape=(32, 32, 3),
        num_classes=10,
        embedded=False,
        of_paper=True,
        labels="The digit in the middle of a house number.",
        licence="non-commercial use only",
        source="torchvision.datasets.SVHN",
        citation="netzer2011reading",
    ),
    DataSet(
        name="cifar100",
        title="CIFAR-100",
        shape=(32, 32, 3),
        num_classes=100,
        embedded=False,
        of_paper=True,
        labels="The kind of object.",
        licence="none stated; derived from the withdrawn 80 Million Tiny Images",
        source="torchvision.datasets.CIFAR100",
        citation="krizhevsky2009learning",
    ),
    DataSet(
        name="lfw",
        title="LFW",
        shape=(32, 32, 3),
        num_classes=5749,
        embedded=False,
        of_paper=True,
        labels="The person, as the line of the list of names.",
        licence="none stated; for research, shows real people",
        source="sklearn.datasets.fetch_lfw_people, original pictures resized to 32x32",
        citation="huang2007labeled",
    ),
    DataSet(
        name="digits",
        title="Digits",
        shape=(8, 8, 1),
        num_classes=10,
        embedded=True,
        of_paper=False,
        labels="The digit that is written.",
        licence="CC BY 4.0 (UCI Machine Learning Repository)",
        source="sklearn.datasets.load_digits",
        citation="pedregosa2011scikit",
    ),
    DataSet(
        name="faces",
        title="Faces",
        shape=(25, 25, 1),
        num_classes=2,
        embedded=True,
        of_paper=False,
        labels="Whether the picture shows a face (0) or not (1); not who it is.",
        licence="as LFW, of which it is a part",
        source="skimage.data.lfw_subset",
        citation="vanderwalt2014scikit",
    ),
    DataSet(
        name="photographs",
        title="Photographs",
        shape=(32, 32, 3),
        num_classes=8,
        embedded=True,
        of_paper=False,
        labels="The photograph that the tile is cut from.",
        licence="public domain, CC0 or no known restrictions; china.jpg and flower.jpg: CC BY 2.0",
        source="colour photographs of skimage.data and sklearn.datasets, cut into tiles",
        citation="vanderwalt2014scikit",
    ),
)

CATALOGUE = {entry.name: entry for entry in _ENTRIES}
"""Every data set by name."""

PAPER = tuple(entry.name for entry in _ENTRIES if entry.of_paper)
"""The five data sets of the paper."""

EMBEDDED = tuple(entry.name for entry in _ENTRIES if entry.embedded)
"""The data sets that need no download."""

FETCHED = tuple(entry.name for entry in _ENTRIES if not entry.embedded)
"""The data sets of which a sample file is made from the official download."""
