"""The gradient of LeNet's cross-entropy and the derivative of any function of it, by compiled loops.

The formulas and their names are those of ``wdlg.networks._GradientPass``. The activation is left to torch,
whose exponential is vectorised, and so is an output layer that all attacks share: one product for all.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wdlg.compiled import convolution as loops
from wdlg.compiled import output_layer, run
from wdlg.convolution import Convolution
from wdlg.output_layer import OutputLayer

ACTIVATION_NUMBERS = {"sigmoid": 0, "relu": 1, "tanh": 2}


class Architecture(Protocol):
    """What the passes need to know of a ``wdlg.networks.LeNet``."""

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def activation(self) -> str: ...

    @property
    def convolutions(self) -> tuple[Convolution, ...]: ...

    def activate(self, sums: Tensor) -> Tensor: ...


class Weights(Protocol):
    """What they need of its weights, ``wdlg.networks.Parameters``."""

    def __len__(self) -> int: ...

    @property
    def weights(self) -> tuple[Tensor, ...]: ...

    @property
    def biases(self) -> tuple[Tensor, ...]: ...

    @property
    def with_biases(self) -> tuple[Tensor, ...]: ...

    @property
    def output_layer(self) -> OutputLayer: ...


class CompiledPass(torch.autograd.Function):
    """The same function as ``_GradientPass``."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, target: Tensor, network: Architecture, parameters: Weights
    ) -> tuple[Tensor, ...]:
        count = len(images)
        matrices = parameters.with_biases
        shapes = [_shape(layer) for layer in network.convolutions]
        activation = ACTIVATION_NUMBERS[network.activation]

        hidden = [_channels_last(images.flatten(2))]
        for shape, matrix in zip(shapes, matrices, strict=True):
            output = images.new_empty(count, shape[4] * shape[5], matrix.shape[1])
            run(loops.sums, hidden[-1], matrix, shape, output)
            hidden.append(network.activate(output))
        features = hidden[-1].transpose(1, 2).flatten(1)
        weights, biases = parameters.weights[-1], parameters.biases[-1]
        if len(parameters) > 1:
            probabilities, error, above = (like.new_empty(like.shape) for like in (target, target, features))
            run(output_layer.errors, features, weights, biases, target, probabilities, error, above)
        else:
            probabilities = torch.softmax(parameters.output_layer.logits(features), dim=-1)
            error = probabilities - target
            above = parameters.output_layer.times(error)

        upstream = [_channels_last(above.view(count, hidden[-1].shape[2], -1))]
        local: list[Tensor] = []
        gradients: list[Tensor] = []
        for layer in reversed(range(len(shapes))):
            local.insert(0, torch.empty_like(hidden[layer + 1]))
            weight = images.new_empty(count, *parameters.weights[layer].shape[1:])
            bias = images.new_empty(count, len(weight[0]), 1)
            below = torch.empty_like(hidden[layer] if layer else hidden[layer][:0])
            run(
                loops.gradients, hidden[layer], hidden[layer + 1], upstream[0], matrices[layer],
                shapes[layer], activation, local[0], weight, bias, below,
            )  # fmt: skip
            gradients = [weight, bias, *gradients]
            upstream.insert(0, below)
        ctx.network, ctx.parameters, ctx.shapes, ctx.activation = network, parameters, shapes, activation
        ctx.save_for_backward(probabilities, *hidden, *local, *upstream[1:])
        return (*gradients, error, features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        network, parameters, shapes, activation = ctx.network, ctx.parameters, ctx.shapes, ctx.activation
        layers = len(shapes)
        probabilities, *saved = ctx.saved_tensors
        count = len(probabilities)
        hidden, saved = saved[: layers + 1], saved[layers + 1 :]
        local, upstream = saved[:layers], saved[layers:]
        error_bar, features_bar = cotangents[2 * layers :]
        matrices = parameters.with_biases

        matrix_bar: list[Tensor] = []
        hidden_bar: list[Tensor] = []
        upstream_bar = hidden[0][:0]
        for layer in range(layers):
            weight_bar, bias_bar = cotangents[2 * layer : 2 * layer + 2]
            matrix_bar.append(upstream[layer].new_empty(count, *matrices[layer].shape[1:]))
            hidden_bar.append(torch.empty_like(upstream[layer]))
            below_bar, upstream_bar = upstream_bar, torch.empty_like(upstream[layer])
            run(
                loops.upwards, hidden[layer], hidden[layer + 1], upstream[layer], matrices[layer],
                shapes[layer], activation, weight_bar, bias_bar, below_bar,
                matrix_bar[-1], hidden_bar[-1], upstream_bar,
            )  # fmt: skip
        weights = parameters.weights[-1]
        above = upstream_bar.transpose(1, 2).flatten(1)
        if len(parameters) > 1:
            error_bar, features_bar = (
                bar.clone(memory_format=torch.contiguous_format) for bar in (error_bar, features_bar)
            )
            run(output_layer.errors_back, above, error_bar, probabilities, weights, features_bar)
        else:
            error_bar = error_bar + parameters.output_layer.times_transposed(above)
            logits_bar = probabilities * (error_bar - (probabilities * error_bar).sum(1, keepdim=True))
            features_bar = features_bar + parameters.output_layer.times(logits_bar)
        total = _channels_last(features_bar.reshape(count, hidden[-1].shape[2], -1))
        for layer in reversed(range(layers)):
            below = torch.empty_like(hidden[layer])
            run(
                loops.downwards, total, hidden[layer + 1], hidden_bar[layer], local[layer], matrices[layer],
                matrix_bar[layer], shapes[layer], activation, below,
            )  # fmt: skip
            total = below
        return total.transpose(1, 2).reshape(count, *network.image_shape), -error_bar, None, None


def _shape(layer: Convolution) -> tuple[int, ...]:
    return layer.height, layer.width, layer.channels, layer.stride, *layer.output_size


def _channels_last(tensor: Tensor) -> Tensor:
    """(B, channels, places) to (B, places, channels)."""
    return tensor.detach().transpose(1, 2).contiguous()
