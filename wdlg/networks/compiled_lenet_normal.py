"""What carries many columns or rows down through a convolution of LeNet, compiled: parts of
:mod:`wdlg.networks.lenet_normal`.

``shape`` is that of ``compiled_convolution``. Activations are in the order (places, channels).
"""

from __future__ import annotations

import numpy as np

from wdlg.compiled import compile_loops
from wdlg.networks.compiled_convolution import add_patches, room
from wdlg.networks.convolution import PADDING

COLUMNS = 128
"""Carried together: what is around a place, as many numbers for each of up to 300 units, fits the cache."""


@compile_loops
def turned(columns, slope, matrix, shape, channels_first, out):  # type: ignore[no-untyped-def]
    """Columns (places * units, R), times a slope (places, units), by the input, (places * channels, R).

    ``matrix`` is of ``_by_phase``: the input's places come in squares, and each square from its outputs.
    """
    height, width, channels, stride, rows, across = shape
    units = slope.shape[1]
    reach = PADDING // stride
    taps = 2 * reach + 1
    flat_slope = slope.reshape(-1)
    for first in range(0, columns.shape[1], COLUMNS):
        count = min(COLUMNS, columns.shape[1] - first)
        frame = np.zeros((rows + 2 * reach, across + 2 * reach, units, count), columns.dtype)
        around = np.empty((taps * taps * units, count), columns.dtype)
        square = np.empty((matrix.shape[0], count), columns.dtype)
        for row in range(rows):
            for column in range(across):
                for unit in range(units):
                    place = (row * across + column) * units + unit
                    source, scale = columns[place], flat_slope[place]
                    target = frame[row + reach, column + reach, unit]
                    for i in range(count):
                        target[i] = source[first + i] * scale
        for row in range(rows):
            for column in range(across):
                for tap in range(taps):
                    around[tap * taps * units : (tap + 1) * taps * units] = frame[
                        row + tap, column : column + taps
                    ].reshape(taps * units, count)
                np.dot(matrix, around, square)
                at = 0
                for y in range(row * stride, (row + 1) * stride):
                    for x in range(column * stride, (column + 1) * stride):
                        for channel in range(channels):
                            if y < height and x < width:
                                place = y * width + x
                                to = (
                                    channel * height * width + place
                                    if channels_first
                                    else place * channels + channel
                                )
                                out[to, first : first + count] = square[at]
                            at += 1


@compile_loops
def mixed(form, change, slope, local, seen, matrix, shape, out):  # type: ignore[no-untyped-def]
    """Half of the form and the mixed term, row by row: X is in ``dL Xᵀ`` and in the sums W X.

    ``form`` and ``change`` are (R, places * 12), ``matrix`` (12, 25 * channels + 1) with a last column of
    zeros, ``out`` (R, places * channels) of the input.
    """
    frame, patches = room(form, matrix.reshape((1, *matrix.shape)), shape, 0)
    places, units = slope.shape
    left = np.empty((places, 2 * units), form.dtype)
    right = np.empty((2 * units, matrix.shape[1]), form.dtype)
    left[:, units:] = local
    right[:units] = matrix
    for r in range(len(form)):
        for place in range(places):
            for unit in range(units):
                left[place, unit] = form[r, place * units + unit] * slope[place, unit] / 2
        np.dot(change[r].reshape(places, units).T, seen, right[units:])
        np.dot(left, right, patches)
        add_patches(patches, shape, frame, out[r])
