"""The networks under attack: the LeNet of DLG and iDLG, many of them held as one.

The gradient with respect to the parameters (:meth:`LeNet.gradient`) and the derivative of a function of it
by the image are both written out by hand, so that B attacks with B networks are a short list of batched
matrix products, and nothing is recorded operation by operation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wdlg import compiled
from wdlg.errors import require_choice, require_count
from wdlg.networks.activations import ACTIVATIONS
from wdlg.networks.base import (
    Parameters,
    mean_of_gradients,
    require_fitting,
    require_held,
    require_image_shape,
    require_parameters,
)
from wdlg.networks.convolution import KERNEL, PADDING, Convolution, patch_order, torch_order
from wdlg.networks.initial import BOUND, Around, draw, fan_in_bound, require_distribution
from wdlg.updates.gradient import Gradient

CHANNELS = 12
STRIDES = (2, 2, 1)


@dataclass(frozen=True)
class LeNet:
    """Three 5x5 convolutions with 12 channels, strides 2, 2, 1, padding 2, then one linear layer.

    The network of Zhu et al. (2019) and Zhao et al. (2020), for images of any side. Parameters are held
    apart from the architecture, with a leading axis N; images have a leading axis B. N must be B (each
    image its own network) or 1 (all images share one network, whose weights are not copied).

    Args:
        image_shape: (channels, height, width).
        classes: number of classes K, at least 2.
        activation: "sigmoid" (as DLG and iDLG), "relu" or "tanh".
    """

    constants: ClassVar[Mapping[str, Any]] = {"channels": CHANNELS, "strides": STRIDES}
    """What decides its form and is no setting."""

    initial: ClassVar[str] = "uniform"
    """The distribution of initial weights of its own papers."""

    image_shape: tuple[int, int, int]
    classes: int
    activation: str = "sigmoid"

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", require_image_shape(self.image_shape))
        require_choice("activation", self.activation, ACTIVATIONS)
        require_count("classes", self.classes, at_least=2)

    @property
    def layer_inputs(self) -> tuple[tuple[int, int, int], ...]:
        """(channels, height, width) that each convolution receives, and last what it hands on."""
        shapes = [self.image_shape]
        for stride in STRIDES:
            _, height, width = shapes[-1]
            shapes.append((CHANNELS, math.ceil(height / stride), math.ceil(width / stride)))
        return tuple(shapes)

    @property
    def features(self) -> int:
        """Width M of the last hidden layer: 588 for 28x28, 768 for 32x32 images."""
        return math.prod(self.layer_inputs[-1])

    @property
    def parameter_shapes(self) -> tuple[tuple[int, ...], ...]:
        """(12, channels * 25) and (12,) for each convolution, then (K, M) and (K,)."""
        weights = [(CHANNELS, channels * KERNEL**2) for channels, _, _ in self.layer_inputs[:-1]]
        weights.append((self.classes, self.features))
        return tuple(shape for weight in weights for shape in (weight, weight[:1]))

    @property
    def buffer_shapes(self) -> tuple[tuple[int, ...], ...]:
        """It has no buffers."""
        return ()

    def initial_parameters(
        self,
        count: int = 1,
        *,
        generator: torch.Generator,
        distribution: str = "uniform",
        bound: float = BOUND,
        dtype: torch.dtype = torch.float32,
    ) -> Parameters:
        """Untrained networks.

        Args:
            count: how many networks, N.
            generator: source of randomness.
            distribution: "uniform", weights and biases U(-bound, bound), as DLG and iDLG start them; or
                "torch", U(-1/sqrt(n), 1/sqrt(n)) for weights and biases of a unit with n inputs, as
                ``torch.nn.Conv2d`` and ``torch.nn.Linear`` start.
            bound: half width of the uniform distribution; of no account for "torch".
            dtype: floating type of the parameters.

        Raises:
            InputError: a count, a distribution, a bound or a type is unknown or out of range.
        """
        require_distribution(distribution, bound)
        bounds = [bound] * len(self.parameter_shapes)
        if distribution == "torch":
            # A bias stands after its weight, and has the same bound.
            weights = self.parameter_shapes[::2]
            bounds = [fan_in_bound(inputs) for _, inputs in weights for _ in range(2)]
        around = [Around(0, bound) for bound in bounds]
        return Parameters(draw(self.parameter_shapes, around, count, generator=generator, dtype=dtype))

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """The convolution layers, first to last."""
        return tuple(
            Convolution(*shape, stride) for shape, stride in zip(self.layer_inputs[:-1], STRIDES, strict=True)
        )

    def logits(self, parameters: Parameters, images: Tensor) -> Tensor:
        """Class scores (B, K) of images (B, channels, height, width).

        Raises:
            InputError: parameters or images do not fit the network or each other.
        """
        require_fitting(self, parameters, images)
        weights = parameters.derived(LayerWeights)
        hidden = images.flatten(2)
        for layer in range(len(STRIDES)):
            _, hidden = self._layer(weights, layer, hidden)
        return parameters.output_layer.logits(hidden.flatten(1))

    def scores(self, weights: Sequence[Tensor], images: Tensor, buffers: Sequence[Tensor] = ()) -> Tensor:
        """Class scores (N, K) of images (N, channels, height, width) in one network, for ``torch.func``.

        Args:
            weights: of ``parameter_shapes``, without the axis of networks.
            images: the images.
            buffers: none.

        Raises:
            InputError: another number of weights than the network has, or buffers.
        """
        require_held(self, weights, buffers)
        hidden = images
        for layer, ((channels, _, _), stride) in enumerate(zip(self.layer_inputs[:-1], STRIDES, strict=True)):
            kernel = weights[2 * layer].unflatten(1, (channels, KERNEL, KERNEL))
            sums = F.conv2d(hidden, kernel, weights[2 * layer + 1], stride=stride, padding=PADDING)
            hidden = self.activate(sums)
        return F.linear(hidden.flatten(1), weights[-2], weights[-1])

    def gradient(self, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """Gradient of the cross-entropy with respect to every parameter, image by image.

        Differentiable once in ``images`` and ``target`` (not in the parameters), so that a matching loss can
        be minimised over them.

        Args:
            parameters: N = 1 or N = B networks.
            images: (B, channels, height, width).
            target: label probabilities (B, K), rows summing to 1 (one-hot for a known label).

        Returns:
            The gradients, with leading axis B.

        Raises:
            InputError: shapes, precisions or devices do not fit together.
        """
        require_fitting(self, parameters, images, target)
        passes: type[torch.autograd.Function] = _GradientPass
        if compiled.fits(images, target, *parameters.tensors):
            from wdlg.networks.compiled_pass import CompiledPass

            passes = CompiledPass
        *hidden, error, features = passes.apply(images, target, self, parameters.derived(LayerWeights))
        return Gradient.of_one(tuple(hidden), error, features)

    def mean_gradient(self, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """Gradient of the mean cross-entropy over the N images of each of B participants.

        Args:
            parameters: 1 network that all share, or B.
            images: (B, N, channels, height, width).
            target: label probabilities (B, N, K).

        Raises:
            InputError: shapes, precisions or devices do not fit together.
        """
        return mean_of_gradients(self, parameters, images, target)

    def _layer(self, weights: LayerWeights, layer: int, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, places, fan_in) and activations (B, 12, places) of a convolution layer."""
        patches = self.convolutions[layer].patches(hidden)
        matrix = weights.in_patch_order[layer].expand(len(hidden), -1, -1)
        bias = weights.biases[layer][:, :, None]
        sums = torch.baddbmm(bias.expand(len(hidden), -1, 1), matrix, patches.transpose(1, 2))
        return patches, self.activate(sums)

    def activate(self, sums: Tensor) -> Tensor:
        """The activation, number by number."""
        if self.activation == "sigmoid":
            return torch.sigmoid(sums)
        return torch.relu(sums) if self.activation == "relu" else torch.tanh(sums)

    def _slope(self, activated: Tensor) -> Tensor:
        """Derivative of the activation, from its value; at the kink of ReLU it is 0, as in torch."""
        if self.activation == "sigmoid":
            return activated - activated.square()
        return (activated > 0).to(activated.dtype) if self.activation == "relu" else 1 - activated.square()

    def _slope_change(self, activated: Tensor) -> Tensor | float:
        """Derivative of :meth:`_slope` by the activation's value."""
        if self.activation == "sigmoid":
            return 1 - 2 * activated
        return 0.0 if self.activation == "relu" else -2 * activated

    def as_module(self, parameters: Parameters, number: int = 0) -> nn.Sequential:
        """One of the networks as a torch module, layer by layer as DLG and iDLG print it.

        Args:
            parameters: N networks.
            number: which of them, from 0.

        Raises:
            InputError: the parameters are not of this network, or there is none of that number.
        """
        require_parameters(self, parameters)
        require_count("number", number, at_least=0, below=len(parameters))
        layers: list[nn.Module] = []
        for (channels, _, _), stride in zip(self.layer_inputs[:-1], STRIDES, strict=True):
            layers += [
                nn.Conv2d(channels, CHANNELS, KERNEL, padding=PADDING, stride=stride),
                ACTIVATIONS[self.activation](),
            ]
        module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(self.features, self.classes))
        with torch.no_grad():
            module.to(parameters.tensors[0])
            for theirs, ours in zip(module.parameters(), parameters.tensors, strict=True):
                theirs.copy_(ours[number].view_as(theirs))
        return module


class LayerWeights:
    """What LeNet makes of N networks' :class:`~wdlg.networks.base.Parameters`, layer by layer, when needed.

    Attributes:
        matrices: of all layers, (N, units, entries); of a convolution in torch's order.
        biases: of all layers, (N, units).
        output_layer: the last layer.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.matrices = parameters.tensors[::2]
        self.biases = parameters.tensors[1::2]
        self.output_layer = parameters.output_layer

    def __len__(self) -> int:
        return len(self.matrices[0])

    @cached_property
    def in_patch_order(self) -> tuple[Tensor, ...]:
        """The convolutions' matrices with their columns in the order of the patches."""
        return tuple(patch_order(matrix) for matrix in self.matrices[:-1])

    @cached_property
    def with_biases(self) -> tuple[np.ndarray, ...]:
        """The same with the biases as a last column, for the compiled code."""
        return tuple(
            compiled.as_array(torch.cat((matrix, bias[:, :, None]), dim=2))
            for matrix, bias in zip(self.in_patch_order, self.biases[:-1], strict=True)
        )


class _GradientPass(torch.autograd.Function):
    """The gradient of the cross-entropy, and by hand the derivative of any function of it.

    With ``H`` the activations of a layer, ``X`` the patches that it sees, ``W`` its weights and ``L`` the
    derivative of the cross-entropy by its sums, the forward pass computes, layer by layer,

        H = act(W X + b),    then    e = softmax(V f + c) - target,
        L = act'(H) * U with U = (the layer above)ᵀ L_above,    weight gradient L Xᵀ,    bias gradient sum L.

    The backward pass turns every line around. A name with ``_bar`` is the derivative of the matching loss
    by the quantity of that name.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, target: Tensor, network: LeNet, weights: LayerWeights
    ) -> tuple[Tensor, ...]:
        patches, hidden = [], [images.flatten(2)]
        for layer in range(len(STRIDES)):
            seen, activated = network._layer(weights, layer, hidden[-1])
            patches.append(seen)
            hidden.append(activated)
        features = hidden[-1].flatten(1)
        probabilities = torch.softmax(weights.output_layer.logits(features), dim=-1)
        error = probabilities - target

        upstream = weights.output_layer.times(error).view_as(hidden[-1])
        saved_upstream: list[Tensor] = []
        local: list[Tensor] = []
        gradients: list[Tensor] = []
        for layer in reversed(range(len(STRIDES))):
            saved_upstream.insert(0, upstream)
            local.insert(0, upstream * network._slope(hidden[layer + 1]))
            gradients = [torch_order(local[0] @ patches[layer]), local[0].sum(2, keepdim=True), *gradients]
            if layer:
                upstream = network.convolutions[layer].transposed(local[0], weights.in_patch_order[layer])
        ctx.network, ctx.weights = network, weights
        ctx.save_for_backward(probabilities, *patches, *hidden[1:], *local, *saved_upstream)
        return (*gradients, error, features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        network, weights = ctx.network, ctx.weights
        layers = len(STRIDES)
        probabilities, *saved = ctx.saved_tensors
        patches, hidden, local, upstream = (saved[i * layers : (i + 1) * layers] for i in range(4))
        weight_bar = [patch_order(bar) for bar in cotangents[: 2 * layers : 2]]
        bias_bar = cotangents[1 : 2 * layers : 2]
        error_bar, features_bar = cotangents[2 * layers :]
        matrices = weights.in_patch_order
        count = len(probabilities)

        # Upwards: what the matching loss says of L, of U, and through the slope of H.
        hidden_bar: list[Tensor] = []
        upstream_bar = None
        for layer in range(layers):
            seen = patches[layer].transpose(1, 2)
            local_bar = torch.baddbmm(bias_bar[layer], weight_bar[layer], seen)
            if upstream_bar is not None:
                below = network.convolutions[layer].patches(upstream_bar).transpose(1, 2)
                local_bar = torch.baddbmm(local_bar, matrices[layer].expand(count, -1, -1), below)
            hidden_bar.append(local_bar * upstream[layer] * network._slope_change(hidden[layer]))
            upstream_bar = local_bar.mul_(network._slope(hidden[layer]))
        assert upstream_bar is not None
        error_bar = error_bar + weights.output_layer.times_transposed(upstream_bar.flatten(1))

        # Downwards: through the softmax, the output layer, and every layer's sums to the image.
        logits_bar = probabilities * (error_bar - (probabilities * error_bar).sum(1, keepdim=True))
        below = features_bar + weights.output_layer.times(logits_bar)
        total = below.view_as(hidden[-1])
        for layer in reversed(range(layers)):
            sums_bar = (total + hidden_bar[layer]) * network._slope(hidden[layer])
            # X is in the weight gradient L Xᵀ and in the sums W X: one product for both.
            both = torch.cat((weight_bar[layer], matrices[layer].expand(count, -1, -1)), dim=1)
            total = network.convolutions[layer].transposed(torch.cat((local[layer], sums_bar), dim=1), both)
        images_bar = total.view(count, *network.image_shape)
        return images_bar, -error_bar, None, None
