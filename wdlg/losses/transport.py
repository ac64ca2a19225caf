"""The parts that readings of the Wasserstein distance are put together from: costs, plans, values, sums."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wdlg.updates.distance import root

COSTS = ("squared", "euclidean", "pseudo_huber")
ROOTS = ("none", "each", "total")

MEDIAN_OF = 500
"""A median is taken over at most this many points of either side, evenly spaced."""


def ground_cost(squared: Tensor, cost: str, scale: Tensor) -> Tensor:
    """Cost of moving mass over the squared Euclidean distance d² (P, ...), differentiable, also at 0.

    "squared" is d², "euclidean" is d, "pseudo_huber" is ``s² (sqrt(1 + d²/s²) - 1)`` with s = ``scale`` (P,):
    d²/2 for short distances, and s d for long ones.
    """
    if cost == "squared":
        return squared
    if cost == "euclidean":
        return root(squared)
    s = scale.clamp_min(torch.finfo(scale.dtype).tiny).view(-1, *[1] * (squared.ndim - 1))
    # The same without its cancellation, and defined for s -> 0.
    return s * squared / (s + root(s**2 + squared))


def unit_of(cost: Tensor, mean: Tensor) -> Tensor:
    """The unit for the costs of each problem, (P,), above 0: the median, but at least a tenth of the mean.

    The bound matters for the output layer alone. Most of its rows are nearly zero, since softmax saturates,
    and so is the median cost; in units of it the other costs exceed 1e9, where plans are rounding noise.

    Args:
        cost: between all points or a sample of them, (P, n, n).
        mean: of the costs between all points, (P,).
    """
    unit = torch.maximum(cost.flatten(1).median(1).values, mean / 10)
    return torch.where(unit > 0, unit, torch.ones_like(unit))


def thinning(count: int) -> int:
    """Take every how many points for a median."""
    return math.ceil(count / MEDIAN_OF)


def solve_together(solver: Callable[[Tensor], Tensor], costs: Sequence[Tensor]) -> list[Tensor]:
    """Plans for cost matrices (P, n, n), one call of the solver for all of one size."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for place, cost in enumerate(costs):
        by_size[cost.shape[-1]].append(place)
    found: dict[int, Tensor] = {}
    for places in by_size.values():
        solved = solver(torch.cat([costs[place] for place in places]))
        parts = solved.split([len(costs[place]) for place in places])
        found.update(zip(places, parts, strict=True))
    return [found[place] for place in range(len(costs))]


def divergence(plan: Tensor) -> Tensor:
    """``KL(P | a b^T) = sum_ij P_ij log(n² P_ij) - P_ij + 1/n²`` for uniform a and b, (P,)."""
    ratio = plan.shape[1] * plan.shape[2] * plan
    # An entry that underflowed has no part in the sum, and none in its derivative.
    return (plan * ratio.clamp_min(torch.finfo(plan.dtype).tiny).log() - plan).sum((1, 2)) + 1


def permutation_plan(order: Tensor | None, like: Tensor) -> Tensor:
    """Row i carried whole to column ``order[p, i]``, or i for None, with mass 1/n: (P, n, n) for (P, n)."""
    n = like.shape[1]
    if order is None:
        order = torch.arange(n, device=like.device).expand(like.shape)
    return like.new_zeros(*like.shape, n).scatter_(2, order[:, :, None], 1 / n)


def add_up(parts: Sequence[Tensor], attacks: int, taken: str) -> Tensor:
    """Sum over all problems of all parts, (B,), with the root of "none", of "each" problem or of the "total".

    Each part is (P,), where P is a multiple of B and the problems of an attack stand side by side.
    """
    if taken == "each":
        parts = [root(part) for part in parts]
    total = torch.stack([part.view(attacks, -1).sum(1) for part in parts]).sum(0)
    return root(total) if taken == "total" else total
