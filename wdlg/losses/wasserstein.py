"""The paper's Wasserstein distance between two gradients (section 3.3, Algorithm 2 "WDCA"), in every reading.

:func:`wdca` is Algorithm 2 as printed, for two sets of points; :class:`Wasserstein` is the loss of an attack:
points (:mod:`wdlg.losses.points`) x ground cost (:mod:`wdlg.losses.transport`) x solver
(:mod:`wdlg.losses.sinkhorn`) x value and derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial

import torch
from torch import Tensor

from wdlg.errors import (
    InputError,
    require_choice,
    require_count,
    require_flag,
    require_not_negative,
    require_positive,
)
from wdlg.losses.points import Points, RankOne, kernels, rows, scalars, squared_distances, tensors
from wdlg.losses.rank_one import RankOneRows
from wdlg.losses.sinkhorn import ROUND, exact_assignment, sinkhorn_plan, unrolled_sinkhorn_plan
from wdlg.losses.transport import (
    COSTS,
    ROOTS,
    add_up,
    divergence,
    ground_cost,
    permutation_plan,
    solve_together,
    thinning,
    unit_of,
)
from wdlg.shapes import require_alike, require_tensor
from wdlg.updates.gradient import Gradient

POINTS = ("rows", "kernels", "scalars", "tensors")
MASSES = ("share", "one", "relative")
VALUES = ("plain", "dual", "debiased")
DERIVATIVES = ("envelope", "unrolled")

RANK_ONE_ABOVE = 500
"""With more classes than this, the output layer is transported without a matrix of all pairs of classes. Only
the plain reading can be, apart from its units, masses and roots: the others write that matrix out."""


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

    Raises:
        InputError: the points are no such tensors, or a setting is out of range.

    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> distance, plan = wdca(x, x + 2.0, eps=0.5)  # without regularisation, 2² = 4
    >>> round(distance.item(), 2)
    4.12
    """
    require_tensor("x", x, ("n", "d"))
    require_tensor("y", y, ("m", x.shape[1]))
    require_alike("y", y, "x", x)
    require_positive("eps", eps)
    require_count("max_iterations", max_iterations)
    require_positive("threshold", threshold)
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
    """The loss of WDLG: entropic transport cost between the points of two gradients, over all parameters.

    The paper leaves open much of what its distance is; each open question is a setting. The defaults are the
    plain reading: ``<P, C>`` between gradient rows, squared cost, summed over parameters, where mass moves
    freely between the units of a layer, and the derivative holds the plan fixed. ``eps = 0.1`` and at most
    100 iterations are ours, since the paper's values are not printed: they are what widely used PyTorch
    layers of Sinkhorn's algorithm take.

    A parameter is one transport problem, or under "kernels" many. "The unit" of a problem is the median of
    its cost matrix (over at most 500 evenly spaced points of either side), but at least a tenth of its mean
    (:func:`~wdlg.losses.transport.unit_of`); it is a constant to the derivative.

    Args:
        eps: strength of the entropic regularisation, in the units of the cost; 0 for exact transport, by
            sorting where points lie on a line, or else by assignment.
        max_iterations: the most Sinkhorn iterations for each problem.
        threshold: stop a problem when ``sum |u - u_prev|`` falls below this. Not used by "unrolled".
        points: "rows" (one for each output unit), "kernels" (:func:`~wdlg.losses.points.kernels`), "scalars"
            (every entry a point on the line; exact transport only) or "tensors" (one for each parameter; the
            distance is then the Euclidean one).
        kernel_width: side of the convolution kernels, for "kernels".
        mass: of each point: "share" (1/n each), "one", which makes the cost n times as large, or "relative"
            (1/(n m²), with m the root mean square norm of the problem's shared points), which makes a squared
            cost a relative error: no parameter outweighs another because its gradient is larger. A problem
            whose shared points are all zero then costs nothing.
        cost: of moving mass over the distance d: "squared", "euclidean" or "pseudo_huber", which is
            ``s² (sqrt(1 + d²/s²) - 1)`` with s = ``huber_scale`` times the root mean square norm of the
            problem's shared points. A problem whose shared points are all zero then costs nothing.
        huber_scale: where "pseudo_huber" goes over from a square to a line.
        root: "none", "each" (of each problem's cost: W_2) or "total" (of their sum); squared cost only. The
            derivative of a root at 0 is 0.
        relative: eps is in the unit of its problem. The loss is then homogeneous like its cost.
        value: "plain" is ``<P, C>``; "dual" is the regularised objective ``<P, C + L> + eps KL(P | a b^T)``
            that P minimises, with L the positional penalty; "debiased" is the Sinkhorn divergence
            ``OT(x, y) - OT(x, x)/2 - OT(y, y)/2`` of these, with the eps of OT(x, y). At equality "plain" and
            "dual" are above zero; "debiased" is zero and so is its slope.
        derivative: "envelope" holds the plan fixed. By the envelope theorem that is exact for "dual" and
            "debiased" once Sinkhorn's algorithm has converged, and for "plain" only where eps is 0.
            "unrolled" goes through all ``max_iterations`` iterations, in the log domain. Units are constants
            to both.
        penalty: L, the cost added for moving mass i -> j, i != j, in the unit of its problem. It steers the
            plan and is no part of the plain value. At ``inf`` every point stays with its counterpart, without
            a solver, and eps has no effect: with mass "one" this is the squared Euclidean distance.

    Raises:
        InputError: a setting is out of range, or two settings do not go together.
    """

    eps: float = 0.1
    max_iterations: int = 100
    threshold: float = 1e-3
    _: KW_ONLY
    points: str = "rows"
    kernel_width: int = 5
    mass: str = "share"
    cost: str = "squared"
    huber_scale: float = 0.01
    root: str = "none"
    relative: bool = False
    value: str = "plain"
    derivative: str = "envelope"
    penalty: float = 0.0

    def __post_init__(self) -> None:
        require_not_negative("eps", self.eps)
        require_count("max_iterations", self.max_iterations)
        require_positive("threshold", self.threshold)
        require_choice("points", self.points, POINTS)
        require_count("kernel_width", self.kernel_width)
        require_choice("mass", self.mass, MASSES)
        require_choice("cost", self.cost, COSTS)
        require_positive("huber_scale", self.huber_scale)
        require_choice("root", self.root, ROOTS)
        require_flag("relative", self.relative)
        require_choice("value", self.value, VALUES)
        require_choice("derivative", self.derivative, DERIVATIVES)
        require_not_negative("penalty", self.penalty, or_infinite=True)
        self._require_fitting()

    def _require_fitting(self) -> None:
        """Refuse settings that are sound alone and do not go together."""

        def refuse(name: str, allowed: str, where: str) -> None:
            raise InputError(f"{name} is {getattr(self, name)!r}, but must be {allowed} where {where}.")

        if self.points == "scalars":
            if self.eps != 0:
                refuse("eps", "0", "points is 'scalars'")
            if self.penalty not in (0, math.inf):
                refuse("penalty", "0 or inf", "points is 'scalars'")
        if self.cost != "squared" and self.root != "none":
            refuse("root", "'none'", f"cost is {self.cost!r}")
        if self.derivative == "unrolled" and (self.eps == 0 or self.penalty == math.inf):
            where = "eps is 0" if self.eps == 0 else "penalty is inf"
            refuse("derivative", "'envelope'", where)
        if self.value == "dual" and self.penalty == math.inf:
            refuse("value", "'plain' or 'debiased'", "penalty is inf")

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""
        pairs = self._pairs(dummy, shared)
        costs = [self._exact(points) for points in pairs] if self._is_exact else self._entropic(pairs)
        if self.mass != "share":
            costs = [self._mass(points) * cost for points, cost in zip(pairs, costs, strict=True)]
        return add_up(costs, len(dummy), self.root)

    def couplings(self, dummy: Gradient, shared: Gradient) -> list[Tensor]:
        """Transport plans of each parameter, in the order of ``torch.nn.Module.parameters``.

        Returns:
            Each (B, n, n) without a graph, of total mass 1; (B, problems, n, n) for a parameter that is
            several problems, under "kernels".

        Raises:
            InputError: points are scalars, whose plans would have as many entries as the gradient squared.
        """
        if self.points == "scalars":
            raise InputError("points is 'scalars', but must be one of rows, kernels, tensors for couplings.")
        pairs = self._pairs(dummy.detach(), shared)
        if self._is_exact:
            plans = [permutation_plan(self._permutation(points)[0], points.paired()) for points in pairs]
        else:
            plans = self._plans([self._problem(points) for points in pairs])
        several = [plan.detach().unflatten(0, (len(dummy), -1)) for plan in plans]
        return [plan[:, 0] if plan.shape[1] == 1 else plan for plan in several]

    @property
    def _is_exact(self) -> bool:
        return self.eps == 0 or self.penalty == math.inf or self.points == "tensors"

    def _pairs(self, dummy: Gradient, shared: Gradient) -> list[Points]:
        if self.points == "kernels":
            return kernels(dummy, shared, self.kernel_width)
        return {"rows": rows, "scalars": scalars, "tensors": tensors}[self.points](dummy, shared)

    def _mass(self, points: Points) -> Tensor | int:
        """Mass of all points of a problem together."""
        if self.mass == "one":
            return points.count
        squared = points.shared_size().detach().square()
        return torch.where(squared > 0, 1 / squared, 0.0)

    def _scale(self, points: Points) -> Tensor:
        return self.huber_scale * points.shared_size().detach()

    def _problem(self, points: Points, like: _Problem | None = None) -> _Problem:
        """The problem between these points, in its own units or in those of another."""
        squared = points.squared().requires_grad_(not self._weights_are_plans)
        with torch.enable_grad():
            scale = self._scale(points) if like is None else like.scale
            cost = ground_cost(squared, self.cost, scale)
            if like is not None:
                unit = like.unit
            elif self.relative or self.penalty:
                step = thinning(points.count)
                unit = unit_of(cost.detach()[:, ::step, ::step], cost.detach().mean((1, 2)))[:, None, None]
            else:
                unit = torch.ones_like(scale)[:, None, None]
            steered = cost
            if self.penalty:
                moved = 1 - torch.eye(points.count, dtype=cost.dtype, device=cost.device)
                steered = cost + self.penalty * unit * moved
        return _Problem(points, squared, cost, steered, scale, unit)

    # Exact transport is along a permutation: that of least cost, or the identity.

    def _exact(self, points: Points) -> Tensor:
        """Cost of each problem, (P,)."""
        order, penalty = self._permutation(points)
        cost = ground_cost(points.paired(order), self.cost, self._scale(points)).mean(1)
        return cost if self.value == "plain" else cost + penalty

    def _permutation(self, points: Points) -> tuple[Tensor | None, Tensor | float]:
        """The best permutation (P, n), None for the identity, and the penalty that it pays, (P,)."""
        if self.penalty == math.inf or points.count == 1:
            return None, 0.0
        if not self.penalty:
            order = points.sorted_order(squared_cost=self.cost == "squared")
            if order is not None:
                return order, 0.0
        problem = self._problem(points)
        order = exact_assignment(problem.steered)
        moved = order != torch.arange(points.count, device=order.device)
        return order, self.penalty * problem.unit[:, 0, 0] * moved.to(problem.unit).mean(1)

    # Entropic transport: solve for plans, value them, and differentiate by the squared distances.

    def _entropic(self, pairs: list[Points]) -> list[Tensor]:
        """Cost of each problem of each parameter, (P,)."""
        apart = self._without_matrix(pairs[-2:])
        problems = [self._problem(points) for points in pairs[: len(pairs) - len(apart)]]
        if self.value == "debiased":
            return self._debiased(problems)
        solved = zip(problems, *self._solve(problems), strict=True)
        return [value + each.points.pull(weight) for each, value, weight in solved] + apart

    def _debiased(self, problems: list[_Problem]) -> list[Tensor]:
        ours = [self._problem(each.points.of_dummy(), each) for each in problems]
        theirs = [self._problem(each.points.of_shared(), each) for each in problems]
        values, weights = self._solve([*problems, *ours, *theirs])
        costs = []
        for place, (each, our) in enumerate(zip(problems, ours, strict=True)):
            value, our_value, their_value = values[place :: len(problems)]
            weight, our_weight, _ = weights[place :: len(problems)]
            if self.derivative == "unrolled":
                # The dummy is on both sides. A plan held fixed is symmetric as far as it has converged, and
                # one side alone cancels at equality even if it has not.
                our_weight = (our_weight + our_weight.transpose(1, 2)) / 2
            pull = each.points.pull(weight) - our.points.pull(our_weight)
            costs.append(value - our_value / 2 - their_value / 2 + pull)
        return costs

    def _solve(self, problems: list[_Problem]) -> tuple[list[Tensor], list[Tensor]]:
        """Value (P,) of each, without a graph, and its derivative by the squared distances, (P, n, n)."""
        plans = self._plans(problems)
        with torch.enable_grad():
            values = [self._value(each, plan) for each, plan in zip(problems, plans, strict=True)]
            if self._weights_are_plans:
                return values, plans
            total = torch.stack([value.sum() for value in values]).sum()
            weights = torch.autograd.grad(total, [each.squared for each in problems])
        return [value.detach() for value in values], list(weights)

    def _value(self, problem: _Problem, plan: Tensor) -> Tensor:
        if self.value == "plain":
            return (plan * problem.cost).sum((1, 2))
        eps = self.eps * problem.unit[:, 0, 0] if self.relative else self.eps
        return (plan * problem.steered).sum((1, 2)) + eps * divergence(plan)

    def _plans(self, problems: list[_Problem]) -> list[Tensor]:
        """Entropic plan (P, n, n) of each, with a graph for "unrolled" only."""
        solver: Callable[[Tensor], Tensor] = partial(
            sinkhorn_plan, eps=self.eps, max_iterations=self.max_iterations, threshold=self.threshold
        )
        if self.derivative == "unrolled":
            solver = partial(unrolled_sinkhorn_plan, eps=self.eps, max_iterations=self.max_iterations)
        with torch.set_grad_enabled(self.derivative == "unrolled"):
            return solve_together(
                solver, [each.steered / each.unit if self.relative else each.steered for each in problems]
            )

    @property
    def _weights_are_plans(self) -> bool:
        """Whether the derivative by the squared distances is the plan itself."""
        return self.derivative == "envelope" and self.cost == "squared"

    def _without_matrix(self, output: list[Points]) -> list[Tensor]:
        """Costs of the output layer's weight and bias where no matrix of all pairs is needed, else none."""
        weight, bias = output
        fits = self.value == "plain" and self._weights_are_plans and not self.penalty
        if not fits or not isinstance(weight, RankOne) or not isinstance(bias, RankOne):
            return []
        if weight.count <= RANK_ONE_ABOVE:
            return []
        both = [weight, bias]
        units = [each.shared_size().new_ones(len(each.e)) for each in both]
        if self.relative:
            step = thinning(weight.count)
            units = [unit_of(each.thinned(step).squared(), each.mean_squared()) for each in both]
        unit = torch.cat(units)
        problems = RankOneRows(
            left=torch.cat([each.e for each in both]),
            right=torch.cat([each.s for each in both]),
            left_square=torch.cat([each.f.square().sum(1) for each in both]) / unit,
            right_square=torch.cat([each.g.square().sum(1) for each in both]) / unit,
            coupling=torch.cat([(each.f * each.g).sum(1) for each in both]) / unit,
        )
        if not problems.is_within_range(self.eps):
            return []
        cost = problems.transport_cost(
            eps=self.eps, max_iterations=self.max_iterations, threshold=self.threshold, look_every=ROUND
        )
        return list((unit * cost).chunk(2))


@dataclass(frozen=True)
class _Problem:
    """P transport problems, ready to be solved.

    Attributes:
        points: the points.
        squared: their squared distances (P, n, n), leaves of a graph unless the weights are plans.
        cost: the ground cost C.
        steered: C + L, with the positional penalty.
        scale: of the pseudo-Huber cost, (P,).
        unit: of eps and penalty, (P, 1, 1).
    """

    points: Points
    squared: Tensor
    cost: Tensor
    steered: Tensor
    scale: Tensor
    unit: Tensor


def row_costs(dummy: Gradient, shared: Gradient) -> list[Tensor]:
    """Squared distance between every row of the dummy and of the shared gradient, for each parameter.

    A bias gradient has one row of length 1 for each unit.

    Returns:
        One cost matrix (B, n, n) for each parameter, in the order of ``torch.nn.Module.parameters``,
        without a graph.
    """
    return [points.squared() for points in rows(dummy, shared)]
