"""What the points of two gradients are: rows, kernels, scalars or whole tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wdlg.errors import InputError, require_choice, require_count
from wdlg.losses.point_sets import Points, RankOne, RankOneAndRest, Scaled, Whole, WrittenOut
from wdlg.losses.solver import Solver
from wdlg.updates.gradient import Gradient, require_alike_gradients
from wdlg.updates.output_layer import Dense, Product, Products

POINTS = ("rows", "kernels", "scalars", "tensors")


@dataclass(frozen=True)
class Partition:
    """How the entries of a gradient are parted into points, and the points into transport problems.

    Called with a dummy and a shared gradient it gives the points of each parameter, in the order of
    ``torch.nn.Module.parameters``.

    Args:
        points: "rows" (:func:`rows`), "kernels" (:func:`kernels`), "scalars" (:func:`scalars`) or "tensors"
            (:func:`tensors`).
        kernel_width: side of the convolution kernels, for "kernels".

    Raises:
        InputError: a setting is out of range. When called: the two are not gradients of the same parameters,
            attacks and precision.
    """

    points: str = "rows"
    kernel_width: int = 5

    def __post_init__(self) -> None:
        require_choice("points", self.points, POINTS)
        require_count("kernel_width", self.kernel_width)

    def __call__(self, dummy: Gradient, shared: Gradient) -> list[Points]:
        if self.points == "kernels":
            return kernels(dummy, shared, self.kernel_width)
        return {"rows": rows, "scalars": scalars, "tensors": tensors}[self.points](dummy, shared)

    @property
    def has_one_plan(self) -> bool:
        """Whether every problem has a single point on either side, and so only one plan."""
        return self.points == "tensors"

    def require_solvable(self, solver: Solver) -> None:
        """Refuse a solver that needs the distances of all pairs of scalars, as many as entries squared."""
        if self.points != "scalars":
            return
        if solver.eps != 0:
            raise InputError(f"eps is {solver.eps!r}, but must be 0 where points is 'scalars'.")
        if solver.steers:
            raise InputError(
                f"penalty is {solver.penalty!r}, but must be 0 or inf where points is 'scalars'."
            )

    def require_plans(self) -> None:
        """Refuse to write out the plans of scalars, which have as many entries as distances."""
        if self.points == "scalars":
            raise InputError("points is 'scalars', but must be one of rows, kernels, tensors for couplings.")


def rows(dummy: Gradient, shared: Gradient) -> list[Points]:
    """One point for each output unit of each parameter: all weights that lead to it, or its bias.

    Here and below the list has the order of ``torch.nn.Module.parameters``, and an :class:`InputError` says
    that the two are not gradients of the same parameters, attacks and precision.
    """
    require_alike_gradients(dummy, shared)
    return [*map(WrittenOut, dummy.hidden, shared.hidden), *_output_rows(dummy, shared)]


def kernels(dummy: Gradient, shared: Gradient, width: int) -> list[Points]:
    """The rows of each convolution kernel, transported within that kernel.

    - Hidden rows whose length is a multiple of width² are taken for a convolution's: each kernel (one unit,
      one input channel) is a problem of its own between ``width`` points in R^width.
    - Other hidden parameters, biases among them, keep one point for each unit.
    - A row of the output layer's weight is cut into the channels of the last hidden layer, as many as its
      bias has units, if they divide it: each class is a problem of its own between its channels. With
      thousands of points free to move across classes the cost matrix alone would exceed a GiB.
    """
    require_alike_gradients(dummy, shared)
    found: list[Points] = []
    for x, y in zip(dummy.hidden, shared.hidden, strict=True):
        cut = (-1, width, width) if x.shape[2] % width**2 == 0 else x.shape
        found.append(WrittenOut(x.reshape(cut), y.reshape(cut)))
    weight, bias = _output_rows(dummy, shared)
    channels = dummy.hidden[-1].shape[1] if dummy.hidden else 0
    ours, theirs = dummy.output, shared.output
    attacks, classes, features = ours.shape
    if channels and features % channels == 0:
        if isinstance(ours, Product) and isinstance(theirs, Product):
            f, g = (one.features.unflatten(1, (channels, -1)) for one in (ours, theirs))
            return [*found, Scaled(ours.error, f, theirs.error, g), bias]
        cut = (attacks * classes, channels, -1)
        return [*found, WrittenOut(ours.weight().reshape(cut), theirs.weight().reshape(cut)), bias]
    return [*found, weight, bias]


def scalars(dummy: Gradient, shared: Gradient) -> list[Points]:
    """Every entry a point on the line. The output layer's weight gradient is written out."""
    require_alike_gradients(dummy, shared)
    return [
        WrittenOut(x.flatten(1)[:, :, None], y.flatten(1)[:, :, None])
        for x, y in zip(dummy.tensors(), shared.tensors(), strict=True)
    ]


def tensors(dummy: Gradient, shared: Gradient) -> list[Points]:
    """One point for each parameter."""
    return [Whole(points) for points in rows(dummy, shared)]


def _output_rows(dummy: Gradient, shared: Gradient) -> tuple[Points, RankOne]:
    ours, theirs = dummy.output, shared.output
    one = torch.ones_like(ours.bias[:, :1])
    bias = RankOne(ours.bias, one, theirs.bias, one)
    if isinstance(ours, Product) and not isinstance(theirs, Products):
        product = theirs.nearest if isinstance(theirs, Dense) else theirs
        weight = RankOne(ours.error, ours.features, product.error, product.features)
        return RankOneAndRest(weight, theirs.rest) if isinstance(theirs, Dense) else weight, bias
    return WrittenOut(ours.weight(), theirs.weight()), bias
