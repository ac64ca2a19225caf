"""The gradient of LeNet's cross-entropy and the derivative of any function of it, by compiled loops.

The formulas and their names are those of ``wdlg.networks.lenet._GradientPass``. The activation and the
softmax are left to torch, whose exponential is vectorised, and so is the product with an output layer that
several attacks share. All is numpy arrays: of a small batch most of the time would go into turning tensors
into arrays and back.
"""

from __future__ import annotations

from functools import lru_cache
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

ACTIVATIONS = {"sigmoid": (0, torch.sigmoid_), "relu": (1, torch.relu_), "tanh": (2, torch.tanh_)}
"""The number of each in the compiled loops, and what applies it in place."""


class Architecture(Protocol):
    """What the passes need to know of a ``wdlg.networks.lenet.LeNet``."""

    def __hash__(self) -> int: ...

    @property
    def activation(self) -> str: ...

    @property
    def convolutions(self) -> tuple[Convolution, ...]: ...


class Weights(Protocol):
    """What they need of its weights, ``wdlg.networks.lenet.LayerWeights``."""

    def __len__(self) -> int: ...

    output_layer: OutputLayer

    @property
    def with_biases(self) -> tuple[np.ndarray, ...]: ...


class Pass:
    """The gradients of B images, and on demand the derivative of a function of them; all of arrays.

    Args:
        images: (B, channels, height, width).
        target: label probabilities (B, K).
        network, weights: of N = 1 or N = B networks. Shapes and precisions are trusted to fit.

    Attributes:
        gradients: of the hidden layers' parameters in torch's order, then error (B, K) and features (B, M).
    """

    def __init__(
        self, images: np.ndarray, target: np.ndarray, network: Architecture, weights: Weights
    ) -> None:
        count, channels = images.shape[:2]
        matrices = weights.with_biases
        shapes = _shapes(network)
        activation, activate = ACTIVATIONS[network.activation]

        hidden = [_channels_last(images.reshape(count, channels, -1))]
        dtype = images.dtype
        for shape, matrix in zip(shapes, matrices, strict=True):
            output = np.empty((count, shape[4] * shape[5], matrix.shape[1]), dtype)
            loops.sums(hidden[-1], matrix, shape, output)
            activate(torch.from_numpy(output))
            hidden.append(output)
        features = _channels_last(hidden[-1]).reshape(count, -1)
        last = weights.output_layer
        if len(weights) > 1:
            probabilities, error, above = (np.empty_like(like) for like in (target, target, features))
            output_layer.errors(
                features, as_array(last.weights), as_array(last.biases), target, probabilities, error, above
            )
        else:
            logits = last.times_array(features, 0) + as_array(last.biases)
            probabilities = torch.softmax(torch.from_numpy(logits), dim=-1).numpy()
            error = probabilities - target
            above = last.times_array(error, 1)

        units = hidden[-1].shape[2]
        upstream = [_channels_last(above.reshape(count, units, -1))]
        local: list[np.ndarray] = []
        gradients: list[np.ndarray] = []
        for layer in reversed(range(len(shapes))):
            local.insert(0, np.empty_like(hidden[layer + 1]))
            weight = np.empty((count, units, matrices[layer].shape[2] - 1), dtype)
            bias = np.empty((count, units, 1), dtype)
            below = np.empty_like(hidden[layer] if layer else hidden[layer][:0])
            loops.gradients(
                hidden[layer], hidden[layer + 1], upstream[0], matrices[layer],
                shapes[layer], activation, local[0], weight, bias, below,
            )  # fmt: skip
            gradients = [weight, bias, *gradients]
            upstream.insert(0, below)
        self.gradients = [*gradients, error, features]
        self._layers = matrices, shapes, activation, hidden, local, upstream[1:]
        self._last = last, len(weights) > 1, probabilities
        self._image_shape = images.shape

    def back(self, *bars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives by images and target, from those by ``gradients``."""
        matrices, shapes, activation, hidden, local, upstream = self._layers
        last, own_networks, probabilities = self._last
        layers, count = len(shapes), len(probabilities)
        error_bar, features_bar = bars[2 * layers :]

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
        above = _channels_last(upstream_bar).reshape(count, -1)
        if own_networks:
            error_bar, features_bar = error_bar.copy(), features_bar.copy()
            output_layer.errors_back(above, error_bar, probabilities, as_array(last.weights), features_bar)
        else:
            error_bar = error_bar + last.times_array(above, 0)
            mean = torch.from_numpy(probabilities * error_bar).sum(1, keepdim=True).numpy()
            features_bar = features_bar + last.times_array(probabilities * (error_bar - mean), 1)
        total = _channels_last(features_bar.reshape(count, hidden[-1].shape[2], -1))
        for layer in reversed(range(layers)):
            below = np.empty_like(hidden[layer])
            loops.downwards(
                total, hidden[layer + 1], hidden_bar[layer], local[layer], matrices[layer],
                matrix_bar[layer], shapes[layer], activation, below,
            )  # fmt: skip
            total = below
        return _channels_last(total).reshape(self._image_shape), -error_bar


class CompiledPass(torch.autograd.Function):
    """The same function as ``_GradientPass``."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, target: Tensor, network: Architecture, weights: Weights
    ) -> tuple[Tensor, ...]:
        ctx.done = Pass(as_array(images), as_array(target), network, weights)
        return tuple(map(torch.from_numpy, ctx.done.gradients))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        return (*map(torch.from_numpy, ctx.done.back(*map(as_array, cotangents))), None, None)


@lru_cache
def _shapes(network: Architecture) -> tuple[tuple[int, ...], ...]:
    return tuple(
        (layer.height, layer.width, layer.channels, layer.stride, *layer.output_size)
        for layer in network.convolutions
    )


def _channels_last(array: np.ndarray) -> np.ndarray:
    """(B, channels, places) to (B, places, channels), or back."""
    return np.ascontiguousarray(array.transpose(0, 2, 1))
