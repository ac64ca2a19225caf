"""Matching losses: how far a dummy gradient is from the shared one. One value for each attack.

A loss is a frozen dataclass of settings that is called with two :class:`~wdlg.updates.gradient.Gradient` and
returns a tensor (B,), differentiable in the first. The mathematics is in pure functions beside each class.

The paper's distance can be read in many ways. :class:`Wasserstein` holds the settings of a reading side by
side; the loss is put together from five parts (:class:`~wdlg.losses.reading.Reading`):

.. table:: Parts of a reading, and the settings of each.

  =========== ================================================ ===============================================
  part        decides                                          settings
  =========== ================================================ ===============================================
  partition   what the points are, and what may move where     ``points``, ``kernel_width``
  ground cost what it costs to move mass over a distance       ``cost``, ``huber_scale``
  solver      what the plan minimises, and how it is found     ``eps``, ``max_iterations``, ``threshold``,
                                                               ``relative``, ``penalty``
  value       what the plan is worth, and its derivative       ``value``, ``derivative``
  total       how the problems of all parameters add up        ``mass``, ``root``
  =========== ================================================ ===============================================

The partition (:mod:`wdlg.losses.points`) makes one :class:`~wdlg.losses.point_sets.Points` of each parameter:
pairs of point sets that tell no more than distances, so that none need be written out. These are carried by
one of two kinds of transport (:mod:`wdlg.losses.transport`): along a permutation, without regularisation, or
by entropic plans, where all problems of a size are solved in one call of Sinkhorn's algorithm
(:mod:`wdlg.losses.sinkhorn`) and thousands of rank-one rows without their cost matrix
(``wdlg.losses.rank_one``).
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from wdlg.losses.cosine import Cosine
from wdlg.losses.euclidean import (
    Euclidean,
    PseudoHuber,
    SentEntries,
    SquaredEuclidean,
    WeightedEuclidean,
)
from wdlg.losses.sliced import SlicedWasserstein
from wdlg.losses.wasserstein import Wasserstein
from wdlg.registry import Registry
from wdlg.updates.gradient import Gradient

Loss = Callable[[Gradient, Gradient], Tensor]


@runtime_checkable
class SumOfSquares(Protocol):
    """A loss ``sum_i w_i (g'_i - g_i)²`` over all entries of the gradients, which has a Gauss-Newton matrix.

    :class:`SquaredEuclidean`, :class:`SentEntries` and :class:`WeightedEuclidean` are.
    """

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""

    def square_weights(self, shared: Gradient) -> list[Tensor] | None:
        """w, of the shapes of ``shared.tensors()``; None where all are 1."""


LOSSES = Registry(
    "LOSSES",
    {
        "squared_euclidean": SquaredEuclidean,
        "euclidean": Euclidean,
        "sent_entries": SentEntries,
        "weighted_euclidean": WeightedEuclidean,
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
    "SumOfSquares",
    "Wasserstein",
    "WeightedEuclidean",
]
