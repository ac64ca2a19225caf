"""LeNet's convolution layers forwards and backwards, attack by attack: what the torch code of
:mod:`wdlg.networks.lenet` computes for all attacks at once, compiled.

Images, activations and what is derived from them are (B, places, channels), channels last, so that a row of
a kernel's window is one contiguous run. The bias is the weight of one more input that is always one: it is
the last column of every weight matrix, and patches end in a one. Patches are made anew wherever they are
needed: to copy them in the cache is faster than to fetch them from memory.

``shape`` is (height, width, channels, stride, output rows, output columns) of a layer; ``activation`` is 0
for the sigmoid, 1 for ReLU, 2 for tanh; ``matrices`` are (B, 12, 25 * channels + 1), or (1, ...) for all.
"""

from __future__ import annotations

import numpy as np

from wdlg.compiled import compile_loops, compile_part
from wdlg.compiled.vectors import add_run, copy_run
from wdlg.networks.convolution import KERNEL, PADDING

WINDOW = KERNEL * KERNEL


@compile_part
def slope(activation, value):  # type: ignore[no-untyped-def]
    """Derivative of an activation from its value."""
    if activation == 0:
        return value - value * value
    if activation == 1:
        return value * 0 + (value > 0)
    return 1 - value * value


@compile_part
def slope_change(activation, value):  # type: ignore[no-untyped-def]
    """Derivative of :func:`slope` by the value."""
    if activation == 0:
        return 1 - 2 * value
    if activation == 1:
        return value * 0
    return -2 * value


@compile_part
def room(like, matrices, shape, bias_input):  # type: ignore[no-untyped-def]
    """A frame of zeros for an input with its padding, and patches (places, 25 * channels + 1)."""
    _, _, channels, stride, rows, columns = shape
    frame = np.zeros(((rows - 1) * stride + KERNEL, ((columns - 1) * stride + KERNEL) * channels), like.dtype)
    patches = np.empty((rows * columns, matrices.shape[2]), like.dtype)
    patches[:, -1] = bias_input
    return frame, patches


@compile_part
def patches_of(inputs, shape, frame, patches):  # type: ignore[no-untyped-def]
    """Write what each output place sees into all columns of ``patches`` but the last."""
    height, width, channels, stride, rows, columns = shape
    across = frame.shape[1]
    flat, source, target = frame.reshape(-1), inputs.reshape(-1), patches.reshape(-1)
    for row in range(height):
        copy_run(
            flat,
            (row + PADDING) * across + PADDING * channels,
            source,
            row * width * channels,
            width * channels,
        )
    to = 0
    for row in range(rows):
        for column in range(columns):
            start = (row * across + column * channels) * stride
            for _ in range(KERNEL):
                copy_run(target, to, flat, start, KERNEL * channels)
                start += across
                to += KERNEL * channels
            to += 1


@compile_part
def add_window_row(target, start, source, source_start, count):  # type: ignore[no-untyped-def]
    """Add one row of a patch: 5 places of 12 channels, of 3, or of another number."""
    if count == 60:
        add_run(target, start, source, source_start, 60)
    elif count == 15:
        add_run(target, start, source, source_start, 15)
    else:
        for i in range(count):
            target[start + i] += source[source_start + i]


@compile_part
def add_patches(patches, shape, frame, inputs):  # type: ignore[no-untyped-def]
    """The reverse of :func:`patches_of`: at each place of the input the sum of what all patches say of it."""
    height, width, channels, stride, rows, columns = shape
    across = frame.shape[1]
    flat, source, target = frame.reshape(-1), patches.reshape(-1), inputs.reshape(-1)
    flat[:] = 0
    at = 0
    for row in range(rows):
        for column in range(columns):
            start = (row * across + column * channels) * stride
            for _ in range(KERNEL):
                add_window_row(flat, start, source, at, KERNEL * channels)
                start += across
                at += KERNEL * channels
            at += 1
    for row in range(height):
        copy_run(
            target,
            row * width * channels,
            flat,
            (row + PADDING) * across + PADDING * channels,
            width * channels,
        )


@compile_loops
def sums(inputs, matrices, shape, out):  # type: ignore[no-untyped-def]
    """``W X + b``, to which a layer applies its activation, (B, places, 12)."""
    frame, patches = room(inputs, matrices, shape, 1)
    for b in range(len(inputs)):
        patches_of(inputs[b], shape, frame, patches)
        np.dot(patches, matrices[b if len(matrices) > 1 else 0].T, out[b])


@compile_loops
def gradients(  # type: ignore[no-untyped-def]
    inputs, outputs, upstream, matrices, shape, activation, local, weight, bias, below
):
    """``L = act'(H) U``, the weight gradient ``L X`` in torch's order, the bias gradient, and U below.

    ``below`` is empty for the first layer, which has none.
    """
    channels = shape[2]
    frame, patches = room(inputs, matrices, shape, 1)
    frame_below, patches_below = room(inputs, matrices, shape, 0)
    product = np.empty(matrices.shape[1:], inputs.dtype)
    for b in range(len(inputs)):
        flat, U, H = local[b].reshape(-1), upstream[b].reshape(-1), outputs[b].reshape(-1)
        for i in range(len(flat)):
            flat[i] = U[i] * slope(activation, H[i])
        patches_of(inputs[b], shape, frame, patches)
        np.dot(local[b].T, patches, product)
        for unit in range(len(product)):
            bias[b, unit, 0] = product[unit, -1]
            for channel in range(channels):
                for place in range(WINDOW):
                    weight[b, unit, channel * WINDOW + place] = product[unit, place * channels + channel]
        if len(below):
            np.dot(local[b], matrices[b if len(matrices) > 1 else 0], patches_below)
            add_patches(patches_below, shape, frame_below, below[b])


@compile_loops
def upwards(  # type: ignore[no-untyped-def]
    inputs, outputs, upstream, matrices, shape, activation, weight_bar, bias_bar, below_bar,
    matrix_bar, hidden_bar, upstream_bar,
):  # fmt: skip
    """What the matching loss says of a layer's L, and through it of its H and U.

    ``matrix_bar`` are ``weight_bar`` and ``bias_bar`` in the order of the patches. ``below_bar`` is empty for
    the first layer.
    """
    channels = shape[2]
    frame, patches = room(inputs, matrices, shape, 1)
    frame_below, patches_below = room(inputs, matrices, shape, 0)
    local_bar, more = np.empty_like(outputs[0]), np.zeros_like(outputs[0])
    first, second = local_bar.reshape(-1), more.reshape(-1)
    for b in range(len(inputs)):
        for unit in range(matrices.shape[1]):
            matrix_bar[b, unit, -1] = bias_bar[b, unit, 0]
            for channel in range(channels):
                for place in range(WINDOW):
                    matrix_bar[b, unit, place * channels + channel] = weight_bar[
                        b, unit, channel * WINDOW + place
                    ]
        patches_of(inputs[b], shape, frame, patches)
        np.dot(patches, matrix_bar[b].T, local_bar)
        if len(below_bar):
            patches_of(below_bar[b], shape, frame_below, patches_below)
            np.dot(patches_below, matrices[b if len(matrices) > 1 else 0].T, more)
        U, H = upstream[b].reshape(-1), outputs[b].reshape(-1)
        U_bar, H_bar = upstream_bar[b].reshape(-1), hidden_bar[b].reshape(-1)
        for i in range(len(H)):
            H_bar[i] = (first[i] + second[i]) * U[i] * slope_change(activation, H[i])
        for i in range(len(H)):
            U_bar[i] = (first[i] + second[i]) * slope(activation, H[i])


@compile_loops
def downwards(  # type: ignore[no-untyped-def]
    total, outputs, hidden_bar, local, matrices, matrix_bar, shape, activation, below
):
    """Derivative of the matching loss by a layer's input, from that by its output, ``total + hidden_bar``.

    X is in the weight gradient ``L X`` and in the sums ``W X``: one product for both.
    """
    frame, patches = room(total, matrices, shape, 0)
    places, units = outputs.shape[1:]
    left = np.empty((places, 2 * units), total.dtype)
    right = np.empty((2 * units, matrices.shape[2]), total.dtype)
    sums_bar = np.empty_like(outputs[0])
    flat = sums_bar.reshape(-1)
    for b in range(len(total)):
        T, H, H_bar = total[b].reshape(-1), outputs[b].reshape(-1), hidden_bar[b].reshape(-1)
        for i in range(len(flat)):
            flat[i] = (T[i] + H_bar[i]) * slope(activation, H[i])
        left[:, :units] = local[b]
        left[:, units:] = sums_bar
        right[:units] = matrix_bar[b]
        right[units:] = matrices[b if len(matrices) > 1 else 0]
        np.dot(left, right, patches)
        add_patches(patches, shape, frame, below[b])
