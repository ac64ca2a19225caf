"""Matching losses: how far a dummy gradient is from the shared one. One value for each attack.

A loss is a frozen dataclass of settings that is called with two :class:`~wdlg.updates.gradient.Gradient` and
returns a tensor (B,), differentiable in the first. The mathematics is in pure functions beside each class.
"""

from collections.abc import Callable

from torch import Tensor

from wdlg.losses.cosine import Cosine
from wdlg.losses.euclidean import Euclidean, PseudoHuber, SentEntries, SquaredEuclidean
from wdlg.losses.sliced import SlicedWasserstein
from wdlg.losses.wasserstein import Wasserstein
from wdlg.registry import Registry
from wdlg.updates.gradient import Gradient

Loss = Callable[[Gradient, Gradient], Tensor]

LOSSES = Registry(
    "LOSSES",
    {
        "squared_euclidean": SquaredEuclidean,
        "euclidean": Euclidean,
        "sent_entries": SentEntries,
        "pseudo_huber": PseudoHuber,
        "cosine": Cosine,
        "wasserstein": Wasserstein,
        "sliced_wasserstein": SlicedWasserstein,
    },
)
"""Losses by the names that study files give them."""

__all__ = [
    "LOSSES",
    "Cosine",
    "Euclidean",
    "Loss",
    "PseudoHuber",
    "SentEntries",
    "SlicedWasserstein",
    "SquaredEuclidean",
    "Wasserstein",
]
