"""The networks under attack: the LeNet of DLG and iDLG, many of them held as one.

The gradient with respect to the parameters (:meth:`LeNet.gradient`) and the derivative of a function of it
by the image are both written out by hand, so that B attacks with B networks are a short list of batched
matrix products, and nothing is recorded operation by operation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wdlg import compiled
from wdlg.errors import InputError, require_choice, require_count, require_positive, told
from wdlg.networks.base import Parameters, require_fitting, require_image_shape, require_parameters
from wdlg.networks.convolution import KERNEL, PADDING, Convolution, patch_order, torch_order
from wdlg.updates.gradient import Gradient

ACTIVATIONS = ("sigmoid", "relu", "tanh")

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

    def initial_parameters(
        self,
        count: int = 1,
        *,
        generator: torch.Generator,
        bound: float = 0.5,
        dtype: torch.dtype = torch.float32,
    ) -> Parameters:
        """Untrained networks with weights and biases U(-bound, bound), as DLG and iDLG start them.

        Args:
            count: how many networks, N.
            generator: source of randomness.
            bound: half width of the uniform distribution.
            dtype: floating type of the parameters.

        Raises:
            InputError: a count, a bound or a type is out of range.
        """
        require_count("count", count)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise InputError(f"dtype is {told(dtype)}, but must be a floating type of torch.")
        require_positive("bound", bound)
        # Drawn in single precision always, so that a seed means the same network in every precision.
        drawn = (torch.rand(count, *shape, generator=generator) for shape in self.parameter_shapes)
        return Parameters(tuple(((tensor * 2 - 1) * bound).to(dtype) for tensor in drawn))

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
        hidden = images.flatten(2)
        for layer in range(len(STRIDES)):
            _, hidden = self._layer(parameters, layer, hidden)
        return parameters.output_layer.logits(hidden.flatten(1))

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
        *hidden, error, features = passes.apply(images, target, self, parameters)
        return Gradient.of_one(tuple(hidden), error, features)

    def _layer(self, parameters: Parameters, layer: int, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, places, fan_in) and activations (B, 12, places) of a convolution layer."""
        patches = self.convolutions[layer].patches(hidden)
        matrix = parameters.in_patch_order[layer].expand(len(hidden), -1, -1)
        bias = parameters.biases[layer][:, :, None]
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
            layers += [nn.Conv2d(channels, CHANNELS, KERNEL, padding=PADDING, stride=stride), self._module()]
        module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(self.features, self.classes))
        with torch.no_grad():
            module.to(parameters.tensors[0])
            for theirs, ours in zip(module.parameters(), parameters.tensors, strict=True):
                theirs.copy_(ours[number].view_as(theirs))
        return module

    def _module(self) -> nn.Module:
        return {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}[self.activation]()


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
        ctx: Any, images: Tensor, target: Tensor, network: LeNet, parameters: Parameters
    ) -> tuple[Tensor, ...]:
        patches, hidden = [], [images.flatten(2)]
        for layer in range(len(STRIDES)):
            seen, activated = network._layer(parameters, layer, hidden[-1])
            patches.append(seen)
            hidden.append(activated)
        features = hidden[-1].flatten(1)
        probabilities = torch.softmax(parameters.output_layer.logits(features), dim=-1)
        error = probabilities - target

        upstream = parameters.output_layer.times(error).view_as(hidden[-1])
        saved_upstream: list[Tensor] = []
        local: list[Tensor] = []
        gradients: list[Tensor] = []
        for layer in reversed(range(len(STRIDES))):
            saved_upstream.insert(0, upstream)
            local.insert(0, upstream * network._slope(hidden[layer + 1]))
            gradients = [torch_order(local[0] @ patches[layer]), local[0].sum(2, keepdim=True), *gradients]
            if layer:
                upstream = network.convolutions[layer].transposed(local[0], parameters.in_patch_order[layer])
        ctx.network, ctx.parameters = network, parameters
        ctx.save_for_backward(probabilities, *patches, *hidden[1:], *local, *saved_upstream)
        return (*gradients, error, features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        network, parameters = ctx.network, ctx.parameters
        layers = len(STRIDES)
        probabilities, *saved = ctx.saved_tensors
        patches, hidden, local, upstream = (saved[i * layers : (i + 1) * layers] for i in range(4))
        weight_bar = [patch_order(bar) for bar in cotangents[: 2 * layers : 2]]
        bias_bar = cotangents[1 : 2 * layers : 2]
        error_bar, features_bar = cotangents[2 * layers :]
        matrices = parameters.in_patch_order
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
        error_bar = error_bar + parameters.output_layer.times_transposed(upstream_bar.flatten(1))

        # Downwards: through the softmax, the output layer, and every layer's sums to the image.
        logits_bar = probabilities * (error_bar - (probabilities * error_bar).sum(1, keepdim=True))
        below = features_bar + parameters.output_layer.times(logits_bar)
        total = below.view_as(hidden[-1])
        for layer in reversed(range(layers)):
            sums_bar = (total + hidden_bar[layer]) * network._slope(hidden[layer])
            # X is in the weight gradient L Xᵀ and in the sums W X: one product for both.
            both = torch.cat((weight_bar[layer], matrices[layer].expand(count, -1, -1)), dim=1)
            total = network.convolutions[layer].transposed(torch.cat((local[layer], sums_bar), dim=1), both)
        images_bar = total.view(count, *network.image_shape)
        return images_bar, -error_bar, None, None
