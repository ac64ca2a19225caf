"""The paper's Wasserstein distance between two gradients (section 3.3, Algorithm 2 "WDCA").

The plain reading of the paper: the points of a parameter's gradient are its rows (one for each output
unit), both gradients weigh their n points equally, the ground cost is the squared Euclidean distance
between rows, and the distances of all parameters add up. Nothing ties row i of one gradient to row i of
the other: mass moves freely between the units of a layer.

:func:`wdca` is Algorithm 2 as printed, for two sets of points; :class:`Wasserstein` is the loss of an attack,
on the batched solvers of :mod:`wdlg.losses.sinkhorn`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wdlg.errors import require_count, require_not_negative, require_positive
from wdlg.gradients import Gradient
from wdlg.losses.euclidean import rank_one_squared_distance
from wdlg.losses.rank_one import RankOneRows
from wdlg.losses.sinkhorn import ROUND, exact_assignment, sinkhorn_plan

RANK_ONE_ABOVE = 500
"""With more classes than this, the output layer is transported without a matrix of all pairs of classes."""


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distance between every row of x (..., n, d) and of y (..., m, d): (..., n, m)."""
    return (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)


def wdca(
    x: Tensor, y: Tensor, *, eps: float = 0.1, max_iterations: int = 100, threshold: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Approximate Wasserstein distance between two sets of points: Algorithm 2, line by line.

    Exponentials are not guarded, exactly as printed: where ``C / eps`` exceeds about 88 (float32) or 745
    (float64) the kernel underflows to 0 and the result is NaN. :class:`Wasserstein` has no such limit.

    Args:
        x: points of the first gradient, (n, d).
        y: points of the second gradient, (m, d).
        eps: strength of the entropic regularisation, in the units of the cost.
        max_iterations: the most iterations that are made.
        threshold: stop when ``sum |u - u_prev|`` falls below this.

    Returns:
        The distance ``<P, C>``, a scalar, and the transport plan P, (n, m).

    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> distance, plan = wdca(x, x + 2.0, eps=0.5)  # without regularisation, 2² = 4
    >>> round(distance.item(), 2)
    4.12
    """
    n, m = len(x), len(y)
    a, b = x.new_full((n,), 1 / n), y.new_full((m,), 1 / m)
    C = squared_distances(x, y)
    K = torch.exp(-C / eps)
    u, v = torch.ones_like(a), torch.ones_like(b)
    for _ in range(max_iterations):
        u_prev = u
        u = a / (K @ v)
        v = b / (K.T @ u)
        if (u - u_prev).abs().sum() < threshold:
            break
    P = u[:, None] * K * v[None, :]
    return (P * C).sum(), P


@dataclass(frozen=True)
class Wasserstein:
    """The loss of WDLG: entropic transport cost ``<P, C>`` between gradient rows, summed over parameters.

    The derivative holds the plan fixed. By the envelope theorem that is the exact derivative of the
    regularised value ``<P, C> - eps H(P)``, and of ``<P, C>`` only in the limit eps -> 0. ``<P, C>`` of an
    entropic plan is above zero even for equal gradients.

    The defaults are ours, since the paper's values are not printed: ``eps = 0.1`` and at most 100
    iterations are what widely used PyTorch layers of Sinkhorn's algorithm take.

    Args:
        eps: strength of the entropic regularisation, in the units of the squared cost; 0 for the exact
            distance, by assignment, where the other settings have no effect.
        max_iterations: the most Sinkhorn iterations for each problem.
        threshold: stop a problem when ``sum |u - u_prev|`` falls below this.

    Raises:
        InputError: a setting is negative, NaN or no number, or a zero other than that of eps.
    """

    eps: float = 0.1
    max_iterations: int = 100
    threshold: float = 1e-3

    def __post_init__(self) -> None:
        require_not_negative("eps", self.eps)
        require_count("max_iterations", self.max_iterations)
        require_positive("threshold", self.threshold)

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""
        parameters = _parameters(dummy, shared)
        if self.eps == 0:
            return _sum([rows.exact_distance() for rows in parameters])
        total = dummy.error.new_zeros(len(dummy))
        if dummy.error.shape[-1] > RANK_ONE_ABOVE:
            output = _without_matrix(dummy, shared)
            if output.is_within_range(self.eps):
                cost = output.transport_cost(
                    eps=self.eps,
                    max_iterations=self.max_iterations,
                    threshold=self.threshold,
                    look_every=ROUND,
                )
                total = cost.view(2, -1).sum(0)
                parameters = parameters[:-2]
        costs = [rows.costs() for rows in parameters]
        plans = self.plans(costs)
        return total + _sum(
            [rows.carried(*pair) for rows, *pair in zip(parameters, plans, costs, strict=True)]
        )

    def plans(self, costs: list[Tensor]) -> list[Tensor]:
        """Entropic transport plans for cost matrices, each (B, n, n); one size is solved together."""
        by_size: dict[int, list[int]] = defaultdict(list)
        for place, cost in enumerate(costs):
            by_size[cost.shape[-1]].append(place)
        found: dict[int, Tensor] = {}
        for places in by_size.values():
            solved = sinkhorn_plan(
                torch.cat([costs[place] for place in places]),
                eps=self.eps,
                max_iterations=self.max_iterations,
                threshold=self.threshold,
            )
            found.update(zip(places, solved.chunk(len(places)), strict=True))
        return [found[place] for place in range(len(costs))]


def row_costs(dummy: Gradient, shared: Gradient) -> list[Tensor]:
    """Squared distance between every row of the dummy and of the shared gradient, for each parameter.

    A bias gradient has one row of length 1 for each unit.

    Returns:
        One cost matrix (B, n, n) for each parameter, in the order of ``torch.nn.Module.parameters``,
        without a graph.
    """
    return [rows.costs() for rows in _parameters(dummy, shared)]


class _Rows(Protocol):
    """The rows of one parameter's two gradients: x_1 ... x_n of the dummy and y_1 ... y_n, the shared one."""

    def costs(self) -> Tensor:
        """Squared distances ``|x_i - y_j|²``, (B, n, n), without a graph."""

    def carried(self, plan: Tensor, costs: Tensor) -> Tensor:
        """``sum_ij P_ij |x_i - y_j|²``, (B,), with the derivative that holds the plan fixed."""

    def exact_distance(self) -> Tensor:
        """The least mean of ``|x_i - y_s(i)|²`` over all permutations s, (B,)."""


@dataclass(frozen=True)
class _WrittenOut:
    """Rows as they are, (B, n, d)."""

    x: Tensor
    y: Tensor

    def costs(self) -> Tensor:
        return squared_distances(self.x.detach(), self.y)

    def carried(self, plan: Tensor, costs: Tensor) -> Tensor:
        x = self.x.detach()
        mass = plan.sum(2, keepdim=True)
        # Half the derivative, sum_j P_ij (x_i - y_j), around y_i: nothing cancels as x comes close to y.
        pull = mass * (x - self.y) + (mass * self.y - plan @ self.y)
        return (plan * costs).sum((1, 2)) + 2 * _no_value(pull, self.x)

    def exact_distance(self) -> Tensor:
        order = exact_assignment(self.costs())
        return (self.x - self.y.take_along_dim(order[:, :, None], 1)).square().sum(2).mean(1)


@dataclass(frozen=True)
class _RankOne:
    """The rows ``e_i f`` and ``s_j g`` of the output layer's weight gradient: e, s (B, n) and f, g (B, d)."""

    e: Tensor
    f: Tensor
    s: Tensor
    g: Tensor

    def costs(self) -> Tensor:
        # |e_i f - s_j g|² around f - g = h:  (e_i - s_j)² |f|² + 2 (e_i - s_j) s_j f·h + s_j² |h|².
        e, f = self.e.detach(), self.f.detach()
        h = f - self.g
        difference = e[:, :, None] - self.s[:, None, :]
        theirs = self.s[:, None, :]
        return (
            difference.square() * _dot(f, f)[:, None]
            + 2 * difference * theirs * _dot(f, h)[:, None]
            + theirs.square() * _dot(h, h)[:, None]
        )

    def carried(self, plan: Tensor, costs: Tensor) -> Tensor:
        # Half the derivative by row i is q_i f + (P s)_i h, with q_i = sum_j P_ij (e_i - s_j).
        e, f = self.e.detach(), self.f.detach()
        h = f - self.g
        mass = plan.sum(2)
        arriving = (self.s[:, None, :] @ plan.transpose(1, 2))[:, 0]
        q = mass * (e - self.s) + (mass * self.s - arriving)
        by_e = q * _dot(f, f) + arriving * _dot(f, h)
        by_f = _dot(e, q) * f + _dot(e, arriving) * h
        return (plan * costs).sum((1, 2)) + 2 * (_no_value(by_e, self.e) + _no_value(by_f, self.f))

    def exact_distance(self) -> Tensor:
        # The rows lie on two lines, so the best permutation sorts: alike if f and g point the same way.
        ascending = self.s.argsort(1)
        same_way = _dot(self.f.detach(), self.g) >= 0
        order = torch.where(same_way, ascending, ascending.flip(1))
        ranks = self.e.detach().argsort(1).argsort(1)
        s = self.s.gather(1, order.gather(1, ranks))
        return rank_one_squared_distance((self.e, self.f), (s, self.g)) / self.e.shape[1]


def _parameters(dummy: Gradient, shared: Gradient) -> list[_Rows]:
    """In the order of ``torch.nn.Module.parameters``."""
    one = torch.ones_like(dummy.error[:, :1])
    return [
        *map(_WrittenOut, dummy.hidden, shared.hidden),
        _RankOne(dummy.error, dummy.features, shared.error, shared.features),
        _RankOne(dummy.error, one, shared.error, one),
    ]


def _without_matrix(dummy: Gradient, shared: Gradient) -> RankOneRows:
    """The output layer's weight and then its bias, as 2 B pairs of rank-one row sets."""
    ones = torch.ones_like(dummy.error[:, 0])
    return RankOneRows(
        left=dummy.error.repeat(2, 1),
        right=shared.error.repeat(2, 1),
        left_square=torch.cat((dummy.features.square().sum(1), ones)),
        right_square=torch.cat((shared.features.square().sum(1), ones)),
        coupling=torch.cat(((dummy.features * shared.features).sum(1), ones)),
    )


def _no_value(derivative: Tensor, x: Tensor) -> Tensor:
    """Zero, (B,), whose derivative by x (B, ...) is ``derivative``."""
    return (derivative * (x - x.detach())).flatten(1).sum(1)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(-1, keepdim=True)


def _sum(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum(0)
