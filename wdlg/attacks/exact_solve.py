"""The input of one convolution from what is known around it: a least-squares problem for each image.

The equations are those of :mod:`wdlg.attacks.exact_layers`, forward and gradient together. No large matrix is
formed: conjugate gradients for least squares (CGLS; Björck 1996, "Numerical Methods for Least Squares
Problems", section 7.4) need the equations and their transpose as convolutions alone, and a preconditioner.

The gradient equations are block diagonal, one block for each stride phase, the same for all channels. These
blocks, with the diagonal of the forward equations' normal matrix added, are the preconditioner. What is left
to the iteration is how pixels of different phases and channels hang together in the forward equations.

Rounding adds up along the iteration. So what it leaves of the equations is computed anew, and solved for
again where that is not little enough (iterative refinement).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from wdlg.attacks.exact_layers import Layer
from wdlg.errors import require_count
from wdlg.rows import Rows

MOST_ITERATIONS = 1000
"""Of CGLS in one round. A layer of LeNet takes 5 to 300; one that takes more is hardly determined."""

MOST_ROUNDS = 4
"""Of refinement; one is enough for gradients in single precision, two for double."""

ROUND = 1e-9
"""What one round leaves, at least, of the preconditioned slope."""

PROBE = 1e-6
"""To which a random input is sought again; with a condition of 100 to 200 that leaves 1e-4 of it."""


@dataclass(frozen=True)
class Solution(Rows):
    """Inputs of a layer for B images.

    Attributes:
        inputs: (B, channels, pixels).
        misfit: norm of what the equations leave, over that of their right side, (B,).
        condition: of the preconditioned equations, (B,): the ratio of their extreme singular values as far
            as the iteration has met them (Lanczos), so a lower bound. By so many times the relative error
            of the inputs can exceed that of the equations.
        iterations: (B,).
    """

    inputs: Tensor
    misfit: Tensor
    condition: Tensor
    iterations: Tensor

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Equations(Rows):
    """Weighted equations ``J x = (forward, gradient)`` of one layer for B images.

    Args:
        layer: the geometry.
        weights: W, (N, filters, channels * taps) with N = 1 or B.
        trust: weight of each forward equation, (B, filters, places).
        delta: derivative of the loss by the sums, times the weight of the filter's gradient equations,
            (B, filters, places).
    """

    layer: Layer
    weights: Tensor
    trust: Tensor
    delta: Tensor

    def __len__(self) -> int:
        return len(self.delta)

    def apply(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """J x: forward (B, filters, places) and gradient (B, filters, channels * taps)."""
        patches = self.layer.patches(inputs)
        return self.trust * torch.bmm(self._weights, patches), torch.bmm(self.delta, patches.transpose(1, 2))

    def transposed(self, forward: Tensor, gradient: Tensor) -> Tensor:
        """Jᵀ of both sides, (B, channels, pixels)."""
        left = torch.cat((self._weights, gradient), dim=1)
        right = torch.cat((self.trust * forward, self.delta), dim=1)
        return self.layer.folded(torch.bmm(left.transpose(1, 2), right))

    @cached_property
    def _weights(self) -> Tensor:
        return self.weights.expand(len(self), -1, -1)

    @cached_property
    def _diagonal(self) -> Tensor:
        """Of the forward equations' normal matrix, a mean over channels, (B, pixels)."""
        squared = self.weights.square().transpose(1, 2) @ self.trust.square()
        diagonal = self.layer.folded(squared).mean(1)
        # Pixels of which no equation says anything must not divide by zero.
        least = diagonal.amax(1, keepdim=True) * 1e-12 + torch.finfo(diagonal.dtype).tiny
        return torch.maximum(diagonal, least)

    @cached_property
    def _blocks(self) -> list[Tensor]:
        """Of each phase V (B, n, O t) with ``(R + DᵀD)⁻¹ = R⁻¹ - V Vᵀ``.

        R is the diagonal above and D are the phase's gradient equations. That is ``V = R⁻¹ Dᵀ L⁻ᵀ`` with
        ``L Lᵀ = I + D R⁻¹ Dᵀ`` (Woodbury): of the size of the equations, which does not grow with the image.
        """
        nowhere = self.delta.new_zeros(*self.delta.shape[:2], 1)
        delta = torch.cat((self.delta, nowhere), dim=2)
        blocks = []
        for phase in self.layer.phases:
            known = delta[:, :, phase.places].flatten(1, 2)
            scaled = known / self._diagonal[:, None, phase.pixels]
            gram = torch.baddbmm(torch.eye(known.shape[1]).to(known), scaled, known.transpose(1, 2))
            factor, failed = torch.linalg.cholesky_ex(gram)
            factor = torch.where(failed[:, None, None] == 0, factor, torch.nan)
            blocks.append(torch.linalg.solve_triangular(factor, scaled, upper=False).transpose(1, 2))
        return blocks

    def preconditioned(self, slope: Tensor) -> Tensor:
        """The preconditioner's inverse times Jᵀ of something, (B, channels, pixels)."""
        size = (self.layer.height, self.layer.width)
        out = (slope / self._diagonal[:, None]).unflatten(2, size)
        grid = slope.unflatten(2, size)
        for phase, block in zip(self.layer.phases, self._blocks, strict=True):
            part = grid[:, :, *phase.where].flatten(2)
            taken = torch.bmm(torch.bmm(part, block), block.transpose(1, 2))
            out[:, :, *phase.where] -= taken.unflatten(2, grid[0, 0, *phase.where].shape)
        return out.flatten(2)


def solve(equations: Equations, forward: Tensor, gradient: Tensor, *, tolerance: float) -> Solution:
    """The inputs that meet the equations best.

    Args:
        equations: of B images, in double precision.
        forward: right sides of the forward equations, weighted, (B, filters, places).
        gradient: right sides of the gradient equations, weighted, (B, filters, channels * taps).
        tolerance: an image is done when the preconditioned slope of its squares is so many times smaller than
            at the start.
    """
    scale = _norm(forward, gradient)
    inputs = torch.zeros_like(equations.transposed(forward, gradient))
    iterations = torch.zeros(len(equations), dtype=torch.long, device=inputs.device)
    first = condition = None
    left = forward, gradient
    for _ in range(MOST_ROUNDS):
        slope = equations.transposed(*left)
        size = _dot(slope, equations.preconditioned(slope)).sqrt()
        first = size if first is None else first
        # What the iteration thinks that it has reached, rounding may miss by a little.
        going = size > 10 * tolerance * first
        if condition is not None and not going.any():
            break
        wanted = torch.where(going, (tolerance * first / size).clamp_min(ROUND), 1.0)
        step, lengths, ratios, made = _cgls(equations, *left, wanted)
        inputs = inputs + step
        iterations += made
        condition = _condition(lengths, ratios, made) if condition is None else condition
        there = equations.apply(inputs)
        left = forward - there[0], gradient - there[1]
    assert condition is not None
    # An image of which something is not a number has made no step, and is not the zeros it started from.
    inputs = torch.where(scale.isfinite()[:, None, None], inputs, torch.nan)
    return Solution(inputs, _norm(*left) / scale, condition, iterations)


def determined(equations: Equations) -> Tensor:
    """Whether the equations have one solution only, (B,).

    A random input is asked for again from what the equations say of it: conjugate gradients bring back all of
    it but what lies in directions of which no equation says anything. A direction in n is overlooked only
    where it has less than a tenth of the share that a random one has.
    """
    layer = equations.layer
    stream = torch.Generator().manual_seed(0)
    sought = torch.randn(1, layer.channels, layer.pixels, generator=stream, dtype=torch.float64)
    sought = sought.to(equations.delta).expand(len(equations), -1, -1)
    found, *_ = _cgls(equations, *equations.apply(sought), equations.delta.new_full((len(equations),), PROBE))
    gap = _dot(found - sought, found - sought) / _dot(sought, sought)
    return gap < 0.01 / (layer.channels * layer.pixels)


def determined_in_a_draw(layer: Layer, seed: int = 0) -> bool:
    """Whether one random draw of weights and delta has equations that determine the layer's input.

    If it does, almost every one does (part 5 of the theorem in :mod:`wdlg.attacks.exact_layers`). If it does
    not, a draw that does has still not been ruled out, but where the counts say no.

    Args:
        layer: the geometry.
        seed: of the draw, 0 or above.

    >>> determined_in_a_draw(Layer(2, 8, 8, 12, (5, 5), (2, 2), (2, 2)))
    True
    """
    stream = torch.Generator().manual_seed(require_count("seed", seed, at_least=0))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=stream, dtype=torch.float64)

    taps = layer.channels * layer.kernel[0] * layer.kernel[1]
    sides = (1, layer.filters, layer.places)
    trust = torch.ones(*sides, dtype=torch.float64)
    return bool(determined(Equations(layer, normal(1, layer.filters, taps), trust, normal(*sides))))


def _cgls(
    equations: Equations, forward: Tensor, gradient: Tensor, wanted: Tensor
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """One round: the inputs, the lengths and ratios of all steps, and how many each image made."""
    slope = equations.transposed(forward, gradient)
    direction = equations.preconditioned(slope)
    size = _dot(slope, direction)
    enough = wanted.square() * size
    inputs = torch.zeros_like(slope)
    lengths: list[Tensor] = []
    ratios: list[Tensor] = []
    iterations = torch.zeros(len(equations), dtype=torch.long, device=inputs.device)
    going = size > enough
    while len(lengths) < MOST_ITERATIONS and going.any():
        moved = equations.apply(direction)
        # An image that is done waits for the others, and stays as it is.
        length = torch.where(going, size / (_dot(moved[0], moved[0]) + _dot(moved[1], moved[1])), 0.0)
        step = length[:, None, None]
        inputs.addcmul_(step, direction)
        forward = torch.addcmul(forward, step, moved[0], value=-1)
        gradient = torch.addcmul(gradient, step, moved[1], value=-1)
        slope = equations.transposed(forward, gradient)
        ahead = equations.preconditioned(slope)
        new = torch.where(going, _dot(slope, ahead), size)
        ratio = torch.where(going, new / size, 0.0)
        direction, size = torch.addcmul(ahead, ratio[:, None, None], direction), new
        lengths.append(length)
        ratios.append(ratio)
        iterations += going
        going = going & (size > enough)
    return inputs, lengths, ratios, iterations


def _condition(lengths: list[Tensor], ratios: list[Tensor], iterations: Tensor) -> Tensor:
    """Root of the ratio of the extreme Ritz values, from the steps of conjugate gradients, (B,).

    The tridiagonal matrix of Lanczos has ``1 / a_j + b_(j-1) / a_(j-1)`` on its diagonal and
    ``sqrt(b_j) / a_j`` beside it, with the lengths a and the ratios b (Golub and Van Loan, section 11.3).
    """
    found = torch.full(iterations.shape, torch.nan, dtype=torch.float64)
    if not lengths:
        return found
    all_lengths, all_ratios = (torch.stack(rows).double().cpu().numpy() for rows in (lengths, ratios))
    for row, count in enumerate(iterations.tolist()):
        a, b = all_lengths[:count, row], all_ratios[:count, row]
        if not count or not (np.isfinite(a).all() and np.isfinite(b).all()):
            continue
        diagonal = 1 / a
        diagonal[1:] += b[:-1] / a[:-1]
        beside = np.sqrt(b[:-1]) / a[:-1]
        ritz = scipy.linalg.eigh_tridiagonal(diagonal, beside, eigvals_only=True)
        found[row] = float(np.sqrt(ritz[-1] / ritz[0])) if ritz[0] > 0 else torch.inf
    return found.to(iterations.device)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum((1, 2))


def _norm(one: Tensor, other: Tensor) -> Tensor:
    return (_dot(one, one) + _dot(other, other)).sqrt()
