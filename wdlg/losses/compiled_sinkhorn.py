"""Sinkhorn's iterations, one problem after the other: its plan stays in the core's cache until it is done."""

from __future__ import annotations

import math

import numpy as np

from wdlg.compiled import compile_loops, compile_part


@compile_loops
def rounds(  # type: ignore[no-untyped-def]
    log_kernel,
    plan,
    log_u,
    log_v,
    changed,
    max_iterations,
    threshold,
    a_round,
    most_in_a_round,
    most_between,
):
    """All further iterations of each problem, as :func:`wdlg.losses.sinkhorn.sinkhorn_plan` describes them.

    Args:
        log_kernel: ``-C / eps``, (P, n, m).
        plan: of the first iteration, (P, n, m); becomes the last plan.
        log_u, log_v: logarithms of its scalings, (P, n) and (P, m); go on with the plan.
        changed: what these have changed by since the plan was computed from the kernel, (P,).
        max_iterations, threshold: when to stop.
        a_round: iterations between two looks at the threshold.
        most_in_a_round: scalings whose logarithms grow by more than this in a round are not safe; the round
            is then made in the log domain.
        most_between: when log-scalings have changed by more than this, the plan is computed from the kernel.
    """
    problems, n, m = plan.shape
    u, v, sums = np.empty(n, plan.dtype), np.empty(m, plan.dtype), np.empty(m, plan.dtype)
    for p in range(problems):
        done = 1
        missing = np.inf
        while done < max_iterations and not missing < threshold:
            steps = min(a_round - done % a_round, max_iterations - done)
            _iterate(plan[p], u, v, sums, steps)
            moved = _largest_log(u) + _largest_log(v)
            if moved < most_in_a_round:
                log_u[p] += np.log(u)
                log_v[p] += np.log(v)
                changed[p] += moved
            else:
                _iterate_logarithms(log_kernel[p], log_u[p], log_v[p], sums, steps)
                changed[p] = np.inf
            done += steps
            if changed[p] > most_between:
                changed[p] = 0
                _exponentiate(plan[p], log_kernel[p], log_u[p], log_v[p])
            else:
                _scale(plan[p], u, v)
            missing = _missing(plan[p], log_u[p])


@compile_part
def _iterate(plan, u, v, sums, steps):  # type: ignore[no-untyped-def]
    """Scalings u and v of the plan after some iterations from 1.

    ``u = a / (P v)`` and ``v = b / (P^T u)`` in one pass: the second product takes rows while they are near,
    and four at once, so that v and the sums are read once for four.
    """
    n, m = plan.shape
    fours = n - n % 4
    v[:] = 1
    for _ in range(steps):
        sums[:] = 0
        for i in range(0, fours, 4):
            r0, r1, r2, r3 = plan[i], plan[i + 1], plan[i + 2], plan[i + 3]
            t0 = t1 = t2 = t3 = v[0] * 0
            for j in range(m):
                t0 += r0[j] * v[j]
                t1 += r1[j] * v[j]
                t2 += r2[j] * v[j]
                t3 += r3[j] * v[j]
            u[i], u[i + 1], u[i + 2], u[i + 3] = 1 / (n * t0), 1 / (n * t1), 1 / (n * t2), 1 / (n * t3)
            s0, s1, s2, s3 = u[i], u[i + 1], u[i + 2], u[i + 3]
            for j in range(m):
                sums[j] += (s0 * r0[j] + s1 * r1[j]) + (s2 * r2[j] + s3 * r3[j])
        for i in range(fours, n):
            row = plan[i]
            total = v[0] * 0
            for j in range(m):
                total += row[j] * v[j]
            u[i] = 1 / (n * total)
            scale = u[i]
            for j in range(m):
                sums[j] += scale * row[j]
        for j in range(m):
            v[j] = 1 / (m * sums[j])


@compile_part
def _iterate_logarithms(log_kernel, log_u, log_v, sums, steps):  # type: ignore[no-untyped-def]
    """The same iterations from log_u and log_v, in the log domain."""
    n, m = log_kernel.shape
    largest = np.empty_like(sums)
    for _ in range(steps):
        sums[:] = 0
        largest[:] = -np.inf
        for i in range(n):
            row = log_kernel[i]
            top = row[0] + log_v[0]
            for j in range(m):
                top = max(top, row[j] + log_v[j])
            total = 0.0
            for j in range(m):
                total += math.exp(row[j] + log_v[j] - top)
            log_u[i] = -math.log(n) - top - math.log(total)
            for j in range(m):
                largest[j] = max(largest[j], row[j] + log_u[i])
        for i in range(n):
            for j in range(m):
                sums[j] += math.exp(log_kernel[i, j] + log_u[i] - largest[j])
        for j in range(m):
            log_v[j] = -math.log(m) - largest[j] - math.log(sums[j])


@compile_part
def _largest_log(scalings):  # type: ignore[no-untyped-def]
    """``max |log u|``; NaN if one is NaN."""
    largest = 0.0
    for scaling in scalings:
        size = abs(math.log(scaling))
        if math.isnan(size):
            return size
        largest = max(largest, size)
    return largest


@compile_part
def _exponentiate(plan, log_kernel, log_u, log_v):  # type: ignore[no-untyped-def]
    """The plan afresh from its logarithm."""
    for i in range(len(log_u)):
        for j in range(len(log_v)):
            plan[i, j] = math.exp(log_kernel[i, j] + log_u[i] + log_v[j])


@compile_part
def _scale(plan, u, v):  # type: ignore[no-untyped-def]
    """``plan[i, j] *= u[i] v[j]``."""
    for i in range(len(u)):
        row, scale = plan[i], u[i]
        for j in range(len(v)):
            row[j] *= scale * v[j]


@compile_part
def _missing(plan, log_u):  # type: ignore[no-untyped-def]
    """``sum |u - u_prev|`` of one more half step, which would multiply u by ``a / (P 1)``."""
    n, m = plan.shape
    missing = 0.0
    for i in range(n):
        row = plan[i]
        total = row[0] * 0
        for j in range(m):
            total += row[j]
        missing += math.exp(log_u[i]) * abs(1 / (n * total) - 1)
    return missing
