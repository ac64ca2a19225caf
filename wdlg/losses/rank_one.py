"""Entropic transport between the rows of two rank-one matrices, without a matrix of all pairs.

The output layer's weight gradients are ``e ⊗ f`` and ``s ⊗ g``, so their rows lie on two lines, and the
squared distances ``|f|² e_i² - 2 (f·g) e_i s_j + |g|² s_j²`` couple i and j by a product of numbers alone.
The terms of i and of j go into the scalings of Sinkhorn's algorithm, which leaves the kernel

    exp(x_i y_j),    x = sqrt(2 |f·g| / eps) e,    y = ± sqrt(2 |f·g| / eps) s.

With thousands of classes nearly all x and y are small, since the entries of a softmax sum to one. Between
small ones the exponential is a short power series, which turns a product with the kernel into two thin
products; the few large ones are treated one by one. The iterates are those of
:func:`~wdlg.losses.sinkhorn.sinkhorn_plan` to rounding in double precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SMALL = 1.0
"""Entries of x and y up to this are small."""

TERMS = 18
"""Terms of the power series: the first one left out is below 1 / 18!, rounding in double precision."""

LARGEST = 600.0
"""Entries of x and y above this could overflow exp(x y) between a large and a small one."""


@dataclass(frozen=True)
class RankOneRows:
    """P pairs of row sets with the costs ``left_square e_i² - 2 coupling e_i s_j + right_square s_j²``.

    Attributes:
        left, right: e and s, (P, n).
        left_square, right_square, coupling: |f|², |g|² and f·g, (P,).
    """

    left: Tensor
    right: Tensor
    left_square: Tensor
    right_square: Tensor
    coupling: Tensor

    def is_within_range(self, eps: float) -> bool:
        """True if the kernel for this eps can be represented in double precision."""
        scale = (2 * self.coupling.abs() / eps).sqrt()
        largest = torch.maximum(self.left.abs().amax(1), self.right.abs().amax(1))
        return not bool((scale * largest > LARGEST).any())

    def transport_cost(self, *, eps: float, max_iterations: int, threshold: float, look_every: int) -> Tensor:
        """``<P, C>`` of the entropic plans P, (P,), with the derivative that holds P fixed.

        Args:
            eps, max_iterations, threshold: as in Algorithm 2.
            look_every: iterations between two looks at the stopping rule.
        """
        mass, moment = self._row_sums(eps, max_iterations, threshold, look_every)
        return (
            self.left_square * (mass * self.left.square()).sum(1)
            - 2 * self.coupling * (moment * self.left).sum(1)
            # The second marginal holds after every iteration: each column has an equal share.
            + self.right_square * self.right.square().mean(1)
        )

    def _row_sums(
        self, eps: float, max_iterations: int, threshold: float, look_every: int
    ) -> tuple[Tensor, Tensor]:
        """``sum_j P_ij`` and ``sum_j P_ij s_j``, (P, n) each, without a graph."""
        e, s = self.left.detach().double(), self.right.detach().double()
        rho = self.coupling.detach().double()[:, None]
        scale = (2 * rho.abs() / eps).sqrt()
        kernel = _Kernel(scale * e, scale * rho.sign() * s)
        row_cost = self.left_square.detach().double()[:, None] * e**2 / eps
        log_share = -math.log(e.shape[1])

        log_v = -self.right_square.detach().double()[:, None] * s**2 / eps
        log_u = torch.zeros_like(log_v)
        going = torch.ones(len(e), 1, dtype=torch.bool, device=e.device)
        for iteration in range(max_iterations + 1):
            next_u = log_share - kernel.times(log_v)
            if iteration and iteration % look_every == 0:
                # Algorithm 2's u has the costs of the rows in it.
                change = ((next_u + row_cost).exp() - (log_u + row_cost).exp()).abs().sum(1, keepdim=True)
                going = going & ~(change < threshold)
            if iteration == max_iterations or not going.any():
                break
            log_u = torch.where(going, next_u, log_u)
            log_v = torch.where(going, log_share - kernel.transposed_times(log_u), log_v)

        def weighted(weight: Tensor) -> Tensor:
            return (log_u + kernel.times(log_v + weight.log())).exp()

        mass = weighted(torch.ones_like(s))
        moment = weighted(s.clamp_min(0)) - weighted((-s).clamp_min(0))
        return mass.to(self.left.dtype), moment.to(self.left.dtype)


class _Kernel:
    """``exp(x_i y_j)`` as an operator on logarithms of positive vectors, for P problems at once."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x_order, self.y_order = (part.abs().argsort(1, descending=True) for part in (x, y))
        x, y = x.gather(1, self.x_order), y.gather(1, self.y_order)
        self.large = int(torch.maximum((x.abs() > SMALL).sum(1), (y.abs() > SMALL).sum(1)).max())
        (x_large, x_small), (y_large, y_small) = (
            (part[:, : self.large], part[:, self.large :]) for part in (x, y)
        )
        self.log_large = x_large[:, :, None] * y_large[:, None, :]
        self.large_small = (x_large[:, :, None] * y_small[:, None, :]).exp()
        self.small_large = (x_small[:, :, None] * y_large[:, None, :]).exp()
        powers = torch.arange(TERMS, dtype=x.dtype, device=x.device)
        root_factorial = (torch.lgamma(powers + 1) / 2).exp()
        self.x_powers, self.y_powers = (
            part[:, :, None] ** powers / root_factorial for part in (x_small, y_small)
        )

    def times(self, log_weight: Tensor) -> Tensor:
        """``log sum_j exp(x_i y_j) w_j`` from ``log w``, both (P, n)."""
        sums = self._product(
            log_weight.gather(1, self.y_order),
            (self.log_large, self.large_small, self.small_large, self.x_powers, self.y_powers),
        )
        return torch.empty_like(sums).scatter(1, self.x_order, sums)

    def transposed_times(self, log_weight: Tensor) -> Tensor:
        """``log sum_i exp(x_i y_j) w_i`` from ``log w``, both (P, n)."""
        matrices = (self.log_large, self.small_large, self.large_small)
        sums = self._product(
            log_weight.gather(1, self.x_order),
            (*(matrix.transpose(1, 2) for matrix in matrices), self.y_powers, self.x_powers),
        )
        return torch.empty_like(sums).scatter(1, self.y_order, sums)

    def _product(self, log_weight: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        """The product in sorted order, large entries first."""
        log_large, large_small, small_large, left_powers, right_powers = parts
        of_large, of_small = log_weight[:, : self.large], log_weight[:, self.large :]
        # Large and small weights may be hundreds of orders of magnitude apart: each has a scale of its own.
        small, small_scale = _scaled(of_small)
        large, large_scale = _scaled(of_large)
        series = (left_powers @ (right_powers.transpose(1, 2) @ small)).clamp_min(0)
        top = torch.logaddexp(
            torch.logsumexp(log_large + of_large[:, None, :], dim=2),
            (large_small @ small)[:, :, 0].log() + small_scale,
        )
        bottom = torch.logaddexp(
            (small_large @ large)[:, :, 0].log() + large_scale, series[:, :, 0].log() + small_scale
        )
        return torch.cat((top, bottom), dim=1)


def _scaled(log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (P, k, 1) divided by their largest, and its logarithm (P, 1); zeros have logarithm -inf."""
    if log_weight.shape[1] == 0:
        return log_weight[:, :, None], log_weight.new_zeros(len(log_weight), 1)
    largest = log_weight.amax(1, keepdim=True).clamp_min(torch.finfo(log_weight.dtype).min)
    return (log_weight - largest).exp()[:, :, None], largest
