"""Entropic transport between the rows of two rank-one matrices, without a matrix of all pairs.

The output layer's weight gradients are ``e ⊗ f`` and ``s ⊗ g``, so their rows lie on two lines, and the
squared distances ``|f|² e_i² - 2 (f·g) e_i s_j + |g|² s_j²`` couple i and j by a product of numbers alone.
The terms of i and of j go into the scalings of Sinkhorn's algorithm, which leaves the kernel
``exp(c e_i s_j)`` with ``c = 2 (f·g) / eps``.

The scaling of row i is then a smooth function of e_i, ``u(e) = 1 / (n sum_j exp(c e s_j) v_j)``, and so is
that of column j of s_j. With thousands of classes nearly all e and s are small, since the entries of a
softmax sum to one, and over the interval of the small ones u and v are polynomials to rounding. So the
small points are replaced by a few Chebyshev nodes: a sum over the points of a polynomial is a weighted sum
over the nodes. Sinkhorn's algorithm runs on the nodes and the few large points; what it finds is
interpolated to all.

The iterates are those of :func:`~wdlg.losses.sinkhorn.sinkhorn_plan` to rounding in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wdlg.losses.point_sets import Points, RankOne
from wdlg.losses.sinkhorn import MOST_IN_A_ROUND, ROUND
from wdlg.losses.solver import Solver, thinning, unit_of

RANK_ONE_ABOVE = 500
"""With more classes than this, the output layer is transported without a matrix of all pairs of classes. Only
the plain reading can be, apart from its units, masses and roots: the others write that matrix out."""

NODES = 32
"""Chebyshev nodes that stand for all small points of a side."""

REACH = 3.0
"""Small points lie in an interval over whose half no exponent ``c e s`` changes by more than this. The
nearest pole of u is a zero of its sum of exponentials, at least pi off the real axis in the same unit:
polynomials on the nodes are then exact to (pi/3 + sqrt(1 + (pi/3)²))^-32, some 2e-13 (Trefethen 2013,
theorem 8.2)."""

LARGEST = 600.0
"""Where sqrt(|c|) times an entry is above this, exponents are so large that their rounding is felt."""


def costs_without_matrix(output: Sequence[Points], solver: Solver) -> list[Tensor]:
    """``<P, C>`` of the entropic plans for squared costs C, with the derivative that holds P fixed.

    Args:
        output: points of the output layer's weight and bias, which are solved together.
        solver: of the plans, without a penalty.

    Returns:
        One (P,) for each; none if the rows are no rank-one ones, too few, or too far apart for their kernel.
    """
    rows = [each for each in output if isinstance(each, RankOne) and each.count > RANK_ONE_ABOVE]
    if not rows or len(rows) < len(output):
        return []
    unit = torch.cat([_unit(each) if solver.relative else each.e.new_ones(len(each.e)) for each in rows])
    problems = RankOneRows.between(rows, unit)
    if not problems.is_within_range(solver.eps):
        return []
    cost = problems.transport_cost(
        eps=solver.eps,
        max_iterations=solver.max_iterations,
        threshold=solver.threshold,
        look_every=ROUND,
    )
    return list((unit * cost).chunk(len(rows)))


def _unit(rows: RankOne) -> Tensor:
    return unit_of(rows.thinned(thinning(rows.count)).squared(), rows.mean_squared())


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

    @classmethod
    def between(cls, points: Sequence[RankOne], unit: Tensor) -> RankOneRows:
        """All problems of all points, with costs in units (P,)."""
        return cls(
            left=torch.cat([each.e for each in points]),
            right=torch.cat([each.s for each in points]),
            left_square=torch.cat([each.f.square().sum(1) for each in points]) / unit,
            right_square=torch.cat([each.g.square().sum(1) for each in points]) / unit,
            coupling=torch.cat([(each.f * each.g).sum(1) for each in points]) / unit,
        )

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
        c, row_rate, column_rate = (
            part.detach().double()[:, None] / eps
            for part in (2 * self.coupling, self.left_square, self.right_square)
        )
        # Algorithm 2 starts with v = 1, here exp(-column_rate s²), which must be smooth over the nodes, too.
        rows, columns = _represent(e, c.abs() * _range(s)), _represent(s, c.abs() * _range(e), column_rate)
        log_kernel = (c * rows.points)[:, :, None] * columns.points[:, None, :]
        problem = _Reduced(log_kernel, rows, columns, share=1 / e.shape[1])
        log_u, log_v = problem.solve(
            -column_rate * columns.points**2, row_rate * e**2, max_iterations, threshold, look_every
        )
        mass, moment = rows.at_all_points(torch.stack(problem.row_sums(log_u, log_v), dim=1)).unbind(1)
        return mass.to(self.left.dtype), moment.to(self.left.dtype)


@dataclass(frozen=True)
class _Reduced:
    """P transport problems on large points and nodes, with the kernel ``exp(c e s)``.

    Attributes:
        log_kernel: c e s, (P, rows, columns).
        rows, columns: the points.
        share: the mass of every point.
    """

    log_kernel: Tensor
    rows: _LargeAndNodes
    columns: _LargeAndNodes
    share: float

    def solve(
        self, log_v: Tensor, row_factor: Tensor, max_iterations: int, threshold: float, look_every: int
    ) -> tuple[Tensor, Tensor]:
        """log u (P, rows) and log v (P, columns) when a problem's change of Algorithm 2's u is small.

        Args:
            log_v: where the iteration starts, (P, columns).
            row_factor: the logarithm of Algorithm 2's u at every row is this larger than that of u, (P, n).
            max_iterations, threshold, look_every: see :meth:`RankOneRows.transport_cost`.
        """
        log_u = self.next_u(log_v)
        log_v = self.next_v(log_u)
        going = torch.ones_like(log_u[:, :1], dtype=torch.bool)
        done = 1
        while done < max_iterations:
            steps = min(look_every - done % look_every, max_iterations - done)
            next_u, next_v = self.iterate(log_u, log_v, steps)
            log_u, log_v = torch.where(going, next_u, log_u), torch.where(going, next_v, log_v)
            done += steps
            if done < max_iterations:
                change = self.next_u(log_v).exp() - log_u.exp()
                going = going & ~self.rows.is_small(change, row_factor, threshold)
                if not going.any():
                    break
        return log_u, log_v

    def row_sums(self, log_u: Tensor, log_v: Tensor) -> tuple[Tensor, Tensor]:
        """``sum_j P_ij`` and ``sum_j P_ij s_j`` at the large rows and the nodes, (P, rows) each."""
        sums = self.log_kernel + log_v[:, None, :]
        largest = sums.amax(2, keepdim=True)
        sums = (sums - largest).exp() * self.columns.weights[:, None, :]
        mass, moment = sums.sum(2), (sums * self.columns.points[:, None, :]).sum(2)
        scale = (log_u + largest[:, :, 0]).exp()
        return scale * mass, scale * moment

    def next_u(self, log_v: Tensor) -> Tensor:
        """log u (P, rows) from log v (P, columns)."""
        return math.log(self.share) - _log_sum(self.log_kernel + log_v[:, None, :], self.columns.weights)

    def next_v(self, log_u: Tensor) -> Tensor:
        """log v (P, columns) from log u (P, rows)."""
        kernel = self.log_kernel.transpose(1, 2)
        return math.log(self.share) - _log_sum(kernel + log_u[:, None, :], self.rows.weights)

    def iterate(self, log_u: Tensor, log_v: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Some iterations: products with the plan so far where they are safe, else in the log domain."""
        plan = (self.log_kernel + log_u[:, :, None] + (log_v[:, None, :] - math.log(self.share))).exp()
        by_rows = self.rows.weights[:, :, None] * plan
        by_columns = (self.columns.weights[:, None, :] * plan).transpose(1, 2).contiguous()
        v = torch.ones_like(log_v)[:, None, :]
        for _ in range(steps):
            u = (v @ by_columns).reciprocal_()
            v = (u @ by_rows).reciprocal_()
        moved_u, moved_v = u[:, 0].log(), v[:, 0].log()
        safe = moved_u.abs().amax(1, keepdim=True) + moved_v.abs().amax(1, keepdim=True) < MOST_IN_A_ROUND
        next_u, next_v = log_u + moved_u, log_v + moved_v
        if not safe.all():  # NaN is not safe
            slow_u, slow_v = log_u, log_v
            for _ in range(steps):
                slow_u = self.next_u(slow_v)
                slow_v = self.next_v(slow_u)
            next_u, next_v = torch.where(safe, next_u, slow_u), torch.where(safe, next_v, slow_v)
        return next_u, next_v


def _log_sum(exponents: Tensor, weights: Tensor) -> Tensor:
    """``log sum_j w_j exp(t_ij)``; weights of nodes may be negative, the sum is not."""
    largest = exponents.amax(2, keepdim=True)
    return ((exponents - largest).exp() @ weights[:, :, None]).log()[:, :, 0] + largest[:, :, 0]


@dataclass(frozen=True)
class _LargeAndNodes:
    """n points on a line for each of P problems, as a few large ones and nodes for the rest.

    Attributes:
        points: the large ones and then the nodes, (P, m).
        weights: how many points each stands for, (P, m): 1, or the interpolatory weight of a node.
        order: (P, n), the points by falling size.
        large: how many are kept.
        basis: Chebyshev polynomials at the small points, (P, NODES or 0, n - large).
    """

    points: Tensor
    weights: Tensor
    order: Tensor
    large: int
    basis: Tensor

    def at_all_points(self, values: Tensor) -> Tensor:
        """Functions (P, r, m), known at the large points and the nodes, at all points (P, r, n)."""
        large, nodes = values[:, :, : self.large], values[:, :, self.large :]
        small = (nodes @ _to_coefficients(values)) @ self.basis if nodes.shape[2] else nodes
        both = torch.cat((large, small), dim=2)
        order = self.order[:, None, :].expand_as(both)
        return torch.empty_like(both).scatter_(2, order, both)

    def is_small(self, values: Tensor, log_factor: Tensor, threshold: float) -> Tensor:
        """Whether the sum over all points of ``|f| exp(log_factor)`` is below a threshold, (P, 1).

        Args:
            values: f at the large points and the nodes, (P, m).
            log_factor: at all points, (P, n).
            threshold: above 0.
        """
        factor = log_factor.gather(1, self.order[:, : self.large]).exp()
        of_large = (values[:, : self.large].abs() * factor).sum(1, keepdim=True)
        if not (of_large < threshold).any():  # no need to ask the small ones
            return of_large < threshold
        everywhere = self.at_all_points(values[:, None, :])[:, 0].abs() * log_factor.exp()
        return everywhere.sum(1, keepdim=True) < threshold


def _represent(values: Tensor, rate: Tensor, square_rate: Tensor | None = None) -> _LargeAndNodes:
    """Large points and nodes for ``values`` (P, n).

    Args:
        values: the points.
        rate: most change of an exponent with the point, (P, 1).
        square_rate: the first scaling is ``exp(-square_rate x²)``, (P, 1).
    """
    order = values.abs().argsort(1, descending=True)
    values = values.gather(1, order)
    backwards = values.flip(1)
    highest, lowest = backwards.cummax(1).values.flip(1), backwards.cummin(1).values.flip(1)
    wide = (highest - lowest) / 2 * rate > REACH
    if square_rate is not None:
        wide |= square_rate * values**2 > 1
    large = int(wide.sum(1).max())
    if large + NODES >= values.shape[1]:
        none = values.new_zeros(len(values), 0, 0)
        return _LargeAndNodes(values, torch.ones_like(values), order, values.shape[1], none)
    centre, half = ((highest + lowest) / 2)[:, large, None], ((highest - lowest) / 2)[:, large, None]
    basis = _polynomials((values[:, large:] - centre) / half.clamp_min(torch.finfo(values.dtype).tiny))
    nodes = centre + half * _nodes(values)
    kept = values[:, :large]
    weights = basis.sum(2) @ _to_coefficients(values).T
    return _LargeAndNodes(
        torch.cat((kept, nodes), 1), torch.cat((torch.ones_like(kept), weights), 1), order, large, basis
    )


def _range(values: Tensor) -> Tensor:
    return values.amax(1, keepdim=True) - values.amin(1, keepdim=True)


def _nodes(like: Tensor) -> Tensor:
    """The zeros of the Chebyshev polynomial of degree NODES, (NODES,)."""
    places = torch.arange(NODES, dtype=like.dtype, device=like.device)
    return torch.cos((places + 0.5) * (torch.pi / NODES))


def _polynomials(t: Tensor) -> Tensor:
    """Chebyshev polynomials T_0 ... T_(NODES - 1) at t in [-1, 1], (P, k) to (P, NODES, k)."""
    values = t.new_empty(len(t), NODES, t.shape[1])
    values[:, 0], values[:, 1] = 1, t
    for degree in range(2, NODES):
        torch.mul(t, values[:, degree - 1], out=values[:, degree]).mul_(2).sub_(values[:, degree - 2])
    return values


def _to_coefficients(like: Tensor) -> Tensor:
    """(NODES, NODES): values at the nodes, times this, are coefficients of Chebyshev polynomials."""
    matrix = _polynomials(_nodes(like)[None])[0].T * (2 / NODES)
    matrix[:, 0] /= 2
    return matrix
