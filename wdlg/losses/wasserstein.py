"""The paper's Wasserstein distance between two gradients (section 3.3, Algorithm 2 "WDCA"), in every reading.

:func:`wdca` is Algorithm 2 as printed, for two sets of points; :class:`Wasserstein` is the loss of an attack.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import torch
from torch import Tensor

from wdlg.errors import require_count, require_positive
from wdlg.losses.ground_cost import GroundCost
from wdlg.losses.point_sets import squared_distances
from wdlg.losses.points import Partition, rows
from wdlg.losses.reading import Reading
from wdlg.losses.solver import Solver
from wdlg.losses.total import Total
from wdlg.losses.value import Value
from wdlg.shapes import require_alike, require_tensor
from wdlg.updates.gradient import Gradient


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

    The settings stand side by side here, as in study files and records. They mean what the parts of the
    reading say, which are built from them and refuse what does not go together (:attr:`reading`).

    Args:
        eps: strength of the entropic regularisation; 0 for exact transport.
        max_iterations: the most Sinkhorn iterations for each problem.
        threshold: at which they stop (:class:`~wdlg.losses.solver.Solver`, as the two before).
        points: "rows", "kernels", "scalars" (exact transport only) or "tensors" (the distance is then the
            Euclidean one).
        kernel_width: for "kernels" (:class:`~wdlg.losses.points.Partition`, as the one before).
        mass: of each point: "share", "one" or "relative" (:class:`~wdlg.losses.total.Total`).
        cost: of moving mass: "squared", "euclidean" or "pseudo_huber".
        huber_scale: for "pseudo_huber" (:class:`~wdlg.losses.ground_cost.GroundCost`, as the one before).
        root: "none", "each" or "total" (:class:`~wdlg.losses.total.Total`); squared cost only.
        relative: eps is in the unit of its problem (:class:`~wdlg.losses.solver.Solver`). The loss is then
            homogeneous like its cost.
        value: "plain", "dual" or "debiased".
        derivative: "envelope" or "unrolled" (:class:`~wdlg.losses.value.Value`, as the one before).
        penalty: for moving mass between points that are no counterparts, up to ``inf``
            (:class:`~wdlg.losses.solver.Solver`). It steers the plan and is no part of the plain value. At
            ``inf`` with mass "one" the loss is the squared Euclidean distance.

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
        _ = self.reading  # which refuses what cannot be

    @cached_property
    def reading(self) -> Reading:
        """The loss itself."""
        return Reading(
            Partition(self.points, self.kernel_width),
            GroundCost(self.cost, self.huber_scale),
            Solver(self.eps, self.max_iterations, self.threshold, self.relative, self.penalty),
            Value(self.value, self.derivative),
            Total(self.mass, self.root),
        )

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""
        return self.reading(dummy, shared)

    def couplings(self, dummy: Gradient, shared: Gradient) -> list[Tensor]:
        """Transport plans of each parameter, in the order of ``torch.nn.Module.parameters``.

        Returns:
            Each (B, n, n) without a graph, of total mass 1; (B, problems, n, n) for a parameter that is
            several problems, under "kernels".

        Raises:
            InputError: points are scalars, whose plans would have as many entries as the gradient squared.
        """
        return self.reading.couplings(dummy, shared)


def row_costs(dummy: Gradient, shared: Gradient) -> list[Tensor]:
    """Squared distance between every row of the dummy and of the shared gradient, for each parameter.

    A bias gradient has one row of length 1 for each unit.

    Returns:
        One cost matrix (B, n, n) for each parameter, in the order of ``torch.nn.Module.parameters``,
        without a graph.
    """
    return [points.squared() for points in rows(dummy, shared)]
