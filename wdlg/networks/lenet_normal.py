"""The normal matrix ``JᵀJ`` of LeNet's gradient by its image, from the structure of the layers.

J has a row for each entry of the gradient, 85,012 for a 32x32x3 image and 100 classes, and a column for each
pixel: to write it out takes seconds, and to multiply it by itself minutes. With the names of
``wdlg.networks.lenet._GradientPass``, a layer has activations H, sees those below, H', by its patches X, and

    dG = dL Xᵀ + L dXᵀ,    dL = A dH,    dH = F dH'    with F = act'(H) W.

All that the layers above add to ``|dG|²`` is a quadratic form in dH. It becomes one in dH' by F, a
convolution turned around, and there three terms of the layer's own gradient join it: ``|dL Xᵀ|²``, which is
``Aᵀ (X Xᵀ) A`` in dH; the mixed term of dL and dX; and ``|L dXᵀ|²``, in dH' alone. So no product is larger
than of matrices of as many rows as a layer has activations.

The output layer's gradient is the product ``e ⊗ f`` of K and M numbers. With the bias's, e itself, it brings
``|e|² |df|² + (|f|² + 1) |de|² + 2 (e·de)(f·df)``, and no K x M matrix has to be differentiated.

Where label logits are variables as well, they come after the activations in every form, and are handed down
as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg import compiled
from wdlg.networks.base import Parameters
from wdlg.networks.convolution import KERNEL, PADDING, Convolution
from wdlg.networks.lenet import STRIDES, LayerWeights, LeNet


def normal_matrix(
    network: LeNet, parameters: Parameters, image: Tensor, target: Tensor, *, by_labels: bool = False
) -> Tensor:
    """``JᵀJ`` of the gradient of one image, (n, n); see :func:`wdlg.networks.jacobian.normal_matrices`.

    Args:
        network, parameters: one network, N = 1.
        image: (1, channels, height, width).
        target: label probabilities (1, K).
        by_labels: whether the logits of the target are variables too; they come after the pixels.
    """
    (first, second, third), form, change = _passed(network, parameters, image, target, by_labels)
    form += third.square_of_own(change)
    half = third.below(third.mixed(form, change))
    form = third.with_square_of_inputs(half + half.T)
    change = third.change_below(change, second)

    form += second.square_of_own(change)
    # The first layer has the most activations: no form in them is written out, but one half carried on.
    half = second.below(first.below(second.mixed(form, change).T).T)
    half = first.below(first.with_half_of_blocks(half, second.square_of_inputs()))
    jacobian = first.jacobian(second.upstream_change(change), second)
    return half.add_(half.T.clone()).add_(product(jacobian, jacobian.T))


@dataclass(frozen=True)
class _Layer:
    """A convolution layer at one image, of P places; its input has C channels at Q places.

    Activations are in the order (P, 12), places first; only pixels are (C, Q), as images have them. A form
    has n rows and columns, one for each activation and then for each label logit that is a variable. A change
    is the derivative of L by all these, (n, 12 P).

    Attributes:
        is_lowest: whether its input are pixels.
        convolution: what it computes.
        matrix: W in the order of the patches, (12, 25 C).
        patches: X, with a last column of ones for the biases, (P, 25 C + 1).
        local: L, (P, 12).
        slope: act'(H), (P, 12).
        bend: U times the derivative of act'(H) by H, (P, 12): what H alone changes of L.
    """

    is_lowest: bool
    convolution: Convolution
    matrix: Tensor
    patches: Tensor
    local: Tensor
    slope: Tensor
    bend: Tensor

    @property
    def size(self) -> int:
        """Activations."""
        return self.slope.numel()

    def below(self, columns: Tensor) -> Tensor:
        """``Fᵀ`` times columns (n, R) in dH: columns (n', R) in dH'."""
        found = self._turned(columns[: self.size], self.slope)
        return found if len(columns) == self.size else torch.cat((found, columns[self.size :]))

    def square_of_own(self, change: Tensor) -> Tensor:
        """``|dL Xᵀ|²`` with that of the bias, as a form (n, n)."""
        seen = product(self.patches, self.patches.T)
        return product(product(seen, change.view(len(change), *self.slope.shape)).flatten(1), change.T)

    def mixed(self, form: Tensor, change: Tensor) -> Tensor:
        """B with ``dHᵀ B dH'`` half of the form, and half of twice the mixed term of dL and dX; (n, n')."""
        places, units = self.slope.shape
        if compiled.fits(form, change):
            from wdlg.networks.compiled_lenet_normal import mixed

            found = form.new_empty(len(form), self._places_below * self.convolution.channels)
            compiled.run(
                mixed, form[:, : self.size], change, self.slope, self.local, self.patches,
                _with_zeros(self.matrix), self._shape, found,
            )  # fmt: skip
        else:
            by_form = (form[:, : self.size].unflatten(1, (places, units)) * (self.slope / 2)).mT
            left = torch.cat((by_form, self.local.T.expand(len(form), -1, -1)), dim=1)
            seen = change.unflatten(1, (places, units)).mT @ self.patches[:, :-1]
            right = torch.cat((self.matrix.expand(len(form), -1, -1), seen), dim=1)
            found = self.convolution.transposed(left, right).mT.flatten(1)
        return found if len(form) == self.size else torch.cat((found, form[:, self.size :] / 2), dim=1)

    def with_square_of_inputs(self, form: Tensor) -> Tensor:
        """Add ``|L dXᵀ|²`` to a form in dH', in place."""
        places, channels = self._places_below, self.convolution.channels
        blocks = form[: places * channels, : places * channels]
        blocks = blocks.unflatten(1, (places, channels)).unflatten(0, (places, channels))
        blocks.diagonal(dim1=1, dim2=3).add_(self.square_of_inputs()[..., None])
        return form

    def square_of_inputs(self) -> Tensor:
        """``|L dXᵀ|²``, the same form (Q, Q) for each channel of the input."""
        height, width = self.convolution.output_size
        stride = self.convolution.stride
        local = product(self.local, self.local.T).view(height, width, height, width)
        rows, columns = ((size - 1) * stride + KERNEL for size in (height, width))
        frame = local.new_zeros(rows, columns, rows, columns)
        for row in range(KERNEL):
            for column in range(KERNEL):
                seen = (
                    slice(row, row + (height - 1) * stride + 1, stride),
                    slice(column, column + (width - 1) * stride + 1, stride),
                )
                frame[seen + seen] += local
        inside = self._inside
        return frame[inside + inside].reshape(self._places_below, self._places_below)

    def upstream_change(self, change: Tensor) -> Tensor:
        """The derivative of the U of the layer below, (n, inputs), from a change (n, 12 P)."""
        return self._turned(change.T).T

    def change_below(self, change: Tensor, lower: _Layer) -> Tensor:
        """The change of the layer below."""
        found = self.upstream_change(self.below(change)) * lower.slope.flatten()
        found.diagonal().add_(lower.bend.flatten())
        return found

    def with_half_of_blocks(self, half: Tensor, block: Tensor) -> Tensor:
        """Add to half of a form, ``dHᵀ half dH'``, half of the form that is a block (P, P) for each unit."""
        units = self.slope.shape[1]
        for unit in range(units):
            below = self._turned(block / 2, self.slope[:, unit : unit + 1], self.matrix[unit : unit + 1])
            half[unit : self.size : units, : len(below)] += below.T
        return half

    def jacobian(self, upstream: Tensor, above: _Layer) -> Tensor:
        """The Jacobian of this layer's own gradient, turned: (n', (25 C + 1) 12); for the lowest layer.

        Args:
            upstream: derivative of U by what the layer above has, (n, 12 P).
            above: that layer.
        """
        places, units = self.slope.shape
        entries = self.patches.shape[1]
        changes = (upstream * self.slope.flatten()).view(-1, places, units)
        by_own = above.below(product(self.patches.T, changes).flatten(1))
        direct = by_own[: self.size].unflatten(1, (entries, units)).unflatten(0, (places, units))
        direct.diagonal(dim1=1, dim2=3).add_(self.patches[:, :, None] * self.bend[:, None, :])
        found = self.below(by_own)
        pixels = self._places_below * self.convolution.channels
        found[:pixels].view(pixels, entries, units)[:, :-1] += self._local_by_pixel()
        return found

    def _local_by_pixel(self) -> Tensor:
        """``L dXᵀ`` by the pixels, (C Q, 25 C, 12)."""
        height, width = self.convolution.output_size
        stride, channels = self.convolution.stride, self.convolution.channels
        sizes = ((size - 1) * stride + KERNEL for size in (height, width))
        units = self.local.shape[1]
        frame = self.local.new_zeros(channels, *sizes, KERNEL, KERNEL, channels, units)
        local = self.local.view(height, width, units)
        for channel in range(channels):
            for row in range(KERNEL):
                for column in range(KERNEL):
                    seen = frame[channel, row::stride, column::stride, row, column, channel]
                    seen[:height, :width] = local
        inside = frame[:, *self._inside]
        return inside.reshape(channels * self._places_below, KERNEL**2 * channels, units)

    def _turned(self, columns: Tensor, slope: Tensor | None = None, matrix: Tensor | None = None) -> Tensor:
        """Columns (12 P, R), times a slope (P, 12), as derivatives by the input, (C Q, R).

        With the matrix of some of the units alone, columns and slope are of these.
        """
        matrix = self.matrix if matrix is None else matrix
        layer, units = self.convolution, len(matrix)
        if compiled.fits(columns):
            from wdlg.networks.compiled_lenet_normal import turned

            found = columns.new_empty(self._places_below * layer.channels, columns.shape[1])
            some = columns.new_ones(len(columns) // units, units) if slope is None else slope
            compiled.run(turned, columns, some, _by_phase(layer, matrix), self._shape, self.is_lowest, found)
            return found
        if slope is not None:
            columns = columns * slope.reshape(-1, 1)
        rows = columns.T.reshape(-1, *layer.output_size, units).permute(0, 3, 1, 2)
        kernel = matrix.view(units, KERNEL, KERNEL, layer.channels).permute(0, 3, 1, 2)
        reached = [(size - 1) * layer.stride + 1 for size in layer.output_size]
        missing = layer.height - reached[0], layer.width - reached[1]
        found = F.conv_transpose2d(rows, kernel, stride=layer.stride, padding=PADDING, output_padding=missing)
        return (found if self.is_lowest else found.permute(0, 2, 3, 1)).flatten(1).T

    @property
    def _places_below(self) -> int:
        return self.convolution.height * self.convolution.width

    @property
    def _shape(self) -> tuple[int, ...]:
        """For the compiled loops."""
        layer = self.convolution
        return layer.height, layer.width, layer.channels, layer.stride, *layer.output_size

    @property
    def _inside(self) -> tuple[slice, slice]:
        """Where the input is in a frame that has room for its padding."""
        height, width = self.convolution.height, self.convolution.width
        return slice(PADDING, PADDING + height), slice(PADDING, PADDING + width)


def _passed(
    network: LeNet, parameters: Parameters, image: Tensor, target: Tensor, by_labels: bool
) -> tuple[list[_Layer], Tensor, Tensor]:
    """The layers at an image, first to last; form and change of the last one, (n, n) and (n, 12 P)."""
    weights = parameters.derived(LayerWeights)
    patches, hidden = [], [image.flatten(2)]
    for layer in range(len(STRIDES)):
        seen, activated = network._layer(weights, layer, hidden[-1])
        patches.append(torch.cat((seen[0], torch.ones_like(seen[0, :, :1])), dim=1))
        hidden.append(activated)
    features = hidden[-1].flatten(1)
    probabilities = torch.softmax(weights.output_layer.logits(features), dim=-1)
    error = probabilities - target
    upstream = weights.output_layer.times(error).view_as(hidden[-1])
    layers: list[_Layer] = []
    for layer in reversed(range(len(STRIDES))):
        convolution, matrix = network.convolutions[layer], weights.in_patch_order[layer]
        slope = network._slope(hidden[layer + 1])
        bend = upstream * network._slope_change(hidden[layer + 1])
        local = upstream * slope
        of_places = [one[0].T.contiguous() for one in (local, slope, bend)]
        layers.insert(0, _Layer(layer == 0, convolution, matrix[0], patches[layer], *of_places))
        upstream = convolution.transposed(local, matrix) if layer else upstream
    last = layers[-1]
    places, units = last.slope.shape
    form, change = _of_the_output_layer(
        weights.output_layer.weights[0].unflatten(1, (units, places)).mT.flatten(1),
        probabilities[0],
        error[0],
        hidden[-1][0].T.flatten(),
        target[0] if by_labels else None,
    )
    change *= last.slope.flatten()
    change.diagonal().add_(last.bend.flatten())
    return layers, form, change


def _of_the_output_layer(
    matrix: Tensor, probabilities: Tensor, error: Tensor, features: Tensor, target: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The form (n, n) that its gradient adds, in the features; and the derivative of ``Vᵀ e``, (n, M).

    Args:
        matrix: V, (K, M).
        probabilities, error, features: p, e and f, (K,), (K,) and (M,).
        target: label probabilities (K,) where their logits are variables, else None.
    """
    width = len(features)
    # The softmax's derivative is diag(p) - p pᵀ; times V, the rows of V less their mean, each times its p.
    centred = matrix - probabilities @ matrix
    rooted = probabilities.sqrt()[:, None] * centred
    change = product(rooted.T, rooted)
    by_features = probabilities[:, None] * centred
    if target is not None:
        by_logits = target[:, None] * target - target.diag()
        by_features = torch.cat((by_features, by_logits), dim=1)
        change = torch.cat((change, product(by_logits, matrix)))
    form = (features @ features + 1) * product(by_features.T, by_features)
    crossed = (error @ by_features)[:, None] * features
    form[:, :width] += crossed
    form[:width] += crossed.T
    form.diagonal()[:width].add_(error @ error)
    return form, change


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right``; on a CPU by numpy, whose BLAS is faster than torch's on processors of most makers."""
    if compiled.fits(left, right):
        return torch.from_numpy(np.matmul(left.numpy(), right.numpy()))
    return left @ right


def _with_zeros(matrix: Tensor) -> Tensor:
    """Weights with a last column for the biases, which what is carried down does not see."""
    return torch.cat((matrix, torch.zeros_like(matrix[:, :1])), dim=1)


def _by_phase(layer: Convolution, matrix: Tensor) -> Tensor:
    """Weights (units, 25 C) of the turned convolution: (s s C, taps units) for a stride s.

    The input's places in a square of s x s see the same outputs, those around one of them.
    """
    stride, units = layer.stride, len(matrix)
    reach = PADDING // stride
    taps = 2 * reach + 1
    kernel = matrix.view(units, KERNEL, KERNEL, layer.channels)
    found = matrix.new_zeros(stride, stride, layer.channels, taps, taps, units)
    # The input at stride * m + phase is under this row of the kernel of the output m + tap - reach.
    under = [
        (phase, tap, place)
        for phase in range(stride)
        for tap in range(taps)
        for place in [phase + PADDING - stride * (tap - reach)]
        if 0 <= place < KERNEL
    ]
    for row, i, down in under:
        for column, j, across in under:
            found[row, column, :, i, j] = kernel[:, down, across].T
    return found.view(stride * stride * layer.channels, -1)
