"""The spectrum of a Jacobian too large to hold, from random directions of the image, with bounds.

The share of eigenvalues of ``JᵀJ`` above a value is that of a random direction z above it, in the mean
over z with entries of +1 and -1 (Hutchinson 1990). What k steps of Lanczos' method from z give are k
eigenvalues with weights, the nodes of a Gauss quadrature of the direction's own spectrum (stochastic
Lanczos quadrature; Lin, Saad and Yang 2016, SIAM Review 58, section 3.2). Between which numbers a share
must lie then follows from the inequalities of Chebyshev, Markov and Stieltjes: for a value between the
nodes m and m + 1, ascending, the weights of the nodes beyond m + 1 are a lower bound, those from m on an
upper one. So no eigenvalue that Lanczos' method has not told apart yet is taken for one that it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import scipy.special
import torch
from torch import Tensor

from wdlg.errors import InputError, require_count

Apply = Callable[[Tensor], Tensor]
"""``JᵀJ`` times a direction (d,)."""

DIRECTIONS = 4
"""Random directions."""

STEPS = 50
"""Of Lanczos' method from each, with the new direction made orthogonal to all before it."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of ``JᵀJ`` as a distribution.

    Attributes:
        pixels: d.
        nodes: eigenvalues, (directions, steps).
        weights: of each, adding up to 1 for each direction.
    """

    pixels: int
    nodes: Tensor
    weights: Tensor

    def above(self, value: float) -> tuple[int, int]:
        """Between which two numbers the count of eigenvalues above a value lies.

        The bounds of each direction, in their mean, widened to a confidence of 97.5 % on either side by
        Student's distribution.
        """
        shares = [
            _bounds(nodes, weights, value) for nodes, weights in zip(self.nodes, self.weights, strict=True)
        ]
        low, high = (torch.tensor(one, dtype=torch.float64) for one in zip(*shares, strict=True))
        wide = float(scipy.special.stdtrit(len(shares) - 1, 0.975)) / math.sqrt(len(shares))
        least = float(low.mean() - wide * low.std())
        most = float(high.mean() + wide * high.std())
        return (
            max(0, math.floor(self.pixels * least)),
            min(self.pixels, math.ceil(self.pixels * most)),
        )


def _bounds(nodes: Tensor, weights: Tensor, value: float) -> tuple[float, float]:
    """The least and the largest share of one direction's spectrum above a value.

    >>> _bounds(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.25, 0.25]), 1.5)
    (0.25, 1.0)
    """
    held = weights > 0
    nodes, weights = nodes[held], weights[held]
    below = int((nodes < value).sum())  # m
    return float(weights[below + 1 :].sum()), float(weights[max(below - 1, 0) :].sum())


def spectrum(
    apply: Apply, pixels: int, *, directions: int = DIRECTIONS, steps: int = STEPS, seed: int = 0
) -> Spectrum:
    """The spectrum of a symmetric matrix without negative eigenvalues, known by its products alone.

    Args:
        apply: the matrix times a direction (d,), in double precision.
        pixels: d.
        directions: random ones, at least 2.
        steps: products for each, at least 2; no more than d are made.
        seed: of the directions.

    Raises:
        InputError: a count is out of range, or a product is not finite.
    """
    require_count("directions", directions, at_least=2)
    steps = min(require_count("steps", steps, at_least=2), require_count("pixels", pixels))
    stream = torch.Generator().manual_seed(seed)
    nodes = torch.zeros(directions, steps, dtype=torch.float64)
    weights = torch.zeros(directions, steps, dtype=torch.float64)
    for number in range(directions):
        start = torch.randint(0, 2, (pixels,), generator=stream).double() * 2 - 1
        diagonal, beside = _lanczos(apply, start / math.sqrt(pixels), steps)
        matrix = torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1)
        values, vectors = torch.linalg.eigh(matrix)
        nodes[number, : len(values)] = values.clamp_min(0)
        weights[number, : len(values)] = vectors[0].square()
    return Spectrum(pixels, nodes, weights)


def _lanczos(apply: Apply, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Diagonal (k,) and off-diagonal (k - 1,) of the tridiagonal matrix, k at most ``steps``."""
    basis = [start]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    for _ in range(steps):
        product = apply(basis[-1])
        if not torch.isfinite(product).all():
            raise InputError("image has a gradient that is NaN or infinite, but it must be finite.")
        diagonal.append(basis[-1] @ product)
        rest = product
        for _ in range(2):  # once leaves rounding errors that bring eigenvalues back a second time
            held = torch.stack(basis)
            rest = rest - held.T @ (held @ rest)
        length = rest.norm()
        if len(diagonal) == steps or float(length) <= 1e-12 * float(product.norm()):
            break
        beside.append(length)
        basis.append(rest / length)
    none = start.new_zeros(0)
    return torch.stack(diagonal), torch.stack(beside) if beside else none
