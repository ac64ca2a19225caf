"""One step of L-BFGS for a batch, attack by attack: what :class:`wdlg.optimizers.LBFGS` computes, compiled.

The 200 remembered vectors of an attack are read twice: for the products with the gradient, and for the sum
that is the new direction. Between the two as many as fit stay in the cache.
"""

from __future__ import annotations

import numpy as np

from wdlg.compiled import compile_loops, compile_part


@compile_part
def products(s, y, gradient, change):  # type: ignore[no-untyped-def]
    """``s·gradient, s·change, y·gradient, y·change``, reading each vector once."""
    s_gradient = s_change = y_gradient = y_change = s[0] * 0
    for i in range(len(gradient)):
        s_gradient += s[i] * gradient[i]
        s_change += s[i] * change[i]
        y_gradient += y[i] * gradient[i]
        y_change += y[i] * change[i]
    return s_gradient, s_change, y_gradient, y_change


@compile_part
def add_pairs(direction, S, Y, by_S, by_Y, used):  # type: ignore[no-untyped-def]
    """Add ``by_Y @ Y - by_S @ S`` over the used slots, four pairs to a pass over the direction.

    The last slots come first: they are what the cache has seen last.
    """
    n = len(direction)
    for k in range(used - 4, -1, -4):
        s0, s1, s2, s3 = S[k], S[k + 1], S[k + 2], S[k + 3]
        y0, y1, y2, y3 = Y[k], Y[k + 1], Y[k + 2], Y[k + 3]
        c0, c1, c2, c3 = by_S[k], by_S[k + 1], by_S[k + 2], by_S[k + 3]
        a0, a1, a2, a3 = by_Y[k], by_Y[k + 1], by_Y[k + 2], by_Y[k + 3]
        for i in range(n):
            direction[i] += (a0 * y0[i] + a1 * y1[i] + a2 * y2[i] + a3 * y3[i]) - (
                c0 * s0[i] + c1 * s1[i] + c2 * s2[i] + c3 * s3[i]
            )
    for k in range(used % 4):
        s0, y0, c0, a0 = S[k], Y[k], by_S[k], by_Y[k]
        for i in range(n):
            direction[i] += a0 * y0[i] - c0 * s0[i]


@compile_part
def solve(SY, YY, S_gradient, Y_gradient, scale, oldest, used, alpha, c, right):  # type: ignore[no-untyped-def]
    """The two triangular systems of the compact form; ``alpha`` and ``c`` by slot, ``right`` is room to work.

    Rows stand in the order of the slots. An entry of ``SY`` that is not of R meets an alpha that is still
    zero, or changes the right side of an unknown that is known already.
    """
    alpha[:] = 0
    for age in range(used - 1, -1, -1):
        i = (oldest + age) % used
        known = SY[i, i] * 0
        for j in range(used):
            known += SY[i, j] * alpha[j]
        alpha[i] = (S_gradient[i] - known) / SY[i, i]
    for i in range(used):
        total = SY[i, i] * 0
        for j in range(used):
            total += YY[i, j] * alpha[j]
        right[i] = SY[i, i] * alpha[i] - scale * (Y_gradient[i] - total)
    for age in range(used):
        i = (oldest + age) % used
        c[i] = right[i] / SY[i, i]
        for j in range(used):
            right[j] -= SY[i, j] * c[i]


@compile_part
def differences(g, before, d, step, s, y):  # type: ignore[no-untyped-def]
    """Write the pair ``s``, ``y``; then ``max |g|``, ``sum |g|``, ``max |d|``, ``y·s`` and ``y·y``."""
    largest = total = largest_move = curvature = squared = g[0] * 0
    for i in range(len(g)):
        s[i] = d[i] * step
        y[i] = g[i] - before[i]
        curvature += y[i] * s[i]
        squared += y[i] * y[i]
        total += abs(g[i])
        largest = max(largest, abs(g[i]))
        largest_move = max(largest_move, abs(d[i]))
    return largest, total, largest_move, curvature, squared


@compile_part
def new_direction(  # type: ignore[no-untyped-def]
    g, s, y, S, Y, SY, YY, remember, taken, scale, numbers, direction
):
    """Write ``direction`` from ``taken`` pairs, of which the last is (s, y), new if ``remember`` says so.

    ``numbers`` is room for seven numbers for each slot. Returns ``direction·g``.
    """
    history = len(S)
    S_gradient, S_change, Y_gradient, Y_change, alpha, c, right = numbers
    used = min(taken, history)
    slot = (taken - 1) % history
    if remember:
        S[slot] = s
        Y[slot] = y
    for k in range(used):
        S_gradient[k], S_change[k], Y_gradient[k], Y_change[k] = products(S[k], Y[k], g, y)
    if remember:
        for k in range(used):
            SY[k, slot] = S_change[k]
            YY[k, slot] = Y_change[k]
            YY[slot, k] = Y_change[k]
    oldest = taken % history if taken > history else 0
    solve(SY, YY, S_gradient, Y_gradient, scale, oldest, used, alpha, c, right)
    for k in range(used):
        alpha[k] *= scale
    for i in range(len(g)):
        direction[i] = -scale * g[i]
    add_pairs(direction, S, Y, c, alpha, used)
    slope = scale * 0
    for i in range(len(g)):
        slope += direction[i] * g[i]
    return slope


@compile_loops
def update(  # type: ignore[no-untyped-def]
    grad, loss, x, previous_grad, direction, S, Y, SY, YY, new_x, iterations, stalled, inner, moves,
    previous_loss, step, taken, scale, learning_rate, inner_iterations, tolerance_grad, tolerance_change,
    curvature_limit,
):  # fmt: skip
    """Move every attack on. Everything but ``grad``, ``loss`` and ``x`` is changed in place."""
    s, y, trial = np.empty_like(x[0]), np.empty_like(x[0]), np.empty_like(x[0])
    numbers = np.empty((7, S.shape[1]), x.dtype)
    for b in range(len(x)):
        g, before, d = grad[b], previous_grad[b], direction[b]
        largest, total, largest_move, curvature, squared = differences(g, before, d, step[b], s, y)
        fresh, flat, first = inner[b] == 0, largest <= tolerance_grad, moves[b] == 0
        small_move = largest_move * step[b] <= tolerance_change
        small_change = abs(loss[b] - previous_loss[b]) < tolerance_change
        stalled[b] = fresh and flat
        moving = not flat if fresh else not (flat or small_move or small_change)
        if moving:
            remember = not first and curvature > curvature_limit
            if remember:
                taken[b] += 1
                scale[b] = curvature / squared
            slope = new_direction(
                g, s, y, S[b], Y[b], SY[b], YY[b], remember, taken[b], scale[b], numbers, trial
            )
            # As torch does: no move along a direction that does not descend.
            stalled[b] = slope > -tolerance_change
            moving = not stalled[b]

        new_x[b] = x[b]
        complete = False
        if moving:
            step[b] = min(1 / total, 1) * learning_rate if first else learning_rate
            for i in range(len(g)):
                d[i] = trial[i]
                before[i] = g[i]
                new_x[b, i] += step[b] * trial[i]
            inner[b] += 1
            complete = inner[b] == inner_iterations
            moves[b] += 1
            previous_loss[b] = loss[b]
        if complete or not moving:
            inner[b] = 0
            iterations[b] += 1
