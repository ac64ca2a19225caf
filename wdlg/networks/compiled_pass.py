"""The gradient of LeNet's cross-entropy and the derivative of any function of it, by compiled loops.

The formulas and their names are those of ``wdlg.networks.lenet._GradientPass``. The activation is left to
torch, whose exponential is vectorised, and so is an output layer that all attacks share: one product for
all. All else are numpy arrays: of a small batch most of the time would go into turning tensors into arrays
and back.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wdlg.compiled import as_array
from wdlg.networks import compiled_convolution as loops
from wdlg.networks import compiled_output_layer as output_layer
from wdlg.networks.convolution import Convolution
from wdlg.networks.output_layer import OutputLayer

ACTIVATION_NUMBERS = {"sigmoid": 0, "relu": 1, "tanh": 2}


class Architecture(Protocol):
    """What the passes need to know of a ``wdlg.networks.lenet.LeNet``."""

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def activation(self) -> str: ...

    @property
    def convolutions(self) -> tuple[Convolution, ...]: ...

    def activate(self, sums: Tensor) -> Tensor: ...


class Weights(Protocol):
    """What they need of its weights, ``wdlg.networks.lenet.LayerWeights``."""

    def __len__(self) -> int: ...

    matrices: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    output_layer: OutputLayer

    @property
    def with_biases(self) -> tuple[Tensor, ...]: ...


class CompiledPass(torch.autograd.Function):
    """The same function as ``_GradientPass``."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, target: Tensor, network: Architecture, weights: Weights
    ) -> tuple[Tensor, ...]:
        count = len(images)
        matrices = [as_array(matrix) for matrix in weights.with_biases]
        shapes = [_shape(layer) for layer in network.convolutions]
        activation = ACTIVATION_NUMBERS[network.activation]

        hidden = [_channels_last(as_array(images).reshape(count, images.shape[1], -1))]
        dtype = hidden[0].dtype
        for shape, matrix in zip(shapes, matrices, strict=True):
            output = np.empty((count, shape[4] * shape[5], matrix.shape[1]), dtype)
            loops.sums(hidden[-1], matrix, shape, output)
            hidden.append(network.activate(torch.from_numpy(output)).numpy())
        features = torch.from_numpy(_channels_last(hidden[-1]).reshape(count, -1))
        if len(weights) > 1:
            probabilities, error, above = (like.new_empty(like.shape) for like in (target, target, features))
            output_layer.errors(
                *map(as_array, (features, weights.matrices[-1], weights.biases[-1], target)),
                *map(as_array, (probabilities, error, above)),
            )
        else:
            probabilities = torch.softmax(weights.output_layer.logits(features), dim=-1)
            error = probabilities - target
            above = weights.output_layer.times(error)

        units = hidden[-1].shape[2]
        upstream = [_channels_last(as_array(above).reshape(count, units, -1))]
        local: list[np.ndarray] = []
        gradients: list[np.ndarray] = []
        for layer in reversed(range(len(shapes))):
            local.insert(0, np.empty_like(hidden[layer + 1]))
            weight = np.empty((count, *weights.matrices[layer].shape[1:]), dtype)
            bias = np.empty((count, weight.shape[1], 1), dtype)
            below = np.empty_like(hidden[layer] if layer else hidden[layer][:0])
            loops.gradients(
                hidden[layer], hidden[layer + 1], upstream[0], matrices[layer],
                shapes[layer], activation, local[0], weight, bias, below,
            )  # fmt: skip
            gradients = [weight, bias, *gradients]
            upstream.insert(0, below)
        ctx.network, ctx.weights, ctx.shapes, ctx.activation = network, weights, shapes, activation
        ctx.matrices, ctx.hidden, ctx.local, ctx.upstream = matrices, hidden, local, upstream[1:]
        ctx.probabilities = probabilities
        return (*map(torch.from_numpy, gradients), error, features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        network, weights, shapes, activation = ctx.network, ctx.weights, ctx.shapes, ctx.activation
        matrices, hidden, local, upstream = ctx.matrices, ctx.hidden, ctx.local, ctx.upstream
        layers = len(shapes)
        probabilities = ctx.probabilities
        count = len(probabilities)
        error_bar, features_bar = cotangents[2 * layers :]
        bars = [as_array(cotangent) for cotangent in cotangents[: 2 * layers]]

        matrix_bar: list[np.ndarray] = []
        hidden_bar: list[np.ndarray] = []
        upstream_bar = hidden[0][:0]
        for layer in range(layers):
            matrix_bar.append(np.empty((count, *matrices[layer].shape[1:]), upstream_bar.dtype))
            hidden_bar.append(np.empty_like(upstream[layer]))
            below_bar, upstream_bar = upstream_bar, np.empty_like(upstream[layer])
            loops.upwards(
                hidden[layer], hidden[layer + 1], upstream[layer], matrices[layer],
                shapes[layer], activation, bars[2 * layer], bars[2 * layer + 1], below_bar,
                matrix_bar[-1], hidden_bar[-1], upstream_bar,
            )  # fmt: skip
        above = torch.from_numpy(_channels_last(upstream_bar).reshape(count, -1))
        if len(weights) > 1:
            error_bar, features_bar = (
                bar.clone(memory_format=torch.contiguous_format) for bar in (error_bar, features_bar)
            )
            arrays = (above, error_bar, probabilities, weights.matrices[-1], features_bar)
            output_layer.errors_back(*map(as_array, arrays))
        else:
            error_bar = error_bar + weights.output_layer.times_transposed(above)
            logits_bar = probabilities * (error_bar - (probabilities * error_bar).sum(1, keepdim=True))
            features_bar = features_bar + weights.output_layer.times(logits_bar)
        total = _channels_last(as_array(features_bar).reshape(count, hidden[-1].shape[2], -1))
        for layer in reversed(range(layers)):
            below = np.empty_like(hidden[layer])
            loops.downwards(
                total, hidden[layer + 1], hidden_bar[layer], local[layer], matrices[layer],
                matrix_bar[layer], shapes[layer], activation, below,
            )  # fmt: skip
            total = below
        images_bar = torch.from_numpy(_channels_last(total).reshape(count, *network.image_shape))
        return images_bar, -error_bar, None, None


def _shape(layer: Convolution) -> tuple[int, ...]:
    return layer.height, layer.width, layer.channels, layer.stride, *layer.output_size


def _channels_last(array: np.ndarray) -> np.ndarray:
    """(B, channels, places) to (B, places, channels), or back."""
    return np.ascontiguousarray(array.transpose(0, 2, 1))
