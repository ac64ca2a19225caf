"""Real images that ship inside scikit-learn and scikit-image: no download, the same on every machine."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wdlg.data.order import balanced_order

Images = tuple[np.ndarray, np.ndarray, tuple[str, ...], np.ndarray]
"""images (uint8 N,H,W,C), labels (int64 N), class names, source of each image."""

ORDER_SEED = 20230101
TILE = 32
SHORT_SIDE = 256
"""A photograph is reduced to this short side first, so that a tile shows something."""
TILES_EACH = 32


def digits() -> Images:
    """Handwritten digits of scikit-learn, 1,797 of 8x8, their 17 grey levels spread over 0 to 255."""
    table = _digits_table()
    images = np.round(table[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    source = np.array([f"load_digits[{number}]" for number in range(len(images))])
    return _balanced(images, table[:, -1].astype(np.int64), tuple("0123456789"), source)


def _digits_table() -> np.ndarray:
    """One row for each digit: its 64 grey levels, and which it is.

    The file is read as scikit-learn reads it; to import what reads it there takes as long as many an attack.
    """
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if path.exists():
        return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    loaded: Any = load_digits()
    return np.column_stack((loaded.data, loaded.target))


def faces() -> Images:
    """Pictures of scikit-image's LFW subset, 200 of 25x25: 100 faces and 100 patches that show none."""
    images = np.round(np.asarray(_skimage_data("lfw_subset")())[..., None] * 255).astype(np.uint8)
    labels = np.repeat(np.array([0, 1], dtype=np.int64), len(images) // 2)
    source = np.array([f"lfw_subset[{number}]" for number in range(len(images))])
    return _balanced(images, labels, ("face", "no face"), source)


def photographs() -> Images:
    """Tiles of 32x32 from colour photographs, of each the 32 with the highest contrast.

    The photograph is reduced to a short side of 256 pixels and cut into tiles that do not overlap. The choice
    leaves out flat sky and black space, which would be trivial private images; it also makes the tiles busier
    than the photograph as a whole.
    """
    from sklearn.datasets import load_sample_image

    pictures: dict[str, Callable[[], Any]] = {
        "astronaut": _skimage_data("astronaut"),
        "cat": _skimage_data("chelsea"),
        "coffee": _skimage_data("coffee"),
        "galaxies": _skimage_data("hubble_deep_field"),
        "tissue": _skimage_data("immunohistochemistry"),
        "rocket": _skimage_data("rocket"),
        "temple": lambda: load_sample_image("china.jpg"),
        "flower": lambda: load_sample_image("flower.jpg"),
    }
    images, labels, source = [], [], []
    for label, (name, picture) in enumerate(pictures.items()):
        tiles = _tiles(np.asarray(picture()))
        contrast = np.array([tile.std() for tile in tiles])
        for place in np.sort(np.argsort(-contrast, kind="stable")[:TILES_EACH]):
            images.append(tiles[place])
            labels.append(label)
            source.append(f"{name}, tile {place}")
    return _balanced(np.stack(images), np.array(labels, dtype=np.int64), tuple(pictures), np.array(source))


def _skimage_data(name: str) -> Callable[[], Any]:
    """A function of ``skimage.data`` that reads a file which ships with the library."""
    # The import brings in pooch, for downloads that are not made here. In a notebook without widgets that
    # warns of a missing progress bar.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import skimage.data

        return getattr(skimage.data, name)


def _tiles(picture: np.ndarray) -> list[np.ndarray]:
    """Whole tiles of the reduced picture, row by row."""
    height, width = picture.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    size = (round(width * scale), round(height * scale))
    reduced = np.asarray(Image.fromarray(picture).convert("RGB").resize(size, Image.Resampling.BICUBIC))
    return [
        reduced[top : top + TILE, left : left + TILE]
        for top in range(0, reduced.shape[0] - TILE + 1, TILE)
        for left in range(0, reduced.shape[1] - TILE + 1, TILE)
    ]


def _balanced(
    images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], source: np.ndarray
) -> Images:
    """The images in an order in which any first few are spread evenly over the classes."""
    order = balanced_order(labels, ORDER_SEED)
    return images[order], labels[order], class_names, source[order]


EMBEDDED_IMAGES: dict[str, Callable[[], Images]] = {
    "digits": digits,
    "faces": faces,
    "photographs": photographs,
}
"""How each embedded data set is made."""
