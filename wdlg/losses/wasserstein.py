"""The paper's Wasserstein distance between two gradients (section 3.3, Algorithm 2 "WDCA").

The plain reading of the paper: the points of a parameter's gradient are its rows (one for each output
unit), both gradients weigh their n points equally, the ground cost is the squared Euclidean distance
between rows, and the distances of all parameters add up. Nothing ties row i of one gradient to row i of
the other: mass moves freely between the units of a layer.

:func:`wdca` is Algorithm 2 as printed, for two sets of points. :func:`sinkhorn_plan` is what attacks use:
the same iteration in the log domain, many problems at once, on POT's batched solver.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from ot.batch import bregman_log_projection_batch
from torch import Tensor

from wdlg.errors import require_count, require_positive
from wdlg.gradients import Gradient
from wdlg.losses.rank_one import RankOneRows

RANK_ONE_ABOVE = 500
"""With more classes than this, the output layer is transported without a matrix of all pairs of classes."""

ROUND = 10
"""Sinkhorn iterations between two looks at the stopping rule in :func:`sinkhorn_plan`."""


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distance between every row of x (..., n, d) and of y (..., m, d): (..., n, m)."""
    return (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)


def wdca(
    x: Tensor, y: Tensor, *, eps: float = 0.1, max_iterations: int = 100, threshold: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Approximate Wasserstein distance between two sets of points: Algorithm 2, line by line.

    Exponentials are not guarded, exactly as printed: where ``C / eps`` exceeds about 88 (float32) or 745
    (float64) the kernel underflows to 0 and the result is NaN. :func:`sinkhorn_plan` has no such limit.

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


def sinkhorn_plan(
    cost: Tensor, *, eps: float = 0.1, max_iterations: int = 100, threshold: float = 1e-3
) -> Tensor:
    """Entropic transport plans between uniform marginals: the iteration of :func:`wdca` in the log domain.

    Runs POT's ``bregman_log_projection_batch`` in rounds of 10 iterations. After a round the potentials are
    absorbed in the kernel, so that the next round continues where it stopped; a problem whose
    ``sum |u - u_prev|`` fell below ``threshold`` leaves. (POT's own rule stops all problems of a batch
    together, on the worst of them, which would let attacks influence each other.)

    Args:
        cost: cost matrices (P, n, m) of P separate problems.
        eps: strength of the entropic regularisation, in the units of the cost.
        max_iterations: the most iterations for each problem.
        threshold: the stopping rule of Algorithm 2, looked at every 10 iterations.

    Returns:
        Plans (P, n, m), without a graph. A problem that reached ``max_iterations`` may miss its first
        marginal; the second always holds to rounding.
    """
    problems, n, m = cost.shape
    log_kernel = -cost.detach() / eps
    log_plan = torch.empty_like(log_kernel)
    a, b = cost.new_full((problems, n), 1 / n), cost.new_full((problems, m), 1 / m)
    log_u = cost.new_zeros(problems, n)
    active = torch.arange(problems, device=cost.device)
    for done in range(0, max_iterations, ROUND):
        result = bregman_log_projection_batch(
            log_kernel, a, b, max_iter=min(ROUND, max_iterations - done), tol=0.0
        )
        log_kernel = result["log_T"]
        log_u = log_u + result["potentials"][0]
        # One more half step would multiply u by a / (P 1): Algorithm 2's change of u, for free.
        change = (log_u.exp() * (a / result["T"].sum(2) - 1).abs()).sum(1)
        finished = change < threshold
        log_plan[active[finished]] = log_kernel[finished]
        if finished.all():
            return log_plan.exp()
        if finished.any():
            going = ~finished
            active, log_kernel, log_u = active[going], log_kernel[going], log_u[going]
            a, b = a[going], b[going]
    log_plan[active] = log_kernel
    return log_plan.exp()


def row_costs(dummy: Gradient, shared: Gradient) -> list[Tensor]:
    """Squared distance between every row of the dummy and of the shared gradient, for each parameter.

    A bias gradient has one row of length 1 for each unit. The output layer's weight gradient is rank one,
    ``error ⊗ features``, so its costs need only inner products of the factors: no K x M matrix.

    Returns:
        One cost matrix (B, n, n) for each parameter, in the order of ``torch.nn.Module.parameters``.
    """
    return [*_hidden_costs(dummy, shared), *_output_costs(dummy, shared)]


def _hidden_costs(dummy: Gradient, shared: Gradient) -> list[Tensor]:
    costs = []
    for weight, bias, other_weight, other_bias in zip(
        dummy.weights, dummy.biases, shared.weights, shared.biases, strict=True
    ):
        costs.append(squared_distances(weight, other_weight))
        costs.append(squared_distances(bias[:, :, None], other_bias[:, :, None]))
    return costs


def _output_costs(dummy: Gradient, shared: Gradient) -> list[Tensor]:
    # |e_i f - s_j g|² around f - g = h:  (e_i - s_j)² |f|² + 2 (e_i - s_j) s_j f·h + s_j² |h|².
    gap = dummy.features - shared.features
    difference = dummy.error[:, :, None] - shared.error[:, None, :]
    theirs = shared.error[:, None, :]

    def dot(left: Tensor, right: Tensor) -> Tensor:
        return (left * right).sum(-1)[:, None, None]

    weight = (
        difference.square() * dot(dummy.features, dummy.features)
        + 2 * difference * theirs * dot(dummy.features, gap)
        + theirs.square() * dot(gap, gap)
    )
    return [weight, difference.square()]


def _output_rows(dummy: Gradient, shared: Gradient) -> RankOneRows:
    """The output layer's weight and then its bias, as 2 B pairs of rank-one row sets."""
    ones = torch.ones_like(dummy.error[:, 0])
    return RankOneRows(
        left=dummy.error.repeat(2, 1),
        right=shared.error.repeat(2, 1),
        left_square=torch.cat((dummy.features.square().sum(1), ones)),
        right_square=torch.cat((shared.features.square().sum(1), ones)),
        coupling=torch.cat(((dummy.features * shared.features).sum(1), ones)),
    )


@dataclass(frozen=True)
class Wasserstein:
    """The loss of WDLG: entropic transport cost ``<P, C>`` between gradient rows, summed over parameters.

    The derivative holds the plan fixed. By the envelope theorem that is the exact derivative of the
    regularised value ``<P, C> - eps H(P)``, and of ``<P, C>`` only in the limit eps -> 0. ``<P, C>`` of an
    entropic plan is above zero even for equal gradients.

    The defaults are ours, since the paper's values are not printed: ``eps = 0.1`` and at most 100
    iterations are what widely used PyTorch layers of Sinkhorn's algorithm take.

    Args:
        eps: strength of the entropic regularisation, in the units of the squared cost.
        max_iterations: the most Sinkhorn iterations for each problem.
        threshold: stop a problem when ``sum |u - u_prev|`` falls below this.

    Raises:
        InputError: a setting is zero, negative, NaN or no number.
    """

    eps: float = 0.1
    max_iterations: int = 100
    threshold: float = 1e-3

    def __post_init__(self) -> None:
        require_positive("eps", self.eps)
        require_count("max_iterations", self.max_iterations)
        require_positive("threshold", self.threshold)

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""
        costs = _hidden_costs(dummy, shared)
        total = dummy.error.new_zeros(len(dummy))
        output = _output_rows(dummy, shared)
        if dummy.error.shape[-1] > RANK_ONE_ABOVE and output.is_within_range(self.eps):
            cost = output.transport_cost(
                eps=self.eps,
                max_iterations=self.max_iterations,
                threshold=self.threshold,
                look_every=ROUND,
            )
            total = cost.view(2, -1).sum(0)
        else:
            costs += _output_costs(dummy, shared)
        by_size: dict[int, list[Tensor]] = defaultdict(list)
        for cost in costs:
            by_size[cost.shape[-1]].append(cost)
        for same_size in by_size.values():
            stacked = torch.stack(same_size)  # (parameters, B, n, n)
            plan = sinkhorn_plan(
                stacked.flatten(0, 1),
                eps=self.eps,
                max_iterations=self.max_iterations,
                threshold=self.threshold,
            )
            total = total + (plan.view_as(stacked) * stacked).sum((0, 2, 3))
        return total
