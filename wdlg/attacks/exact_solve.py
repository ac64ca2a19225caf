"""The input of one convolution from what is known around it: a least-squares problem for each image.

The equations are those of :mod:`wdlg.attacks.exact_layers`, forward and gradient together. Nothing is factored
but small matrices: conjugate gradients for least squares (CGLS; Björck 1996, "Numerical Methods for Least Squares
Problems", section 7.4) need the equations and their transpose as convolutions alone, and a preconditioner.

The gradient equations are block diagonal, one block for each stride phase, the same for all channels: these
blocks, with the diagonal of the forward equations' normal matrix added, are the preconditioner. What is left to
the iteration is how pixels of different phases and channels hang together in the forward equations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from wdlg.attacks.exact_layers import Layer

MOST_ITERATIONS = 2000
"""Of CGLS. A layer of LeNet takes 6 to 300 of them; one that takes more is hardly determined."""


@dataclass(frozen=True)
class Solution:
    """Inputs of a layer for B images.

    Attributes:
        inputs: (B, channels, pixels).
        misfit: norm of what the equations leave, over that of their right side, (B,).
        condition: of the preconditioned equations, (B,): the ratio of their extreme singular values, from
            the iteration itself (Lanczos), so a lower bound. About so many times larger than that of the
            equations can the relative error of the inputs be.
        iterations: (B,).
    """

    inputs: Tensor
    misfit: Tensor
    condition: Tensor
    iterations: Tensor


@dataclass(frozen=True)
class Equations:
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

    def apply(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """J x: forward (B, filters, places) and gradient (B, filters, channels * taps)."""
        patches = self.layer.patches(inputs)
        return self.trust * (self.weights @ patches), self.delta @ patches.transpose(1, 2)

    def transposed(self, forward: Tensor, gradient: Tensor) -> Tensor:
        """Jᵀ of both sides, (B, channels, pixels)."""
        left = torch.cat((self.weights.expand(len(forward), -1, -1), gradient), dim=1)
        right = torch.cat((self.trust * forward, self.delta), dim=1)
        return self.layer.folded(left.transpose(1, 2) @ right)

    def preconditioner(self) -> list[tuple[Tensor, Tensor]]:
        """Pixels (n,) of each stride phase and the inverse of its block (B, n, n)."""
        squared = self.weights.square().transpose(1, 2) @ self.trust.square()
        diagonal = self.layer.folded(squared).mean(1)
        nowhere = self.delta.new_zeros(*self.delta.shape[:2], 1)
        delta = torch.cat((self.delta, nowhere), dim=2)
        blocks = []
        for phase in self.layer.phases:
            known = delta[:, :, phase.places].flatten(1, 2)
            own = diagonal[:, phase.pixels]
            # Pixels of which no equation says anything must not make the block singular.
            least = own.amax(1, keepdim=True).clamp_min(torch.finfo(own.dtype).tiny) * 1e-12
            block = known.transpose(1, 2) @ known + torch.diag_embed(own.clamp_min(least))
            blocks.append((phase.pixels, torch.cholesky_inverse(torch.linalg.cholesky(block))))
        return blocks


def solve(equations: Equations, forward: Tensor, gradient: Tensor, *, tolerance: float) -> Solution:
    """The inputs that meet the equations best.

    Args:
        equations: of B images.
        forward: right sides of the forward equations, weighted, (B, filters, places).
        gradient: right sides of the gradient equations, weighted, (B, filters, channels * taps).
        tolerance: an image is done when the preconditioned gradient of its squares is so many times smaller
            than at the start.
    """
    blocks = equations.preconditioner()

    def preconditioned(rows: Tensor) -> Tensor:
        out = torch.empty_like(rows)
        for pixels, inverse in blocks:
            out[:, :, pixels] = rows[:, :, pixels] @ inverse
        return out

    scale = _dot(forward, forward) + _dot(gradient, gradient)
    slope = equations.transposed(forward, gradient)
    direction = preconditioned(slope)
    size = first = _dot(slope, direction)
    inputs = torch.zeros_like(slope)
    lengths, ratios = [], []
    iterations = torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)
    while len(lengths) < MOST_ITERATIONS:
        going = size > tolerance**2 * first
        if not going.any():
            break
        moved = equations.apply(direction)
        curvature = sum(_dot(part, part) for part in moved)
        going = going & (curvature > 0)
        # An image that is done waits for the others, and stays as it is.
        length = torch.where(going, size / curvature, 0.0)
        step = length[:, None, None]
        inputs = inputs + step * direction
        forward, gradient = forward - step * moved[0], gradient - step * moved[1]
        slope = equations.transposed(forward, gradient)
        ahead = preconditioned(slope)
        new = torch.where(going, _dot(slope, ahead), size)
        ratio = torch.where(going, new / size, 0.0)
        direction, size = ahead + ratio[:, None, None] * direction, new
        lengths.append(length)
        ratios.append(ratio)
        iterations += going
    left = (_dot(forward, forward) + _dot(gradient, gradient)) / scale
    return Solution(inputs, left.sqrt(), _condition(lengths, ratios, iterations), iterations)


def _condition(lengths: list[Tensor], ratios: list[Tensor], iterations: Tensor) -> Tensor:
    """Root of the ratio of the extreme Ritz values, from the steps of conjugate gradients, (B,).

    The tridiagonal matrix of Lanczos has ``1 / a_j + b_(j-1) / a_(j-1)`` on its diagonal and
    ``sqrt(b_j) / a_j`` beside it, with the lengths a and the ratios b (Golub and Van Loan, section 11.3).
    """
    found = torch.full(iterations.shape, torch.nan, dtype=torch.float64)
    if not lengths:
        return found
    all_lengths, all_ratios = (torch.stack(rows).cpu().numpy() for rows in (lengths, ratios))
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
