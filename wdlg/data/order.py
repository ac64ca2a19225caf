"""An order of images in which any first few are spread evenly over the classes."""

from __future__ import annotations

import numpy as np


def balanced_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Positions of the labels (N,), so that each class's next image comes before any class's one after.

    Classes with fewer images run out first. With fewer places than classes, the classes are a random draw.

    Args:
        labels: class of each image, (N,).
        seed: decides the order within and between classes.

    >>> np.bincount(np.array([0, 0, 0, 0, 1, 1, 2, 2])[balanced_order([0, 0, 0, 0, 1, 1, 2, 2], 0)[:6]])
    array([2, 2, 2])
    """
    labels = np.asarray(labels)
    stream = np.random.default_rng(seed)
    turn = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # The whole number is the place in the class's queue, the fraction mixes the classes.
        turn[stream.permutation(members)] = np.arange(len(members)) + stream.random(len(members)) / 2
    return np.argsort(turn)
