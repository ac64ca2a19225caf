"""The networks under attack: the LeNet of DLG and iDLG, many of them held as one.

The gradient with respect to the parameters is written out by hand (:meth:`LeNet.gradient`), as a
differentiable function of the image: an attack then needs one ordinary backward pass, not a second-order
one, and B attacks with B networks are batched matrix products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.errors import InputError, require_choice, require_count, require_positive
from wdlg.gradients import Gradient

ACTIVATIONS = ("sigmoid", "relu", "tanh")

CHANNELS = 12
KERNEL = 5
PADDING = 2
STRIDES = (2, 2, 1)


@dataclass(frozen=True)
class Parameters:
    """The weights of N networks of one architecture.

    Attributes:
        weights: convolutions as matrices (N, 12, channels * 25), then the output layer (N, K, M).
        biases: (N, 12) for each convolution, then (N, K).
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.biases[0])

    def select(self, index: Tensor) -> Parameters:
        """The networks at ``index``; repeated positions repeat the network (and copy its weights)."""
        return Parameters(
            tuple(weight[index] for weight in self.weights), tuple(bias[index] for bias in self.biases)
        )


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
        require_choice("activation", self.activation, ACTIVATIONS)
        require_count("classes", self.classes, at_least=2)
        for name, size in zip(("channels", "height", "width"), self.image_shape, strict=True):
            require_count(f"image_shape {name}", size)

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
        """
        require_count("count", count)
        require_positive("bound", bound)
        rows = [(CHANNELS, channels * KERNEL**2) for channels, _, _ in self.layer_inputs[:-1]]
        rows.append((self.classes, self.features))

        def uniform(*shape: int) -> Tensor:
            # Drawn in single precision always, so that a seed means the same network in every precision.
            return ((torch.rand(count, *shape, generator=generator) * 2 - 1) * bound).to(dtype)

        weights, biases = zip(*((uniform(*shape), uniform(shape[0])) for shape in rows), strict=True)
        return Parameters(weights, biases)

    def logits(self, parameters: Parameters, images: Tensor) -> Tensor:
        """Class scores (B, K) of images (B, channels, height, width)."""
        *_, features = self._hidden(parameters, images)
        return _linear(parameters, features)

    def gradient(self, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """Gradient of the cross-entropy with respect to every parameter, image by image.

        Differentiable in ``images`` and ``target``, so that a matching loss can be minimised over them.

        Args:
            parameters: N = 1 or N = B networks.
            images: (B, channels, height, width).
            target: label probabilities (B, K), rows summing to 1 (one-hot for a known label).

        Returns:
            The gradients, with leading axis B.

        Raises:
            InputError: the shapes do not fit together.
        """
        self._require_shapes(parameters, images, target)
        patches, activations, features = self._hidden(parameters, images)
        error = torch.softmax(_linear(parameters, features), dim=-1) - target

        # Backward by hand. `upstream` is the derivative by the activations of the layer in hand.
        upstream = _per_image(error, parameters.weights[-1])
        upstream = upstream.reshape(activations[-1].shape)
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for layer in reversed(range(len(STRIDES))):
            local = upstream * self._derivative(activations[layer])
            weights.insert(0, local @ patches[layer].transpose(1, 2))
            biases.insert(0, local.sum(-1))
            if layer:
                _, height, width = self.layer_inputs[layer]
                columns = parameters.weights[layer].transpose(1, 2) @ local
                upstream = F.fold(
                    columns, (height, width), KERNEL, padding=PADDING, stride=STRIDES[layer]
                ).flatten(2)
        return Gradient(tuple(weights), tuple(biases), error, features)

    def _hidden(self, parameters: Parameters, images: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Each convolution's patches (B, fan_in, places) and activations (B, 12, places); features (B, M)."""
        patches, activations = [], []
        hidden = images
        for layer, stride in enumerate(STRIDES):
            columns = F.unfold(hidden, KERNEL, padding=PADDING, stride=stride)
            sums = parameters.weights[layer] @ columns + parameters.biases[layer][:, :, None]
            patches.append(columns)
            activations.append(self._activate(sums))
            hidden = activations[-1].unflatten(-1, self.layer_inputs[layer + 1][1:])
        return patches, activations, hidden.flatten(1)

    def _activate(self, sums: Tensor) -> Tensor:
        if self.activation == "sigmoid":
            return torch.sigmoid(sums)
        return torch.relu(sums) if self.activation == "relu" else torch.tanh(sums)

    def _derivative(self, activated: Tensor) -> Tensor:
        """Derivative of the activation, from its value; at the kink of ReLU it is 0, as in torch."""
        if self.activation == "sigmoid":
            return activated * (1 - activated)
        return (activated > 0).to(activated.dtype) if self.activation == "relu" else 1 - activated**2

    def _require_shapes(self, parameters: Parameters, images: Tensor, target: Tensor) -> None:
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            raise InputError(
                f"images has shape {tuple(images.shape)}, but must be (B, channels, height, width) with "
                f"(channels, height, width) = {self.image_shape}."
            )
        if target.shape != (len(images), self.classes):
            raise InputError(
                f"target has shape {tuple(target.shape)}, but must be {(len(images), self.classes)}: "
                "one row of label probabilities for each image."
            )
        if len(parameters) not in (1, len(images)):
            raise InputError(
                f"parameters holds {len(parameters)} networks, but must hold 1 or one for each of the "
                f"{len(images)} images."
            )


def _linear(parameters: Parameters, features: Tensor) -> Tensor:
    """Output layer: features (B, M) to logits (B, K)."""
    return _per_image(features, parameters.weights[-1].transpose(1, 2)) + parameters.biases[-1]


def _per_image(rows: Tensor, matrices: Tensor) -> Tensor:
    """Each row (B, i) times its own matrix (B, i, j), or all rows times the one matrix (1, i, j)."""
    if len(matrices) == 1:
        return rows @ matrices[0]
    return (rows[:, None, :] @ matrices)[:, 0]
