"""Optimal transport plans between uniform marginals, many problems at once, none touched by another.

:func:`sinkhorn_plan` is the iteration of Algorithm 2 in a form that is as safe as the log domain and nearly
as fast as products with the kernel. :func:`exact_assignment` is its limit for eps -> 0.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from wdlg import compiled
from wdlg.errors import InputError, require_count, require_positive
from wdlg.shapes import require_tensor

ROUND = 10
"""Iterations between two looks at the stopping rule."""

MOST_IN_A_ROUND = 30.0
"""Scalings that grow or shrink by more than exp of this in one round are left to the log domain."""

MOST_BETWEEN_KERNELS = 20.0
"""When scalings have changed by more than exp of this, the kernel is computed afresh from the costs. An entry
that was too small for single precision, below exp(-87), can by then have come to exp(-37) at most."""


def sinkhorn_plan(
    cost: Tensor, *, eps: float = 0.1, max_iterations: int = 100, threshold: float = 1e-3
) -> Tensor:
    """Entropic transport plans between uniform marginals: the iterates of Algorithm 2, without its underflow.

    The first iteration takes the exponentials. It leaves a plan whose entries and row sums are moderate, and
    the scalings of that plan are moderate too, so the next iterations are products of a matrix and a vector
    instead of sums of exponentials (Schmitzer 2019 calls this absorption). A problem whose scalings
    nevertheless leave the safe range makes its round in the log domain.

    On the CPU the rounds are compiled (``wdlg.losses.compiled_sinkhorn``), elsewhere all problems go in step.

    Args:
        cost: cost matrices (P, n, m) of P separate problems.
        eps: strength of the entropic regularisation, above 0, in the units of the cost.
        max_iterations: the most iterations for each problem.
        threshold: stop when ``sum |u - u_prev|`` falls below this; looked at every 10 iterations.

    Returns:
        Plans (P, n, m), without a graph. A problem that reached ``max_iterations`` may miss its first
        marginal; the second always holds to rounding.

    Raises:
        InputError: cost is no such tensor, or a setting is out of range.
    """
    _require_problems(cost, eps, max_iterations)
    require_positive("threshold", threshold)
    log_kernel = cost.detach() / -eps
    first = _first(log_kernel)
    if not compiled.fits(log_kernel):
        return _rounds(log_kernel, *first, max_iterations, threshold)
    from wdlg.losses.compiled_sinkhorn import rounds

    compiled.run(
        rounds, log_kernel, *first, max_iterations, threshold, ROUND, MOST_IN_A_ROUND, MOST_BETWEEN_KERNELS
    )
    return first[0]


def _first(log_kernel: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Plan (P, n, m) and log-scalings (P, n) and (P, m) after the first iteration.

    Fourth, (P,): what the scalings have changed by since the plan's exponentials were taken.
    """
    _, n, m = log_kernel.shape
    plan = log_kernel.softmax(2).div_(n)
    log_u = plan.amax(2).log() - log_kernel.amax(2)
    v = (m * plan.sum(1)).reciprocal_()
    plan *= v[:, None, :]
    log_v = v.log()
    changed = log_v.abs().amax(1)
    stale = ~(changed < MOST_BETWEEN_KERNELS)  # True for NaN and infinity too
    if stale.any():
        hard = log_kernel[stale]
        log_v[stale] = -math.log(m) - torch.logsumexp(hard + log_u[stale][:, :, None], 1)
        plan[stale] = _absorb(hard, log_u[stale], log_v[stale])
        changed[stale] = 0.0
    return plan, log_u, log_v, changed


def _rounds(
    log_kernel: Tensor,
    plan: Tensor,
    log_u: Tensor,
    log_v: Tensor,
    changed: Tensor,
    max_iterations: int,
    threshold: float,
) -> Tensor:
    """Plans after all further iterations, all problems in step."""
    problems, n, _ = log_kernel.shape
    result = torch.empty_like(plan)
    active = torch.arange(problems, device=plan.device)
    done = 1
    while done < max_iterations:
        steps = min(ROUND - done % ROUND, max_iterations - done)
        plan, log_u, log_v, changed = _round(log_kernel, plan, log_u, log_v, changed, steps)
        done += steps
        # One more half step would multiply u by a / (P 1): Algorithm 2's change of u, for free.
        finished = (log_u.exp() * (1 / (n * plan.sum(2)) - 1).abs()).sum(1) < threshold
        if finished.any():
            result[active[finished]] = plan[finished]
            if finished.all():
                return result
            going = ~finished
            active, plan, changed = active[going], plan[going], changed[going]
            log_kernel, log_u, log_v = log_kernel[going], log_u[going], log_v[going]
    result[active] = plan
    return result


def _round(
    log_kernel: Tensor, plan: Tensor, log_u: Tensor, log_v: Tensor, changed: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What :func:`_first` returns, after some more iterations."""
    u, v = _scale(plan, steps)
    moved = u.log().abs().amax(1) + v.log().abs().amax(1)
    safe = moved < MOST_IN_A_ROUND  # False for NaN too
    log_u_next, log_v_next = log_u + u.log(), log_v + v.log()
    plan = u[:, :, None] * plan * v[:, None, :]
    changed = changed + moved
    if not safe.all():
        hard = ~safe
        log_u_next[hard], log_v_next[hard] = _log_rounds(log_kernel[hard], log_u[hard], log_v[hard], steps)
        changed[hard] = torch.inf
    stale = changed > MOST_BETWEEN_KERNELS
    if stale.any():
        plan[stale] = _absorb(log_kernel[stale], log_u_next[stale], log_v_next[stale])
        changed[stale] = 0.0
    return plan, log_u_next, log_v_next, changed


def _absorb(log_kernel: Tensor, log_u: Tensor, log_v: Tensor) -> Tensor:
    return (log_kernel + log_u[:, :, None]).add_(log_v[:, None, :]).exp_()


def _scale(plan: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Scalings (P, n) and (P, m) after some iterations from 1; rows times a matrix are fast in torch."""
    _, n, m = plan.shape
    transposed = plan.transpose(1, 2)
    v = plan.new_ones(len(plan), 1, m)
    for _ in range(steps):
        u = (n * (v @ transposed)).reciprocal_()
        v = (m * (u @ plan)).reciprocal_()
    return u[:, 0], v[:, 0]


def _log_rounds(log_kernel: Tensor, log_u: Tensor, log_v: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The same iterations from the same potentials in the log domain."""
    from ot.batch import bregman_log_projection_batch  # takes a second, and is hardly ever needed

    problems, n, m = log_kernel.shape
    result = bregman_log_projection_batch(
        log_kernel + log_u[:, :, None] + log_v[:, None, :],
        log_kernel.new_full((problems, n), 1 / n),
        log_kernel.new_full((problems, m), 1 / m),
        max_iter=steps,
        tol=0.0,
    )
    return log_u + result["potentials"][0], log_v + result["potentials"][1]


def unrolled_sinkhorn_plan(cost: Tensor, *, eps: float = 0.1, max_iterations: int = 100) -> Tensor:
    """The iterates of :func:`sinkhorn_plan`, differentiable by the cost through all iterations.

    All in the log domain, and always ``max_iterations``, so that no problem's end depends on another's.

    Args:
        cost: cost matrices (P, n, m) of P separate problems.
        eps, max_iterations: as in :func:`sinkhorn_plan`.

    Returns:
        Plans (P, n, m) with their graph, whose size is that of 4 ``max_iterations`` cost matrices.

    Raises:
        InputError: as :func:`sinkhorn_plan`.
    """
    _require_problems(cost, eps, max_iterations)
    _, n, m = cost.shape
    log_kernel = cost / -eps
    log_v = torch.zeros_like(cost[:, :1, :])
    for _ in range(max_iterations):
        log_u = -math.log(n) - torch.logsumexp(log_kernel + log_v, 2, keepdim=True)
        log_v = -math.log(m) - torch.logsumexp(log_kernel + log_u, 1, keepdim=True)
    return (log_kernel + log_u + log_v).exp()


def _require_problems(cost: Tensor, eps: float, max_iterations: int) -> None:
    require_tensor("cost", cost, ("P", "n", "m"))
    require_positive("eps", eps)
    require_count("max_iterations", max_iterations)


def exact_assignment(cost: Tensor) -> Tensor:
    """The unregularised plan between equally many points of equal weight, which is a permutation.

    Args:
        cost: cost matrices (P, n, n) of P separate problems.

    Returns:
        (P, n): row i is carried whole to column ``[p, i]``, at the least total cost. Where a cost is NaN or
        infinite, as in an attack that has exploded, no plan is least: every row keeps its place.

    Raises:
        InputError: cost is no such tensor, or a matrix is not square.
    """
    require_tensor("cost", cost, ("P", "n", "n"))
    if cost.shape[1] != cost.shape[2]:
        raise InputError(
            f"cost has matrices of {cost.shape[1]} x {cost.shape[2]}, but must have square ones."
        )
    from scipy.optimize import linear_sum_assignment  # takes a third of a second

    columns = [
        linear_sum_assignment(matrix)[1] if np.isfinite(matrix).all() else np.arange(len(matrix))
        for matrix in cost.detach().double().cpu().numpy()
    ]
    return torch.from_numpy(np.stack(columns)).to(cost.device)
