"""Pairs of point sets, ready to be transported: what may be asked of them, and the kinds there are.

A :class:`Points` holds P transport problems, each between the n points x_1 ... x_n of a dummy gradient and
the n points y_1 ... y_n of the shared one. The problems of one attack stand side by side: P is B times the
problems that the parameter has for each attack. Only squared Euclidean distances between points leave it, and
only functions of these come back, so that the output layer's points need never be written out.

Which points a gradient has is chosen in :mod:`wdlg.losses.points`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distance between every row of x (..., n, d) and of y (..., m, d): (..., n, m)."""
    return (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)


class Points(Protocol):
    """P pairs of n points each. "Without a graph" is to say: constant to the derivative."""

    @property
    def count(self) -> int:
        """n, the points of either side."""

    def squared(self) -> Tensor:
        """``|x_i - y_j|²``, (P, n, n), without a graph."""

    def pull(self, weights: Tensor) -> Tensor:
        """Zero, (P,), with the derivative of ``sum_ij weights_ij |x_i - y_j|²`` for constant weights."""

    def paired(self, order: Tensor | None = None) -> Tensor:
        """``|x_i - y_order(i)|²``, (P, n), differentiable; every point with its own counterpart for None."""

    def sorted_order(self, *, squared_cost: bool) -> Tensor | None:
        """The best permutation (P, n) if sorting finds it, without a graph.

        Points on one line are matched in order, for every cost that is convex in the distance; the rows of
        two rank-one matrices, which lie on two lines, for the squared distance only.
        """

    def shared_size(self) -> Tensor:
        """Root mean square norm of y_1 ... y_n, (P,)."""

    def of_dummy(self) -> Points:
        """The dummy's points against themselves, the second of them without a graph."""

    def of_shared(self) -> Points:
        """The shared gradient's points against themselves."""


@dataclass(frozen=True)
class WrittenOut:
    """Points as they are, (P, n, d)."""

    x: Tensor
    y: Tensor

    @property
    def count(self) -> int:
        return self.x.shape[1]

    def squared(self) -> Tensor:
        return squared_distances(self.x.detach(), self.y)

    def pull(self, weights: Tensor) -> Tensor:
        # Half the derivative, sum_j w_ij (x_i - y_j), around y_i: nothing cancels as x comes close to y.
        apart = _off_diagonal(weights)
        arriving = apart.sum(2, keepdim=True) * self.y - apart @ self.y
        pull = weights.sum(2, keepdim=True) * (self.x.detach() - self.y) + arriving
        return 2 * _no_value(pull, self.x)

    def paired(self, order: Tensor | None = None) -> Tensor:
        y = self.y if order is None else self.y.take_along_dim(order[:, :, None], 1)
        return (self.x - y).square().sum(2)

    def sorted_order(self, *, squared_cost: bool) -> Tensor | None:  # noqa: ARG002
        if self.x.shape[2] > 1:
            return None
        return _in_order(self.x.detach()[:, :, 0], self.y[:, :, 0].argsort(1))

    def shared_size(self) -> Tensor:
        return self.y.square().sum(2).mean(1).sqrt()

    def of_dummy(self) -> WrittenOut:
        return WrittenOut(self.x, self.x.detach())

    def of_shared(self) -> WrittenOut:
        return WrittenOut(self.y, self.y)


@dataclass(frozen=True)
class RankOne:
    """The rows ``e_i f`` and ``s_j g`` of the output layer's weight gradient: e, s (P, n) and f, g (P, d)."""

    e: Tensor
    f: Tensor
    s: Tensor
    g: Tensor

    @property
    def count(self) -> int:
        return self.e.shape[1]

    def squared(self) -> Tensor:
        # |e_i f - s_j g|² around f - g = h:  (e_i - s_j)² |f|² + 2 (e_i - s_j) s_j f·h + s_j² |h|².
        e, f = self.e.detach(), self.f.detach()
        return _along_lines(e[:, :, None], self.s[:, None, :], f[:, None], self.g[:, None])

    def pull(self, weights: Tensor) -> Tensor:
        # Half the derivative by row i is q_i f + (w s)_i h, with q_i = sum_j w_ij (e_i - s_j).
        e, f = self.e.detach(), self.f.detach()
        h = f - self.g
        apart = _off_diagonal(weights)
        from_others = (self.s[:, None, :] @ apart.transpose(1, 2))[:, 0]
        q = weights.sum(2) * (e - self.s) + (apart.sum(2) * self.s - from_others)
        arriving = from_others + weights.diagonal(dim1=1, dim2=2) * self.s
        by_e = q * _dot(f, f) + arriving * _dot(f, h)
        by_f = _dot(e, q) * f + _dot(e, arriving) * h
        return 2 * (_no_value(by_e, self.e) + _no_value(by_f, self.f))

    def paired(self, order: Tensor | None = None) -> Tensor:
        s = self.s if order is None else self.s.gather(1, order)
        return _along_lines(self.e, s, self.f, self.g)

    def sorted_order(self, *, squared_cost: bool) -> Tensor | None:
        if not squared_cost and self.f.shape[1] > 1:
            return None
        # Alike if f and g point the same way, the other way round if not.
        ascending = self.s.argsort(1)
        same_way = _dot(self.f.detach(), self.g) >= 0
        return _in_order(self.e.detach(), torch.where(same_way, ascending, ascending.flip(1)))

    def shared_size(self) -> Tensor:
        return self.g.norm(dim=1) * self.s.square().mean(1).sqrt()

    def of_dummy(self) -> RankOne:
        return RankOne(self.e, self.f, self.e.detach(), self.f.detach())

    def of_shared(self) -> RankOne:
        return RankOne(self.s, self.g, self.s, self.g)

    def thinned(self, step: int) -> RankOne:
        """Every ``step``-th row."""
        return RankOne(self.e[:, ::step], self.f, self.s[:, ::step], self.g)

    def mean_squared(self) -> Tensor:
        """The mean of :meth:`squared`, (P,), without that matrix."""
        e, f = self.e.detach(), self.f.detach()
        squares = e.square().mean(1) * f.square().sum(1) + self.s.square().mean(1) * self.g.square().sum(1)
        return squares - 2 * e.mean(1) * self.s.mean(1) * (f * self.g).sum(1)


@dataclass(frozen=True)
class RankOneAndRest:
    """The rows ``e_i f`` of a dummy, and ``y_j = s_j g + r_j`` of a shared gradient that is not rank one.

    e, s (P, n), f, g (P, d) and r (P, n, d). The dummy's rows are not written out.
    """

    plain: RankOne
    r: Tensor

    @property
    def count(self) -> int:
        return self.plain.count

    def squared(self) -> Tensor:
        # |e_i f - s_j g - r_j|², with e_i f - s_j g = (e_i - s_j) f + s_j h for h = f - g.
        e, s, f = self.plain.e.detach(), self.plain.s, self.plain.f.detach()
        by_f, by_h = self._products(f)
        crossed = (e[:, :, None] - s[:, None, :]) * by_f[:, None, :] + (s * by_h)[:, None, :]
        return self.plain.squared() - 2 * crossed + self._squares()[:, None, :]

    def pull(self, weights: Tensor) -> Tensor:
        # The rest adds -2 sum_j (sum_i w_ij e_i) f·r_j and a constant.
        by_f, _ = self._products(self.plain.f)
        value = -2 * _dot((self.plain.e[:, None, :] @ weights)[:, 0], by_f)[:, 0]
        return self.plain.pull(weights) + value - value.detach()

    def paired(self, order: Tensor | None = None) -> Tensor:
        by_f, by_h = self._products(self.plain.f)
        s, squares = self.plain.s, self._squares()
        if order is not None:
            s, by_f, by_h, squares = (part.gather(1, order) for part in (s, by_f, by_h, squares))
        crossed = (self.plain.e - s) * by_f + s * by_h
        return self.plain.paired(order) - 2 * crossed + squares

    def sorted_order(self, *, squared_cost: bool) -> Tensor | None:  # noqa: ARG002
        return None

    def shared_size(self) -> Tensor:
        return self.of_shared().shared_size()

    def of_dummy(self) -> RankOne:
        return self.plain.of_dummy()

    def of_shared(self) -> WrittenOut:
        rows = self.plain.s[:, :, None] * self.plain.g[:, None, :] + self.r
        return WrittenOut(rows, rows)

    def _products(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """``r_j·f`` and ``r_j·h``, both (P, n)."""
        by_f, by_h = (self.r @ torch.stack((f, f - self.plain.g), dim=2)).unbind(2)
        return by_f, by_h

    def _squares(self) -> Tensor:
        return self.r.square().sum(2)


@dataclass(frozen=True)
class Scaled:
    """K problems for each attack: the points ``e_c f_p`` and ``s_c g_q`` of every class c, P = B K.

    The rows of the output layer's weight gradient, each cut into pieces: e, s (B, K) and f, g (B, n, d).
    """

    e: Tensor
    f: Tensor
    s: Tensor
    g: Tensor

    @property
    def count(self) -> int:
        return self.f.shape[1]

    @cached_property
    def _tracked(self) -> Tensor:
        """All squared distances (P, n, n), with their graph, which holds no point written out."""
        return _along_lines(
            self.e[:, :, None, None, None],
            self.s[:, :, None, None, None],
            self.f[:, None, :, None],
            self.g[:, None, None, :],
        ).flatten(0, 1)[..., 0]

    def squared(self) -> Tensor:
        return self._tracked.detach()

    def pull(self, weights: Tensor) -> Tensor:
        value = (weights * self._tracked).sum((1, 2))
        return value - value.detach()

    def paired(self, order: Tensor | None = None) -> Tensor:
        if order is None:
            return self._tracked.diagonal(dim1=1, dim2=2)
        return self._tracked.gather(2, order[:, :, None])[:, :, 0]

    def sorted_order(self, *, squared_cost: bool) -> Tensor | None:  # noqa: ARG002
        return None

    def shared_size(self) -> Tensor:
        return (self.s.abs() * self.g.square().sum(2).mean(1, keepdim=True).sqrt()).flatten()

    def of_dummy(self) -> Scaled:
        return Scaled(self.e, self.f, self.e.detach(), self.f.detach())

    def of_shared(self) -> Scaled:
        return Scaled(self.s, self.g, self.s, self.g)


@dataclass(frozen=True)
class Whole:
    """One point for each attack: all rows one after the other, without writing them out."""

    rows: Points
    count: int = 1

    def squared(self) -> Tensor:
        return self.paired().detach()[:, :, None]

    def pull(self, weights: Tensor) -> Tensor:
        value = weights[:, 0, 0] * self.paired()[:, 0]
        return value - value.detach()

    def paired(self, order: Tensor | None = None) -> Tensor:  # noqa: ARG002
        return self.rows.paired().sum(1, keepdim=True)

    def sorted_order(self, *, squared_cost: bool) -> Tensor | None:  # noqa: ARG002
        return None

    def shared_size(self) -> Tensor:
        return self.rows.shared_size() * self.rows.count**0.5

    def of_dummy(self) -> Whole:
        return Whole(self.rows.of_dummy())

    def of_shared(self) -> Whole:
        return Whole(self.rows.of_shared())


def _along_lines(e: Tensor, s: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """``|e f - s g|²`` for numbers e and s and vectors f and g (..., d), as they broadcast together.

    Around f - g = h it is ``(e - s)² |f|² + 2 (e - s) s f·h + s² |h|²``: nothing large cancels.
    """
    h = f - g
    difference = e - s
    return difference.square() * _dot(f, f) + 2 * difference * s * _dot(f, h) + s.square() * _dot(h, h)


def _in_order(x: Tensor, ascending: Tensor) -> Tensor:
    """The permutation that carries the i-th smallest of x (P, n) to the i-th of ``ascending``."""
    return ascending.gather(1, x.argsort(1).argsort(1))


def _off_diagonal(weights: Tensor) -> Tensor:
    apart = weights.clone()
    apart.diagonal(dim1=1, dim2=2).zero_()
    return apart


def _no_value(derivative: Tensor, x: Tensor) -> Tensor:
    """Zero, (B,), whose derivative by x (B, ...) is ``derivative``."""
    return (derivative * (x - x.detach())).flatten(1).sum(1)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(-1, keepdim=True)
